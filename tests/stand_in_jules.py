"""A program that is driven, and fails, as a JULES executable does; its land is a row of buckets.

    jules.exe [NAMELIST_DIR]     paths in the namelists are relative to the working directory

It reads the same namelist files and NetCDF input, refuses what JULES refuses in JULES' words, writes output and dumps
of the same form, and closes its water. `stand_in.nml` beside the other namelists, which JULES does not have, says how
to misbehave: &stand_in version = '5.2' real = 8 fault = 'nan' /. It shares no code with the adapter it tests.
"""

import os
import re
import signal
import sys
import time
from datetime import datetime, timedelta

BANNER = ""
LAND_TYPES, SOIL_LAYERS = 9, (0.1, 0.25, 0.65, 2.0)
PFTS, LAKE, ICE = 5, 6, 8
MISSING = -1e20

_FILES = (
    "jules_surface_types jules_surface jules_radiation jules_hydrology jules_soil jules_vegetation "
    "jules_soil_biogeochem jules_snow jules_rivers timesteps model_grid ancillaries pft_params nveg_params fire drive "
    "prescribed_data initial_conditions output"
)
VARIABLES = "nvars var use_file var_name tpl_name const_val read_from_dump file"
KEYS = {
    "jules_time": "timestep_len main_run_start main_run_end print_step l_360 l_leap",
    "jules_spinup": "max_spinup_cycles spinup_start spinup_end terminate_on_spinup_fail nvars var use_percent "
    "tolerance",
    "jules_input_grid": "grid_is_1d grid_dim_name npoints x_dim_name y_dim_name nx ny time_dim_name pft_dim_name "
    "cpft_dim_name nvg_dim_name type_dim_name tile_dim_name soil_dim_name snow_dim_name scpool_dim_name "
    "bedrock_dim_name sclayer_dim_name",
    "jules_latlon": "latitude longitude file lat_name lon_name",
    "jules_land_frac": "file land_frac_name",
    "jules_model_grid": "land_only force_1d_grid use_subgrid latlon_region lat_bounds lon_bounds npoints points_file",
    "jules_frac": "read_from_dump file frac_name",
    "jules_soil_props": VARIABLES + " const_z",
    "jules_drive": "l_imogen t_for_snow t_for_con_rain diff_frac_const l_daily_disagg l_perturb_driving z1_uv_in "
    "z1_tq_in z1_tq_vary data_start data_end data_period read_list nfiles file nvars var var_name tpl_name interp",
    "jules_initial": "dump_file total_snow file nvars var use_file var_name tpl_name const_val",
    "jules_output": "run_id output_dir nprofiles dump_period",
    "jules_output_profile": "profile_name file_period output_spinup output_main_run output_initial output_start "
    "output_end output_period sample_period nvars var var_name output_type",
}
STATES = ["smcl", "sthu", "sthf", "t_soil", "canopy_gb", "snow_mass_gb", "tstar_gb", "canopy", "snow_mass", "sthzw"]
FLUXES = ["precip", "fqw_gb", "elake", "surf_roff", "sub_surf_roff", "gpp_gb", "latent_heat", "ftl_gb", "fqw"]


def fatal(routine, text):
    print(f"[FATAL ERROR] {routine}: {text}", file=sys.stderr)
    sys.exit(1)


def groups(path):
    """[(group, {key: [values]})] of a namelist file."""
    token = r"'[^']*'|\"[^\"]*\"|![^\n]*|&\w+|/|=|,|\(\d+\)|[^\s'\"!&/=,()]+"
    with open(path) as file:
        tokens = [t for t in re.findall(token, file.read()) if t[0] not in "!,"]
    found, group, key, at = [], None, None, 0
    for here, following, after in zip(tokens, [*tokens[1:], ""], [*tokens[2:], "", ""], strict=False):
        if here[0] == "&":
            group, key = {}, None
            found.append((here[1:].lower(), group))
        elif group is None or here == "=":
            continue
        elif here == "/":
            group = None
        elif here[0] == "(":
            at = int(here[1:-1]) - 1
        elif following == "=" or (following.startswith("(") and after == "="):
            key, at = here.lower(), 0
            group.setdefault(key, [])
        else:
            repeat, star, constant = here.rpartition("*") if here[0] not in "'\"" else ("", "", here)
            constants = [value(constant)] * (int(repeat) if star else 1)
            group[key] += [None] * (at - len(group[key]))
            group[key][at : at + len(constants)] = constants
            at += len(constants)
    return found


def value(text):
    if text[0] in "'\"":
        return text[1:-1]
    if text.lower().strip(".") in ("t", "true", "f", "false"):
        return text.lower().strip(".")[0] == "t"
    try:
        return float(text) if re.search(r"[.eEdD]", text) else int(text)
    except ValueError:
        return text


class Namelists:
    """Every namelist of a run, opened in JULES' way: a file or a known group missing, or an unknown key, is fatal."""

    def __init__(self, folder):
        extra = os.path.join(folder, "stand_in.nml")
        told = dict(groups(extra))["stand_in"] if os.path.exists(extra) else {}
        self.fault, self.real = told.get("fault", [""])[0], told.get("real", [8])[0]
        version = tuple(map(int, told.get("version", ["5.2"])[0].split(".")))
        self.keys = {name: keys.split() for name, keys in KEYS.items()}
        files = _FILES.split()
        files += ["jules_lsm_switch"] * ((5, 1) <= version < (6, 0)) + ["model_environment"] * (version >= (5, 3))
        files += ["science_fixes"] * (version >= (5, 4)) + ["jules_prnt_control"] * (version >= (6, 0))
        self.needs_gs = version < (5, 4)
        if version >= (5, 8):
            self.keys["jules_output"] += ["dump_period_unit"]
        if version >= (6, 0):
            self.keys["jules_latlon"] = VARIABLES.split()
        if version >= (7, 2):
            self.keys["jules_latlon"] += ["l_coord_latlon"]
            self.keys["jules_model_grid"] = [
                "land_only",
                "force_1d_grid",
                "use_subgrid",
                "l_bounds",
                "x_bounds",
                "y_bounds",
            ]
        self.latlon_list, self.projected = version >= (6, 0), version >= (7, 2)
        self.found = []
        for name in files:
            path = os.path.join(folder, f"{name}.nml")
            if not os.path.exists(path):
                fatal(f"init_{name}", f"Error opening namelist file {name}.nml (IOSTAT=2)")
            for group, content in groups(path):
                for key in content:
                    if key not in self.keys.get(group, content):
                        said = f"IOSTAT=5010 IOMSG=Cannot match namelist object name {key}"
                        fatal(f"init_{name}", f"Error reading namelist {group} ({said})")
                self.found.append((group, content))
        for group in self.keys:
            self[group]

    def __getitem__(self, name):
        for group, content in self.found:
            if group == name:
                return content
        return fatal("init", f"Error reading namelist {name} (IOSTAT=-1 IOMSG=End of file)")

    def one(self, group, key, otherwise=None):
        found = self[group].get(key, [otherwise])[0]
        if found is None:
            fatal(f"init_{group}", f"{key} was not given")
        return found


def total(rows):
    """Sum over the first axis, one row after the other: the same bits for any number of cells."""
    return sum(rows[1:], rows[0])


def moment(text):
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S")


def main():
    print(BANNER or "[INFO] stand-in")
    folder = sys.argv[1] if len(sys.argv) > 1 else "."
    nml = Namelists(folder)
    misbehave_early(nml.fault)
    run = Run(nml)
    run.march()
    misbehave_late(nml.fault, run)


class Run:
    """Grid, ancillaries, state and driving data of a run."""

    def __init__(self, nml):
        import numpy as np

        self.np, self.nml = np, nml
        self.kind = np.float64 if nml.real == 8 else np.float32
        self.step = nml.one("jules_time", "timestep_len")
        self.start, self.end = (moment(nml.one("jules_time", f"main_run_{at}")) for at in ("start", "end"))
        if not nml.one("jules_input_grid", "grid_is_1d", False):
            fatal("init_model_grid", "the stand-in wants a 1-D grid")
        self.land = nml.one("jules_input_grid", "npoints", 0)
        self.place()
        self.frac = self.read(nml.one("jules_frac", "file"), nml.one("jules_frac", "frac_name", "frac"), "type")
        if (abs(self.frac.sum(axis=0) - 1.0) > 1e-5).any() or nml.fault == "frac":
            fatal("init_frac", "Sum of tile fractions is not 1 at some points")
        if nml.one("jules_soil_props", "const_z", False):
            fatal("init_soil_props", "the stand-in wants soil by layer")
        names = ["b", "sathh", "satcon", "sm_sat", "sm_crit", "sm_wilt", "hcap", "hcon"]
        self.soil = self.listed("jules_soil_props", {**dict.fromkeys(names, "soil"), "albsoil": None})
        if ((self.soil["sm_sat"][0] > 0.0) == (self.frac[ICE] == 1.0)).any():
            fatal("init_soil", "All points must be either soil or land ice")
        self.m_sat = 1000.0 * np.array(SOIL_LAYERS, self.kind)[:, None] * self.soil["sm_sat"]
        hydrology = nml["jules_hydrology"]
        self.deep = 1000.0 * (hydrology.get("zw_max", [6.0])[0] - 3.0) * self.soil["sm_sat"][3]
        self.deep *= hydrology.get("l_top", [False])[0]
        self.weather()
        self.initial()
        output = nml.one("jules_output", "output_dir")
        if not os.path.isdir(output) or nml.fault == "output":
            fatal("init_output", f"Output directory does not exist: {output}")
        self.prefix = os.path.join(output, nml.one("jules_output", "run_id"))
        self.profiles = [Profile(self, p) for group, p in nml.found if group == "jules_output_profile"]
        if len(self.profiles) != nml.one("jules_output", "nprofiles", 0):
            fatal("init_output", "Error reading namelist JULES_OUTPUT_PROFILE")

    def place(self):
        nml = self.nml
        if nml.latlon_list:
            if nml.projected and not nml.one("jules_latlon", "l_coord_latlon", False):
                fatal("init_latlon", "Variable projection_x_coord was not given")
            found = self.listed("jules_latlon", dict.fromkeys(("latitude", "longitude")))
            self.lat, self.lon = found["latitude"], found["longitude"]
        elif self.land == 1:
            self.lat, self.lon = (self.np.array([nml.one("jules_latlon", n)]) for n in ("latitude", "longitude"))
        else:
            file = nml.one("jules_latlon", "file")
            self.lat = self.read(file, nml.one("jules_latlon", "lat_name", "latitude"))
            self.lon = self.read(file, nml.one("jules_latlon", "lon_name", "longitude"))
        if self.land > 1:
            name = nml.one("jules_land_frac", "land_frac_name", "land_fraction")
            if (self.read(nml.one("jules_land_frac", "file"), name) <= 0.0).any():
                fatal("init_grid", "the stand-in wants land everywhere")

    def read(self, path, name, levels=None, time=False):
        """A variable of an input file with the dims JULES expects of it."""
        import netCDF4

        if not os.path.exists(path):
            fatal("file_ncdf_open", f"Error opening {path}: No such file or directory")
        grid = self.nml["jules_input_grid"]
        called = {"soil": "soil_dim_name", "type": "type_dim_name", "tile": "tile_dim_name"}
        dims = (grid.get("time_dim_name", ["time"])[0],) * time
        dims += (grid.get(called[levels], [levels])[0],) if levels in called else ()
        dims += (grid.get("grid_dim_name", ["land"])[0],)
        with netCDF4.Dataset(path) as file:
            if not file.data_model.startswith("NETCDF3"):
                fatal("file_ncdf_open", f"Error opening {path}: NetCDF: Unknown file format")
            if name not in file.variables:
                fatal("file_ncdf_introspect", f"Variable {name} is not in {path}")
            if file[name].dimensions != dims or len(file.dimensions[dims[-1]]) != self.land:
                fatal("file_ncdf_introspect", f"{name}: dimensions {file[name].dimensions} are not {dims} of the grid")
            return self.np.asarray(file[name][:], self.kind)

    def listed(self, group, wanted):
        """Variables that a group lists as from file or constant."""
        content, found = self.nml[group], {}
        names = content.get("var", [])[: content.get("nvars", [0])[0]]
        for i, name in enumerate(names):
            if content.get("use_file", [True] * len(names))[i]:
                called = content.get("var_name", names)[i] or name
                found[name] = self.read(content["file"][0], called, wanted.get(name)) if name in wanted else None
            else:
                found[name] = self.kind(content["const_val"][i])
        for name in wanted:
            if name not in found:
                fatal(f"init_{group}", f"Dictionary does not contain key '{name}'")
        return found

    def weather(self):
        nml, np = self.nml, self.np
        drive = nml["jules_drive"]
        first, last = moment(drive["data_start"][0]), moment(drive["data_end"][0])
        self.period = drive["data_period"][0]
        names = drive["var"][: drive["nvars"][0]]
        if set(drive["interp"]) != {"nf"} or self.period % self.step or self.start < first:
            fatal("init_drive", "the stand-in wants data held forward over whole steps")
        self.offset = int((self.start - first).total_seconds())
        data = {n: self.read(drive["file"][0], drive.get("var_name", names)[i], time=True) for i, n in enumerate(names)}
        records = (last - first).total_seconds() / self.period
        if last < self.end or len(data["t"]) < records or nml.fault == "forcing":
            fatal("init_drive", "Each input file must provide data for the entire run")
        if "precip" in data:
            cold = data["t"] <= drive["t_for_snow"][0]
            data["tot_snow"] = np.where(cold, data["precip"], 0.0).astype(self.kind)
            data["tot_rain"] = np.where(cold, 0.0, data["precip"]).astype(self.kind)
        self.data = data

    def initial(self):
        nml, np = self.nml, self.np
        initial = nml["jules_initial"]
        levels = {"canopy": "tile", "tstar_tile": "tile", "snow_tile": "tile", "sthuf": "soil", "t_soil": "soil"}
        wanted = dict(levels)
        wanted |= {"cs": "pools"} | ({"gs": None} if nml.needs_gs else {})
        wanted |= dict.fromkeys(["sthzw", "zw"] if self.deep.any() else [])
        tiles = (LAND_TYPES, self.land)
        if nml.fault == "initial":
            fatal("init_ic", "Dictionary does not contain key 'sthuf'")
        if initial.get("dump_file", [False])[0]:
            state = self.dumped(initial["file"][0], [*wanted, "snow_grnd", "rho_snow", "snow_depth"])
        else:
            if not initial.get("total_snow", [False])[0]:
                fatal("init_ic", "If dump_file = FALSE, then total_snow must be TRUE")
            state = self.listed("jules_initial", wanted)
            state |= {"snow_grnd": np.zeros(tiles), "rho_snow": np.full(tiles, 250.0), "snow_depth": np.zeros(tiles)}
        state.setdefault("gs", np.zeros(self.land))
        shapes = {name: tiles for name in ("canopy", "tstar_tile", "snow_tile", "snow_grnd", "rho_snow", "snow_depth")}
        shapes |= {"sthuf": (4, self.land), "t_soil": (4, self.land), "cs": (1, 1, self.land)}
        shapes |= dict.fromkeys(["gs", "sthzw", "zw"] if self.deep.any() else ["gs"], (self.land,))
        self.state = {n: np.array(np.broadcast_to(state[n], shape), self.kind) for n, shape in shapes.items()}

    def dumped(self, path, wanted):
        import netCDF4

        with netCDF4.Dataset(path) as file:
            for name in wanted:
                if name not in file.variables:
                    fatal("read_dump", f"Variable {name} is not in {path}")
                if file[name].dimensions[-1] != "land" or file[name].shape[-1] != self.land:
                    fatal("read_dump", f"{name}: dimensions {file[name].dimensions} are not those of a dump")
            return {name: file[name][:].filled() for name in wanted}

    def march(self):
        now, n = self.start, 0
        self.dump(now)
        while now < self.end:
            record = (self.offset + n * self.step) // self.period
            out = self.forward({name: series[record] for name, series in self.data.items()}, n)
            now, n = now + timedelta(seconds=self.step), n + 1
            for profile in self.profiles:
                profile.take(now, out)
            if now < self.end and (now.month, now.day, now.hour, now.minute, now.second) == (1, 1, 0, 0, 0):
                self.dump(now)
        if self.nml.fault != "dump":
            self.dump(self.end)
        for profile in self.profiles:
            profile.close()

    def forward(self, air, n):
        """One step of rain, leaves, snow and four buckets: {name: values by [level,] land}."""
        np, s, dt, f, soil = self.np, self.state, self.kind(self.step), self.frac, self.soil
        pet = (0.4 * air["sw_down"] / 2.5e6 + 1e-6 * air["wind"]) * dt
        rain, snow = air["tot_rain"] * dt, air["tot_snow"] * dt

        s["snow_tile"] += snow
        melt = np.clip(np.minimum(s["snow_tile"], np.maximum(air["t"] - 273.15, 0.0) * 4.0 / 86400.0 * dt), 0.0, None)
        s["snow_tile"] -= melt
        ei = np.zeros_like(melt)
        if self.nml.fault == "snow" and n == 0:  # more sublimates from needles than there is
            ei[1] = s["snow_tile"][1] + 1.35e-3
            s["snow_tile"] -= ei
        capacity = np.array([0.7] * PFTS + [0.0] * (LAND_TYPES - PFTS), self.kind)[:, None]
        full = s["canopy"] + rain
        drip = np.maximum(full - capacity, 0.0)
        ecan = np.minimum(full - drip, 0.3 * pet)
        s["canopy"] = full - drip - ecan
        arrives = f * (drip + melt)
        sealed = arrives[LAKE] + arrives[ICE]
        ground = total(arrives) - sealed

        mass = s["sthuf"] * self.m_sat
        fall = np.minimum(np.minimum(ground, soil["satcon"][0] * dt), np.maximum(self.m_sat[0] - mass[0], 0.0))
        surface = ground - fall + sealed
        theta = s["sthuf"] * soil["sm_sat"]
        beta = np.clip((theta - soil["sm_wilt"]) / np.maximum(soil["sm_crit"] - soil["sm_wilt"], 1e-6), 0.0, 1.0)
        share = np.array([0.5, 0.3, 0.2, 0.0], self.kind)[:, None]
        uptake = np.minimum((1.0 - f[LAKE] - f[ICE]) * 0.6 * pet * share * beta, 0.5 * mass)
        mass = mass - uptake
        mass[0] += fall
        down = np.minimum(soil["satcon"] * s["sthuf"] ** (2.0 * soil["b"] + 3.0) * dt, 0.5 * mass)
        for k in range(3):
            down[k] = np.minimum(down[k], np.maximum(self.m_sat[k + 1] - mass[k + 1], 0.0))
            mass[k] -= down[k]
            mass[k + 1] += down[k]
        mass[3] -= down[3]
        base = down[3]
        if self.deep.any():  # a store below the soil that leaks a hundredth of itself a day
            base = s["sthzw"] * self.deep * 0.01 * dt / 86400.0
            s["sthzw"] = s["sthzw"] + (down[3] - base) / self.deep
            s["zw"] = 6.0 - 3.0 * s["sthzw"]
        if n == 5 and self.nml.fault == "imbalance":
            mass[2, -1] -= 0.5
        s["sthuf"] = np.where(self.m_sat > 0.0, mass / np.where(self.m_sat > 0.0, self.m_sat, 1.0), 0.0)
        if n == 5 and self.nml.fault == "nan":
            s["sthuf"][1, 0] = np.nan
        slow = np.array([2.0, 10.0, 40.0, 150.0], self.kind)[:, None] * 86400.0
        s["t_soil"] += (air["t"] - s["t_soil"]) * (dt / slow)
        s["tstar_tile"][:] = air["t"]
        s["gs"] = 0.01 * beta[0]
        self.state = s = {name: values.astype(self.kind) for name, values in s.items()}

        elake = f[LAKE] * pet
        fqw = total(f * (ecan + ei)) + total(uptake) + elake
        fluxes = {"precip": rain + snow, "fqw_gb": fqw, "elake": elake, "surf_roff": surface, "sub_surf_roff": base}
        out = {name: flux / dt for name, flux in fluxes.items()}
        out |= {"gpp_gb": 1e-10 * air["sw_down"] * beta[0], "latent_heat": 2.5e6 * out["fqw_gb"]}
        out |= {"ftl_gb": 0.2 * air["sw_down"], "fqw": np.where(f > 0.0, (ecan + ei) / dt, MISSING)}
        out |= {"smcl": s["sthuf"] * self.m_sat, "sthu": s["sthuf"], "sthf": 0.0 * s["sthuf"], "t_soil": s["t_soil"]}
        out |= {"canopy": s["canopy"], "snow_mass": s["snow_tile"] + s["snow_grnd"]}
        out |= {name: total(f * out[name.removesuffix("_gb")]) for name in ("canopy_gb", "snow_mass_gb")}
        out |= {"sthzw": s["sthzw"]} if self.deep.any() else {}
        return out | {"tstar_gb": total(f * s["tstar_tile"])}

    def dump(self, now):
        import netCDF4

        seconds = now.hour * 3600 + now.minute * 60 + now.second
        with netCDF4.Dataset(
            f"{self.prefix}.dump.{now:%Y%m%d}.{seconds:05d}.nc", "w", format="NETCDF3_CLASSIC"
        ) as file:
            sizes = {"land": self.land, "tile": LAND_TYPES, "type": LAND_TYPES, "soil": 4}
            for name, size in {**sizes, "scpool": 1, "sclayer": 1, "scalar": 1}.items():
                file.createDimension(name, size)
            dims = dict.fromkeys(self.state, ("tile", "land")) | dict.fromkeys(self.soil, ("soil", "land"))
            dims |= {"sthuf": ("soil", "land"), "t_soil": ("soil", "land"), "cs": ("scpool", "sclayer", "land")}
            dims |= dict.fromkeys(("gs", "sthzw", "zw", "albsoil", "latitude", "longitude"), ("land",))
            values = {**self.state, **self.soil, "latitude": self.lat, "longitude": self.lon, "frac": self.frac}
            for name, data in {**values, "co2_mmr": [5.241e-4]}.items():
                where = {"frac": ("type", "land"), "co2_mmr": ("scalar",)}.get(name) or dims[name]
                file.createVariable(name, "f8" if self.nml.real == 8 else "f4", where)[:] = data


class Profile:
    """One output file: means over, or values at the end of, each whole period."""

    def __init__(self, run, content):
        import netCDF4

        self.run, self.period = run, content.get("output_period", [run.step])[0]
        self.start = moment(content["output_start"][0]) if "output_start" in content else run.start
        if self.period % run.step or (self.period == 86400 and self.start.time() != datetime.min.time()):
            fatal("init_output", "output_start must be at a day boundary")
        self.names = content["var"][: content["nvars"][0]]
        self.kinds = content.get("output_type", ["S"] * len(self.names))
        for name in self.names:
            if name not in STATES + FLUXES:
                fatal("init_output", f"'{name}' is not a recognised variable for output")
        self.sums, self.counted, self.record = {}, 0, 0
        self.path = f"{run.prefix}.{content['profile_name'][0]}.nc"
        self.file = file = netCDF4.Dataset(self.path, "w", format="NETCDF3_CLASSIC")
        sizes = {"time": None, "y": 1, "x": run.land, "soil": 4, "tile": LAND_TYPES, "pft": PFTS, "nt": 2}
        for name, size in sizes.items():
            file.createDimension(name, size)
        real = "f8" if run.nml.real == 8 else "f4"
        for name, dims in {"time_bounds": ("time", "nt"), "time": ("time",)}.items():
            file.createVariable(name, real, dims).units = f"seconds since {self.start:%Y-%m-%d %H:%M:%S}"
        for name, place in (("latitude", run.lat), ("longitude", run.lon)):
            file.createVariable(name, real, ("y", "x"))[:] = place if run.nml.fault != "order" else place[::-1]
        levels = {
            **dict.fromkeys(["smcl", "sthu", "sthf", "t_soil"], ("soil",)),
            **dict.fromkeys(["canopy", "snow_mass", "fqw"], ("tile",)),
        }
        for name in self.names:
            variable = file.createVariable(name, real, ("time", *levels.get(name, ()), "y", "x"), fill_value=MISSING)
            variable.missing_value = self.run.kind(MISSING)

    def take(self, now, out):
        """Count a step that ended at `now`; write when a period is complete."""
        if now <= self.start:
            return
        for name, kind in zip(self.names, self.kinds, strict=False):
            before = self.sums.get(name)
            self.sums[name] = out[name] if kind == "S" or before is None else before + out[name]
        self.counted += 1
        if self.counted * self.run.step < self.period:
            return
        end = (now - self.start).total_seconds() + (self.period if self.run.nml.fault == "late" else 0)
        if not (self.run.nml.fault == "partial" and now == self.run.end):
            self.file["time"][self.record] = end
            self.file["time_bounds"][self.record] = (end - self.period, end)
            for name, kind in zip(self.names, self.kinds, strict=False):
                total = self.sums[name] / self.counted if kind == "M" else self.sums[name]
                self.file[name][self.record] = total[..., None, :]
        self.sums, self.counted, self.record = {}, 0, self.record + 1

    def close(self):
        self.file.close()


def misbehave_early(fault):
    signals = {"segfault": signal.SIGSEGV, "fpe": signal.SIGFPE, "killed": signal.SIGKILL}
    if fault in signals:
        sys.stderr.flush()
        os.kill(os.getpid(), signals[fault])
    elif fault == "hang":
        time.sleep(600)
    elif fault == "runtime":
        print("At line 1 of file x.F90\nFortran runtime error: Bad real number in item 1", file=sys.stderr)
        sys.exit(2)
    elif fault == "shell":
        sys.exit(136)
    elif fault == "libraries":
        print("jules.exe: error while loading shared libraries: libnetcdff.so.7: cannot open", file=sys.stderr)
        sys.exit(127)
    elif fault == "chatter":
        for _ in range(300):
            sys.stderr.write("[WARNING] solver: slow to converge\n" * 2000)
        fatal("control", "Soil temperature is out of range")


def misbehave_late(fault, run):
    if fault == "spinup":
        print("[WARNING] spin_up: Model is not fully spun up after maximum number of spinup cycles", file=sys.stderr)
        open(f"{run.prefix}.dump.spin1.19970101.00000.nc", "w").close()
    elif fault == "truncated":
        for profile in run.profiles:
            os.truncate(profile.path, int(0.6 * os.path.getsize(profile.path)))
    elif fault == "empty":
        os.truncate(run.profiles[0].path, 0)


def install(folder, banner="", version="5.2", fault="", real=8, **changed):
    """(executable, namelist folder) made in `folder`: this program and what a user of `version` would bring with it.

    changed   namelist file without `.nml` to another text of it; None leaves the file out
    """
    os.makedirs(os.path.join(folder, "namelists"))
    executable = os.path.join(folder, "jules.exe")
    with open(__file__) as file, open(executable, "w") as copy:
        copy.write(f"#!{sys.executable}\n" + file.read().replace('BANNER = ""', f"BANNER = {banner!r}", 1))
    os.chmod(executable, 0o755)
    number = tuple(map(int, version.split(".")))
    files = {name: f"! nothing of {name}\n&{name}\n/\n" for name in _FILES.split()} | USER
    files |= {"jules_lsm_switch": "&jules_lsm_switch lsm_id = 1 /\n"} if (5, 1) <= number < (6, 0) else {}
    files |= {"model_environment": "&jules_model_environment l_jules_parent = 0 /\n"} if number >= (5, 3) else {}
    files |= {"science_fixes": "&jules_temp_fixes /\n"} if number >= (5, 4) else {}
    files |= {"jules_prnt_control": "&jules_prnt_control /\n"} if number >= (6, 0) else {}
    if number >= (6, 0):
        said = "l_coord_latlon = T, " if number >= (7, 2) else ""
        said += "nvars = 2, var = 'latitude', 'longitude', use_file = 2*F, const_val = 52.168, 5.744"
        files["model_grid"] = files["model_grid"].replace("latitude = 52.168, longitude = 5.744", said)
    files["stand_in"] = f"&stand_in version = '{version}' real = {real} fault = '{fault}' /\n"
    for name, text in (files | changed).items():
        if text is not None:
            with open(os.path.join(folder, "namelists", f"{name}.nml"), "w") as file:
                file.write(text)
    return executable, os.path.join(folder, "namelists")


# One point, ASCII files, a spin-up and three output profiles: a set-up as far from the twin's as a user's can be.
USER = {
    "jules_surface_types": "&jules_surface_types\n  npft = 5, nnvg = 4,\n  urban = 6, lake = 7, soil = 8, ice = 9\n/\n",
    "jules_soil": "&jules_soil\n  dzsoil_io = 0.1, 0.25, 0.65, 2.0, l_vg_soil = F, l_soil_sat_down = T\n/\n",
    "pft_params": """Free text: the 'twin' isn't to touch this file & its reals.
&jules_pftparm
  canht_ft_io = 19.01, 16.38, 2*0.79, 1.00,  ! m
  lai_io(1) = 5.0d0, lai_io(2:5) = 4.0 2.0 4.0 1.0
/
""",
    "timesteps": """&jules_time
  timestep_len = 1800,
  main_run_start = '1996-12-31 23:00:00', main_run_end = "1997-12-31 23:00:00", ! one year, it's said
  print_step = 48
/
&jules_spinup
  max_spinup_cycles = 5, spinup_start = '1996-12-31 23:00:00', spinup_end = '1997-12-31 23:00:00',
  terminate_on_spinup_fail = F, nvars = 2, var = 'smcl' 't_soil', use_percent = F T, tolerance = 1.0 0.1
/
""",
    "model_grid": """&jules_input_grid nx = 1, ny = 1 /
&jules_latlon latitude = 52.168, longitude = 5.744 /
&jules_land_frac /
&jules_model_grid /
&jules_surf_hgt zero_height = T /
""",
    "ancillaries": """&jules_frac file = './data/tile_fractions.dat' /
&jules_soil_props
  const_z = T, file = 'none', nvars = 9,
  var = 'b', 'sathh', 'satcon', 'sm_sat', 'sm_crit', 'sm_wilt', 'hcap', 'hcon', 'albsoil', use_file = 9*F,
  const_val = 6.63, 0.049, 0.0047, 0.458, 0.242, 0.136, 1.19e6, 0.227, 0.11
/
&jules_top /
&jules_agric zero_agric = T /
&jules_co2 co2_mmr = 5.941e-4 /
""",
    "drive": """&jules_drive
  diff_frac_const = 0.4, z1_uv_in = 10.0, z1_tq_in = 10.0,
  data_start = '1996-12-31 23:00:00', data_end = '1997-12-31 23:00:00', data_period = 1800,
  read_list = F, file = './data/met/loobos.dat', nvars = 8,
  var = 'sw_down' 'lw_down' 'tot_rain' 'tot_snow' 't' 'wind' 'pstar' 'q', interp = 8*'nf'
/
""",
    "initial_conditions": """&jules_initial
  total_snow = .true., file = 'initial.dat', nvars = 8,
  var       = 'canopy' 'tstar_tile' 'cs' 'gs' 'rgrain' 'snow_tile' 'sthuf' 't_soil',
  use_file  = 6*F 2*T,
  const_val = 0.0 276.78 12.1 0.0 50.0 0.0
/
""",
    "output": """&jules_output
  run_id = 'loobos', output_dir = './output', nprofiles = 3, dump_period = 4
/
&jules_output_profile profile_name = 'a', output_main_run = T, nvars = 1, var = 'smcl' /
&jules_output_profile profile_name = 'b/c', output_main_run = T, nvars = 1, var = 'smcl' /
! a comment between
&jules_output_profile
  profile_name = 'd', output_main_run = T, nvars = 2, var(1) = 'smcl', var(2) = 'ext', output_type = 2*'M'
/
""",
}


if __name__ == "__main__":
    main()

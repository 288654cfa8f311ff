"""Every way a JULES run is known to fail becomes one clear error; and the stand-in fails as the real one does."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from twin.errors import AssetError, RangeError, SettingsError, TimeError, Transient, UnitsError, VariableError
from twin.jules import Jules

TESTS = Path(__file__).parents[1]
install = runpy.run_path(str(TESTS / "stand_in_jules.py"))["install"]
case = SimpleNamespace(**runpy.run_path(str(TESTS / "jules_case.py"))).case
SNOW = "surface_snow_amount"


def model(tmp_path: Path, fault: str = "", changed: dict[str, str] | None = None, **options) -> Jules:
    executable, namelists = install(tmp_path / "set-up", fault=fault, **changed or {})
    return Jules(executable, namelists, tmp_path / "work", **options)


FAULTS = {
    # what JULES says itself
    "initial": (SettingsError, r"found Dictionary does not contain key 'sthuf' .init_ic"),
    "frac": (SettingsError, r"found Sum of tile fractions is not 1"),
    "forcing": (SettingsError, r"found Each input file must provide data for the entire run .init_drive"),
    "output": (SettingsError, r"found Output directory does not exist"),
    "chatter": (SettingsError, r"found Soil temperature is out of range .control"),
    # how it dies
    "runtime": (SettingsError, r"found a Fortran runtime error: At line 1 .* Bad real number"),
    "shell": (SettingsError, r"found a crash, SIGFPE; a division by zero or an overflow"),
    "fpe": (SettingsError, r"found a crash, SIGFPE"),
    "segfault": (SettingsError, r"found a crash, SIGSEGV; try `ulimit -s unlimited`"),
    "killed": (Transient, r"found killed, SIGKILL; too little memory"),
    "libraries": (SettingsError, r"expected its shared libraries .*libnetcdff\.so\.7"),
    # what it calls a good run
    "nan": (RangeError, r"JULES output 'smcl': expected .* found nan at 2003-02-25T02:00:00 in cell 0, 1 of 3 cells"),
    "imbalance": (RangeError, r"water balance of JULES: .* found 0\.5 on 2003-02-25 in cell 2, 1 of 3 cells"),
    "spinup": (SettingsError, r"expected no spin-up, as set, found twin\.dump\.spin1"),
    "truncated": (AssetError, r"JULES output twin\.\w+\.nc: expected at least \d+ bytes, found \d+ bytes"),
    "empty": (AssetError, r"JULES output: expected twin\.mean\.nc in NetCDF, found"),
    "partial": (TimeError, r"records of JULES output: expected 24, found 23: the run ended early"),
    "late": (TimeError, r"time 0 of JULES output: expected 3600 s, found 7200 s since 2003-02-25"),
    "order": (VariableError, r"latitude of JULES output: expected the cells of the run, found others"),
    "dump": (AssetError, r"JULES dump: expected one of 2003-02-26T00:00:00, found 2003-02-25T00:00:00"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_that_fails(tmp_path, fault):
    """The error names the cells and the run directory, which stays with what was read and printed."""
    kind, words = FAULTS[fault]
    with pytest.raises(kind, match=words) as error:
        model(tmp_path, fault).run(*case(steps=24))
    (folder,) = (tmp_path / "work").iterdir()
    if fault != "libraries":
        assert "cells 0 to 2" in str(error.value) and str(folder) in str(error.value)
    assert (folder / "jules.err").exists() and (folder / "timesteps.nml").exists()


def test_a_process_that_hangs_is_ended_with_all_it_started(tmp_path):
    """Here a wrapper script that starts the model, as mpirun would."""
    executable, namelists = install(tmp_path / "set-up", fault="hang")
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f"#!/bin/sh\n'{executable}' $1 &\necho $! > '{tmp_path}/pid'\nwait\n")
    wrapper.chmod(0o755)
    slow = Jules(wrapper, namelists, tmp_path / "work", timeout=1.5)
    began = time.monotonic()
    with pytest.raises(Transient, match=r"JULES: expected an end within 1.5 s, found still running .cells 0 to 2"):
        slow.run(*case(steps=24))
    pid = (tmp_path / "pid").read_text().strip()
    while shown := subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True).stdout.strip():
        if shown.startswith("Z"):  # ended, and waiting for its parent to ask
            break
        assert time.monotonic() - began < 30.0, shown
        time.sleep(0.05)


def test_the_error_counts_cells_over_all_processes(tmp_path):
    with pytest.raises(RangeError, match=r"in cell 1, 1 of 2 cells .cells 0 to 1"):
        model(tmp_path, "imbalance", cells_per_process=2).run(*case(cells=5, steps=24))
    with pytest.raises(RangeError, match=r"in cell 4, 1 of 1 cells .cells 4 to 4"):
        model(tmp_path / "b", "nan", cells_per_process=4, map=lambda f, x: [f(t) for t in list(x)[1:]]).run(
            *case(cells=5, steps=24)
        )


def test_a_little_less_than_no_snow_is_no_error(tmp_path):
    """JULES leaves −1.35e-3 kg m-2 on needles; ours is 0, and the water balance is checked before."""
    start, forcing, parameters = case(steps=24)
    start[SNOW][:] = 0.0
    forcing["air_temperature"][:] = 280.0
    end, series = model(tmp_path, "snow", keep=True).run(start, forcing, parameters)
    (folder,) = (tmp_path / "work").iterdir()
    with xr.open_dataset(folder / "twin_output" / "twin.state.nc", engine="netcdf4", decode_times=False) as raw:
        assert raw["snow_mass_gb"].values.min() < -1e-5
    assert end[SNOW].values.min() == 0.0 == series[SNOW].values.min()


def test_the_users_folder_stays_and_a_good_run_leaves_nothing(tmp_path):
    executable, namelists = install(tmp_path / "set-up")
    data = Path(namelists) / "data"
    data.mkdir()
    (data / "lai.nc").write_bytes(b"the user's")
    before = {path.name: path.read_bytes() for path in Path(namelists).glob("*.nml")}
    Jules(executable, namelists, tmp_path / "work").run(*case(steps=24))
    assert not any((tmp_path / "work").iterdir())
    Jules(executable, namelists, tmp_path / "work", keep=True).run(*case(steps=24))
    (folder,) = (tmp_path / "work").iterdir()
    assert (folder / "data" / "lai.nc").read_bytes() == b"the user's"
    assert {path.name: path.read_bytes() for path in Path(namelists).glob("*.nml")} == before
    untouched = set(before) - {"timesteps.nml", "model_grid.nml", "ancillaries.nml", "drive.nml"}
    for name in untouched - {"initial_conditions.nml", "output.nml"}:
        assert (folder / name).read_bytes() == before[name]
    for kept in ("zero_height = T", "co2_mmr = 5.941e-4", "diff_frac_const = 0.4", "print_step = 48"):
        assert any(kept.encode() in path.read_bytes() for path in folder.glob("*.nml"))


def test_a_constant_of_the_users_is_kept_and_a_file_of_the_users_refused(tmp_path):
    text = "&jules_initial total_snow=T, file='i.nc', nvars=3, var='sthuf' 'cs' 'tsoil_deep', use_file=3*{}, {} /\n"
    held = model(tmp_path, changed={"initial_conditions": text.format("F", "const_val=0.5 7.0 280.0")}, keep=True)
    end, _ = held.run(*case(steps=24))
    assert (end["jules_cs"] == 7.0).all()
    (folder,) = (tmp_path / "work").iterdir()
    assert "'tsoil_deep'" in (folder / "initial_conditions.nml").read_text()
    refused = model(tmp_path / "b", changed={"initial_conditions": text.format("T", "")})
    with pytest.raises(SettingsError, match=r"'tsoil_deep' of initial_conditions.nml: expected a constant"):
        refused.run(*case(steps=24))


# --- refused before the first step ------------------------------------------------------------------------------------
def test_what_cannot_be_used_is_refused_before_anything_runs(tmp_path):
    jules = model(tmp_path)
    start, forcing, parameters = case(steps=24)
    theta, air = "volume_fraction_of_condensed_water_in_soil", "air_temperature"

    def broken(ds: xr.Dataset, name: str, value: float) -> xr.Dataset:
        ds = ds.copy(deep=True)
        ds[name][..., 1] = value
        return ds

    fahrenheit = forcing.assign({air: forcing[air].assign_attrs(units="degF")})
    half = parameters.copy(deep=True)
    half["tile_fraction"][:, 1] *= 0.5
    half["tile_fraction"][8, 1] = 0.5
    cases = [
        (VariableError, "variable 'wind_speed'", start, forcing.drop_vars("wind_speed"), parameters),
        (VariableError, "dims of 'surface_down", start, forcing.transpose("cell", "time"), parameters),
        (UnitsError, "'air_temperature': expected K, found 'degF'", start, fahrenheit, parameters),
        (RangeError, "'air_temperature': .* 180 to 340, found nan", start, broken(forcing, air, np.nan), parameters),
        (RangeError, "time step: expected at most 3 h", start, forcing.isel(time=[0, 1, 3]), parameters),
        (RangeError, "time step: .*21600 s", start, case(steps=3, step="6h")[1], parameters),
        (VariableError, "'soil_albedo'", start, forcing, parameters.drop_vars("soil_albedo")),
        (VariableError, "tiles: expected", start, forcing, parameters.assign_coords(tile=list("abcdefghi"))),
        (VariableError, "'tile_fraction': expected dims", start, forcing, parameters.isel(tile=slice(1, None))),
        (RangeError, "tile_fraction: expected 1 in all", start, forcing, broken(parameters, "tile_fraction", 0.1)),
        (RangeError, "tile_fraction of ice: expected 0 or 1, found 0.5", start, forcing, half),
        (RangeError, "'b': expected 0 to inf", start, forcing, broken(parameters, "b", -1.0)),
        (VariableError, "'lat': expected", start, forcing.drop_vars("lat"), parameters.drop_vars("lat")),
        (VariableError, "'lat': expected the cells", start, forcing.assign_coords(lat=-forcing["lat"]), parameters),
        (RangeError, "'volume_fraction_of", broken(start, theta, 1.2), forcing, parameters),
        (VariableError, "'canopy_water_amount'", start.drop_vars("canopy_water_amount"), forcing, parameters),
        (VariableError, "'volume_fraction_of.*, found .* .4, 1.", start.isel(cell=[0]), forcing, parameters),
    ]  # fmt: skip
    for kind, words, *given in cases:
        with pytest.raises(kind, match=words):
            jules.run(*given)
    assert not (tmp_path / "work").exists()
    days = Jules(*install(tmp_path / "daily"), tmp_path / "work", daily=True)
    with pytest.raises(TimeError, match="expected a whole UTC day"):
        days.run(start, forcing.isel(time=slice(3, 20)), parameters)


# --- the stand-in itself ----------------------------------------------------------------------------------------------
def test_the_stand_in_refuses_what_jules_refuses(tmp_path):
    """A run directory the adapter made runs again by hand; spoilt in JULES' ways it ends with JULES' exit and words."""
    executable, namelists = install(tmp_path / "set-up")
    Jules(executable, namelists, tmp_path / "work", keep=True).run(*case(steps=24))
    (good,) = (tmp_path / "work").iterdir()

    def changed(name: str, old: str, new: str):
        return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new, 1))

    spoilt = {
        "": lambda folder: None,
        "Error opening namelist file fire.nml": lambda folder: (folder / "fire.nml").unlink(),
        "Cannot match namelist object name wrong_key": changed("timesteps.nml", "timestep_len", "wrong_key"),
        "Error reading namelist jules_spinup": changed("timesteps.nml", "&jules_spinup", "&other"),
        "Output directory does not exist": lambda folder: shutil.rmtree(folder / "twin_output"),
        "Each input file must provide data for the entire run": changed("drive.nml", "2003-02-26", "2003-02-25"),
        "Dictionary does not contain key 'sthuf'": changed("initial_conditions.nml", "'sthuf'", "'other'"),
        "'rubbish' is not a recognised variable": changed("output.nml", "'fqw_gb'", "'rubbish'"),
        "No such file": lambda folder: (folder / "twin_input" / "drive.nc").unlink(),
        "dimensions": changed("model_grid.nml", "npoints = 3", "npoints = 4"),
    }
    for i, (words, spoil) in enumerate(spoilt.items()):
        folder = tmp_path / f"spoilt {i}"
        shutil.copytree(good, folder)
        spoil(folder)
        done = subprocess.run([executable, "."], cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == (1 if words else 0)
        assert ("[FATAL ERROR]" in done.stderr) == bool(words) and words in done.stderr

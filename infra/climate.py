"""Climate-model runs by the file conventions of ISIMIP, as the weather of a region's cells.

    folder ─find─▸ files by run (family, model, member, scenario) ─Run.open─▸ Run ─forcing(first, last)─▸ our variables

A file's name says what is in it, and the file must agree: scenario, days, variable, units, values. Nothing is read
before it is asked for, and then only those days of the box around the region. A cell takes the nearest pixel with data;
finer interpolation would invent rain that the model does not have.

ISIMIP2b   <variable>_day_<model>_<scenario>_<member>_EWEMBI_[landonly_]<yyyymmdd>-<yyyymmdd>.nc4     CMIP5: RCPs
ISIMIP3b   <model>_<member>_w5e5_<scenario>_<variable>_<place>_daily_<yyyy>_<yyyy>.nc                 CMIP6: SSPs
Refs: Frieler et al. (2017), Geosci. Model Dev. 10, 4321 (ISIMIP2b); Frieler et al. (2024), Geosci. Model Dev. 17, 1
(ISIMIP3a and the conventions of ISIMIP3).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import cftime
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from infra.weather import Simulated, decades, span_of
from stac.sources import Band
from twin import forcing as recipes
from twin import grid as cells_of
from twin import synthetic
from twin.checks import check_range
from twin.errors import AssetError, PlaceError, SettingsError, TimeError, UnitsError, VariableError
from twin.inputs import OPTIONAL
from twin.variables import VARIABLES, with_role

FORCING = tuple(row.name for row in with_role("forcing"))
RANGE, SNOWFALL = "air_temperature_range", "snowfall_flux"
FAR = 1.5  # degrees from a cell to the nearest pixel with data, at most
_SAMPLES, _SAMPLE = 64, 1 << 16  # of a file, for its fingerprint: pieces, bytes of each
_PLAIN = {"standard", "gregorian", "proleptic_gregorian"}
_CALENDARS = {*_PLAIN, "noleap", "365_day", "360_day"}

BANDS = (
    Band("pr", "precipitation_flux", ("kg m-2 s-1",)),
    Band("pr", "precipitation_flux", ("mm/day", "mm d-1", "mm day-1"), scale=1 / 86400),
    Band("prsn", SNOWFALL, ("kg m-2 s-1",)),
    Band("prsn", SNOWFALL, ("mm/day", "mm d-1", "mm day-1"), scale=1 / 86400),
    Band("tas", "air_temperature", ("K",)),
    Band("tas", "air_temperature", ("degC", "Celsius"), offset=273.15),
    Band("tasmax", "tasmax", ("K",)),
    Band("tasmax", "tasmax", ("degC", "Celsius"), offset=273.15),
    Band("tasmin", "tasmin", ("K",)),
    Band("tasmin", "tasmin", ("degC", "Celsius"), offset=273.15),
    Band("huss", "specific_humidity", ("kg kg-1", "1")),
    Band("hurs", "relative_humidity", ("%",), scale=0.01),
    Band("hurs", "relative_humidity", ("1",)),
    Band("ps", "surface_air_pressure", ("Pa",)),
    Band("ps", "surface_air_pressure", ("hPa",), scale=100.0),
    Band("rsds", "surface_downwelling_shortwave_flux_in_air", ("W m-2",)),
    Band("rlds", "surface_downwelling_longwave_flux_in_air", ("W m-2",)),
    Band("sfcwind", "wind_speed", ("m s-1",)),
)
# in a calendar without some days these repeat the day before, so that wet days stay as many; the others lie between
_REPEATED = {"precipitation_flux", SNOWFALL}
_NAME = "[A-Za-z0-9-]+"
FAMILIES = {
    "ISIMIP2b (CMIP5)": re.compile(
        rf"(?P<variable>[A-Za-z]+)_day_(?P<model>{_NAME})_(?P<scenario>rcp\d\d|historical|picontrol)_"
        r"(?P<member>r\d+i\d+p\d+)_EWEMBI_(landonly_)?(?P<first>\d{8})-(?P<last>\d{8})\.nc4?"
    ),
    "ISIMIP3b (CMIP6)": re.compile(
        rf"(?P<model>{_NAME})_(?P<member>r\d+i\d+p\d+f\d+)_w5e5_(?P<scenario>ssp\d{{3}}|historical|picontrol)_"
        r"(?P<variable>[a-z]+)_[A-Za-z0-9.-]+_daily_(?P<first>\d{4})_(?P<last>\d{4})\.nc4?"
    ),
}


# ------------------------------------------------------------------------------------------------- files of a run
class Name(NamedTuple):
    """What the name of a file says."""

    family: str
    model: str
    member: str
    scenario: str
    variable: str
    first: str
    last: str

    @property
    def run(self) -> tuple[str, str, str, str]:
        return self[:4]


def named(path: Path) -> Name | None:
    """What a file's name says by the conventions; None for other names."""
    for family, pattern in FAMILIES.items():
        if found := pattern.fullmatch(path.name):
            told = found.groupdict()
            keys = ("model", "member", "scenario", "variable", "first", "last")
            return Name(family, *(told[key] for key in keys))._replace(variable=told["variable"].lower())
    return None


def find(folder: Path | str) -> dict[tuple[str, str, str, str], list[Path]]:
    """The runs in a folder and below: {(family, model, member, scenario): files}; SettingsError if there is none."""
    root = Path(folder)
    if not root.is_dir():
        raise SettingsError("climate-model files", expected="a folder", found="none there", where=str(root))
    runs: dict[tuple[str, str, str, str], list[Path]] = {}
    files = sorted(path for path in root.rglob("*.nc*") if path.is_file())
    for path in files:
        if name := named(path):
            runs.setdefault(name.run, []).append(path)
    if not runs:
        found = f"{len(files)} others, such as {files[0].name}" if files else "none"
        expected = "files named as in ISIMIP2b or ISIMIP3b"
        raise SettingsError("climate-model files", expected=expected, found=found, where=str(root))
    return runs


@dataclass(frozen=True)
class File:
    """One file: the days it holds in the calendar of its run, and where it was."""

    path: Path
    variable: str
    calendar: str
    first: int  # days since 1850 in that calendar
    count: int
    axes: tuple[bytes, bytes]  # of its pixels: latitudes and longitudes, float64

    @classmethod
    def open(cls, path: Path) -> File:
        """Opened and checked against its name; raises AssetError, VariableError, TimeError, PlaceError."""
        name = named(path)
        assert name is not None
        with _dataset(path) as data:
            for key in ("experiment_id", "experiment", "mip_era", "project_id", "model_id", "source_id"):
                _agrees(key, str(data.attrs.get(key, "")), name, path)
            if _native(data, name.variable) is None:
                found = ", ".join(map(str, data.data_vars)) or "nothing"
                raise VariableError("climate-model file", expected=name.variable, found=found, where=str(path))
            calendar, days = _days(data, path)
            if not {"lat", "lon"} <= set(data.variables):
                raise PlaceError("climate-model file", expected="lat and lon", found="none", where=str(path))
            axes = data["lat"].values.astype(np.float64).tobytes(), data["lon"].values.astype(np.float64).tobytes()
        first, last = (_date(day, calendar) for day in (days[0], days[-1]))
        told = (name.first, name.last)
        held = tuple(f"{date.year:04}{date.month:02}{date.day:02}"[: len(told[0])] for date in (first, last))
        if held != told:
            expected, found = (" to ".join(span) for span in (told, held))
            raise TimeError("days of the file", expected=f"{expected}, as in its name", found=found, where=str(path))
        return cls(path, name.variable, calendar, int(days[0]), len(days), axes)

    @property
    def end(self) -> int:
        return self.first + self.count


def _dataset(path: Path) -> xr.Dataset:
    """A NetCDF-4 file, nothing of it read; AssetError for what is none, as a truncated one."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
        if start != b"\x89HDF\r\n\x1a\n":
            raise ValueError(f"{path.stat().st_size} bytes starting with {start!r}")
        return xr.open_dataset(path, engine="netcdf4", decode_times=False, chunks=None)
    except (OSError, RuntimeError, ValueError) as err:
        raise AssetError("climate-model file", expected="NetCDF-4", found=str(err), where=str(path)) from err


def _agrees(key: str, value: str, name: Name, path: Path) -> None:
    """Refuse a file that says of itself that it is of another experiment, model or phase than its name does."""
    phase = name.family.partition("(")[2].rstrip(")")
    expected = {"mip_era": phase, "project_id": phase, "model_id": name.model, "source_id": name.model}
    wanted = expected.get(key, name.scenario)
    plain = [re.sub("[^a-z0-9]", "", text.lower()) for text in (value, wanted)]
    known = key in expected or re.fullmatch(r"rcp\d\d|ssp\d{3}|historical|picontrol", plain[0])
    if value and known and plain[0] != plain[1]:
        raise VariableError(f"attribute {key!r}", expected=f"{wanted}, as in the name", found=value, where=str(path))


def _native(data: xr.Dataset, variable: str) -> str | None:
    """The name a variable has in the file, whatever its case."""
    return next((str(name) for name in data.data_vars if str(name).lower() == variable), None)


def _days(data: xr.Dataset, path: Path) -> tuple[str, np.ndarray]:
    """Calendar and days since 1850 in it; TimeError unless they are daily, without gap or repetition."""
    clock = data.variables.get("time")
    units, calendar = (str(clock.attrs.get(key, "")) if clock is not None else "" for key in ("units", "calendar"))
    calendar = (calendar or "standard").lower()
    if clock is None or clock.size == 0 or " since " not in units or calendar not in _CALENDARS:
        found = f"{units or 'no time'}, calendar {calendar}"
        expected = f"CF times in a calendar of {', '.join(sorted(_CALENDARS))}"
        raise TimeError("time of the file", expected=expected, found=found, where=str(path))
    try:
        times = cftime.num2date(np.asarray(clock.values, np.float64), units, calendar)
        days = np.floor(cftime.date2num(times, "days since 1850-01-01", calendar) + 1e-6).astype(np.int64)
    except (ValueError, OverflowError) as err:
        raise TimeError("time of the file", expected="CF times", found=str(err), where=str(path)) from err
    steps = np.diff(days)
    if (steps != 1).any():
        at = int(np.argmax(steps != 1))
        found = f"{_iso(days[at + 1], calendar)} after {_iso(days[at], calendar)}"
        raise TimeError("days of the file", expected="each day once", found=found, where=str(path))
    return calendar, days


def _date(day: int, calendar: str) -> Any:
    return cftime.num2date(int(day), "days since 1850-01-01", calendar)


def _iso(day: int, calendar: str) -> str:
    return _date(day, calendar).strftime("%Y-%m-%d")


def fingerprint(path: Path) -> str:
    """128 bits of a file's length and of pieces all over it: what a run is told apart by, without reading it whole."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in np.unique(np.linspace(0, max(size - _SAMPLE, 0), _SAMPLES).astype(np.int64)):
            file.seek(int(start))
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:32]


# --------------------------------------------------------------------------------------------------------- a run
@dataclass(frozen=True)
class Pixels:
    """The pixel of each cell: within the box rows × columns of the files, row and column (cell)."""

    rows: slice
    columns: slice
    row: np.ndarray
    column: np.ndarray
    moved: int  # cells whose nearest pixel has no data, and that take a neighbour's


@dataclass(frozen=True)
class Run:
    """One climate-model run on the cells of a region."""

    family: str
    model: str
    member: str
    scenario: str
    calendar: str
    files: Mapping[str, tuple[File, ...]]  # by native variable, in the order of time
    pixels: Pixels
    cells: xr.Dataset
    days: pd.DatetimeIndex
    at: np.ndarray  # (day) which day of the files it is; −1 where their calendar has none

    @classmethod
    def open(cls, folder: Path | str, cells: xr.Dataset, scenario: str, model: str = "") -> Run:
        """The run of a scenario in a folder, after its model's historical one where that is there too.

        cells   lat and lon (cell), degrees, and `elevation`, m, where it is known
        model   which one, if the folder holds several
        Raises SettingsError for a run that is not there or not the only one, Rejected for files that are wrong.
        """
        runs = find(folder)
        fitting = [run for run in runs if run[3] == scenario.lower() and model.lower() in ("", run[1].lower())]
        if len(fitting) != 1:
            there = "; ".join(" ".join(run[1:4]) for run in sorted(fitting or runs))
            expected = f"one run of {scenario}" + (f" by {model}" if model else "")
            raise SettingsError("climate-model run", expected=expected, found=there, where=str(folder))
        (chosen,) = fitting
        before = runs.get((*chosen[:3], "historical"), []) if scenario.lower() != "historical" else []
        opened = [File.open(path) for path in (*before, *runs[chosen])]
        files = _in_order(opened)
        _enough(files, str(folder))
        first = next(iter(files.values()))
        count = sum(file.count for file in first)
        days, at = _real_days(first[0].first, count, first[0].calendar)
        return cls(*chosen, first[0].calendar, files, _pixels(files["tas"][0], cells), cells, days, at)

    @property
    def label(self) -> str:
        """Model, scenario and phase: `HadGEM2-ES RCP6.0, ISIMIP2b (CMIP5)`."""
        return f"{self.model} {in_words(self.scenario)}, {self.family}"

    @property
    def inserted(self) -> int:
        """Days that the calendar of the run does not have."""
        return int((self.at < 0).sum())

    @cached_property
    def sources(self) -> list[dict[str, str]]:
        """Its files, known by their `fingerprint`."""
        paths = sorted(file.path.absolute() for files in self.files.values() for file in files)
        return [{"key": fingerprint(path), "id": path.name, "href": path.as_uri()} for path in paths]

    @property
    def manifest(self) -> dict[str, Any]:
        """See `Weather.manifest`."""
        about = {name: getattr(self, name) for name in ("family", "model", "member", "scenario", "calendar")}
        return {**about, "sources": [[source["id"], source["key"]] for source in self.sources]}

    def forcing(self, first: pd.Timestamp, last: pd.Timestamp) -> xr.Dataset:
        """See `Weather.forcing`; the attribute `derived` names what the files do not hold.

        A day that the calendar of the run lacks lies between its neighbours; rain and snow repeat the day before.
        """
        span = span_of(self.days, first, last, self.label)
        there = self.at[span] >= 0
        before = np.maximum.accumulate(np.where(self.at >= 0, self.at, -1))[span]
        after = np.minimum.accumulate(np.where(self.at >= 0, self.at, self.at.max() + 1)[::-1])[::-1][span]
        low, high = int(before.min()), int(np.where(there, before, after).max()) + 1
        found = {}
        for native in self.files:
            values, name = self._read(native, low, high)
            daily = values[before - low]
            if not there.all() and name not in _REPEATED:
                daily[~there] = 0.5 * (daily[~there] + values[after[~there] - low])
            found[name] = daily
        return self._named(found, self.days[span])

    def _read(self, native: str, low: int, high: int) -> tuple[np.ndarray, str]:
        """Days low..high of the run's files, float32 (day, cell) in our units, and our name of the variable."""
        parts, start, name = [], 0, ""
        for file in self.files[native]:
            begin, end = max(low - start, 0), min(high - start, file.count)
            start += file.count
            if begin >= end:
                continue
            with _dataset(file.path) as data:
                variable = data[_native(data, native)]
                band = _band(native, variable.attrs.get("units"), file.path)
                box = {"time": slice(begin, end), "lat": self.pixels.rows, "lon": self.pixels.columns}
                try:
                    values = variable.isel(box).transpose("time", "lat", "lon").values
                except (OSError, RuntimeError, ValueError) as err:
                    found = f"{native} that cannot be read: {err}"
                    raise AssetError("climate-model file", expected="data", found=found, where=str(file.path)) from err
            mine = values[:, self.pixels.row, self.pixels.column]
            mine = (mine * np.float64(band.scale) + band.offset).astype(np.float32)
            name = band.variable
            check_range(_like(name), mine, f"{native} of {file.path}", missing=False)
            parts.append(mine)
        return np.concatenate(parts), name

    def _named(self, found: dict[str, np.ndarray], days: pd.DatetimeIndex) -> xr.Dataset:
        if "specific_humidity" in found:
            found.pop("relative_humidity", None)
        if {"tasmax", "tasmin"} <= found.keys():
            found[RANGE] = np.maximum(found["tasmax"] - found["tasmin"], 0.0)
        if SNOWFALL in found:
            found[SNOWFALL] = np.minimum(found[SNOWFALL], found["precipitation_flux"])
        height: dict[str, Any] = (
            {"surface_altitude": self.cells["elevation"].values} if "elevation" in self.cells else {}
        )
        values, derived = recipes.complete(found | height, FORCING)
        kept = [*FORCING, *(name for name in OPTIONAL if name in values)]
        about = {name: VARIABLES[name].attrs if name in VARIABLES else {"units": OPTIONAL[name][0]} for name in kept}
        place = {name: self.cells[name] for name in ("lat", "lon")}
        arrays = {name: (("time", "cell"), values[name].astype(np.float32, copy=False), about[name]) for name in kept}
        return xr.Dataset(arrays, {"time": days, **place}, {"derived": derived})


def in_words(scenario: str) -> str:
    """`rcp60` as RCP6.0, `ssp126` as SSP1-2.6, others as they are."""
    if found := re.fullmatch(r"rcp(\d)(\d)", scenario):
        return f"RCP{found[1]}.{found[2]}"
    if found := re.fullmatch(r"ssp(\d)(\d)(\d)", scenario):
        return f"SSP{found[1]}-{found[2]}.{found[3]}"
    return scenario


def _in_order(opened: Sequence[File]) -> dict[str, tuple[File, ...]]:
    """Files by variable in the order of time; TimeError for gaps and overlaps, PlaceError for another grid."""
    files: dict[str, tuple[File, ...]] = {}
    for file in sorted(opened, key=lambda file: (file.variable, file.first)):
        files[file.variable] = (*files.get(file.variable, ()), file)
    reference = min(opened, key=lambda file: (file.variable, file.first))
    for file in opened:
        if file.calendar != reference.calendar:
            raise TimeError("calendar", expected=reference.calendar, found=file.calendar, where=str(file.path))
        if file.axes != reference.axes:
            expected = f"the pixels of {reference.path.name}"
            raise PlaceError("climate-model files", expected=expected, found="others", where=str(file.path))
    spans = {name: (parts[0].first, parts[-1].end) for name, parts in files.items()}
    for name, parts in files.items():
        for earlier, later in pairwise(parts):
            if later.first != earlier.end:
                expected = f"{name} from {_iso(earlier.end, later.calendar)} on, after {earlier.path.name}"
                found = f"from {_iso(later.first, later.calendar)} on"
                raise TimeError("climate-model files", expected=expected, found=found, where=str(later.path))
        if spans[name] != spans[reference.variable]:
            expected, found = (
                f"{_iso(a, reference.calendar)} to {_iso(b - 1, reference.calendar)}"
                for a, b in (spans[reference.variable], spans[name])
            )
            what, where = f"days of {name}", str(parts[-1].path.parent)
            raise TimeError(what, expected=f"{expected}, as {reference.variable}", found=found, where=where)
    return files


def _enough(files: Mapping[str, Any], where: str) -> None:
    """Everything that a forcing needs and cannot be made of something else."""
    for choices in (("tas",), ("pr",), ("rsds",), ("rlds",), ("sfcwind",), ("huss", "hurs")):
        if not set(choices) & set(files):
            found = ", ".join(sorted(files))
            raise VariableError("climate-model run", expected=" or ".join(choices), found=found, where=where)


def _real_days(first: int, count: int, calendar: str) -> tuple[pd.DatetimeIndex, np.ndarray]:
    """The days of the world from a run's first to its last, and which of the run's days each is; −1 for none.

    A year of 360 days is spread over the year, so that every day of the run is used once (`align_on="year"`).
    """
    start, position = _iso(first, calendar), np.arange(count)
    if calendar in _PLAIN:
        return pd.date_range(start, periods=count, unit="ns"), position
    own = xr.date_range(start, periods=count, calendar=calendar, use_cftime=True)
    align = "year" if calendar == "360_day" else None
    turned = xr.DataArray(position, {"time": own}, ("time",)).convert_calendar(
        "standard", align_on=align, use_cftime=False
    )
    known = pd.DatetimeIndex(turned["time"].values).normalize()
    days = pd.date_range(known[0], known[-1], unit="ns")
    at = np.full(len(days), -1)
    at[days.get_indexer(known)] = turned.values
    return days, at


def _band(native: str, units: Any, path: Path) -> Band:
    spelt = " ".join(str(units or "").split())
    options = [band for band in BANDS if band.native == native]
    for band in options:
        if spelt in band.units:
            return band
    expected = " or ".join(unit for band in options for unit in band.units)
    raise UnitsError(f"climate model {native!r}", expected=expected, found=repr(spelt), where=str(path))


def _like(name: str) -> str:
    """The variable of the table whose range holds for one that is not in it."""
    return {"tasmax": "air_temperature", "tasmin": "air_temperature", "relative_humidity": "soil_moisture_stress"}.get(
        name, name
    )


def _pixels(file: File, cells: xr.Dataset) -> Pixels:
    """The nearest pixel with data of every cell; PlaceError where it is farther than FAR degrees."""
    lat, lon = (np.frombuffer(axis) for axis in file.axes)
    lat_cells, lon_cells = (np.asarray(cells[name].values, np.float64) for name in ("lat", "lon"))
    row = _nearest(lat_cells, lambda place: np.abs(lat - place))
    column = _nearest(lon_cells, lambda place: np.abs(cells_of.wrap(lon - place)))
    margin = int(np.ceil(FAR / max(float(np.abs(np.diff(lat)).min()) if lat.size > 1 else FAR, 1e-3)))
    rows = slice(max(int(row.min()) - margin, 0), min(int(row.max()) + margin + 1, lat.size))
    columns = slice(max(int(column.min()) - margin, 0), min(int(column.max()) + margin + 1, lon.size))
    with _dataset(file.path) as data:
        variable = data[_native(data, file.variable)]
        known = np.isfinite(variable.isel(time=0, lat=rows, lon=columns).transpose("lat", "lon").values)
    row, column = row - rows.start, column - columns.start
    lost = np.flatnonzero(~known[row, column])
    if lost.size and known.any():
        y, x = np.nonzero(known)
        north = np.concatenate([lat_cells[lost], lat[rows][y]])
        east = np.concatenate([lon_cells[lost], lon[columns][x]])
        nearest = cells_of.nearest_known(north, east, np.arange(north.size) >= lost.size)[: lost.size] - lost.size
        row[lost], column[lost] = y[nearest], x[nearest]
    east = cells_of.wrap(lon[columns][column] - lon_cells) * np.cos(np.deg2rad(lat_cells))
    away = np.hypot(lat[rows][row] - lat_cells, east)
    worst = int(np.argmax(away))
    if away[worst] > FAR or not known.any():
        expected = f"data within {FAR:g} degrees of {lat_cells[worst]:.2f}, {lon_cells[worst]:.2f}"
        found = f"the nearest {away[worst]:.2f} degrees away" if known.any() else "none in its box"
        raise PlaceError("climate-model pixels", expected=expected, found=found, where=str(file.path))
    return Pixels(rows, columns, row, column, int(lost.size))


def _nearest(places: np.ndarray, distance: Callable[[float], np.ndarray]) -> np.ndarray:
    """Index of the nearest of an axis to each place."""
    different, which = np.unique(places, return_inverse=True)
    return np.array([int(np.argmin(distance(place))) for place in different])[which]


# ------------------------------------------------------------------------------------------------ files to try with
def write_simulated(
    folder: Path | str,
    scenario: str,
    years: range,
    lat: ArrayLike,
    lon: ArrayLike,
    *,
    model: str = "HadGEM2-ES",
    calendar: str = "proleptic_gregorian",
    seed: int = synthetic.SEED,
    warming: float = 4.0,
    omit: Sequence[str] = (),
) -> list[Path]:
    """Decade files of simulated weather, named and laid out as ISIMIP's, the family by the scenario; their paths.

    They say of themselves that they are simulated. For tests, benchmarks and first steps without a download.
    """
    phase6 = scenario.startswith("ssp") or model.islower()
    axes = [np.asarray(axis, np.float64) for axis in (lat, lon)]
    north, east = np.meshgrid(*axes, indexing="ij")
    grid = cells_of.from_points(north.ravel(), east.ravel(), "raster", 0.5)
    weather = Simulated(grid, seed, warming)
    paths = []
    for part in decades(years):
        real = pd.date_range(f"{part[0]}-01-01", f"{part[-1]}-12-31")
        if calendar == "360_day":
            real = real[real.day_of_year <= 360]
        elif calendar == "noleap":
            real = real[(real.month != 2) | (real.day != 29)]
        values = _natives(weather.forcing(real[0], real[-1]).sel(time=real))
        times = xr.date_range(f"{part[0]}-01-01", periods=len(real), calendar=calendar, use_cftime=True)
        ends = times[0].strftime("%Y%m%d"), times[-1].strftime("%Y%m%d")
        for native, (array, units) in values.items():
            if native in omit:
                continue
            if phase6:
                name = f"{model}_r1i1p1f1_w5e5_{scenario}_{native.lower()}_global_daily_{ends[0][:4]}_{ends[1][:4]}.nc"
            else:
                name = f"{native}_day_{model}_{scenario}_r1i1p1_EWEMBI_{ends[0]}-{ends[1]}.nc4"
            about = {"units": units, "long_name": f"simulated {native}"}
            data = xr.Dataset(
                {native: (("time", "lat", "lon"), array.reshape(len(real), *north.shape), about)},
                {"time": times, "lat": axes[0], "lon": axes[1]},
                {"title": "simulated weather, no climate model", "experiment_id": scenario},
            )
            encoding = {native: {"zlib": True, "complevel": 1, "chunksizes": (1, *north.shape)}}
            encoding["time"] = {"units": "days since 1661-01-01 00:00:00", "calendar": calendar, "dtype": "f8"}
            paths.append(Path(folder, name))
            paths[-1].parent.mkdir(parents=True, exist_ok=True)
            data.to_netcdf(paths[-1], engine="netcdf4", format="NETCDF4_CLASSIC", encoding=encoding)
    return paths


def _natives(weather: xr.Dataset) -> dict[str, tuple[np.ndarray, str]]:
    """The forcing as the variables of a climate model, with their units."""
    ours = {band.variable: band for band in reversed(BANDS)}
    found = {
        "sfcWind" if ours[str(name)].native == "sfcwind" else ours[str(name)].native: (
            array.values,
            ours[str(name)].units[0],
        )
        for name, array in weather.items()
    }
    rain, air = found["pr"][0], found["tas"][0]
    found["prsn"] = np.where(air < 273.15, rain, 0.0).astype(rain.dtype), "kg m-2 s-1"
    found["tasmax"], found["tasmin"] = (air + 5.0, "K"), (air - 5.0, "K")
    return found

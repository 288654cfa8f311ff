"""Every setting of the twin, read in one place: TWIN_HOME, TWIN_STORE__URL, ... and the regions it knows.

    Settings()          what the environment says, checked
    region("demo")      one region: infra/regions/<name>.toml, or the path of a TOML file of your own
    region_grid(region) its cells, for a region of land cells

A setting is a field below; its variable is TWIN_<NAME>, or TWIN_<SECTION>__<NAME>.
"""

from __future__ import annotations

import json
import tomllib
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import xarray as xr
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableVariable

from twin.errors import SettingsError

REGIONS = Path(__file__).parent / "regions"


def _words(value: Any) -> Any:
    """A list written as `a, b` or as JSON."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [word for word in map(str.strip, value.split(",")) if word]


def _lines(value: Any) -> Any:
    """A list written as lines."""
    return [line for line in value.splitlines() if line.strip()] if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
Lines = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_lines)]


class Section(BaseModel):
    """A group of settings: TWIN_<SECTION>__<NAME>."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StoreSettings(Section):
    url: str = Field(default="", description="Folder of the state store; empty: `store` in the home.")


class CatalogSettings(Section):
    url: str = Field(default="", description="STAC API to publish to; empty: the embedded one.")
    token: SecretStr | None = Field(default=None, description="Bearer token that allows writing to the catalogue.")


class BusSettings(Section):
    kind: str = Field(default="log", description="Event bus: `log` is the embedded durable log.")
    url: str = Field(default="", description="Where the bus is: a file for `log`; empty: `events.sqlite` in the home.")


class ComputeSettings(Section):
    kind: str = Field(
        default="local",
        description="Where ensembles run: `local` (this process), `processes` (of this machine), or jobs of a queue: "
        "`slurm`, `pbs` or `lsf`.",
    )
    workers: int | None = Field(default=None, ge=1, description="Number of `processes`; none: what the cores allow.")
    jobs: int = Field(default=16, ge=1, description="Most jobs at a time.")
    cores: int = Field(default=1, ge=1, description="Cores of a process or job, all for one task at a time.")
    memory: str = Field(
        default="4GB",
        pattern=r"^\d+(\.\d+)? ?[MGT]i?B$",
        description="Memory of a process or job, such as `4GB`; a task that takes more is stopped.",
    )
    walltime: int = Field(default=60, ge=1, description="Longest time a job runs, minutes; much longer than a task.")
    queue: str = Field(default="", description="Queue or partition of the jobs; empty: the cluster's default.")
    account: str = Field(default="", description="Account or project the jobs are charged to; empty: your default.")
    interface: str = Field(
        default="", description="Network interface the jobs reach this machine by, such as `ib0`; empty: any."
    )
    directory: str = Field(
        default="", description="Folder that this machine and the jobs share, for logs; empty: `compute` in the home."
    )
    prologue: Lines = Field(default=(), description="Lines of shell that a job begins with, such as `module load`.")
    start_timeout: float = Field(
        default=600.0, gt=0, description="Seconds without any worker after which a run is put off."
    )


class ModelSettings(Section):
    kind: str = Field(
        default="land-daily",
        description="Land model: `land-daily` (water, by the day), `land` (and energy, within the day) or `jules`.",
    )
    step: Literal["30min", "1h", "3h"] = Field(default="1h", description="Time step of `land`.")
    precision: Literal["double", "single"] = Field(
        default="double", description="Numbers the embedded models compute with; `single` takes half the time."
    )
    retention: Literal["brooks-corey", "van-genuchten"] = Field(
        default="brooks-corey",
        description="Soil water retention of `land`, or of the namelists of `jules`; soils are made for it.",
    )
    numerics: Literal["newton", "jules"] = Field(
        default="newton", description="How `land` solves soil water: to convergence, or by JULES' one linear step."
    )
    runoff: Literal["none", "pdm"] = Field(
        default="none", description="Saturation excess in `land`: of whole cells, or of the parts that are full (PDM)."
    )
    shower: float = Field(default=0.0, ge=0, le=1, description="Part of a cell that rain falls on in `land`; 0 is all.")
    wind_height: float = Field(default=10.0, ge=0.5, le=200, description="Height of the wind `land` is given, m.")
    air_height: float = Field(
        default=2.0, ge=0.5, le=200, description="Height of the temperature and humidity `land` is given, m."
    )
    diffuse: float = Field(default=0.0, ge=0, le=1, description="Share of diffuse light in sunlight in `land`.")
    executable: str = Field(default="", description="The `jules.exe` of `jules`: a path, or a name on the PATH.")
    namelists: str = Field(default="", description="Folder of the namelist files (.nml) of `jules`.")
    version: str = Field(default="", description="Version of `jules`, such as 5.2; empty: what its files tell.")
    cells_per_process: int = Field(default=256, ge=1, description="Most cells of one process of `jules`.")

    @property
    def identity(self) -> dict[str, Any]:
        """The kind, and each choice its results depend on: what a region is prepared for."""
        return {name: getattr(self, name) for name in ("kind", *_MATTERS.get(self.kind, ()))}


_MATTERS = {
    "land-daily": ("precision",),
    "land": (
        "step",
        "precision",
        "retention",
        "numerics",
        "runoff",
        "shower",
        "wind_height",
        "air_height",
        "diffuse",
    ),
    "jules": ("retention",),
}


class WatchSettings(Section):
    poll_seconds: float = Field(default=2.0, gt=0, description="Seconds between two looks at the sources.")
    sweep_seconds: float = Field(
        default=900.0, gt=0, description="Seconds between two complete readings of the sources."
    )
    batch: int = Field(default=1000, ge=1, description="Most items one update takes.")


class AssimilationSettings(Section):
    enabled: bool = Field(default=True, description="Whether observations are assimilated.")
    every: int = Field(default=10, ge=1, description="Days between the ends of two windows.")
    window: int = Field(default=365, ge=10, description="Longest window, days.")
    least: int = Field(default=30, ge=10, description="Shortest window, days.")
    members: int = Field(default=50, ge=40, le=500, description="Members of the ensemble.")
    tile: int = Field(default=400, ge=1, description="Cells of one task.")
    loops: int = Field(default=6, ge=1, le=10, description="Most outer loops.")
    withheld: float = Field(default=0.1, ge=0.02, le=0.5, description="Share of observations kept back to judge by.")
    local: bool = Field(default=True, description="Whether parameters may also differ from place to place.")
    carried: int = Field(default=20, ge=5, description="Members carried on after the window, for the spread.")
    keep_days: float = Field(default=2.0, ge=0, description="Days for which results of single tasks are kept.")

    @property
    def identity(self) -> dict[str, Any]:
        """What an analysis depends on."""
        names = ("every", "window", "least", "members", "tile", "loops", "withheld", "local")
        return {name: getattr(self, name) for name in names}


class TrainingSettings(Section):
    enabled: bool = Field(default=True, description="Whether the emulator is trained, watched and trained anew.")
    locations: int = Field(default=1000, ge=10, description="Places the emulator is trained on.")
    held_out: int = Field(default=200, ge=5, description="Places it is tested on, and as many it is calibrated with.")
    members: int = Field(
        default=1, ge=0, description="Runs at each place with other climate and soil, besides its own."
    )
    days: int = Field(default=1461, ge=30, description="Most days of forcing to train on, the newest.")
    least: int = Field(default=365, ge=30, description="Fewest days of forcing to train on.")
    trees: int = Field(default=80, ge=1, le=1000, description="Trees for each output.")
    every: int = Field(default=30, ge=1, description="Days between two checks, and two trainings.")
    spot_check: int = Field(default=50, ge=5, description="Cells at which the emulator in use is checked.")
    checked: int = Field(default=90, ge=5, description="Newest days that are checked.")
    patience: float = Field(
        default=24.0, ge=0, description="Hours a new emulator waits for a release to be checked on."
    )
    keep_days: float = Field(default=2.0, ge=0, description="Days for which results of single tasks are kept.")

    @property
    def identity(self) -> dict[str, Any]:
        """What an emulator depends on."""
        names = ("locations", "held_out", "members", "days", "trees")
        return {name: getattr(self, name) for name in names}


class WarningSettings(Section):
    rules: str = Field(default="", description="File of rules (TOML); empty: `infra/rules/default.toml`.")
    sender: str = Field(
        default="drought-twin.invalid",
        pattern=r"^[^\s,<&]+$",
        description="Who sends warnings, globally unique: an address or a domain name.",
    )
    holds: float = Field(default=5.0, gt=0, description="Days for which a warning holds if nothing else is said.")


class AccessSettings(Section):
    roots: Words = Field(default=(), description="Folders assets may be read from, besides their catalogue's own.")
    hosts: Words = Field(
        default=(), description="Hosts assets may come from, besides their catalogue's own (*.example.org)."
    )


class DemoSettings(Section):
    resolution: float | None = Field(
        default=None, gt=0, le=10, description="Cell size of the simulated region, degrees."
    )
    seed: int | None = Field(default=None, description="Seed of the simulated climate.")
    reference_years: int | None = Field(
        default=None, ge=2, description="Simulate only the last so many reference years."
    )
    interval: float = Field(default=5.0, gt=0, description="Seconds between two simulated days.")


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe line to write."
    )


class Settings(BaseSettings):
    """The settings, from the environment; SettingsError names the variable that does not work."""

    model_config = SettingsConfigDict(env_prefix="TWIN_", env_nested_delimiter="__", frozen=True, extra="ignore")

    home: Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())] = Field(
        default=Path(".twin"),
        validate_default=True,
        description="Folder that holds everything the embedded twin writes.",
    )
    region: str = Field(default="demo", description="Region a command works on when none is named.")
    sources: Words = Field(default=(), description="STAC catalogues to watch: URLs or paths, separated by commas.")
    store: StoreSettings = Field(default=StoreSettings(), description="The state store.")
    catalog: CatalogSettings = Field(default=CatalogSettings(), description="The catalogue the twin publishes to.")
    bus: BusSettings = Field(default=BusSettings(), description="The event bus.")
    compute: ComputeSettings = Field(default=ComputeSettings(), description="Where ensembles run.")
    model: ModelSettings = Field(default=ModelSettings(), description="The land model.")
    assimilation: AssimilationSettings = Field(
        default=AssimilationSettings(), description="How observations are assimilated."
    )
    training: TrainingSettings = Field(default=TrainingSettings(), description="How the emulator is trained.")
    warnings: WarningSettings = Field(default=WarningSettings(), description="Who is warned of what.")
    watch: WatchSettings = Field(default=WatchSettings(), description="How sources are followed.")
    access: AccessSettings = Field(default=AccessSettings(), description="Where assets may come from.")
    demo: DemoSettings = Field(default=DemoSettings(), description="The simulated region.")
    log: LogSettings = Field(default=LogSettings(), description="What is logged.")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as err:
            raise _explained(err, "TWIN_", "environment") from err
        except UnreadableVariable as err:
            raise SettingsError("settings", found=f"{err}: {err.__cause__}", where="environment") from err


class Region(BaseModel):
    """One region: where it is, where its cells, soils and data come from, and what drought there is compared with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$", description="Short name, used in paths and events.")
    title: str = Field(description="Name for people.")
    bbox: tuple[float, float, float, float] = Field(description="West, south, east, north, degrees.")
    resolution: float = Field(gt=0, le=10, description="Cell size, degrees.")
    grid: Literal["land", "source"] = Field(description="Cells: `land` at the resolution, or those of the `source`.")
    countries: tuple[str, ...] = Field(
        default=(), description="ISO 3166 numeric codes or names; none: all land in the bbox."
    )
    start: date = Field(description="First day of the time axis.")
    reference_start: date = Field(description="First day of the reference period.")
    reference_end: date = Field(description="Last day of the reference period.")
    soil: Literal["ancillary", "loam", "synthetic"] = Field(description="Where soil texture comes from.")
    soil_file: str = Field(default="", description="File beside the source's catalogue, for soil = ancillary.")
    land_cover: Literal["grass", "synthetic", "ancillary"] = Field(
        default="grass", description="Where surface types come from, for models that know them."
    )
    land_cover_file: str = Field(
        default="", description="File beside the source's catalogue, for land_cover = ancillary: classes of ESA CCI."
    )
    c4_share: float = Field(
        default=0.0, ge=0, le=1, description="Part of the grass that is C4, unless land_cover = synthetic."
    )
    products: tuple[str, ...] = Field(description="Products the region takes.")
    simulated: bool = Field(False, description="Whether the data are simulated, and labelled so.")
    seed: int | None = Field(default=None, description="Seed of the simulated climate.")

    def model_post_init(self, _context: Any) -> None:
        west, south, east, north = self.bbox
        if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
            raise ValueError(f"bbox: expected west < east and south < north in degrees, found {self.bbox}")
        if self.reference_end <= self.reference_start:
            raise ValueError(f"reference_end: expected after {self.reference_start}, found {self.reference_end}")
        if (self.soil == "ancillary") != bool(self.soil_file):
            raise ValueError(f"soil_file: expected with soil ancillary only, found {self.soil_file!r} and {self.soil}")
        if (self.land_cover == "ancillary") != bool(self.land_cover_file):
            found = f"{self.land_cover_file!r} and {self.land_cover}"
            raise ValueError(f"land_cover_file: expected with land_cover ancillary only, found {found}")
        if self.land_cover == "synthetic" and not self.simulated:
            raise ValueError("land_cover: expected synthetic with simulated = true only, found simulated = false")
        if self.simulated and self.seed is None:
            raise ValueError("seed: expected with simulated = true, found none")


def region_names() -> list[str]:
    """The regions that ship, sorted."""
    return sorted(path.stem for path in REGIONS.glob("*.toml"))


def region(name: str, settings: Settings | None = None) -> Region:
    """The region of that name, or of the TOML file at that path; the simulated one as the settings want it."""
    path = Path(name) if name.endswith(".toml") else REGIONS / f"{name}.toml"
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        known = f"one of {', '.join(region_names())}, or a .toml file"
        raise SettingsError("region", expected=known, found=name) from err
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise SettingsError(f"region {name}", expected="a TOML file", found=str(err), where=str(path)) from err
    if fields.get("simulated"):
        fields |= _wanted(fields, (settings or Settings()).demo)
    try:
        return Region(**fields)
    except ValidationError as err:
        raise _explained(err, "", str(path)) from err


def region_grid(place: Region) -> xr.Dataset:
    """The land cells of a region: lat and lon (cell), degrees."""
    from twin.grid import regular  # numba compiles it on first use

    if place.grid != "land":
        raise SettingsError(f"region {place.name}", expected="grid = land", found=f"grid = {place.grid}")
    chosen = outlines()
    if place.countries:
        chosen = [country for country in chosen if {country["name"], country.get("iso")} & set(place.countries)]
        known = {key for country in chosen for key in (country["name"], country.get("iso"))}
        if unknown := sorted(set(place.countries) - known):
            raise SettingsError(f"region {place.name}", expected="countries of land.json", found=", ".join(unknown))
    rings = [ring for country in chosen for ring in country["rings"]]
    return regular(place.bbox, place.resolution, rings).assign_attrs(region=place.name, resolution=place.resolution)


@lru_cache(maxsize=1)
def outlines() -> list[dict[str, Any]]:
    """Countries of the world: name, iso (ISO 3166 numeric code, where there is one) and rings of [lon, lat], degrees.

    Natural Earth 1:110m, public domain. A point lies in a country if it lies inside an odd number of its rings.
    """
    return json.loads((REGIONS / "land.json").read_text(encoding="utf-8"))["countries"]


def _wanted(fields: dict[str, Any], demo: DemoSettings) -> dict[str, Any]:
    """What the settings change of the simulated region."""
    changed = {name: value for name in ("resolution", "seed") if (value := getattr(demo, name)) is not None}
    if demo.reference_years is not None:
        changed["reference_start"] = date(fields["reference_end"].year - demo.reference_years + 1, 1, 1)
    return changed


def _explained(err: ValidationError, prefix: str, where: str) -> SettingsError:
    """The first problem pydantic found, by the name of the variable or key to change."""
    problem = err.errors(include_url=False)[0]
    key = "__".join(map(str, problem["loc"]))
    name = prefix + key.upper() if prefix else key or "region"
    expected = problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return SettingsError(name, expected="a setting there is", found="this one", where=where)
    found = problem["input"] if problem["loc"] and problem["type"] != "missing" and "token" not in key else ""
    return SettingsError(name, expected=expected, found=found, where=where)

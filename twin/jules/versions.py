"""Which JULES: the versions known, how to recognise one, and what changed in the namelists that the twin sets.

From the namelist pages and release notes of the user guide, vn5.0 to vn8.0 (jules-lsm.github.io):

    5.4   `gs` in the initial state only with can_rad_mod = 1 (given always: more than needed is accepted)
    5.9   a reading error with const_z = T was mended (soil is always written by layer)
    6.0   &jules_latlon lists its variables as other groups do; half the defaults of &jules_drive are gone
    7.2   l_coord_latlon, false unless set; bounds of a subgrid renamed (no subgrid is used)
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from twin.errors import SettingsError
from twin.jules import namelist

KNOWN = (
    *(f"5.{minor}" for minor in range(10)),
    *(f"6.{minor}" for minor in range(4)),
    *(f"7.{minor}" for minor in range(10)),
    "8.0",
)

# Files every version opens in a set-up without crops, dynamic vegetation, urban schemes or IMOGEN.
FILES = (
    *("jules_surface_types", "jules_surface", "timesteps", "jules_radiation", "jules_hydrology", "jules_soil"),
    *("jules_vegetation", "jules_soil_biogeochem", "jules_snow", "jules_rivers", "model_grid", "ancillaries"),
    *("pft_params", "nveg_params", "fire", "drive", "prescribed_data", "initial_conditions", "output"),
)

# file: first and last version that has it
_MARKS = {
    "jules_lsm_switch": ("5.1", "5.9"),
    "model_environment": ("5.3", KNOWN[-1]),
    "science_fixes": ("5.4", KNOWN[-1]),
    "jules_deposition": ("5.5", KNOWN[-1]),
    "cable_surface_types": ("5.7", KNOWN[-1]),
    "jules_irrig": ("5.9", KNOWN[-1]),
    "jules_water_resources": ("5.9", KNOWN[-1]),
    "jules_prnt_control": ("6.0", KNOWN[-1]),
    "cable_prognostics": ("6.2", KNOWN[-1]),
    "oasis_rivers": ("7.3", KNOWN[-1]),
}
_CERTAIN = ("jules_lsm_switch", "model_environment", "science_fixes", "jules_prnt_control")  # always opened
_BANNER = re.compile(r"\bJULES\W+(?:version\W+|vn\W?|v)?(\d+\.\d+)", re.IGNORECASE)


def detect(files: Mapping[str, str], banner: str = "", version: str | None = None) -> tuple[str, str]:
    """The oldest and newest version the executable and its namelists can be.

    files     namelist file without `.nml`, to its text
    banner    what the executable printed when it started, which decides if it names a version
    version   what the user says, which decides over both
    Raises SettingsError for a version that is not in KNOWN, or namelists of different versions.
    """
    named = _BANNER.search(banner)
    if said := version or (named and named[1]):
        if said.removeprefix("vn") not in KNOWN:
            raise SettingsError("JULES version", expected=f"one of {', '.join(KNOWN)}", found=said)
        return said.removeprefix("vn"), said.removeprefix("vn")
    fits = [candidate for candidate in KNOWN if _fits(files, candidate)]
    if not fits:
        marks = ", ".join(f"{name}.nml" for name in _MARKS if name in files)
        raise SettingsError("JULES namelists", expected="those of one version", found=marks, where="or pass version=")
    return fits[0], fits[-1]


def needed(version: str) -> list[str]:
    """Namelist files that `version` opens whatever is switched on."""
    return [*FILES, *(name for name in _CERTAIN if _has(name, version))]


def latlon(version: str, cells: int, latitude: float, longitude: float, file: str) -> dict[str, object]:
    """What &jules_latlon must say in `version` for `cells` points in `file`; a single one is written out."""
    if _at(version) < _at("6.0"):
        if cells == 1:
            return {"latitude": latitude, "longitude": longitude}
        return {"file": file, "lat_name": "latitude", "lon_name": "longitude"}
    plain = {"l_coord_latlon": True} if _at(version) >= _at("7.2") else {}
    return {**plain, "nvars": 2, "var": ["latitude", "longitude"], "use_file": [True, True], "file": file}


def _fits(files: Mapping[str, str], version: str) -> bool:
    """Whether every file belongs to `version`, none it always opens is missing, and &jules_latlon is in its form."""
    if any(name in files and not _has(name, version) for name in _MARKS):
        return False
    if any(name not in files and _has(name, version) for name in _CERTAIN):
        return False
    keys = set(namelist.values(files.get("model_grid", ""), "jules_latlon"))
    if keys & {"latitude", "lat_name"} and _at(version) >= _at("6.0"):
        return False
    return "l_coord_latlon" not in keys or _at(version) >= _at("7.2")


def _has(name: str, version: str) -> bool:
    first, last = _MARKS[name]
    return _at(first) <= _at(version) <= _at(last)


def _at(version: str) -> int:
    return KNOWN.index(version)

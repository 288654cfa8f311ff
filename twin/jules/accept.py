"""Which namelists are accepted: read, and checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from twin.errors import SettingsError
from twin.jules import namelist, versions
from twin.variables import LAYERS

# Switches that would make JULES do other than the twin asks: file, group, key, the value it must have, why.
_MUST = (
    ("jules_rivers", "jules_rivers", "l_rivers", False, "rivers join cells that run apart"),
    ("jules_surface", "jules_surface", "l_aggregate", False, "the state has nine tiles"),
    ("jules_soil", "jules_soil", "l_tile_soil", False, "the state has one soil column a cell"),
    ("jules_vegetation", "jules_vegetation", "l_veg_compete", False, "tile fractions are parameters"),
    ("jules_water_resources", "jules_water_resources", "l_water_resources", False, "it joins cells that run apart"),
    ("timesteps", "jules_time", "l_360", False, "the calendar is the real one"),
    ("timesteps", "jules_time", "l_leap", True, "the calendar is the real one"),
    ("timesteps", "jules_time", "l_local_solar_time", False, "times are UTC"),
    ("drive", "jules_drive", "l_imogen", False, "the twin drives"),
    ("imogen", "imogen_onoff_switch", "l_imogen", False, "the twin drives"),
    ("drive", "jules_drive", "l_daily_disagg", False, "the forcing has its steps"),
    ("drive", "jules_drive", "l_perturb_driving", False, "the forcing is used as it is"),
)
_SURFACE_TYPES = {"npft": 5, "nnvg": 4, "urban": 6, "lake": 7, "soil": 8, "ice": 9}  # the order of TILES


def read_namelists(folder: Path) -> dict[str, str]:
    """Text of every namelist file, by its name without `.nml`; SettingsError where there is none."""
    if not folder.is_dir():
        raise SettingsError(
            "JULES namelists", expected="a folder of .nml files", found=str(folder), where="TWIN_MODEL__NAMELISTS"
        )
    files = {path.stem: path.read_bytes().decode(errors="surrogateescape") for path in sorted(folder.glob("*.nml"))}
    if not files:
        raise SettingsError(
            "JULES namelists",
            expected="a folder of .nml files",
            found=f"none in {folder}",
            where="TWIN_MODEL__NAMELISTS",
        )
    return files


def check_namelists(files: Mapping[str, str], version: str) -> None:
    """Raise SettingsError for a missing file, other surface types or layers, or a switch the twin cannot live with."""
    if absent := [f"{name}.nml" for name in versions.needed(version) if name not in files]:
        raise SettingsError("JULES namelists", expected=f"those of version {version}", found=f"no {', '.join(absent)}")
    for key, expected in _SURFACE_TYPES.items():
        found = namelist.value(files["jules_surface_types"], "jules_surface_types", key)
        if found != expected and not (found is None and key not in ("npft", "nnvg", "soil")):
            raise SettingsError(f"{key} of jules_surface_types.nml", expected=expected, found=found)
    soil = namelist.values(files["jules_soil"], "jules_soil")
    if tuple(soil.get("dzsoil_io", LAYERS)) != LAYERS:
        raise SettingsError("dzsoil_io of jules_soil.nml", expected=LAYERS, found=soil["dzsoil_io"])
    for file, group, key, value, why in _MUST:
        found = namelist.value(files.get(file, ""), group, key, value)
        if found != value:
            raise SettingsError(f"{key} of {file}.nml", expected=f"{value}, as {why}", found=found)

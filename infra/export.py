"""Taking the twin's results elsewhere: NetCDF and CSV for people, a static STAC tree for catalogues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from infra.wiring import Services
from stac.catalog import write_static
from twin.errors import SettingsError
from twin.indices import classes, combined, season
from twin.variables import VARIABLES

CODES = {"drought_class": classes.NAMES, "cdi": combined.STATES, "wet_season_status": season.STATUS}
COMPLETE = {"drought": "root_zone_soil_moisture", "indices": "dry_spell"}  # without it a row of a table says nothing


def export(
    services: Services, region: str, target: Path, first: str | None, last: str | None, what: str = "drought"
) -> str:
    """Write `target` by its ending (.nc, .csv, or a folder for STAC); what was written, in a sentence.

    what   drought or indices, in a file

    Raises SettingsError for an unknown region or ending, or a period without data. A file appears whole or not at all.
    """
    if target.suffix not in ("", ".nc", ".csv"):
        raise SettingsError("export", expected="a name ending in .nc or .csv, or a folder", found=str(target))
    view = services.store.at()
    if region not in view.regions():
        raise SettingsError("region", expected=f"one of {', '.join(view.regions()) or 'none yet'}", found=region)
    if target.suffix == "":
        return f"{write_static(services.catalog, target)} items in {target}"
    data = arrays(view, region, first, last, what)
    fresh = target.with_name(f".{target.name}.part")
    if target.suffix == ".nc":
        data.to_netcdf(fresh, engine="h5netcdf")
    else:
        _columns(data).to_dataframe().reset_index().dropna(subset=[COMPLETE[what]]).to_csv(fresh, index=False)
    fresh.replace(target)
    return f"{data.sizes['time']} days of {data.sizes['cell']} cells in {target}"


def arrays(view, region: str, first: str | None, last: str | None, what: str = "drought") -> xr.Dataset:
    """Drought or indices of a period with their cells, their CF attributes and the snapshot they come from."""
    if what not in COMPLETE or not view.has(region, what):
        there = [name for name in COMPLETE if view.has(region, name)]
        raise SettingsError("export", expected=f"one of {', '.join(there) or 'nothing yet'}", found=what)
    data = view.dataset(region, what).sel(time=slice(first, last))
    if data.sizes["time"] == 0:
        raise SettingsError(
            "export period", expected="days that have data", found=f"{first or 'start'} to {last or 'end'}"
        )
    cells = view.dataset(region, "grid")[["lat", "lon"]].load()
    data = data.load().assign_coords(lat=cells["lat"], lon=cells["lon"])
    for name in data.data_vars:
        data[name].attrs = {**VARIABLES[str(name)].attrs, **_flags(str(name))}
        if data[name].dtype.kind == "i":
            data[name].encoding["_FillValue"] = np.iinfo(data[name].dtype).min
    if "code" in data.dims:
        words = {"units": "1", "long_name": "drought class that is reached or exceeded: 1 to 5 are D0 to D4"}
        data = data.assign_coords(code=("code", np.arange(1, 1 + data.sizes["code"]), words))
    data["lat"].attrs = {"standard_name": "latitude", "units": "degrees_north"}
    data["lon"].attrs = {"standard_name": "longitude", "units": "degrees_east"}
    return data.assign_attrs(Conventions="CF-1.11", source="drought-twin", region=region, snapshot=view.snapshot)


def _flags(name: str) -> dict[str, Any]:
    """CF's words for the codes of a variable."""
    meanings = CODES.get(name, {})
    codes = np.array([*meanings.values()], np.int8)
    return {"flag_values": codes, "flag_meanings": " ".join(meanings)} if meanings else {}


def _columns(data: xr.Dataset) -> xr.Dataset:
    """A variable by class as one for each class, so that a table has a row for each day and cell."""
    of_classes = [name for name in data.data_vars if "code" in data[name].dims]
    columns = {
        f"{name}_d{int(code) - 1}": data[name].sel(code=code, drop=True)
        for name in of_classes
        for code in data["code"].values
    }
    return data.drop_vars([*of_classes, *(["code"] if of_classes else [])]).assign(columns)

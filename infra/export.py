"""Taking the twin's results elsewhere: NetCDF and CSV for people, a static STAC tree for catalogues."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from infra.wiring import Services
from stac.catalog import write_static
from twin.errors import SettingsError
from twin.variables import VARIABLES


def export(services: Services, region: str, target: Path, first: str | None, last: str | None) -> str:
    """Write `target` by its ending (.nc, .csv, or a folder for STAC); what was written, in a sentence.

    Raises SettingsError for an unknown region or ending, or a period without data. A file appears whole or not at all.
    """
    if target.suffix not in ("", ".nc", ".csv"):
        raise SettingsError("export", expected="a name ending in .nc or .csv, or a folder", found=str(target))
    view = services.store.at()
    if region not in view.regions():
        raise SettingsError("region", expected=f"one of {', '.join(view.regions()) or 'none yet'}", found=region)
    if target.suffix == "":
        return f"{write_static(services.catalog, target)} items in {target}"
    data = drought(view, region, first, last)
    fresh = target.with_name(f".{target.name}.part")
    if target.suffix == ".nc":
        data.to_netcdf(fresh, engine="h5netcdf")
    else:
        data.to_dataframe().reset_index().dropna(subset=["root_zone_soil_moisture"]).to_csv(fresh, index=False)
    fresh.replace(target)
    return f"{data.sizes['time']} days of {data.sizes['cell']} cells in {target}"


def drought(view, region: str, first: str | None, last: str | None) -> xr.Dataset:
    """The drought arrays of a period with their cells, their CF attributes and the snapshot they come from."""
    data = view.dataset(region, "drought").sel(time=slice(first, last))
    if data.sizes["time"] == 0:
        raise SettingsError(
            "export period", expected="days that have data", found=f"{first or 'start'} to {last or 'end'}"
        )
    cells = view.dataset(region, "grid")[["lat", "lon"]].load()
    data = data.load().assign_coords(lat=cells["lat"], lon=cells["lon"])
    for name in data.data_vars:
        data[name].attrs = dict(VARIABLES[str(name)].attrs)
    data["lat"].attrs = {"standard_name": "latitude", "units": "degrees_north"}
    data["lon"].attrs = {"standard_name": "longitude", "units": "degrees_east"}
    return data.assign_attrs(Conventions="CF-1.11", source="drought-twin", region=region, snapshot=view.snapshot)

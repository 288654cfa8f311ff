"""What a region starts from: its cells, parameters, and if it is simulated the reference its percentiles refer to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
import pandas as pd
import xarray as xr

from infra import assets, indices
from infra import ingest as reading
from infra.assets import Access
from infra.settings import ModelSettings, Region, region_grid
from infra.store import Draft
from twin import climatology, grid, state, synthetic
from twin import parameters as tables
from twin.errors import RangeError, Rejected, SettingsError, Transient
from twin.indices.years import calendar
from twin.inputs import THETA
from twin.land.daily import SURFACE
from twin.model import LandModel
from twin.observations import FOOTPRINT
from twin.parameters import TILES

SPIN_UP_YEARS = 6  # before the reference years
START = 0.3  # saturation before the spin-up: near what a desert keeps; wetter climates fill up within four years
LOAM = {"sand": 0.40, "silt": 0.40, "clay": 0.20}  # USDA loam, near the centroid of its class
VARIANTS = {"brooks-corey": "cosby", "van-genuchten": "toth-class"}  # pedotransfer that needs texture alone
_SURFACE = (*SURFACE, "root_fraction")  # parameters that follow from land cover, the rest being the soil's
CLASSES, SHARES = "lccs_class", "land_cover_fraction"  # in a file of land cover: codes, or shares by class


def cells(services: Any, region: Region, arrivals: Iterable[Mapping[str, Any]]) -> xr.Dataset | None:
    """The region's grid with soil texture; None if its cells come from its source and nothing readable has arrived."""
    if region.grid == "source":
        for arrival in arrivals:
            try:
                found = reading.grid_of_source(arrival, region, services.settings)
            except (Rejected, Transient):
                continue  # the item meets the same error again in `ingest`, which records it
            return _with_soil(found, reading.soil_of_source(arrival["source"], region, found))
        return None
    found = region_grid(region)
    soil = synthetic.soils(found, _seed(region)) if region.soil == "synthetic" else found
    return _with_soil(found, soil)


def _with_soil(found: xr.Dataset, soil: Mapping[str, Any] | xr.Dataset) -> xr.Dataset:
    texture = {
        name: soil[name] if name in soil else ("cell", np.full(found.sizes["cell"], share))
        for name, share in LOAM.items()
    }
    return found.assign(texture | {name: soil[name] for name in FOOTPRINT if name in soil})


def _seed(region: Region) -> int:
    if region.seed is None:
        raise SettingsError(f"region {region.name}", expected="a seed for what is simulated", found="none")
    return region.seed


def parameters(
    model: ModelSettings, region: Region, found: xr.Dataset, arrivals: Iterable[Mapping[str, Any]]
) -> xr.Dataset | None:
    """Parameters of the region's cells for a land model; attribute `land_cover` says on what.

    None if its land cover lies beside its source and nothing has arrived.
    """
    texture = found[["sand", "silt", "clay"]]
    if model.kind == "land-daily":
        soil = tables.from_texture(found["sand"], found["silt"], found["clay"])
        return soil.assign_attrs(land_cover="the reference grass")
    if region.land_cover == "synthetic":
        fraction, about = synthetic.land_cover(synthetic.climate(found, _seed(region))), "simulated land cover"
    elif region.land_cover == "grass":
        fraction = np.zeros((len(TILES), found.sizes["cell"]))
        for name, share in (("c3_grass", 1.0 - region.c4_share), ("c4_grass", region.c4_share)):
            fraction[TILES.index(name)] = share
        about = f"grass everywhere ({region.c4_share:.0%} C4)"
    else:
        sources = sorted({arrival["source"] for arrival in arrivals})
        if not sources:
            return None
        fraction = tables.from_land_cover(_land_cover(sources, region, found), region.c4_share).values
        fraction, about = _without_ice(fraction, region), "land cover of ESA CCI"
    return tables.assemble(texture, fraction, VARIANTS[model.retention]).assign_attrs(land_cover=about)


def with_surfaces(
    view: Any, region: Region, found: xr.Dataset, used: xr.Dataset, model: ModelSettings
) -> xr.Dataset | None:
    """The parameters in use, as analysed, on the region's land cover: what a model with surface types takes.

    model   that it is for; None if the land cover lies beside a source that is not known yet
    """
    if "tile_fraction" in used:
        return used
    sources = [{"source": record["source"]} for record in view.ledger(region.name).values() if record.get("source")]
    made = parameters(model, region, found, sources)
    if made is None:
        return None
    return made.assign({name: used[name].variable for name in used.data_vars if name in made and name not in _SURFACE})


def _land_cover(sources: Iterable[str], region: Region, found: xr.Dataset) -> xr.DataArray:
    """Share of each class of ESA CCI (lccs_class, cell) from the file beside the first source that has it.

    The file holds `lccs_class`, the code of every pixel, or `land_cover_fraction` (lccs_class, …) with the codes as
    coordinate. Cells without a pixel get their nearest neighbour's. Raises what opening the file does, SettingsError
    for one that is not there or lacks these variables, RangeError where it has no value.
    """
    where, file, failed = f"land cover of region {region.name}", region.land_cover_file, None
    for source in sources:
        href = urljoin(source, file) if "://" in source else Path(source).absolute().with_name(file)
        try:
            path = assets.fetch(href, Access().with_source(source), where=where)
        except Rejected as err:
            failed = err
            continue
        lat, lon, half = found["lat"].values, found["lon"].values, found.attrs["resolution"] / 2.0
        bbox = (lon.min() - half, lat.min() - half, lon.max() + half, lat.max() + half)
        pixels = assets.open_dataset(path, only=(CLASSES, SHARES), bbox=bbox, where=where)
        return _averaged(pixels, found, where, str(href))
    raise SettingsError(where, expected=f"{file} beside a source", found=str(failed)) from failed


def _averaged(pixels: xr.Dataset, found: xr.Dataset, where: str, href: str) -> xr.DataArray:
    """Share of each class in every cell, (lccs_class, cell)."""
    axes = [pixels.variables[name].dims if name in pixels.variables else () for name in ("lat", "lon")]
    raster = axes[0] != axes[1]
    space = (*axes[0], *axes[1]) if raster else axes[0]
    dims = (CLASSES, *space) if SHARES in pixels else space
    values = pixels.variables.get(SHARES, pixels.variables.get(CLASSES))
    if () in axes or values is None or not set(dims) <= set(values.dims) or CLASSES not in pixels.variables:
        held = ", ".join(pixels.attrs["all_variables"])
        expected = f"latitudes, longitudes and {CLASSES}, or {SHARES} by {CLASSES}"
        raise SettingsError(where, expected=expected, found=held, where=href)
    matcher = grid.matcher(pixels["lat"].values, pixels["lon"].values, found, points=not raster)
    values = values.squeeze([dim for dim in values.dims if dim not in dims]).transpose(*dims).values
    if SHARES in pixels:
        codes, layers = pixels[CLASSES].values.astype(int), iter(values)
    else:
        there = np.isfinite(values) & (values != 0)  # 0 is ESA CCI's "no data"
        codes = np.unique(values[there]).astype(int)
        layers = (np.where(there, np.float32(values == code), np.float32(np.nan)) for code in codes)
    shares = [matcher.average(layer)[0] for layer in layers]
    total = np.sum(shares, axis=0) if shares else np.full(found.sizes["cell"], np.nan)
    known = total > 0.5
    if not known.any():
        raise RangeError(where, expected="a class for some cell", found="none", where=href)
    nearest = grid.nearest_known(found["lat"].values, found["lon"].values, known)
    return xr.DataArray(np.stack(shares)[:, nearest] / total[nearest], {CLASSES: codes}, (CLASSES, "cell"))


def _without_ice(fraction: np.ndarray, region: Region) -> np.ndarray:
    """The fractions without land ice, which has no soil to be dry; SettingsError where there is little else."""
    ice = fraction[TILES.index("ice")]
    if (ice > 0.5).any():
        found = f"{int((ice > 0.5).sum())} cells, first cell {int(np.argmax(ice > 0.5))}"
        raise SettingsError(f"land cover of region {region.name}", expected="no cell that is mostly ice", found=found)
    return np.where(np.arange(len(TILES))[:, None] == TILES.index("ice"), 0.0, fraction / (1.0 - ice))


@dataclass(frozen=True)
class Reference:
    """What a simulated region is compared with, by group of the store, and what its first day goes on from.

    state, counts   of the land, and of `infra.indices`
    """

    groups: Mapping[str, xr.Dataset]
    state: xr.Dataset
    counts: xr.Dataset

    def write(self, draft: Draft, region: Region) -> xr.Dataset:
        """Put it into a draft, in the place of what was carried on from another; the land's state on the first day."""
        for group, data in self.groups.items():
            draft.put(region.name, group, data)
        for restarts, start in (("restart", self.state), (indices.COUNTS, self.counts)):
            draft.drop_restarts(region.name, after=pd.Timestamp(region.start) - pd.Timedelta(days=1), of=restarts)
            draft.save_restart(region.name, region.start, start, of=restarts)
        return self.state


@dataclass(frozen=True)
class Year:
    """One year of a simulated region before its first day: its weather, what the land model tells, its state after."""

    year: int
    forcing: xr.Dataset
    diagnostics: xr.Dataset
    state: xr.Dataset


def simulated_years(model: LandModel, region: Region, found: xr.Dataset, constants: xr.Dataset) -> Iterator[Year]:
    """The years from SPIN_UP_YEARS before the reference to the region's first day, through a model without a break.

    found, constants   any cells of the region and their parameters: each cell's climate is its own
    Desert soil forgets its start within decades only, so all of it starts near a desert's equilibrium.
    """
    climate = synthetic.climate(found, _seed(region))
    land = state.initial(constants, START, climate.tables[2].mean(axis=0, dtype=np.float64))
    years = range(pd.Timestamp(region.reference_start).year - SPIN_UP_YEARS, pd.Timestamp(region.start).year)
    for year, drivers in zip(years, synthetic.reference_forcing(climate, years), strict=True):
        land, diagnostics = model.run(land, drivers, constants)
        yield Year(year, drivers, diagnostics, land)


def simulated_reference(services: Any, region: Region, found: xr.Dataset, constants: xr.Dataset) -> Reference:
    """The reference years of the simulated climate: quantiles of soil moisture, calendar, standardised rain."""
    first, last = pd.Timestamp(region.reference_start).year, pd.Timestamp(region.reference_end).year
    record, rain = [], indices.Windows((first, last))
    for each in simulated_years(services.model, region, found, constants):
        rain.add(each.forcing["precipitation_flux"])
        if first <= each.year <= last:
            record.append(state.root_zone(each.diagnostics[THETA]).astype("float32"))
    theta = xr.concat(record, "time")
    quantiles, when = climatology.build(theta, theta.time.values), calendar(theta)
    counts = indices.begin(
        each.forcing["precipitation_flux"], state.root_zone(each.diagnostics[THETA]), constants, when
    )
    groups = {"climatology": quantiles, indices.CALENDAR: when, **dict(rain.groups())}
    return Reference(groups, each.state, counts)

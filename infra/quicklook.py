"""A small picture of a region's newest drought map, for the artifacts of a run."""

from __future__ import annotations

import base64
import io

import numpy as np
import xarray as xr
from PIL import Image

from infra.store import View
from twin.indices.palette import COLORS, NORMAL


def _raster(codes: np.ndarray, grid: xr.Dataset) -> np.ndarray:
    """Codes on a lat/lon raster at the grid's resolution, north up; −128 between cells."""
    step = float(grid.attrs["resolution"])
    rows = np.rint((grid.lat.values.max() - grid.lat.values) / step).astype(int)
    columns = np.rint((grid.lon.values - grid.lon.values.min()) / step).astype(int)
    raster = np.full((rows.max() + 1, columns.max() + 1), -128, "int8")
    raster[rows, columns] = codes
    return raster


def drought_png(view: View, region: str, width: int = 420) -> str | None:
    """The newest drought classes as a PNG, base64; None before the first release."""
    if not view.has(region, "drought"):
        return None
    drought = view.dataset(region, "drought")["drought_class"]
    codes = _raster(drought.isel(time=-1).values, view.dataset(region, "grid").load())
    pixels = np.full((*codes.shape, 4), 0, "uint8")
    for code, colour in {**COLORS, 0: NORMAL["light"]}.items():
        pixels[codes == code] = (*bytes.fromhex(colour[1:]), 255)
    picture = Image.fromarray(pixels)
    scale = max(1, width // picture.width)
    out = io.BytesIO()
    picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()

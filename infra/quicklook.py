"""A small picture of a region's newest drought map, for run artifacts and item thumbnails."""

from __future__ import annotations

import base64
import io

import numpy as np
import xarray as xr
from PIL import Image

from infra.store import View

# Brown for dry, blue-green for wet: distinguishable under the common colour-vision deficiencies, and in grey.
PALETTE = {
    5: (0x4A, 0x15, 0x03), 4: (0x99, 0x2B, 0x04), 3: (0xD9, 0x5F, 0x0E), 2: (0xFB, 0xA5, 0x45), 1: (0xFE, 0xE0, 0x9B),
    0: (0xEC, 0xEC, 0xE6),
    -1: (0xC7, 0xE3, 0xE6), -2: (0x8F, 0xC7, 0xD2), -3: (0x4F, 0xA3, 0xBA), -4: (0x22, 0x76, 0x97), -5: (0x0B, 0x45, 0x6B),
}  # fmt: skip


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
    for code, colour in PALETTE.items():
        pixels[codes == code] = (*colour, 255)
    picture = Image.fromarray(pixels)
    scale = max(1, width // picture.width)
    out = io.BytesIO()
    picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()

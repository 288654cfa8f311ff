"""A small picture of a region's newest drought map, for the artifacts of a run and the overview of an item."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

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


def keep(view: View, region: str, name: str, folder: Path) -> dict[str, Any] | None:
    """Write the picture of a view to `folder`/`name`.png, whole or not at all; its href, size and checksum."""
    picture = drought_png(view, region)
    if picture is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f".{name}.{os.getpid()}"
    fresh.write_bytes(picture)
    target = fresh.replace(folder / f"{name}.png")
    return {"href": target.as_uri(), "size": len(picture), "checksum": f"1220{hashlib.sha256(picture).hexdigest()}"}


def drought_png(view: View, region: str, width: int = 420) -> bytes | None:
    """The newest drought classes as a PNG; None before the first release."""
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
    return out.getvalue()

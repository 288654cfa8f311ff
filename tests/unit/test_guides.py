"""What the guides show in code runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from twin.variables import VARIABLES, with_role

GUIDES = Path(__file__).parents[2] / "docs"


def test_the_land_model_is_used_as_the_science_guide_says():
    """Four days of a tropical grassland: it evaporates between 1 and 8 mm a day, without running dry."""
    place = {"lat": ("cell", [5.0, 6.0, 7.0]), "lon": ("cell", [1.0, 2.0, 3.0])}
    parts = {"sand": 0.4, "silt": 0.4, "clay": 0.2}
    weather = (2e-5, 298.0, 0.012, 3.0, 98e3, 220.0, 390.0)
    times = np.datetime64("2001-01-01", "ns") + np.arange(4) * np.timedelta64(1, "D")
    rows = {
        row.name: (("time", "cell"), np.full((4, 3), value), {"units": VARIABLES[row.name].units})
        for row, value in zip(with_role("forcing"), weather, strict=True)
    }
    known: dict[str, Any] = {
        "texture": xr.Dataset({name: ("cell", np.full(3, part)) for name, part in parts.items()}, place),
        "tile_fraction": np.eye(9)[3][:, None] * np.ones(3),
        "forcing": xr.Dataset(rows, {"time": times, **place}),
    }
    text = (GUIDES / "science.md").read_text(encoding="utf-8")
    code = re.search(r"### Using it\n\n```python\n(.*?)```", text, re.DOTALL)
    assert code
    exec(code[1], known)
    daily = known["daily"]
    evaporated = 86400.0 * daily["water_evapotranspiration_flux"]
    assert daily.sizes == {"time": 4, "layer": 4, "cell": 3}
    assert float(evaporated.min()) > 1.0 and float(evaporated.max()) < 8.0

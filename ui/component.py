"""The canvas map as a Streamlit component: packs a day's classes, mounts it, and says which place was chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from twin.indices import classes, palette
from ui import figures, words

STATIC = Path(__file__).parent / "static"
KEY = "drought-map"


@cache
def _mount() -> Callable[..., Any]:
    html, css, js = (STATIC.joinpath(f"map.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
    return st.components.v2.component("drought_map", html=html, css=css, js=js)


def payload(
    codes: np.ndarray,
    where: figures.Raster,
    share: Mapping[int, float],
    outlines: str,
    sure: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    title: str,
    shown: str,
    selected: tuple[float, float] | None,
) -> dict[str, Any]:
    """What the browser gets: codes and outlines deflated in base64, geometry, palette and words.

    codes     (cell) drought class codes
    outlines  packed by `figures.packed` and `figures.text`
    sure      soil moisture and its spread, m3 m-3 (cell), where the spread is known
    shown     names what is shown; the canvas carries it as data-shown once it is drawn
    selected  lat, lon of the chosen cell
    """
    height, width = where.cells.shape
    return {
        "codes": figures.text(figures.raster(codes, where)),
        "lines": outlines,
        "water": figures.text(figures.hundredths(sure, where)) if sure else "",
        "area": f"{where.bounds} {width} {height}",
        "width": width,
        "height": height,
        "west": where.west,
        "north": where.north,
        "dx": where.dx,
        "dy": where.dy,
        "legend": figures.legend(share),
        "missing": words.percent(share.get(classes.MISSING, 0.0)),
        "normal": palette.NORMAL,
        "paper": figures.PAPER,
        "title": title,
        "shown": shown,
        "selected": {"lat": selected[0], "lon": selected[1]} if selected else None,
        "text": words.MAP,
    }


def drought_map(data: Mapping[str, Any], chosen: Callable[[float, float], None]) -> None:
    """Mount the map; `chosen(lat, lon)` is called when someone picks a cell."""

    def on_cell() -> None:
        picked = st.session_state[KEY].get("cell")
        if place := point(picked):
            chosen(*place)

    _mount()(data=dict(data), key=KEY, on_cell_change=on_cell)


def point(picked: Any) -> tuple[float, float] | None:
    """lat, lon from what the browser sent; None for anything that is not a place."""
    try:
        return _on_earth(picked["lat"], picked["lon"])
    except (TypeError, KeyError, ValueError):
        return None


def address(text: str) -> tuple[float, float] | None:
    """lat, lon from a URL's '9.25,-0.75'; None for anything that is not a place."""
    try:
        lat, lon = text.split(",")
        return _on_earth(lat, lon)
    except ValueError:
        return None


def _on_earth(lat: Any, lon: Any) -> tuple[float, float]:
    found = float(lat), float(lon)
    if not (-90 <= found[0] <= 90 and -180 <= found[1] <= 360):
        raise ValueError(f"place: expected latitude -90..90 and longitude -180..360, found {found}")
    return found

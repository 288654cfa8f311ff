"""The colours of the classes, one place for every map.

One hue path per side (yellow, orange, red, purple for dry; blues for wet), darker with every step, so that neighbours
stay apart for protan, deutan and tritan eyes and in grey.
"""

from __future__ import annotations

from collections.abc import Mapping

DRY = ("#fbdc78", "#f7a938", "#e06a1b", "#b02d10", "#5a0a38")  # D0..D4
WET = ("#b4d3e6", "#85b6d7", "#4d90c2", "#24629d", "#14376b")  # W0..W4
NORMAL: Mapping[str, str] = {"light": "#ecece9", "dark": "#666c74"}  # by theme
COLORS: Mapping[int, str] = {
    **{code: DRY[code - 1] for code in range(1, 6)},
    **{-code: WET[code - 1] for code in range(1, 6)},
}

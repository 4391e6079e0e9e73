"""Where things are in a panel: places as shares, and the room that names need."""

import numpy as np

from runner.analysis.pictures.scene import INK, MUTED, Cells, Panel

CHARACTER = 6.9
"""The mean width of a character of 12 pixels; the labels' room is made for it."""
LEFT, RIGHT, TOP, BOTTOM = 10, 14, 24, 44
"""Room around a panel: `TOP` has the label of the y axis, `BOTTOM` ticks and label of the x axis."""
LONGEST_BESIDE = 18
"""Characters of the names that stand beside their rows; longer ones stand above them."""
LONGEST_CELL = 16
"""Characters of the names beside the rows of a map; longer ones are cut."""
ROW, ROW_WITH_NAME, ROW_OF_CELLS = 24, 38, 34
"""Heights of a row of dots, of one with a name above, and of cells."""


def has_names_above(panel: Panel) -> bool:
    """Whether the names of the rows stand above them, because they are too long to stand beside them."""
    is_map = any(isinstance(mark, Cells) for mark in panel.marks)
    return not is_map and max(map(len, panel.y.names), default=0) > LONGEST_BESIDE


def measure_names(panel: Panel, is_above: bool) -> int:
    """The pixels that what stands beside the panel takes."""
    if is_above:
        return 0
    texts = [cut_name(name) for name in panel.y.names] if panel.y.names else [tick.text for tick in panel.y.ticks]
    return round(CHARACTER * max(map(len, texts), default=0)) + 4


def cut_name(name: str) -> str:
    """A name that fits beside its row, or below its column."""
    return name if len(name) <= LONGEST_BESIDE else f"{name[: LONGEST_CELL - 1]}…"


def find_height(panel: Panel, is_above: bool) -> int:
    """The height of a panel in pixels, without what surrounds it."""
    if not panel.y.names:
        return panel.height
    is_map = any(isinstance(mark, Cells) for mark in panel.marks)
    row = ROW_OF_CELLS if is_map else ROW_WITH_NAME if is_above else ROW
    return max(len(panel.y.names) * row, row * 2)


def place_across(panel: Panel, values: np.ndarray | float) -> np.ndarray:
    """Where values of the x axis are, as shares of the width."""
    return panel.x.place(values)


def place_down(panel: Panel, values: np.ndarray | float) -> np.ndarray:
    """Shares from the top; categories begin there."""
    shares = panel.y.place(values)
    return shares if panel.y.names else 1 - shares


def format_percent(share: float) -> str:
    """A share as a length in SVG."""
    return f"{100 * float(share):.2f}".rstrip("0").rstrip(".") + "%"


def name_color(color: int) -> str:
    """The class of a colour in the style sheet."""
    return {INK: "ink", MUTED: "muted"}.get(color, f"c{color}")

"""The colours of cells: equally distant for the eye and for colour-blind people, the same on light and dark pages."""

import math

from matplotlib import colormaps

NO_VALUE = "#8884"
"""The colour of a cell without a finite value."""
DARK_BELOW = 0.55
"""The shade below which a text in a cell is white."""
_MAP = colormaps["viridis"]


def color_cell(shade: float) -> str:
    """The colour of a cell as hexadecimal text."""
    if math.isnan(shade):
        return NO_VALUE
    red, green, blue, _ = _MAP(shade, bytes=True)
    return f"#{red:02x}{green:02x}{blue:02x}"


def is_dark(shade: float) -> bool:
    """Whether a text in the cell is to be white."""
    return shade < DARK_BELOW

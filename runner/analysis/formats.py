"""The formats of numbers and labels that terminal, page and figures share."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def format_value(value: Any, digits: int = 5) -> str:
    """A value in a cell: floats to so many significant digits, integers with separators, nothing for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float | np.floating):
        return f"{value:.{digits}g}"
    return f"{value:,}" if isinstance(value, int | np.integer) else str(value)


def format_interval(low: float, high: float, digits: int = 4) -> str:
    """Both bounds of an interval, nothing if there is none."""
    return "" if math.isnan(low) else f"{low:.{digits}g} … {high:.{digits}g}"


def format_label(label: Mapping[str, Any], axes: Sequence[str]) -> str:
    """The values of a point's axes as `name=value`."""
    return " ".join(f"{name}={format_value(label[name])}" for name in axes) or "–"

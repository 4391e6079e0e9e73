"""The formats of numbers and labels that terminal, page and figures share."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

AXIS = "axis."
"""What stands before the name of an axis that a column of a comparison has, too."""
SIGNIFICANT = 2
"""Significant digits of half an interval's width; the estimate has as many decimals."""
LEAST_SIGNIFICANT = 3
"""Significant digits that an estimate has at least, as far as one decimal more gives them."""
MOST_DECIMALS = 6
MOST_INTEGER_DIGITS = 7
"""Numbers that want more decimals, or have more digits before the point, are in powers of ten."""
EVEN = 0.02
"""By which share of the width an interval may be off its estimate, and is written with ± nevertheless."""
SMALLEST_P = 1e-4
"""p-values below are written as less than this; what is below it depends on the tails of the distribution."""


def format_value(value: Any, digits: int = 5) -> str:
    """A value in a cell: floats to so many significant digits, integers with separators, nothing for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float | np.floating):
        return f"{value + 0.0:.{digits}g}"  # -0.0 becomes 0.0
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return f"{value:,}" if is_integer else str(value)


def format_interval(low: float, high: float, digits: int = 4) -> str:
    """Both bounds of an interval, nothing if there is none."""
    return "" if math.isnan(low) else f"{low + 0.0:.{digits}g} … {high + 0.0:.{digits}g}"


def format_label(label: Mapping[str, Any], axes: Sequence[str]) -> str:
    """The values of a point's axes as `name=value`, without numbers that the point does not have."""
    given = [name for name in axes if not is_missing(label[name])]
    return " ".join(f"{name.removeprefix(AXIS)}={format_value(label[name])}" for name in given) or "–"


def is_missing(value: Any) -> bool:
    """Whether a value is NaN: the number of an axis that a point of a conditional space does not have."""
    return isinstance(value, float) and math.isnan(value)


def format_estimate(value: float, low: float, high: float, *, is_signed: bool = False) -> str:
    """An estimate with its interval, with digits by the width of it: `0.708 ± 0.19`, or `0.900 (0.60 … 0.98)`.

    Without an interval, the estimate alone with three significant digits. Nothing for NaN.
    """
    if not math.isfinite(value):
        return "" if math.isnan(value) else str(value)
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return format_short(value, is_signed=is_signed)
    half = (high - low) / 2
    exponent = _choose_exponent(value, half)
    value, low, high, half = (number / 10.0**exponent for number in (value, low, high, half))
    decimals = _count_decimals(half, SIGNIFICANT)
    more = min(decimals + 1, max(decimals, _count_decimals(value, LEAST_SIGNIFICANT)))
    centre, sign = _round(value, more), "+" if is_signed and _rounded(value, more) > 0 else ""
    if abs(value - (low + high) / 2) <= EVEN * 2 * half:
        text = f"{sign}{centre} ± {_round(half, decimals)}"
        return f"({text})e{exponent}" if exponent else text
    bounds = f"{_round(low, decimals)} … {_round(high, decimals)}"
    return f"{sign}{centre} ({bounds})" + (f" e{exponent}" if exponent else "")


def format_bounds(value: float, low: float, high: float, level: str) -> str:
    """An estimate with the bounds of its interval in words: `0.71, 95 % interval 0.52 … 0.90`."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return format_short(value)
    decimals = _count_decimals((high - low) / 2, SIGNIFICANT)
    if decimals > MOST_DECIMALS or high <= low or abs(value) >= 10**MOST_INTEGER_DIGITS:
        return f"{format_short(value)}, {level} interval {format_short(low)} … {format_short(high)}"
    return f"{_round(value, decimals)}, {level} interval {_round(low, decimals)} … {_round(high, decimals)}"


def format_short(
    value: float, digits: int = LEAST_SIGNIFICANT, *, is_signed: bool = False, is_padded: bool = False
) -> str:
    """A number to some significant digits: 0.708, 465, 1.2e-7, 12,300; trailing zeros are kept if it is padded."""
    if not math.isfinite(value):
        return "" if math.isnan(value) else str(value)
    if value == 0:
        return "0"
    sign = "+" if is_signed and value > 0 else ""
    size = math.floor(math.log10(abs(value)))
    if not -5 <= size < MOST_INTEGER_DIGITS:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{sign}{_strip(mantissa)}e{int(exponent)}"
    decimals = max(0, digits - 1 - size)
    text = f"{value:,.{decimals}f}"
    return sign + (text if is_padded or not decimals else _strip(text))


def format_p(p: float) -> str:
    """A p-value to two significant digits: `0.013`, `<0.0001`."""
    if math.isnan(p):
        return ""
    return f"<{SMALLEST_P:.4f}" if p < SMALLEST_P else format_short(p, 2)


def count_things(count: int, noun: str, plural: str = "") -> str:
    """A number with its noun: `1 point`, `1,200 points`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def join_words(words: Sequence[str], most: int = 0) -> str:
    """Words as a list in a sentence, of which `most` are named: `a, b and 3 more`."""
    if most and len(words) > most:
        return f"{', '.join(words[:most])} and {len(words) - most:,} more"
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _choose_exponent(value: float, half: float) -> int:
    """The power of ten that both numbers are written in; 0 for those that read well without one."""
    size = math.floor(math.log10(max(abs(value), half)))
    is_plain = size < MOST_INTEGER_DIGITS and _count_decimals(half, SIGNIFICANT) <= MOST_DECIMALS
    return 0 if is_plain else size


def _count_decimals(value: float, digits: int) -> int:
    """The decimals that give a number so many significant digits."""
    if value == 0:
        return 0
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def _rounded(value: float, decimals: int) -> float:
    return round(value, decimals) + 0.0


def _round(value: float, decimals: int) -> str:
    return f"{_rounded(value, decimals):,.{decimals}f}"


def _strip(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text

"""Numbers that an array output can be reduced to, so that it can be compared: `y.mean`, `y.0`, `curve.area`."""

import json
import math
import re
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np

from runner.errors import InvalidInputError
from runner.storage.reader import MINUS_ZERO

REDUCTIONS: dict[str, Callable[[np.ndarray], Any]] = {
    "mean": lambda values: np.mean(values) if values.size else np.nan,
    "min": np.min,
    "max": np.max,
    "norm": np.linalg.norm,
    "last": lambda values: values.reshape(-1)[-1],
    "area": lambda values: np.trapezoid(values.reshape(-1)),
}
"""Numbers that an array can be reduced to, as in `y.mean`; or an index, as in `y.0` or `y.2.1`.

`area` is that under the curve of all elements, one step apart, by the trapezoidal rule.
"""
THRESHOLD = re.compile(r"steps_(below|above)_(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
"""The first step, from 0, at which a curve is at most or at least a number, as in `loss.steps_below_0.1`.

A curve that never is has infinitely many steps: a run without a finite value.
"""


def is_reduction(part: str) -> bool:
    """Whether the text after the name of an array says how it is reduced."""
    return part in REDUCTIONS or bool(THRESHOLD.fullmatch(part) or re.fullmatch(r"\d+(\.\d+)*", part))


def reduce_output(column: Any, metric: str, is_last: bool) -> np.ndarray:
    """A scalar unchanged, or a number of each array; NaN where a run has none."""
    if isinstance(column, np.ndarray):
        return column
    reduce = _find_reduction(metric.partition(".")[2])
    try:
        return np.array([np.nan if text is None else _reduce_array(text, reduce, is_last) for text in column])
    except (IndexError, TypeError, ValueError) as error:
        raise InvalidInputError(f"{metric}: {error}") from error


def _reduce_array(text: str, reduce: Callable[[np.ndarray], Any], is_last: bool) -> float:
    array = np.array(json.loads(MINUS_ZERO.sub("-0.0", text)))
    if is_last and array.dtype.kind == "f":
        array = array[np.isfinite(array)]
        if not array.size:
            return math.nan
    return float(reduce(array))


def _find_reduction(part: str) -> Callable[[np.ndarray], Any]:
    if part in REDUCTIONS:
        return REDUCTIONS[part]
    if found := THRESHOLD.fullmatch(part):
        return partial(_count_steps, is_below=found[1] == "below", threshold=float(found[2]))
    return itemgetter(tuple(map(int, part.split("."))))


def _count_steps(values: np.ndarray, is_below: bool, threshold: float) -> float:
    """The first step at which a curve is at most, or at least, a threshold; infinity if it never is."""
    reached = np.flatnonzero(values.reshape(-1) <= threshold if is_below else values.reshape(-1) >= threshold)
    return float(reached[0]) if len(reached) else math.inf

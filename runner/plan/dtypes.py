"""The dtypes of inputs and outputs: which values they represent, and how a table stores them."""

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

CHECKED_VALUES = 1 << 20
"""Values that are checked at once, so that a memory-mapped file is never held in memory."""


def parse_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of a name, those of ml_dtypes such as bfloat16 included."""
    return np.dtype(getattr(ml_dtypes, name, name))


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype of an input has floats; ml_dtypes registers bfloat16 as V."""
    return dtype.kind in "fV"


def stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that a table has for an output: Arrow knows the small floats and integers of ml_dtypes as no numbers.

    Every value of `dtype` is exact in it.
    """
    if dtype.isbuiltin == 1 and dtype != np.float16:
        return dtype
    return next(np.dtype(kind) for kind in (np.int8, np.float32) if np.can_cast(dtype, kind, "safe"))


def describe_range(dtype: np.dtype[Any]) -> str:
    """The values that a dtype represents, in words."""
    if is_float(dtype):
        return "numbers within its range"
    if dtype.kind == "b":
        return "0 or 1, false or true"
    return f"whole numbers from {np.iinfo(dtype).min} to {np.iinfo(dtype).max}"


def find_changed_value(array: np.ndarray, dtype: np.dtype[Any]) -> float | None:
    """The first value, in memory order, that a dtype does not represent; None if there is none.

    An integer dtype represents whole numbers in its range, bool 0 and 1. A float dtype rounds, which is accepted,
    unless a finite value becomes infinite.
    """
    if np.can_cast(array.dtype, dtype, "safe"):
        return None
    for values in _cut_values(array):
        changed = _is_changed(values, dtype)
        if changed.any():
            return values[int(np.argmax(changed))].item()
    return None


def _cut_values(array: np.ndarray) -> Iterator[np.ndarray]:
    flat = array.ravel(order="K")  # a view of a memory-mapped file in either order
    for start in range(0, len(flat), CHECKED_VALUES):
        values = flat[start : start + CHECKED_VALUES]
        yield values.astype(np.float64) if values.dtype.kind == "f" and values.dtype.itemsize < 8 else values


def _is_changed(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    if is_float(dtype):
        with np.errstate(over="ignore"):
            return np.isfinite(values) & ~np.isfinite(values.astype(dtype))
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return ~((values >= low) & (values <= high) & (values == np.floor(values)))

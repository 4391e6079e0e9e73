"""What features, tokens, targets and labels may be, checked before anything is compiled.

Everything that is refused is a ValueError of one line.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


def read_features(x: ArrayLike, columns: Sequence[str] | None) -> Array:
    """Features of shape `(examples, …)` as float64, all of which float32 can hold; `columns` names them in messages."""
    array = _read_numbers("x", x)
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(f"x must have examples and features, got shape {array.shape}")
    with np.errstate(over="ignore"):
        unfit = ~np.isfinite(array.astype(np.float32)).reshape(len(array), -1)
    _check_finite("x", unfit, columns)
    return array.astype(np.float64)


def read_tokens(x: ArrayLike) -> Array:
    """Tokens of shape `(examples, …)` as int32, from 0 on."""
    array = _read_numbers("x", x)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"tokens must be integers, got {array.dtype}")
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(f"tokens must have examples and positions, got shape {array.shape}")
    if array.min() < 0 or array.max() > np.iinfo(np.int32).max:
        raise ValueError(f"tokens must be integers from 0 on, got {array.min()} … {array.max()}")
    return array.astype(np.int32)


def read_targets(y: ArrayLike) -> Array:
    """Targets of a regression as float64 `(examples, outputs)`, all of which float32 can hold."""
    array = _read_numbers("y", y)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"targets must have the shape (examples,) or (examples, outputs), got {array.shape}")
    with np.errstate(over="ignore"):
        _check_finite("y", ~np.isfinite(array.astype(np.float32)), None)
    return array.astype(np.float64)


def read_classes(y: ArrayLike, count: int | None) -> tuple[Array, Array]:
    """Labels as int32 0 … k-1, and what they were as float32 `(k,)`; with a `count` they must be 0 … `count` - 1."""
    array = np.asarray(y)
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"labels must have the shape (examples,), got {array.shape}")
    if array.dtype.kind == "f":
        array = _read_whole(array)
    if array.dtype.kind not in "iubUS":
        array = _read_texts(array)
    if count is not None:
        return _check_range(array, count), np.arange(count, dtype=np.float32)
    values, labels = np.unique(array, return_inverse=True)
    numbers = values if values.dtype.kind in "iub" else np.arange(len(values))
    return labels.astype(np.int32), numbers.astype(np.float32)


def _read_whole(labels: Array) -> Array:
    """Labels that are whole numbers written as floats."""
    if missing := int(np.sum(~np.isfinite(labels))):
        raise ValueError(f"{missing} of {len(labels)} labels are not finite")
    if fractional := int(np.sum(labels != np.floor(labels))):
        example = labels[labels != np.floor(labels)][0]
        raise ValueError(
            f"labels of classes must be integers or texts, got {fractional} others of {len(labels)}, as {example}; "
            "such values are targets of kind=regression"
        )
    return labels.astype(np.int64)


def _read_texts(labels: Array) -> Array:
    if missing := sum(label is None or label != label for label in labels):
        raise ValueError(f"{missing} of {len(labels)} labels are missing")
    if unfit := [label for label in labels if not isinstance(label, str | int | np.integer)]:
        raise ValueError(
            f"labels of classes must be integers or texts, got {len(unfit)} others of {len(labels)}, as {unfit[0]!r}"
        )
    return labels.astype(str)


def _check_range(labels: Array, count: int) -> Array:
    if labels.dtype.kind not in "iub":
        raise ValueError(f"labels must be integers if their number of classes is given, got {labels.dtype}")
    outside = (labels < 0) | (labels >= count)
    if outside.any():
        raise ValueError(
            f"labels must be 0 … {count - 1} for {count} classes, got {int(outside.sum())} others, "
            f"as {labels[outside][0]}"
        )
    return labels.astype(np.int32)


def _read_numbers(name: str, values: ArrayLike) -> Array:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} must be an array of numbers: {error}") from None
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be an array of numbers, got {array.dtype}")
    return array


def _check_finite(name: str, unfit: Array, columns: Sequence[str] | None) -> None:
    counts = unfit.sum(axis=0)
    if counts.any():
        found = [
            f"{columns[i] if columns else i!r} ({counts[i]} of {len(unfit)})" for i in np.flatnonzero(counts).tolist()
        ]
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise ValueError(f"{name} must be finite in float32; it is not in column {', '.join(found[:3])}{more}")

"""Columns of an axis: arrays, and evenly spaced seeds, which are never expanded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, overload

import numpy as np

CHUNK = 1 << 16


@dataclass(frozen=True)
class EvenValues:
    """The seeds `start + step * i` for i from 0 to `count - 1`, uint32, `step` not 0.

    It is indexed like an array `(count,)`, by a place or by an array of places; memory does not depend on `count`.
    """

    start: int
    step: int
    count: int

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint32)

    def __len__(self) -> int:
        return self.count

    @overload
    def __getitem__(self, places: np.ndarray) -> np.ndarray: ...
    @overload
    def __getitem__(self, places: int | np.integer[Any]) -> np.uint32: ...
    def __getitem__(self, places: Any) -> Any:
        """The seeds at places from 0 to `count - 1`, uint32 of the same shape. Raises IndexError for others."""
        places = np.asarray(places, dtype=np.int64)
        if places.size and not 0 <= places.min() <= places.max() < self.count:
            raise IndexError(f"there are {self.count} values, none at {places}")
        return (self.start + self.step * places).astype(np.uint32)[()]

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.start + self.step * self.count, self.step))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All values at once, in chunks, so that a column of millions is never held in a wider type."""
        array = np.empty(self.count, dtype=np.uint32)
        for first in range(0, self.count, CHUNK):
            array[first : first + CHUNK] = self[np.arange(first, min(first + CHUNK, self.count))]
        return array if dtype is None else array.astype(dtype)

    def find(self, values: np.ndarray) -> np.ndarray:
        """The place of each value, int64 `(values,)`; -1 for one that is not among them."""
        places, rest = np.divmod(values.astype(np.int64) - self.start, self.step)
        return np.where((rest == 0) & (places >= 0) & (places < self.count), places, -1)


Column: TypeAlias = np.ndarray | EvenValues
"""The values of a traced scalar along an axis: uint32 for `seed`, float32 for all others, `(values,)`."""


def count_distinct(columns: Sequence[Column]) -> int:
    """How many distinct values several columns have together; ranges of consecutive seeds are not expanded."""
    if len(set(map(id, columns))) == 1 and isinstance(columns[0], EvenValues):
        return len(columns[0])
    spans = sorted((c.start, c.start + c.count) for c in columns if isinstance(c, EvenValues) and c.step == 1)
    others = [np.asarray(c) for c in columns if not (isinstance(c, EvenValues) and c.step == 1)]
    rest = np.unique(np.concatenate(others)) if others else np.empty(0)
    count, end = 0, 0
    for start, stop in spans:
        count += max(0, stop - max(start, end))
        rest = rest[(rest < start) | (rest >= stop)]
        end = max(end, stop)
    return count + len(rest)


def count_members(column: Column, values: np.ndarray) -> int:
    """How many values of a column are among some values."""
    if isinstance(column, EvenValues):
        return int((column.find(np.unique(values)) >= 0).sum())
    return int(np.isin(column, values).sum())

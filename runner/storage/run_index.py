"""A product of runs as the table tells them apart, and where in it a given run stands."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

CHUNK = 1 << 16

Values = Mapping[str, np.ndarray]
"""The traced scalars of some runs, each `(runs,)`."""


@dataclass(frozen=True)
class SegmentKey:
    """A segment of a product: the text of its static cells, and its traced values that no axis varies."""

    key: str
    base: Mapping[str, float]


@dataclass(frozen=True)
class RunIndex:
    """The runs that one call added to a study, numbered from `first`: of a product the first `stop`.

    Those that an earlier call had made have kept their number.
    SegmentKey after part, within one the product of the axes, the last one fastest: the order of `runner.plan`.
    """

    parts: tuple[SegmentKey, ...]
    axes: tuple[Values, ...]
    stop: int
    first: int = 0

    @cached_property
    def runs_per_part(self) -> int:
        return int(np.prod([len(next(iter(axis.values()))) for axis in self.axes], dtype=np.int64))

    @cached_property
    def _indices(self) -> "list[Any]":
        import pandas as pd  # half a second, which only a study that goes on has to spend

        return [
            pd.MultiIndex.from_arrays([*axis.values()]) if len(axis) > 1 else pd.Index(next(iter(axis.values())))
            for axis in self.axes
        ]

    @cached_property
    def _of_key(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for number, part in enumerate(self.parts):
            found.setdefault(part.key, []).append(number)
        return found

    def find(self, key: str, values: Values, count: int) -> np.ndarray:
        """The place of each of `count` runs in the product, int64 `(count,)`; -1 for one not in the extent."""
        found = np.full(count, -1, dtype=np.int64)
        candidates = self._of_key.get(key, [])
        if not candidates:
            return found
        within, known = np.zeros(count, dtype=np.int64), np.ones(count, dtype=bool)
        for axis, index in zip(self.axes, self._indices, strict=True):
            place = _lookup(index, [values[name] for name in axis])
            within, known = within * len(index) + place, known & (place >= 0)
        for number in candidates:
            here = known.copy()
            for name, base in self.parts[number].base.items():
                here &= values[name] == np.asarray(base, dtype=values[name].dtype)
            found[here] = number * self.runs_per_part + within[here]
        found[found >= self.stop] = -1
        return found


def _lookup(index: Any, columns: list[np.ndarray]) -> np.ndarray:
    import pandas as pd

    return index.get_indexer(pd.MultiIndex.from_arrays(columns) if len(columns) > 1 else columns[0])


def packed(extent: RunIndex) -> dict[str, Any]:
    """The extent as JSON holds it; a million seeds are three numbers, or the bytes of their array."""
    axes = [{name: _pack(column) for name, column in axis.items()} for axis in extent.axes]
    parts = [{"key": part.key, "base": dict(part.base)} for part in extent.parts]
    return {"parts": parts, "axes": axes, "stop": extent.stop, "first": extent.first}


def unpacked(data: Mapping[str, Any]) -> RunIndex:
    """The extent that was packed."""
    axes = tuple({name: _unpack(column) for name, column in axis.items()} for axis in data["axes"])
    parts = tuple(SegmentKey(part["key"], part["base"]) for part in data["parts"])
    return RunIndex(parts, axes, data["stop"], data["first"])


def same_product(a: RunIndex, b: RunIndex) -> bool:
    """Whether two extents are parts of the same product."""
    return {**packed(a), "stop": 0, "first": 0} == {**packed(b), "stop": 0, "first": 0}


def _pack(column: np.ndarray) -> dict[str, Any]:
    kind = column.dtype.name
    if kind == "uint32" and len(column) > 1:
        even = {"dtype": kind, "start": int(column[0]), "step": int(column[1]) - int(column[0]), "count": len(column)}
        if all(np.array_equal(column[i : i + CHUNK], _even(even, i)) for i in range(0, len(column), CHUNK)):
            return even
    if len(column) > 100:
        return {"dtype": kind, "bytes": base64.b64encode(column.tobytes()).decode()}
    return {"dtype": kind, "values": [float(value) if kind == "float32" else int(value) for value in column]}


def _even(data: Mapping[str, Any], first: int) -> np.ndarray:
    """A chunk of evenly spaced values: a column of millions is never held in a wider type."""
    places = np.arange(first, min(first + CHUNK, data["count"]))
    return (data["start"] + data["step"] * places).astype(np.uint32)


def _unpack(data: Mapping[str, Any]) -> np.ndarray:
    dtype = np.dtype(data["dtype"])
    if "step" in data:
        return np.concatenate([_even(data, i) for i in range(0, data["count"], CHUNK)])
    if "bytes" in data:
        return np.frombuffer(base64.b64decode(data["bytes"]), dtype=dtype)
    return np.array(data["values"], dtype=dtype)


def contains(extents: Sequence[RunIndex], key: str, values: Values, count: int) -> np.ndarray:
    """Whether each of `count` runs is in any of the extents, bool `(count,)`."""
    found = np.zeros(count, dtype=bool)
    for extent in extents:
        found |= extent.find(key, values, count) >= 0
    return found


def unique(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns of an axis without repetitions, the first of each kept."""
    rows = np.stack([column.astype(np.float64) for column in columns.values()])
    kept = np.sort(np.unique(rows, axis=1, return_index=True)[1])
    return {name: column[kept] for name, column in columns.items()}

"""The run index: which runs a study has, and where in its table each of them is."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from runner.errors import InvalidInputError
from runner.plan.even_values import CHUNK, Column, EvenValues
from runner.plan.segments import Plan
from runner.plan.values import SEED_STOP
from runner.storage.columns import TRACED_TYPES, Columns, cells_key, static_cells
from runner.storage.schema import ListOf, check_types
from runner.storage.text_cells import decode_text

TracedValues = Mapping[str, np.ndarray]
"""The traced scalars of some runs, each `(runs,)`."""

Find = Callable[[list[np.ndarray]], np.ndarray]
"""Finds the position on an axis of some values of its columns, int64 `(runs,)`; -1 for those that it does not have."""


@dataclass(frozen=True)
class SegmentKey:
    """What identifies a segment in a table: the text of its static cells, and its traced values outside of all axes."""

    key: str
    base: Mapping[str, float]

    @property
    def cells(self) -> dict[str, str]:
        """The static cells by column. Raises InvalidInputError if the key, which a file may have lost, has none."""
        try:
            cells = json.loads(self.key)
            check_types(cells, ListOf(ListOf(str, least=2)))
            return dict(cells)
        except (ValueError, TypeError) as error:
            raise InvalidInputError(f"the study's manifest is damaged: a segment has the key {self.key!r}") from error


@dataclass(frozen=True)
class RunIndex:
    """The runs that one call added to a study: of a product of segments and axes the first `stop`.

    The product is ordered as in `runner.plan.segments`. New runs are numbered from `first`; those that the study had
    already keep their numbers.
    """

    segments: tuple[SegmentKey, ...]
    axes: tuple[Mapping[str, Column], ...]
    stop: int
    first: int = 0

    @cached_property
    def runs_per_segment(self) -> int:
        return int(np.prod([len(next(iter(axis.values()))) for axis in self.axes], dtype=np.int64))

    @cached_property
    def _lookups(self) -> list[Find]:
        return [_build_lookup([*axis.values()]) for axis in self.axes]

    @cached_property
    def _numbers_of_key(self) -> dict[str, list[int]]:
        numbers: dict[str, list[int]] = {}
        for number, segment in enumerate(self.segments):
            numbers.setdefault(segment.key, []).append(number)
        return numbers

    def find_runs(self, key: str, values: TracedValues, count: int) -> np.ndarray:
        """The place of each of `count` runs in the product, int64 `(count,)`; -1 for a run that is not in the index.

        `key` is that of the runs' static cells, `values` are their traced scalars.
        """
        places = np.full(count, -1, dtype=np.int64)
        candidates = self._numbers_of_key.get(key, [])
        if not candidates:
            return places
        within, known = np.zeros(count, dtype=np.int64), np.ones(count, dtype=bool)
        for axis, find in zip(self.axes, self._lookups, strict=True):
            position = find([values[name] for name in axis])
            within, known = within * len(next(iter(axis.values()))) + position, known & (position >= 0)
        for number in candidates:
            here = known.copy()
            for name, base in self.segments[number].base.items():
                here &= values[name] == np.asarray(base, dtype=values[name].dtype)
            places[here] = number * self.runs_per_segment + within[here]
        places[places >= self.stop] = -1
        return places

    def has_same_product(self, other: "RunIndex") -> bool:
        """Whether both are parts of the same product."""
        return pack_index(replace(self, stop=0, first=0)) == pack_index(replace(other, stop=0, first=0))


def index_plan(plan: Plan, parameters: Mapping[str, str]) -> RunIndex:
    """The index of all runs of a plan, in a table with these parameter columns."""
    varying = {name for axis in plan.axes for name in axis.columns}
    segments = []
    for segment in plan.segments:
        base = {name: value for name, value in segment.traced.items() if name not in varying}
        segments.append(SegmentKey(cells_key(static_cells(segment, parameters)), base))
    return RunIndex(tuple(segments), tuple(axis.columns for axis in plan.axes), plan.runs)


def find_row(index: RunIndex, columns: Columns, cells: Mapping[str, str]) -> int:
    """The place in the index of a row, given by the text of its cells; -1 if it is not in the index."""
    traced = {n: kind for n, kind in columns.parameters.items() if kind in TRACED_TYPES and cells[n] != ""}
    static = {name: decode_text(cells[name]) for name in ("task", *columns.parameters) if name not in traced}
    values = {name: np.array([cells[name]]).astype(kind) for name, kind in traced.items()}
    return int(index.find_runs(cells_key(static), values, 1)[0])


def has_runs(indexes: Sequence[RunIndex], key: str, values: TracedValues, count: int) -> np.ndarray:
    """Whether each of `count` runs is in any of the indexes, bool `(count,)`."""
    known = np.zeros(count, dtype=bool)
    for index in indexes:
        known |= index.find_runs(key, values, count) >= 0
    return known


def _build_lookup(columns: list[Column]) -> Find:
    """How to find the position of values on an axis: by arithmetic along evenly spaced seeds, else in an index."""
    even = next((i for i, column in enumerate(columns) if isinstance(column, EvenValues)), None)
    if even is None:
        import pandas as pd  # half a second, which only a study that is resumed has to spend

        lookup = pd.MultiIndex.from_arrays(columns) if len(columns) > 1 else pd.Index(columns[0])
        return lambda values: lookup.get_indexer(pd.MultiIndex.from_arrays(values) if len(values) > 1 else values[0])
    return lambda values: _find_even(columns, even, values)


def _find_even(columns: list[Column], even: int, values: list[np.ndarray]) -> np.ndarray:
    seeds = columns[even]
    assert isinstance(seeds, EvenValues)
    positions = seeds.find(values[even])
    for column, wanted in zip(columns, values, strict=True):
        found = column[np.maximum(positions, 0)]
        positions = np.where((found == wanted) | ((found != found) & (wanted != wanted)), positions, -1)
    return positions


def pack_index(index: RunIndex) -> dict[str, Any]:
    """The index as JSON values; a million evenly spaced seeds take three numbers, other long axes are base64."""
    axes = [{name: _pack_column(column) for name, column in axis.items()} for axis in index.axes]
    segments = [{"key": segment.key, "base": dict(segment.base)} for segment in index.segments]
    return {"segments": segments, "axes": axes, "stop": index.stop, "first": index.first}


def unpack_index(data: Mapping[str, Any]) -> RunIndex:
    """The index that `pack_index` packed."""
    axes = tuple({name: _unpack_column(column) for name, column in axis.items()} for axis in data["axes"])
    segments = tuple(SegmentKey(segment["key"], segment["base"]) for segment in data["segments"])
    return RunIndex(segments, axes, data["stop"], data["first"])


def _pack_column(column: Column) -> dict[str, Any]:
    kind = column.dtype.name
    if kind == "uint32" and len(column) > 1:
        even = {"dtype": kind, "start": int(column[0]), "step": int(column[1]) - int(column[0]), "count": len(column)}
        if isinstance(column, EvenValues) or _has_values(column, even):
            return even
    column = np.asarray(column)
    if len(column) > 100:
        return {"dtype": kind, "bytes": base64.b64encode(column.tobytes()).decode()}
    return {"dtype": kind, "values": [float(value) if kind == "float32" else int(value) for value in column]}


def _has_values(column: np.ndarray, even: Mapping[str, Any]) -> bool:
    return all(np.array_equal(column[i : i + CHUNK], _even_values(even, i)) for i in range(0, len(column), CHUNK))


def _even_values(data: Mapping[str, Any], first: int) -> np.ndarray:
    """A chunk of evenly spaced values, so that a column of millions is never held in a wider type."""
    places = np.arange(first, min(first + CHUNK, data["count"]))
    return (data["start"] + data["step"] * places).astype(np.uint32)


def _unpack_column(data: Mapping[str, Any]) -> Column:
    dtype = np.dtype(data["dtype"])
    if "step" in data:
        last = data["start"] + data["step"] * (data["count"] - 1)
        if data["step"] and 0 <= last < SEED_STOP:
            return EvenValues(data["start"], data["step"], data["count"])
        # a zipped seed may repeat, and values may be evenly spaced modulo 2**32
        return np.concatenate([_even_values(data, i) for i in range(0, data["count"], CHUNK)])
    if "bytes" in data:
        return np.frombuffer(base64.b64decode(data["bytes"]), dtype=dtype)
    return np.array(data["values"], dtype=dtype)

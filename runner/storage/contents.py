"""What the run indexes of a study say about it: its tasks, the values that all of its runs share, and its axes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from runner.plan.even_values import Column, count_distinct
from runner.storage.run_index import RunIndex

MOST_VALUES = 100
"""Distinct values of an axis that are listed."""


@dataclass(frozen=True)
class Axis:
    """A parameter with several values: their number, the first `MOST_VALUES` of them, and the last one.

    Values of static parameters are the texts of their cells.
    """

    name: str
    count: int
    values: tuple[Any, ...]
    last: Any


def list_tasks(indexes: Iterable[RunIndex]) -> tuple[str, ...]:
    """The names of the tasks, in alphabetical order."""
    return tuple(sorted({segment.cells["task"] for index in indexes for segment in index.segments}))


def list_axes(indexes: Sequence[RunIndex]) -> list[Axis]:
    """The parameters with several values, the static ones first; memory does not depend on the number of values."""
    static = [Axis(n, len(v), tuple(v[:MOST_VALUES]), v[-1]) for n, v in _list_segment_values(indexes).items()]
    columns = _list_columns(indexes)
    traced = [Axis(name, count_distinct(own), *_list_first(own)) for name, own in columns.items()]
    found = {axis.name: axis for axis in [*static, *traced]}
    found.pop("task", None)
    return [axis for axis in found.values() if axis.count > 1]


def list_constants(indexes: Sequence[RunIndex]) -> dict[str, dict[str, Any]]:
    """For each task the parameters that have the same value in all of its runs."""
    varying = {*(axis.name for axis in list_axes(indexes)), *_list_columns(indexes)}
    constants: dict[str, dict[str, Any]] = {}
    for index in indexes:
        for segment in index.segments:
            cells = segment.cells
            own = constants.setdefault(cells.pop("task"), {})
            own |= {name: value for name, value in cells.items() if name not in varying}
            own |= {name: shorten_float(value) for name, value in segment.base.items() if name not in varying}
    for name, columns in _list_columns(indexes).items():
        if count_distinct(columns) == 1:
            for own in constants.values():
                own[name] = columns[0][0].item()
    return constants


def shorten_float(value: float) -> float:
    """A float32 as Python's float with the shortest digits that stand for it; an integer unchanged."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _list_segment_values(indexes: Iterable[RunIndex]) -> dict[str, list[Any]]:
    """The distinct values that segments have in a column, in the order in which they appear."""
    values: dict[str, dict[Any, None]] = {}
    for index in indexes:
        for segment in index.segments:
            for name, value in chain(segment.cells.items(), segment.base.items()):
                values.setdefault(name, {})[value] = None
    return {name: list(map(shorten_float, found)) for name, found in values.items()}


def _list_columns(indexes: Iterable[RunIndex]) -> dict[str, list[Column]]:
    columns: dict[str, list[Column]] = {}
    for index in indexes:
        for axis in index.axes:
            for name, column in axis.items():
                columns.setdefault(name, []).append(column)
    return columns


def _list_first(columns: Sequence[Column]) -> tuple[tuple[Any, ...], Any]:
    """The first distinct values of some columns, and the last value."""
    found: dict[Any, None] = {}
    for column in columns:
        head = column[np.arange(min(len(column), 2 * MOST_VALUES))]
        found |= dict.fromkeys(shorten_float(value) for value in np.asarray(head).tolist())
    last = np.asarray(columns[-1][np.array([len(columns[-1]) - 1])]).tolist()[0]
    return tuple(found)[:MOST_VALUES], shorten_float(last)

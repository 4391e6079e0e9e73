"""What the run indexes of a study say about it: its tasks, the values that all of its runs share, and its axes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
    static = [Axis(n, len(v), tuple(v[:MOST_VALUES]), v[-1]) for n, v in _list_texts(indexes).items()]
    numbers = _list_numbers(indexes)
    traced = [Axis(name, count_distinct(own), *_list_first(own)) for name, own in numbers.items()]
    found = {axis.name: axis for axis in [*static, *traced]}
    found.pop("task", None)
    return [axis for axis in found.values() if axis.count > 1]


def list_constants(indexes: Sequence[RunIndex]) -> dict[str, dict[str, Any]]:
    """For each task the parameters that have the same value in all of its runs."""
    axes = {axis.name for axis in list_axes(indexes)}
    varying = {*axes, *_list_columns(indexes)}
    constants: dict[str, dict[str, Any]] = {}
    for index in indexes:
        for segment in index.segments:
            cells = segment.cells
            own = constants.setdefault(cells.pop("task"), {})
            own |= {name: value for name, value in cells.items() if name not in varying}
            own |= {name: shorten_float(value) for name, value in segment.base.items() if name not in varying}
    for name, columns in _list_columns(indexes).items():
        if name not in axes:
            for own in constants.values():
                own[name] = shorten_float(columns[0][0].item())
    return constants


def shorten_float(value: float) -> float:
    """A float32 as Python's float with the shortest digits that stand for it; an integer unchanged."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _list_texts(indexes: Iterable[RunIndex]) -> dict[str, list[str]]:
    """The distinct cells that segments have in a column, in the order in which they appear."""
    texts: dict[str, dict[str, None]] = {}
    for index in indexes:
        for segment in index.segments:
            for name, text in segment.cells.items():
                texts.setdefault(name, {})[text] = None
    return {name: list(found) for name, found in texts.items()}


def _list_numbers(indexes: Sequence[RunIndex]) -> dict[str, list[Column]]:
    """The traced values by parameter: those that whole segments have, as a column of their own, and the columns."""
    bases: dict[str, dict[Any, None]] = {}
    for index in indexes:
        for segment in index.segments:
            for name, value in segment.base.items():
                bases.setdefault(name, {})[value] = None
    numbers: dict[str, list[Column]] = {}
    columns = _list_columns(indexes)
    for name, found in bases.items():
        own = columns.get(name, [])
        usual = np.float32 if any(isinstance(value, float) for value in found) else np.int64
        numbers[name] = [np.array(list(found), own[0].dtype if own else usual), *own]
    return {**numbers, **{name: own for name, own in columns.items() if name not in numbers}}


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

"""A study's runs, before any of them is executed: lazily multiplied axes, grouped by signature."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from runner.plan.contract import Kind, Task
from runner.plan.inputs import Input


@dataclass(frozen=True)
class Segment:
    """Runs that are neighbours in the table: one task with its static values, inputs and base values.

    `swept` holds the values of the axes that fix this segment, by the name of their column.
    """

    task: Task
    static: Mapping[str, Any]
    traced: Mapping[str, int | float]
    inputs: Mapping[str, Input]
    swept: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def signature(self) -> str:
        """Equal signatures, same program: task, static values, shapes and dtypes of the inputs."""
        static = json.dumps(dict(self.static), sort_keys=True, default=repr)
        inputs = " ".join(f"{name}={value}" for name, value in sorted(self.inputs.items()))
        return f"{self.task.target} {self.task.outputs} {static} {sorted(self.traced)} {inputs}"


@dataclass(frozen=True)
class Axis:
    """Traced parameters that vary together: columns of one length, uint32 for `seed`, float32 otherwise."""

    columns: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True)
class Study:
    """What one invocation asks for, as values."""

    segments: tuple[Segment, ...]
    axes: tuple[Axis, ...] = ()
    lanes: int | None = None
    """Lanes of every program; None follows the rule of `runner.program`."""
    block: int | None = None
    """Runs in a block; None follows the rule of `runner.program`."""
    threads: int | None = None
    """Threads that work through blocks; None takes one for each core."""
    left_out: int = 0
    """Runs that were asked for more than once."""


@dataclass(frozen=True)
class Block:
    """Runs of one segment: their places in the product of the axes, int64 `(runs,)`, and the first one's number."""

    segment: int
    places: np.ndarray
    first: int

    def __len__(self) -> int:
        return len(self.places)

    @property
    def numbers(self) -> np.ndarray:
        """The number of each run in the table."""
        return np.arange(self.first, self.first + len(self))


Left = Callable[[int, np.ndarray], np.ndarray]
"""Which of a segment's places are still to be run, as booleans."""


@dataclass(frozen=True)
class PendingRuns:
    """The runs of a plan that have no row in the table, and which of them are to be made now."""

    left: Left | None
    """All of them, where it is None."""
    counts: Sequence[int]
    """How many of each segment are left."""
    first: int
    """The number of the first; the others follow in order."""
    spans: Sequence[range]
    """The numbers of those that are to be made, ascending."""

    @cached_property
    def numbers(self) -> list[range]:
        """The numbers of each segment's runs."""
        stops = list(accumulate(self.counts, initial=self.first))
        return [range(start, stop) for start, stop in pairwise(stops)]

    @cached_property
    def missing(self) -> list[int]:
        """How many runs of each segment are to be made."""
        return [sum(len(_overlap(span, numbers)) for span in self.spans) for numbers in self.numbers]


def _overlap(a: range, b: range) -> range:
    return range(max(a.start, b.start), min(a.stop, b.stop))


CHUNK = 65536
"""Places that are looked at together; not a block, which is never larger than its program."""


@dataclass(frozen=True)
class Plan:
    """All runs of a study: segment after segment, within one the product of the axes, the last one fastest."""

    study: Study

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.study.axes)

    @cached_property
    def runs_per_segment(self) -> int:
        return math.prod(self.shape)

    @property
    def runs(self) -> int:
        return len(self.study.segments) * self.runs_per_segment

    @cached_property
    def groups(self) -> dict[str, list[int]]:
        """The segments of each signature, in the order of the table."""
        groups: dict[str, list[int]] = {}
        for index, segment in enumerate(self.study.segments):
            groups.setdefault(segment.signature, []).append(index)
        return groups

    def todo(self, left: Left | None = None, first: int = 0, spans: Sequence[range] | None = None) -> PendingRuns:
        """The runs that are left, numbered from `first`, of which those in `spans` are to be made; all, if None."""
        counts = [
            self.runs_per_segment if left is None else sum(map(len, self._left(index, left)))
            for index in range(len(self.study.segments))
        ]
        return PendingRuns(left, counts, first, [range(first, first + sum(counts))] if spans is None else spans)

    def blocks(self, sizes: Mapping[str, int], todo: PendingRuns) -> Iterator[Block]:
        """The runs that are to be made, in order, no block larger than its group's size."""
        for index, (segment, numbers) in enumerate(zip(self.study.segments, todo.numbers, strict=True)):
            size = sizes.get(segment.signature, CHUNK)  # a group without a size has no run to be made
            for first, places in _cut(self._wanted(index, numbers, todo), size):
                yield Block(index, places, first)

    def _wanted(self, segment: int, numbers: range, todo: PendingRuns) -> Iterator[tuple[int, np.ndarray]]:
        """The places of a segment's runs that are to be made: neighbours, with the number of the first."""
        spans = [span for span in todo.spans if _overlap(span, numbers)]
        first = numbers.start
        for places in self._left(segment, todo.left) if spans else ():
            for span in spans:
                if both := _overlap(span, range(first, first + len(places))):
                    yield both.start, places[both.start - first : both.stop - first]
            first += len(places)

    def _left(self, segment: int, left: Left | None) -> Iterator[np.ndarray]:
        for start in range(0, self.runs_per_segment, CHUNK):
            places = np.arange(start, min(start + CHUNK, self.runs_per_segment))
            yield places if left is None else places[left(segment, places)]

    def positions(self, places: np.ndarray) -> tuple[np.ndarray, ...]:
        """The places of runs on each axis."""
        return np.unravel_index(places, self.shape) if self.shape else ()

    def traced(self, segment: int, places: np.ndarray) -> dict[str, np.ndarray]:
        """The values of the traced scalars of a segment's runs, uint32 or float32 `(runs,)`."""
        varying = {
            name: column[position]
            for axis, position in zip(self.study.axes, self.positions(places), strict=True)
            for name, column in axis.columns.items()
        }
        task, bases = self.study.segments[segment].task, self.study.segments[segment].traced
        return {
            name: varying[name] if name in varying else np.full(len(places), base, scalar_dtype(task, name))
            for name, base in bases.items()
        }


def _cut(pieces: Iterator[tuple[int, np.ndarray]], size: int) -> Iterator[tuple[int, np.ndarray]]:
    """The same places, `size` at a time where they are neighbours, each with the number of the first."""
    first, rest = 0, np.empty(0, dtype=np.int64)
    for number, places in pieces:
        if len(rest) and number != first + len(rest):
            yield first, rest
            rest = rest[:0]
        first, rest = (first, np.concatenate([rest, places])) if len(rest) else (number, places)
        whole = len(rest) // size * size
        yield from ((first + start, rest[start : start + size]) for start in range(0, whole, size))
        first, rest = first + whole, rest[whole:]
    if len(rest):
        yield first, rest


def scalar_dtype(task: Task, name: str) -> type[np.generic]:
    """What a traced scalar is within a program: uint32 for the seed, else float32."""
    parameter = task.parameter(name)
    return np.uint32 if parameter and parameter.kind is Kind.SEED else np.float32

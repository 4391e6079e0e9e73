"""The plan of a study: segments and axes, whose product is never expanded."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from runner.contract.task import Built, Task
from runner.plan.datasets import Dataset
from runner.plan.even_values import Column
from runner.plan.inputs import Input
from runner.plan.templates import Template


@dataclass(frozen=True)
class Segment:
    """Adjacent runs of the table that share one task with its static values, inputs and base values.

    `traced` has the base values of all traced scalars, those that an axis varies included: floats and integers. A
    scalar within a built object has a dotted name. `swept` has the values that distinguish this segment from the
    others, by column name.
    """

    task: Task
    static: Mapping[str, Any]
    traced: Mapping[str, int | float]
    inputs: Mapping[str, Input | Dataset]
    swept: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def signature(self) -> str:
        """What determines the compiled program: task, static values, shapes and dtypes of the inputs."""
        static = json.dumps(dict(self.static), sort_keys=True, default=repr)
        inputs = " ".join(f"{name}={value}" for name, value in sorted(self.inputs.items()))
        return f"{self.task.target} {self.task.outputs} {static} {sorted(self.traced)} {inputs}"

    def list_values(self) -> dict[str, Any]:
        """The values for people: scalars, static values, and the shapes of arrays."""
        static = {name: value for name, value in self.static.items() if not isinstance(value, Built | Template)}
        arrays = {name: value for name, value in self.inputs.items() if isinstance(value, Input)}
        return {**self.traced, **static, **{f"{name}.shape": list(value.shape) for name, value in arrays.items()}}

    def scalar_dtype(self, name: str) -> type[np.generic]:
        """The dtype of a traced scalar within a program: uint32 for the seed, int32 for integers, else float32."""
        if name == "seed":
            return np.uint32
        return np.int32 if isinstance(self.traced[name], int) else np.float32


@dataclass(frozen=True)
class Axis:
    """Traced scalars that vary together: columns of equal length, uint32, int32 or float32."""

    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True)
class Plan:
    """All runs of a study, grouped, before any is executed.

    Runs are ordered segment by segment; within a segment they are the product of the axes, the last axis varying
    fastest. A run's *place* is its position in that product, int64 from 0 to `runs_per_segment - 1`.
    """

    segments: tuple[Segment, ...]
    axes: tuple[Axis, ...] = ()
    lanes: int | None = None
    """Lanes of every program; None applies the rule of `runner.program.cost`."""
    block: int | None = None
    """The most runs in a block; None applies the rule of `runner.program.cost`."""
    threads: int | None = None
    """Threads that execute blocks; None divides the cores by `cores_per_run`."""
    cores_per_run: int = 1
    """Threads of XLA's pool on a CPU, among which a single run is divided."""
    duplicates: int = 0
    """Runs that the sweep named more than once; each is run once."""
    devices: int | tuple[int, ...] | None = None
    """How many devices execute blocks, or which ones; None uses all of them."""
    search: Mapping[str, Any] = field(default_factory=dict)
    """What its points depend on if they were not listed: sampler, seed, space, versions; by labels for people."""

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.axes)

    @cached_property
    def runs_per_segment(self) -> int:
        return math.prod(self.shape)

    @property
    def runs(self) -> int:
        return len(self.segments) * self.runs_per_segment

    @cached_property
    def groups(self) -> dict[str, list[int]]:
        """The indices of the segments of each signature, in the order of the table."""
        groups: dict[str, list[int]] = {}
        for index, segment in enumerate(self.segments):
            groups.setdefault(segment.signature, []).append(index)
        return groups

    def positions(self, places: np.ndarray) -> tuple[np.ndarray, ...]:
        """The index on each axis of runs at `places`, int64 `(runs,)` each."""
        return np.unravel_index(places, self.shape) if self.shape else ()

    def traced(self, segment: int, places: np.ndarray) -> dict[str, np.ndarray]:
        """The traced scalars of a segment's runs at `places`, uint32, int32 or float32 `(runs,)` each."""
        varying = {
            name: column[position]
            for axis, position in zip(self.axes, self.positions(places), strict=True)
            for name, column in axis.columns.items()
        }
        owner = self.segments[segment]
        return {
            name: varying[name] if name in varying else np.full(len(places), base, owner.scalar_dtype(name))
            for name, base in owner.traced.items()
        }


def drop_duplicates(columns: Mapping[str, Column]) -> dict[str, Column]:
    """The columns of an axis without repeated rows; the first of each stays."""
    rows = [np.asarray(column, dtype=np.float64) for column in columns.values()]
    # a sort of numbers is many times faster than one of rows; NaN differs from itself in both
    values, axis = (np.stack(rows), 1) if len(rows) > 1 else (rows[0], None)
    first = np.sort(np.unique(values, axis=axis, return_index=True, equal_nan=False)[1])
    return {name: column[first] for name, column in columns.items()}


def intersect(a: range, b: range) -> range:
    """The numbers that are in both of two ranges of step 1."""
    return range(max(a.start, b.start), min(a.stop, b.stop))


def find_gaps(whole: range, spans: Sequence[range]) -> list[range]:
    """The parts of `whole` that none of the ascending `spans` covers."""
    bounds = [whole.start, *(bound for span in spans for bound in (span.start, span.stop)), whole.stop]
    return [range(start, stop) for start, stop in zip(bounds[::2], bounds[1::2], strict=True) if start < stop]

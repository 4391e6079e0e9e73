"""A study's runs, before any of them is executed: lazily multiplied axes, grouped by signature."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from runner.inputs import Input
from runner.task import Kind, Task


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


@dataclass(frozen=True)
class Block:
    """Runs `start` to `stop` of the whole table, all of one segment."""

    segment: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


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

    def blocks(self, sizes: Mapping[str, int]) -> Iterator[Block]:
        """The runs in order, cut so that no block is larger than its group's size."""
        for index, segment in enumerate(self.study.segments):
            first, size = index * self.runs_per_segment, sizes[segment.signature]
            for start in range(0, self.runs_per_segment, size):
                yield Block(index, first + start, first + min(start + size, self.runs_per_segment))

    def positions(self, block: Block) -> tuple[np.ndarray, ...]:
        """The place of each of the block's runs on each axis."""
        first = block.segment * self.runs_per_segment
        return np.unravel_index(np.arange(block.start - first, block.stop - first), self.shape) if self.shape else ()

    def traced(self, block: Block) -> dict[str, np.ndarray]:
        """The values of the traced scalars for each run of the block, uint32 or float32 `(runs,)`."""
        segment = self.study.segments[block.segment]
        varying = {
            name: column[position]
            for axis, position in zip(self.study.axes, self.positions(block), strict=True)
            for name, column in axis.columns.items()
        }
        return {
            name: varying[name] if name in varying else np.full(len(block), base, scalar_dtype(segment.task, name))
            for name, base in segment.traced.items()
        }


def scalar_dtype(task: Task, name: str) -> type[np.generic]:
    """What a traced scalar is within a program: uint32 for the seed, else float32."""
    parameter = task.parameter(name)
    return np.uint32 if parameter and parameter.kind is Kind.SEED else np.float32

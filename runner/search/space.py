"""The space of a search: its dimensions, and which of them each combination of options has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from runner.search.intervals import Interval
from runner.search.points import Point


@dataclass(frozen=True)
class Choice:
    """A key with some values, or a config group with its options."""

    key: str
    values: tuple[Any, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.values))


@dataclass(frozen=True)
class Steps:
    """A key with the integers `low`, `low + step`, … up to `high`."""

    key: str
    low: int
    high: int
    step: int

    def __str__(self) -> str:
        return f"range({self.low},{self.high + 1},{self.step})"


Dimension: TypeAlias = Interval | Choice | Steps


@dataclass(frozen=True)
class Space:
    """The groups, whose options are chosen first, and by each combination of them the dimensions that it has."""

    groups: tuple[Choice, ...]
    branches: Mapping[tuple[str, ...], tuple[Dimension, ...]]

    def __str__(self) -> str:
        dimensions = {d.key: str(d) for branch in self.branches.values() for d in (*self.groups, *branch)}
        return " ".join(f"{key}={dimensions[key]}" for key in sorted(dimensions))

    @property
    def is_conditional(self) -> bool:
        """Whether some combination of options has other dimensions than another one."""
        return len({tuple(d.key for d in branch) for branch in self.branches.values()}) > 1

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """All dimensions, the groups first."""
        found = {dimension.key: dimension for branch in self.branches.values() for dimension in branch}
        return (*self.groups, *found.values())

    def pick(self, unit: np.ndarray) -> Point:
        """The point at a place of the unit cube, which has a coordinate for each of `dimensions`."""
        coordinates = {d.key: float(u) for d, u in zip(self.dimensions, unit, strict=True)}
        options = {group.key: scale(group, coordinates[group.key]) for group in self.groups}
        branch = self.branches[tuple(options.values())]
        return options | {dimension.key: scale(dimension, coordinates[dimension.key]) for dimension in branch}


def scale(dimension: Dimension, unit: float) -> Any:
    """The value of a dimension at a place from 0 to 1."""
    if isinstance(dimension, Interval):
        value = float(dimension.scale(np.array([unit]))[0])
        return int(value) if dimension.is_integer else value
    values: Sequence[Any] = (
        dimension.values if isinstance(dimension, Choice) else range(dimension.low, dimension.high + 1, dimension.step)
    )
    return values[min(int(unit * len(values)), len(values) - 1)]

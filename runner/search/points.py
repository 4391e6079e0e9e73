"""What a search proposes and is told: points, and the outputs of their runs."""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Point: TypeAlias = Mapping[str, Any]
"""The values of some keys: numbers, texts, options of config groups."""


@dataclass(frozen=True)
class Results:
    """The outputs of the runs of some points, float64 `(points, runs of a point)` each, NaN where a run has none."""

    outputs: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Trial:
    """A point that a search has been told about, with the value of each objective, None if all its runs failed.

    `is_feasible` says whether it meets all constraints. `batch` counts from 0. `budget` is that of its runs, None
    where there is none.
    """

    point: Point
    values: tuple[float, ...] | None
    is_feasible: bool
    batch: int
    budget: int | None = None

    @property
    def objective(self) -> float | list[float]:
        """What somebody who searches is told of it: a number, or a list of several; NaN for a nonfinite result."""
        values = [math.nan] if self.values is None else list(self.values)
        return values[0] if len(values) == 1 else values


Proposals: TypeAlias = Generator[Sequence[Point], Results, tuple[Trial, ...]]
"""A search: it yields batches of points, is sent their results, and returns all of its trials."""

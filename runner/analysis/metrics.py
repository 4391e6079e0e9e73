"""What is known of a metric besides its values."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runner.analysis.replicates import Sample

ROUNDING = 32
"""Spacings of a dtype that a difference may have from rounding alone: the error of a sum of a thousand numbers."""


@dataclass(frozen=True)
class Metric:
    """What is known of a metric besides its values.

    `margin` is the smallest difference of interest; None is what rounding may do to values of this `resolution`, the
    relative spacing of their dtype. `is_binary` says that 0 and 1 are all there can be; None asks the values. Metrics
    that are not primary are exploratory: a family of their own.
    """

    name: str
    direction: str = ""
    is_primary: bool = True
    margin: float | None = None
    resolution: float = 2.0**-23
    is_binary: bool | None = None

    @property
    def sign(self) -> float:
        return -1.0 if self.direction == "minimize" else 1.0

    def has_shares(self, samples: Sequence[Sample]) -> bool:
        """Whether means of its values are shares of ones."""
        return is_binary(samples) if self.is_binary is None else self.is_binary


def is_binary(samples: Sequence[Sample]) -> bool:
    """Whether all values of a metric are 0 or 1, some of them 1."""
    values = np.concatenate([np.empty(0), *(sample.values for sample in samples)])
    return bool(len(values)) and bool(np.all((values == 0) | (values == 1))) and bool(values.any())


def find_margins(samples: Sequence[Sample], metric: Metric, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """The smallest difference of interest of each pair; without one what rounding may do to its values.

    These have the spacing of their dtype, and are computed in float32 if that is finer.
    """
    if metric.margin is not None:
        return np.full(len(pairs), metric.margin)
    relative = min(ROUNDING * metric.resolution, max(metric.resolution, ROUNDING * 2.0**-23))
    sizes = [float(np.abs(sample.values).mean()) if len(sample.values) else 0.0 for sample in samples]
    return np.array([relative * max(sizes[i], sizes[j]) for i, j in pairs], dtype=float)

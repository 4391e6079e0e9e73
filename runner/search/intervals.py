"""Intervals: continuous axes of a search, in Hydra's grammar `tag(log,interval(0.001,0.1))`."""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from runner.errors import InvalidInputError

LOG, INTEGER = "log", "int"
TAGS = (LOG, INTEGER)


@dataclass(frozen=True)
class Interval:
    """The numbers of one key from `low` to `high`, evenly or by their logarithm; integers include both bounds."""

    key: str
    low: float
    high: float
    is_log: bool = False
    is_integer: bool = False

    def __str__(self) -> str:
        """The interval as Hydra's grammar has it."""
        tags = [tag for tag, given in ((LOG, self.is_log), (INTEGER, self.is_integer)) if given]
        interval = f"interval({_format(self.low)},{_format(self.high)})"
        return f"tag({','.join(tags)},{interval})" if tags else interval

    def scale(self, unit: np.ndarray) -> np.ndarray:
        """The numbers at some positions from 0 to 1, float64 `(values,)`; whole ones for integers.

        Each integer has the same share of the positions, or by the logarithm that from half below to half above it.
        """
        half = 0.5 if self.is_integer else 0.0
        low, high = self.low - half, self.high + half
        if self.is_log:
            values = np.exp(math.log(low) + unit * (math.log(high) - math.log(low)))
        else:
            values = low + unit * (high - low)
        return np.clip(np.rint(values) if self.is_integer else values, self.low, self.high)


def list_logarithmic(values: Iterable[object]) -> list[str]:
    """The keys of those values that are intervals on a logarithmic scale."""
    return sorted(value.key for value in values if isinstance(value, Interval) and value.is_log)


def make_interval(key: str, low: float, high: float, tags: Collection[str]) -> Interval:
    """The interval of a key. Raises InvalidInputError for unknown tags, and for bounds that enclose nothing."""
    unknown = sorted(set(tags) - set(TAGS))
    if unknown:
        raise InvalidInputError(f"{key}: an interval has no tag {unknown[0]!r}; its tags are: {', '.join(TAGS)}")
    interval = Interval(key, low, high, LOG in tags, INTEGER in tags)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InvalidInputError(f"{key}={interval}: the bounds of an interval must be finite")
    if low >= high:
        raise InvalidInputError(f"{key}={interval}: the first bound must be below the second")
    if interval.is_log and low <= 0:
        raise InvalidInputError(f"{key}={interval}: an interval on a logarithmic scale must lie above 0")
    if interval.is_integer and not (float(low).is_integer() and float(high).is_integer()):
        raise InvalidInputError(f"{key}={interval}: the bounds of an interval of integers must be integers")
    return interval


def _format(bound: float) -> str:
    return str(int(bound)) if float(bound).is_integer() and abs(bound) < 2**53 else repr(float(bound))

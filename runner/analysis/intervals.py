"""Intervals of means, medians and shares of many points at once: arrays in, arrays out.

Each is two-sided at `1 - alpha`, and NaN where there is none. With m points, `alpha / m` makes them simultaneous
(Bonferroni), whatever the points have in common.
"""

import math
from functools import cache
from typing import Any

import numpy as np
from scipy import stats

Bounds = tuple[np.ndarray, np.ndarray]
"""Lower and upper bounds, `(points,)` each."""


def mean_bounds(mean: np.ndarray, spread: np.ndarray, count: np.ndarray, alpha: float) -> Bounds:
    """Student's interval of means from standard deviations of `count` values each; exact for normal values.

    There is none of fewer than two values, nor where they do not vary.
    """
    usable = (count > 1) & (spread > 0)
    degrees = np.where(usable, count - 1, 1)
    half = stats.t.isf(alpha / 2, degrees) * np.where(usable, spread, np.nan) / np.sqrt(np.maximum(count, 1))
    return mean - half, mean + half


def share_bounds(hits: np.ndarray, count: np.ndarray, alpha: float) -> Bounds:
    """The exact interval of probabilities (Clopper and Pearson, 1934), which never covers less than its level."""
    hits, count = np.asarray(hits, dtype=float), np.asarray(count, dtype=float)
    low = np.where(hits > 0, stats.beta.ppf(alpha / 2, np.maximum(hits, 0.5), count - hits + 1), 0.0)
    high = np.where(hits < count, stats.beta.isf(alpha / 2, hits + 1, np.maximum(count - hits, 0.5)), 1.0)
    return np.where(count > 0, low, np.nan), np.where(count > 0, high, np.nan)


def median_bounds(ordered: np.ndarray, alpha: float) -> tuple[float, float]:
    """The interval of the median between two order statistics (Thompson, 1936), of ascending values `(seeds,)`.

    It holds its level for any distribution; fewer than six values have none at 95 %.
    """
    rank = _find_rank(len(ordered), alpha)
    if rank < 0:
        return math.nan, math.nan
    return float(ordered[rank]), float(ordered[len(ordered) - 1 - rank])


@cache
def _find_rank(count: int, alpha: float) -> int:
    """How many of so many values are outside of each bound; -1 if there are no bounds."""
    if count == 0:
        return -1
    rank = int(stats.binom.ppf(alpha / 2, count, 0.5))
    return rank if stats.binom.cdf(rank, count, 0.5) <= alpha / 2 else rank - 1


def tolerance_factor(count: np.ndarray, share: float, level: float) -> np.ndarray:
    """How many standard deviations around the mean have `share` of a normal distribution with this confidence.

    By Howe (1969); NaN for fewer than two values.
    """
    degrees = np.where(count > 1, count - 1, np.nan)
    normal = stats.norm.isf((1 - share) / 2) * np.sqrt(1 + 1 / np.maximum(count, 1))
    return normal * np.sqrt(degrees / stats.chi2.ppf(1 - level, degrees))


def exceedance_bound(count: Any, level: float) -> Any:
    """The share of further seeds that are worse than the worst of `count`, at most, with this confidence.

    Distribution-free (Wilks, 1941): all of n independent values are better than a bound that a share s exceeds with
    probability (1 - s)^n.
    """
    return 1 - (1 - level) ** (1 / np.maximum(count, 1))

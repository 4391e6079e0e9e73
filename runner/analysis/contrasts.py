"""Differences between two points: each pair of samples is summarized once, then all pairs are tested together.

Interval and p-value of a pair come from one method, so that they agree: the interval at `1 - alpha` excludes zero where
p is less than `alpha`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from scipy import stats

from runner.analysis.intervals import share_bounds
from runner.analysis.replicates import Sample

PAIRED_SHARE = 0.8
"""If so many of the larger sample's replicates are shared, the others are left out, so that differences are paired."""
FEWEST_SHARED = 5
"""A correlation of fewer pairs is not known well enough to make a standard error smaller; it may make it larger."""


NEXT_TO_ZERO = 1e-6
"""A bound of a difference of shares that is shown not to be zero, and nothing more."""


class Kind(Enum):
    """Which replicates are compared, as the column `kind` has it."""

    PAIRED = "paired"
    PARTLY_PAIRED = "partly paired"
    UNPAIRED = "unpaired"


class Method(Enum):
    """The method of interval and p-value, as the column `interval` has it."""

    NONE = ""
    """There are fewer than two values."""
    PAIRED_T = "paired t"
    PARTLY_PAIRED_T = "partly paired t"
    """For partially overlapping samples with unequal variances (Derrick, Toher and White, 2017)."""
    WELCH = "Welch"
    MCNEMAR = "McNemar"
    """Exact, with the interval of `mcnemar_bounds`."""
    FISHER = "Fisher"
    """Exact, with the interval of `fisher_bounds`."""
    SIGN = "sign"
    """For differences without a variance, which have no other test than the sign test."""
    PERMUTATION = "permutation"
    """For two samples without a variance: the share of divisions of all values that separate them as well."""


@dataclass(frozen=True)
class Contrast:
    """One pair of samples: a first one minus a second one.

    `pairs` are the shared replicates, or the size of the smaller sample where pairs are not used. `error` and `degrees`
    belong to the t methods, `counts` to the exact ones: the pairs in which only the first or only the second is 1 and
    all pairs (McNemar), or ones and size of both samples (Fisher). `spread` is the standard deviation of paired
    differences, NaN without pairs. `gaps` are the paired differences, None without pairs.
    """

    kind: Kind
    method: Method
    pairs: int
    difference: float
    error: float = math.nan
    degrees: float = math.nan
    counts: tuple[int, ...] = ()
    spread: float = math.nan
    gaps: np.ndarray | None = None


@dataclass(frozen=True)
class PValues:
    """Of several contrasts, `(contrasts,)` each: the p-value, and that of a difference beyond the margin."""

    p: np.ndarray
    p_beyond: np.ndarray


def contrast_samples(a: Sample, b: Sample, *, is_binary: bool, resolution: float) -> Contrast:
    """The contrast of two samples; without a value of both there is none.

    It is paired where nearly all replicates are shared. Otherwise all values are used, with the covariance of those
    that are shared if there are enough. `resolution` is the relative spacing of the values: a spread of its size has
    come from rounding, and is none.
    """
    if not len(a.values) or not len(b.values):
        return Contrast(Kind.PAIRED, Method.NONE, 0, math.nan)
    left, right = _find_shared(a, b)
    shared, most = len(left), max(len(a.values), len(b.values))
    noise = resolution * max(np.abs(a.values).max(), np.abs(b.values).max())
    if shared >= max(1, PAIRED_SHARE * most):
        x, y = a.values[left], b.values[right]
        return _contrast_binary_pairs(x, y) if is_binary else _contrast_pairs(x - y, noise)
    if is_binary:
        return _contrast_counts(a.values, b.values, shared)
    return _contrast_all(a.values, b.values, left, right, noise)


def _find_shared(a: Sample, b: Sample) -> tuple[np.ndarray, np.ndarray]:
    """The places of the shared replicates in both samples."""
    if len(a.replicate) == len(b.replicate) and np.array_equal(a.replicate, b.replicate):
        places = np.arange(len(a.replicate))
        return places, places
    _, left, right = np.intersect1d(a.replicate, b.replicate, assume_unique=True, return_indices=True)
    return left, right


def _contrast_pairs(gaps: np.ndarray, noise: float) -> Contrast:
    count, mean = len(gaps), float(gaps.mean()) + 0.0
    if count < 2:
        return Contrast(Kind.PAIRED, Method.NONE, count, mean, gaps=gaps)
    spread = float(gaps.std(ddof=1))
    if spread <= noise:
        return Contrast(Kind.PAIRED, Method.SIGN, count, mean, spread=0.0, gaps=gaps)
    error = spread / math.sqrt(count)
    return Contrast(Kind.PAIRED, Method.PAIRED_T, count, mean, error, count - 1, spread=spread, gaps=gaps)


def _contrast_binary_pairs(x: np.ndarray, y: np.ndarray) -> Contrast:
    gaps, count = x - y, len(x)
    method = Method.MCNEMAR if count > 1 else Method.NONE
    counts = int((gaps > 0).sum()), int((gaps < 0).sum()), count
    spread = float(gaps.std(ddof=1)) if count > 1 else math.nan
    return Contrast(Kind.PAIRED, method, count, float(gaps.mean()) + 0.0, counts=counts, spread=spread, gaps=gaps)


def _contrast_counts(x: np.ndarray, y: np.ndarray, shared: int) -> Contrast:
    kind, fewer = Kind.PARTLY_PAIRED if shared else Kind.UNPAIRED, min(len(x), len(y))
    method = Method.FISHER if fewer > 1 else Method.NONE
    counts = int(x.sum()), len(x), int(y.sum()), len(y)
    return Contrast(kind, method, fewer, float(x.mean() - y.mean()) + 0.0, counts=counts)


def _contrast_all(x: np.ndarray, y: np.ndarray, left: np.ndarray, right: np.ndarray, noise: float) -> Contrast:
    """All values of both samples, of which some are paired."""
    kind = Kind.PARTLY_PAIRED if len(left) else Kind.UNPAIRED
    fewer, difference = min(len(x), len(y)), float(x.mean() - y.mean()) + 0.0
    if fewer < 2:
        return Contrast(kind, Method.NONE, fewer, difference)
    spreads = float(x.std(ddof=1)), float(y.std(ddof=1))
    if max(spreads) <= noise:
        return Contrast(kind, Method.PERMUTATION, fewer, difference, counts=(len(x), len(y)))
    parts = spreads[0] ** 2 / len(x), spreads[1] ** 2 / len(y)
    degrees = sum(parts) ** 2 / (parts[0] ** 2 / (len(x) - 1) + parts[1] ** 2 / (len(y) - 1))
    error = math.sqrt(sum(parts))
    if len(left) < 2 or min(spreads) <= noise:
        return Contrast(kind, Method.WELCH, fewer, difference, error, degrees)
    return _contrast_overlapping(
        x, y, left, right, Contrast(kind, Method.PARTLY_PAIRED_T, fewer, difference, error, degrees)
    )


def _contrast_overlapping(
    x: np.ndarray, y: np.ndarray, left: np.ndarray, right: np.ndarray, welch: Contrast
) -> Contrast:
    """Welch's contrast with the covariance of the pairs: T_new2 of Derrick, Toher and White (2017)."""
    shared, alone = len(left), len(x) + len(y) - 2 * len(left)
    u, v = x[left], y[right]
    correlation = float(np.corrcoef(u, v)[0, 1]) if u.std() > 0 and v.std() > 0 else 0.0
    if shared < FEWEST_SHARED:
        correlation = min(0.0, correlation)
    covariance = correlation * float(x.std(ddof=1) * y.std(ddof=1)) * shared / (len(x) * len(y))
    error = math.sqrt(welch.error**2 - 2 * covariance)
    degrees = welch.degrees
    if shared >= FEWEST_SHARED:
        degrees = (shared - 1) + (welch.degrees - shared + 1) / (alone + 2 * shared) * alone
    return Contrast(welch.kind, welch.method, welch.pairs, welch.difference, error, degrees)


_T_METHODS = (Method.PAIRED_T, Method.PARTLY_PAIRED_T, Method.WELCH)


def compute_p_values(contrasts: Sequence[Contrast], margins: np.ndarray) -> PValues:
    """The p-values of contrasts; of a difference beyond its margin by two one-sided tests (Schuirmann, 1987).

    NaN where there is no test, which for the second ones are all methods but those by t.
    """
    p, beyond = np.full(len(contrasts), np.nan), np.full(len(contrasts), np.nan)
    rows = _find_rows(contrasts, *_T_METHODS)
    difference, error, degrees = _stack(contrasts, rows)
    p[rows] = 2 * stats.t.sf(np.abs(difference) / error, degrees)
    beyond[rows] = stats.t.sf((margins[rows] - np.abs(difference)) / error, degrees)
    rows = _find_rows(contrasts, Method.MCNEMAR)
    counts = np.array([contrasts[i].counts for i in rows]).reshape(-1, 3)
    p[rows] = mcnemar_p(counts[:, 0], counts[:, 1])
    for i in _find_rows(contrasts, Method.FISHER):
        hits, count, other_hits, other_count = contrasts[i].counts
        p[i] = fisher_p(hits, count, other_hits, other_count)
    for i in _find_rows(contrasts, Method.SIGN, Method.PERMUTATION):
        p[i] = _separation_p(contrasts[i], margins[i])
    return PValues(p, beyond)


def bound_contrasts(contrasts: Sequence[Contrast], p: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """The intervals of contrasts at `1 - alpha`, that agree with their p-values; NaN where there is none."""
    low, high = np.full(len(contrasts), np.nan), np.full(len(contrasts), np.nan)
    rows = _find_rows(contrasts, *_T_METHODS)
    difference, error, degrees = _stack(contrasts, rows)
    half = stats.t.isf(alpha / 2, degrees) * error
    low[rows], high[rows] = difference - half, difference + half
    rows = _find_rows(contrasts, Method.MCNEMAR)
    counts = np.array([contrasts[i].counts for i in rows]).reshape(-1, 3)
    low[rows], high[rows] = mcnemar_bounds(counts[:, 0], counts[:, 1], counts[:, 2], alpha)
    for i in _find_rows(contrasts, Method.FISHER):
        hits, count, other_hits, other_count = contrasts[i].counts
        low[i], high[i] = fisher_bounds(hits, count, other_hits, other_count, alpha)
    for i in _find_rows(contrasts, Method.SIGN, Method.PERMUTATION):
        if p[i] < alpha:
            low[i] = high[i] = contrasts[i].difference
    return low, high


def _find_rows(contrasts: Sequence[Contrast], *methods: Method) -> list[int]:
    return [i for i, contrast in enumerate(contrasts) if contrast.method in methods]


def _stack(contrasts: Sequence[Contrast], rows: Sequence[int]) -> np.ndarray:
    """Difference, standard error and degrees of freedom of some contrasts, `(3, rows)`."""
    chosen = [(contrasts[i].difference, contrasts[i].error, contrasts[i].degrees) for i in rows]
    return np.array(chosen, dtype=float).reshape(-1, 3).T


def mcnemar_p(more: np.ndarray, less: np.ndarray) -> np.ndarray:
    """The exact p-value of McNemar's test (1947), from the numbers of discordant pairs of both kinds."""
    return np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(more, less), more + less, 0.5))


def mcnemar_bounds(
    more: np.ndarray, less: np.ndarray, pairs: np.ndarray, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """An interval of the difference of two paired shares that agrees with McNemar's exact test.

    The difference is d (2 q - 1): d the probability that a pair is discordant, q that such a pair favours the first.
    The exact interval of q excludes one half where the test rejects; it is scaled by that bound of d's exact interval
    that makes the result wider.
    """
    discordant = more + less
    fewest, most = share_bounds(discordant, pairs, alpha)
    least, largest = share_bounds(more, discordant, alpha)
    low = np.where(discordant > 0, 2 * least - 1, -1.0)
    high = np.where(discordant > 0, 2 * largest - 1, 1.0)
    return low * np.where(low < 0, most, fewest), high * np.where(high > 0, most, fewest)


def fisher_p(hits: int, count: int, other_hits: int, other_count: int) -> float:
    """The exact p-value of two independent shares: twice the smaller tail of Fisher's test."""
    law = stats.hypergeom(count + other_count, hits + other_hits, count)
    return float(min(1.0, 2 * min(law.cdf(hits), law.sf(hits - 1))))


def fisher_bounds(hits: int, count: int, other_hits: int, other_count: int, alpha: float) -> tuple[float, float]:
    """An interval of the difference of two independent shares that agrees with `fisher_p`.

    What the exact intervals of both shares permit together, each at half of `alpha`. They are wider than the test, so
    that a bound is moved beyond zero where only the test rejects.
    """
    lows, highs = share_bounds(np.array([hits, other_hits]), np.array([count, other_count]), alpha / 2)
    low, high = float(lows[0] - highs[1]), float(highs[0] - lows[1])
    if fisher_p(hits, count, other_hits, other_count) >= alpha:
        return min(low, 0.0), max(high, 0.0)
    is_more = hits / count > other_hits / other_count
    return (max(low, NEXT_TO_ZERO), high) if is_more else (low, min(high, -NEXT_TO_ZERO))


def _separation_p(contrast: Contrast, margin: float) -> float:
    """The p-value of a difference that does not vary: by signs of pairs, or by all divisions of both samples."""
    if abs(contrast.difference) <= margin:
        return 1.0
    if contrast.method is Method.SIGN:
        return min(1.0, 2.0 ** (1 - contrast.pairs))
    return min(1.0, 2 / math.comb(sum(contrast.counts), contrast.counts[0]))

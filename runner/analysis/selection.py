"""The best of many points: an estimate and an interval that allow for its having been chosen.

The largest of several means is too large: of 50 equal points with 5 seeds by a whole standard deviation. The hybrid
inference on winners of Andrews, Kitagawa and McCloskey (2024, Quarterly Journal of Economics 139) conditions on which point
won, and confines the answer to an interval that holds for all points at once. Standard errors of few seeds are
moderated first (Smyth, 2004, Statistical Applications in Genetics and Molecular Biology 3): as far as the points have
equal variances, they share them, and with them their degrees of freedom.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

SIMULTANEOUS_SHARE = 0.1
"""Of the error level, spent on the interval that confines the conditional one, as its authors recommend."""
FEWEST_POINTS = 4
"""From so many points on they share their variances; of fewer, how different they are cannot be told."""
WINNER, CONSTANT, NONE = "winner", "constant", ""


@dataclass(frozen=True)
class Moderated:
    """Standard errors of means, `(points,)`, and the degrees of freedom that each has after sharing variances."""

    errors: np.ndarray
    degrees: np.ndarray


def correct_best(
    means: np.ndarray,
    standard_errors: np.ndarray,
    degrees: np.ndarray,
    level: float,
    *,
    correlation: float = 0.0,
) -> tuple[float, float, float, str]:
    """The mean of the point with the largest of `means` `(points,)`: corrected estimate, bounds, and the method.

    The estimate is unbiased in the median: it is too large as often as too small. `degrees` are those of the
    standard errors, usually one less than the seeds. `correlation` is that of two points' values at the same seed, 0
    for points with seeds of their own; see `estimate_correlation`. NaN means, and points without an error, are no
    candidates. The bounds are NaN if the best point has no standard error.
    """
    known = np.isfinite(means) & np.isfinite(standard_errors) & (degrees > 0)
    best = int(np.nanargmax(np.where(np.isfinite(means), means, np.nan)))
    if not known[best]:
        return float(means[best]), math.nan, math.nan, NONE
    if not (standard_errors[known] > 0).any():
        return float(means[best]), float(means[best]), float(means[best]), CONSTANT
    shared = moderate_errors(standard_errors[known], degrees[known])
    errors = np.maximum(shared.errors, np.finfo(np.float64).tiny)
    place = int(np.flatnonzero(known).searchsorted(best))
    target = _describe_target(means[known], errors, place, correlation)
    return (*_invert(target, float(shared.degrees[place]), level), WINNER)


def moderate_errors(standard_errors: np.ndarray, degrees: np.ndarray) -> Moderated:
    """Standard errors `(points,)` shrunk towards those of a common variance, as far as their scatter permits.

    The variance of a point's values is taken as `standard_errors² · (degrees + 1)`. Below `FEWEST_POINTS` nothing is
    shared.
    """
    seeds = degrees + 1.0
    variances = standard_errors**2 * seeds
    usable = variances > 0
    if usable.sum() < FEWEST_POINTS:
        return Moderated(standard_errors, degrees.astype(float))
    prior, common = _fit_variances(variances[usable], degrees[usable].astype(float))
    if math.isinf(prior):
        pooled = float((variances * degrees).sum() / degrees.sum())
        return Moderated(np.sqrt(pooled / seeds), np.full(len(degrees), float(degrees.sum())))
    own = degrees.astype(float)
    moderated = (prior * common + own * variances) / (prior + own)
    return Moderated(np.sqrt(moderated / seeds), np.minimum(prior + own, float(degrees.sum())))


def _fit_variances(variances: np.ndarray, degrees: np.ndarray) -> tuple[float, float]:
    """The degrees of freedom and the scale of the scaled inverse χ² from which variances are drawn (Smyth, 2004)."""
    logs = np.log(variances) - special.digamma(degrees / 2) + np.log(degrees / 2)
    scatter = float(logs.var(ddof=1) - special.polygamma(1, degrees / 2).mean())
    if scatter < 1e-8:
        return math.inf, float(np.exp(logs.mean()))
    # the trigamma function falls from infinity to zero, so that it takes every scatter once
    half = math.exp(optimize.brentq(lambda x: float(special.polygamma(1, math.exp(x))) - scatter, -20.0, 20.0))
    return 2 * half, float(np.exp(logs.mean() + special.digamma(half) - math.log(half)))


def estimate_correlation(values: np.ndarray) -> float:
    """The correlation of two points' values at the same seed, from values `(points, seeds)` of equal seeds, from 0 to 1.

    The share of the variance within points that a two-way analysis of variance gives to the seeds.
    """
    points, seeds = values.shape
    if points < 2 or seeds < 2:
        return 0.0
    centred = values - values.mean(axis=1, keepdims=True)
    of_seeds = float((centred.mean(axis=0) ** 2).sum()) / (seeds - 1)
    rest = float(((centred - centred.mean(axis=0)) ** 2).sum()) / ((points - 1) * (seeds - 1))
    shared = max(0.0, of_seeds - rest / points)
    return shared / (shared + rest) if shared + rest > 0 else 0.0


@dataclass(frozen=True)
class _Target:
    """The mean that won, its standard error, between which bounds it wins, and how many points there are."""

    mean: float
    error: float
    low: float
    high: float
    points: int


def _describe_target(means: np.ndarray, errors: np.ndarray, best: int, correlation: float) -> _Target:
    """Between which values the best mean wins, given what is independent of it of the others (Lee et al., 2016)."""
    slopes = correlation * errors / errors[best]
    others = np.arange(len(means)) != best
    gaps, slopes = means[best] - means[others], slopes[others]
    with np.errstate(divide="ignore"):
        bounds = means[best] - gaps / (1 - slopes)
    lows, highs = bounds[slopes < 1], bounds[slopes > 1]
    low, high = float(lows.max(initial=-math.inf)), float(highs.min(initial=math.inf))
    return _Target(float(means[best]), float(errors[best]), low, high, len(means))


def _invert(target: _Target, degrees: float, level: float) -> tuple[float, float, float]:
    """The means at which what was seen is in the middle, and at each end, of its conditional distribution."""
    alpha = 1 - level
    spent = SIMULTANEOUS_SHARE * alpha
    bound = float(stats.t.ppf(0.5 + 0.5 * (1 - spent) ** (1 / target.points), degrees))  # Šidák's
    half = (alpha - spent) / (1 - spent) / 2
    found = [_solve(target, lambda x: special.stdtr(degrees, x), bound, share) for share in (0.5, 1 - half, half)]
    corrected, low, high = (target.mean + target.error * shift for shift in found)
    return corrected, low, high


def _solve(target: _Target, cdf: Callable[[float], float], bound: float, share: float) -> float:
    """The mean, in standard errors from the one seen, below whose values there is this share of the distribution."""
    low, high = (target.low - target.mean) / target.error, (target.high - target.mean) / target.error

    def share_below(shift: float) -> float:
        first, last = max(low - shift, -bound), min(high - shift, bound)
        below, between = cdf(-shift) - cdf(first), cdf(last) - cdf(first)
        return below / between if between > 0 else 0.5

    inner = bound * (1 - 1e-9)
    if share_below(-inner) <= share:
        return -inner
    if share_below(inner) >= share:
        return inner
    return float(optimize.brentq(lambda shift: share_below(shift) - share, -inner, inner, xtol=1e-6))

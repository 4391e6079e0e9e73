"""The best of many points: an estimate and an interval that allow for its having been chosen.

The largest of several means is too large: of 50 equal points with 5 seeds by a whole standard deviation.

The interval is the hybrid one of Andrews, Kitagawa and McCloskey (2024, Quarterly Journal of Economics 139), which
conditions on which point won, and is confined to an interval that holds for all points at once. The estimate leaves out
the excess that the best of such points has on average, found by simulation with means as far apart as these seem to be.
Where the points are plainly not one normal population, such as one far above the rest, it is the posterior mean under a
prior that is estimated without a form (Kiefer and Wolfowitz, 1956). The median of the hybrid distribution, which its
authors propose, is unbiased in the median, but often far too small among nearly equal points.

Standard errors of few seeds are moderated first (Smyth, 2004, Statistical Applications in Genetics and Molecular
Biology 3): as far as the points have equal variances, they share them, and with them their degrees of freedom.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

SIMULTANEOUS_SHARE = 0.1
"""Of the error level, spent on the interval that confines the conditional one, as its authors recommend."""
FEWEST_POINTS = 3
"""From so many points on they share their variances; of fewer, how different they are cannot be told."""
DRAWS = 1000
"""Studies that are simulated for the excess of the best point."""
GENERATOR = 20220101
"""Seed of the simulation: the same table gives the same estimate."""
MOST_NUMBERS = 2 * 10**7
"""Numbers that are drawn for it at most."""
CHUNK = 10**6
"""Numbers that are drawn at once."""
GRID = 60
"""Values that a mean may have under the prior without a form, besides some of the means themselves."""
RANKS = np.linspace(0, 1, 41)
"""Which ones."""
MOST_POINTS = 2000
"""Points from which this prior is estimated; some of them if there are more."""
STEPS = 150
"""Steps of the EM algorithm that estimates this prior."""
GAIN = 3.0
"""By so much the prior without a form must have the larger log-likelihood to be preferred to a normal one."""
WINNER, CONSTANT, NONE = "winner", "constant", ""


@dataclass(frozen=True)
class Moderated:
    """Standard errors of means, `(points,)`, and the degrees of freedom that each has after sharing variances."""

    errors: np.ndarray
    degrees: np.ndarray


FARTHEST = 2.0
"""Standard errors by which the interval may be beyond the expected excess of the largest of so many normal means."""


def correct_best(
    means: np.ndarray,
    standard_errors: np.ndarray,
    degrees: np.ndarray,
    level: float,
    *,
    correlation: float = 0.0,
) -> tuple[float, float, float, str]:
    """The mean of the point with the largest of `means` `(points,)`: corrected estimate, bounds, and the method.

    `degrees` are those of the standard errors, usually one less than the seeds. `correlation` is that of two points'
    values at the same seed, 0 for points with seeds of their own; see `estimate_correlation`. Points without a standard
    error are left out of the correction. The bounds are NaN if the best point is one of them, and so is the estimate
    where the interval would be farther below the mean than chance can have lifted it, or has no width.
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
    freedom = float(shared.degrees[place])
    low, high = _invert(_describe_target(means[known], errors, place, correlation), freedom, level)
    most = (math.sqrt(2 * math.log(known.sum())) + FARTHEST) * errors[place]
    # values far from normal, so much of a largest mean is never chance; or a tie, which leaves nothing to condition on
    if means[best] - high > most or not low < high:
        return math.nan, math.nan, math.nan, NONE
    # what the points have in common at a seed moves all means alike, and chooses no winner
    estimate = _estimate(means[known], errors * math.sqrt(1 - correlation), place)
    return min(max(estimate, low), high), low, high, WINNER


def _estimate(means: np.ndarray, errors: np.ndarray, best: int) -> float:
    """The best mean without the excess that comes from its choice."""
    if len(means) < 2 or not (errors > 0).all():
        return float(means[best])
    between = max(0.0, float(means.var(ddof=1) - (errors**2).mean()))
    density = stats.norm.logpdf(
        means, np.average(means, weights=1 / (between + errors**2)), np.sqrt(between + errors**2)
    )
    some = np.unique([best, *np.linspace(0, len(means) - 1, min(len(means), MOST_POINTS)).astype(int)])
    posterior, likelihood = _fit_prior(means[some], errors[some], int(some.searchsorted(best)))
    if likelihood - float(density[some].sum()) > GAIN:
        return posterior
    return float(means[best]) - _simulate_excess(means, errors, between)


def _simulate_excess(means: np.ndarray, errors: np.ndarray, between: float) -> float:
    """By how much the best of such points is too large on average, if their means have the variance `between`."""
    kept = math.sqrt(between / (between + float((errors**2).mean())))
    true = means.mean() + kept * (means - means.mean())
    rng, excess = np.random.default_rng(GENERATOR), []
    draws = max(100, min(DRAWS, MOST_NUMBERS // len(means)))
    rows = max(1, CHUNK // len(means))
    for first in range(0, draws, rows):
        noise = errors * rng.normal(size=(min(rows, draws - first), len(means)))
        excess.append(noise[np.arange(len(noise)), (true + noise).argmax(axis=1)])
    return float(np.concatenate(excess).mean())


def _fit_prior(means: np.ndarray, errors: np.ndarray, best: int) -> tuple[float, float]:
    """The posterior mean of the best point under the most likely prior on a grid, and its log-likelihood."""
    grid = np.unique(np.concatenate([np.linspace(means.min(), means.max(), GRID), np.quantile(means, RANKS)]))
    logs = stats.norm.logpdf(means[:, None], grid, errors[:, None])
    scale = logs.max(axis=1)
    density = np.exp(logs - scale[:, None])
    weights = np.full(len(grid), 1 / len(grid))
    for _ in range(STEPS):
        joint = density * weights
        weights = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
    joint = density * weights
    likelihood = float((np.log(joint.sum(axis=1)) + scale).sum())
    return float((joint[best] * grid).sum() / joint[best].sum()), likelihood


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
    """The correlation of two points' values at the same seed, from 0 to 1, from values `(points, seeds)`.

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


def _invert(target: _Target, degrees: float, level: float) -> tuple[float, float]:
    """The means for which what was seen is at either end of its conditional distribution."""
    alpha = 1 - level
    spent = SIMULTANEOUS_SHARE * alpha
    bound = float(stats.t.ppf(0.5 + 0.5 * (1 - spent) ** (1 / target.points), degrees))  # Šidák's
    half = (alpha - spent) / (1 - spent) / 2
    found = [_solve(target, lambda x: special.stdtr(degrees, x), bound, share) for share in (1 - half, half)]
    low, high = (target.mean + target.error * shift for shift in found)
    return low, high


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

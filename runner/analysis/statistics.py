"""Estimates over seeds and tests between points: numbers in, numbers out.

Where scipy has a procedure it is taken from there. Every interval is two-sided at a level such as 0.95.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy import optimize, stats

RESAMPLES = 1999
LARGE_SHIFT = 100.0
"""From this noncentrality on SciPy's noncentral t may not converge, or take a minute."""
POWER = 0.8
GENERATOR = 20220101
"""Seed of every bootstrap: the same table gives the same intervals."""


@dataclass(frozen=True)
class Interval:
    """Bounds with the name of the method; NaN and no name where there is no interval."""

    low: float
    high: float
    method: str


NO_INTERVAL = Interval(math.nan, math.nan, "")


def iqm(values: np.ndarray) -> float:
    """The interquartile mean: of what is left without a quarter of the values at each end (Agarwal et al., 2021)."""
    return float(stats.trim_mean(values, 0.25))


def mean_half_width(spread: Any, count: int, level: float) -> Any:
    """Half the width of Student's interval of a mean, from standard deviations of `count` values each."""
    return stats.t.ppf((1 + level) / 2, count - 1) * spread / math.sqrt(count)


def share_interval(wins: float, count: int, level: float) -> Interval:
    """An interval of a probability from `wins` of `count`, of which ties may be halves (Wilson, 1927)."""
    if count == 0:
        return NO_INTERVAL
    z, share = _normal_quantile(level), wins / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return Interval(max(0.0, middle - half), min(1.0, middle + half), "Wilson")


@cache
def _normal_quantile(level: float) -> float:
    return float(stats.norm.ppf((1 + level) / 2))


def improvement(a: np.ndarray, b: np.ndarray) -> float:
    """The probability that a value of `a` exceeds one of `b`, ties counted by half (Mann and Whitney, 1947)."""
    return _share_above(a, np.sort(b))


def improvement_interval(a: np.ndarray, b: np.ndarray, level: float) -> Interval:
    """An interval of `improvement` for independent samples (Brunner and Munzel, 2000).

    Samples that do not overlap have no variance to go by: Wilson's for the smaller one's size then.
    """
    if len(a) < 2 or len(b) < 2:
        return NO_INTERVAL
    share, ranks = improvement(a, b), stats.rankdata(np.concatenate([a, b]))
    placed_a = (ranks[: len(a)] - stats.rankdata(a)) / len(b)
    placed_b = (ranks[len(a) :] - stats.rankdata(b)) / len(a)
    parts = placed_a.var(ddof=1) / len(a), placed_b.var(ddof=1) / len(b)
    if sum(parts) == 0:
        return share_interval(share * min(len(a), len(b)), min(len(a), len(b)), level)
    degrees = sum(parts) ** 2 / (parts[0] ** 2 / (len(a) - 1) + parts[1] ** 2 / (len(b) - 1))
    half = float(stats.t.ppf((1 + level) / 2, degrees)) * math.sqrt(sum(parts))
    return Interval(max(0.0, share - half), min(1.0, share + half), "Brunner–Munzel")


def effect(differences: np.ndarray) -> float:
    """The mean of paired differences in units of their standard deviation (Cohen's d_z)."""
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    return float(differences.mean()) / spread if spread > 0 else math.nan


def effect_of(a: np.ndarray, b: np.ndarray) -> float:
    """The difference of two means in units of their pooled standard deviation (Cohen's d)."""
    spread = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2) if min(len(a), len(b)) > 1 else 0.0
    return float(a.mean() - b.mean()) / spread if spread > 0 else math.nan


def power(size: float, seeds: int, alpha: float) -> float:
    """The power of the two-sided paired t-test at an effect size d_z."""
    if seeds < 2:
        return 0.0
    bound, shift = float(stats.t.isf(alpha / 2, seeds - 1)), abs(size) * math.sqrt(seeds)
    if shift < LARGE_SHIFT:
        found = float(stats.nct.sf(bound, seeds - 1, shift) + stats.nct.cdf(-bound, seeds - 1, shift))
        if math.isfinite(found):
            return found
    # averaged over the sample's own standard deviation instead
    spread = np.sqrt(stats.chi2.ppf((np.arange(20000) + 0.5) / 20000, seeds - 1) / (seeds - 1))
    return float(np.mean(stats.norm.sf(bound * spread - shift) + stats.norm.cdf(-bound * spread - shift)))


@cache
def detectable(seeds: int, alpha: float) -> float:
    """The smallest effect size d_z that a paired t-test shows with 80 % power; NaN for fewer than two seeds."""
    if seeds < 2:
        return math.nan
    high = 1.0
    while power(high, seeds, alpha) < POWER:
        high *= 2
    return float(optimize.brentq(lambda size: power(size, seeds, alpha) - POWER, 0.0, high, rtol=1e-12))


def seeds_needed(size: float, alpha: float, most: int = 10**6) -> int | None:
    """The fewest seeds at which a paired t-test shows an effect size d_z with 80 % power; None beyond `most`."""
    if not math.isfinite(size) or size == 0 or power(size, most, alpha) < POWER:
        return None
    normal = float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(POWER))
    seeds = max(2, min(most, math.ceil((normal / size) ** 2)))  # never too many, and by a few too few
    while power(size, seeds, alpha) < POWER:
        seeds += 1
    return seeds


def count_seeds(sizes: np.ndarray, alpha: float, most: int = 10**6) -> np.ndarray:
    """The seeds at which paired t-tests show effect sizes d_z `(tests,)` with 80 % power, int64; -1 beyond `most`.

    By the sum of two quantiles of Student's distribution: it differs from `seeds_needed` by one seed at most.
    """
    sizes = np.where((sizes == 0) | ~np.isfinite(sizes), np.nan, np.abs(sizes))
    normal = (stats.norm.isf(alpha / 2) + stats.norm.ppf(POWER)) / sizes
    usable = normal**2 <= most
    low = np.where(usable, np.maximum(1.0, np.floor(normal**2)), 1.0)
    high = 3 * low + 20
    for _ in range(math.ceil(math.log2(high.max(initial=2.0))) + 1):
        middle = np.floor((low + high) / 2)
        degrees = np.maximum(1.0, middle - 1)
        enough = stats.t.isf(alpha / 2, degrees) + stats.t.ppf(POWER, degrees) <= np.sqrt(middle) * sizes
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(usable, np.maximum(2, high), -1).astype(np.int64)


FEWEST_TASKS = 5
"""Fewer tasks have no interval of the interquartile mean: that of two covered 84 to 94 % in simulations at 95 %."""


@dataclass(frozen=True)
class Aggregate:
    """One configuration over several tasks: IQM over all runs, mean and median of the tasks' means, with intervals."""

    iqm: float
    iqm_interval: Interval
    mean: float
    mean_interval: Interval
    median: float
    tasks: int
    runs: int


def aggregate(scores: list[np.ndarray], level: float) -> Aggregate:
    """The aggregate of scores, one array `(seeds,)` for each task (Agarwal et al., 2021).

    The IQM is over the runs of all tasks. Its interval is Student's by the variance of winsorized values within
    tasks (Tukey and McLaughlin, 1963), with the degrees of freedom of Satterthwaite (1946): the percentile bootstrap
    covers too little with few seeds. There is none for fewer than `FEWEST_TASKS` tasks. The mean of tasks' means has
    an interval for any number of tasks. Median is that of the tasks' means, as in the paper.
    """
    ordered = np.sort(np.concatenate(scores))
    runs, cut = len(ordered), int(0.25 * len(ordered))
    clipped = [np.clip(task, ordered[cut], ordered[runs - 1 - cut]) for task in scores]
    found = float(ordered[cut : runs - cut].mean())
    interval = NO_INTERVAL
    if len(scores) >= FEWEST_TASKS:
        interval = _stratify(found, clipped, [len(task) / (runs - 2 * cut) for task in scores], level)
    means = np.array([task.mean() for task in scores])
    mean = float(means.mean())
    of_mean = _stratify(mean, scores, [1 / len(scores)] * len(scores), level)
    return Aggregate(found, interval, mean, of_mean, float(np.median(means)), len(scores), runs)


def _stratify(estimate: float, scores: list[np.ndarray], weights: list[float], level: float) -> Interval:
    """The interval of an estimate to which each task's mean contributes with a weight."""
    if min(map(len, scores)) < 2:
        return NO_INTERVAL
    parts = [weight**2 * float(task.var(ddof=1)) / len(task) for weight, task in zip(weights, scores, strict=True)]
    total = sum(parts)
    if total == 0:
        return NO_INTERVAL
    degrees = total**2 / sum(part**2 / (len(task) - 1) for part, task in zip(parts, scores, strict=True))
    half = float(stats.t.isf((1 - level) / 2, degrees)) * math.sqrt(total)
    return Interval(estimate - half, estimate + half, "t over tasks")


def optimality_gap(scores: list[np.ndarray]) -> float:
    """By how much scores are below 1 on average, those above counted as 1, averaged over tasks (as above)."""
    return float(np.mean([np.mean(1 - np.minimum(task, 1.0)) for task in scores]))


def average_improvement(a: list[np.ndarray], b: list[np.ndarray], level: float) -> tuple[float, Interval]:
    """The probability of improvement of `a` over `b`, averaged over tasks, by stratified bootstrap (as above)."""
    rng = np.random.default_rng(GENERATOR)
    drawn = np.zeros(RESAMPLES)
    for x, y in zip(a, b, strict=True):
        xs, ys = (v[rng.integers(0, len(v), (RESAMPLES, len(v)))] for v in (x, y))
        ordered = np.sort(ys, axis=1)
        drawn += [_share_above(one, other) for one, other in zip(xs, ordered, strict=True)]
    low, high = np.quantile(drawn / len(a), [(1 - level) / 2, (1 + level) / 2])
    estimate = float(np.mean([improvement(x, y) for x, y in zip(a, b, strict=True)]))
    return estimate, Interval(float(low), float(high), "stratified bootstrap")


def _share_above(values: np.ndarray, ordered: np.ndarray) -> float:
    below, up_to = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return float((below + up_to).sum() / (2 * len(values) * len(ordered)))


def profile(scores: list[np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """The performance profile `(thresholds,)`: the share of runs above each, averaged over tasks (as above)."""
    return np.mean([(task[None, :] > thresholds[:, None]).mean(axis=1) for task in scores], axis=0)

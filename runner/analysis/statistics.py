"""Estimates over seeds and tests between points: numbers in, numbers out.

Where scipy has a procedure it is taken from there. Every interval is two-sided at a level such as 0.95.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy import optimize, stats

BOOTSTRAP_SEEDS = 30
"""From so many values on an interval of the mean is a bootstrap: one of 3 would cover 75 %, one of 20 92 %."""
MANY_SEEDS = 500
"""From so many values on it is Student's again: both agree, and a bootstrap of a thousand points would take minutes."""
RESAMPLES = 1999
POWER = 0.8
GENERATOR = 20220101
"""Seed of every bootstrap: the same table gives the same intervals."""

T, BCA, CONSTANT, NONE = "t", "BCa", "constant", ""


@dataclass(frozen=True)
class Interval:
    """Bounds with the name of the method; NaN and no name where there is no interval."""

    low: float
    high: float
    method: str


NO_INTERVAL = Interval(math.nan, math.nan, NONE)


def iqm(values: np.ndarray) -> float:
    """The interquartile mean: of what is left without a quarter of the values at each end (Agarwal et al., 2021)."""
    return float(stats.trim_mean(values, 0.25))


def mean_interval(values: np.ndarray, level: float) -> Interval:
    """An interval of the mean of values `(seeds,)` that holds its level at few seeds.

    Student's t below 30 values and from 500 on, between them the bias-corrected and accelerated bootstrap.
    """
    count = len(values)
    if count < 2:
        return NO_INTERVAL
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    if spread == 0:
        return Interval(mean, mean, CONSTANT)
    if BOOTSTRAP_SEEDS <= count < MANY_SEEDS:
        found = stats.bootstrap(
            (values,), np.mean, n_resamples=RESAMPLES, confidence_level=level, rng=np.random.default_rng(GENERATOR)
        ).confidence_interval
        if math.isfinite(found.low) and math.isfinite(found.high):
            return Interval(float(found.low), float(found.high), BCA)
    half = float(mean_half_width(spread, count, level))
    return Interval(mean - half, mean + half, T)


def mean_half_width(spread: Any, count: int, level: float) -> Any:
    """Half the width of Student's interval of a mean, from standard deviations of `count` values each."""
    return stats.t.ppf((1 + level) / 2, count - 1) * spread / math.sqrt(count)


def welch_interval(a: np.ndarray, b: np.ndarray, level: float) -> Interval:
    """An interval of `mean(a) - mean(b)` of independent samples with unequal variances (Welch, 1947)."""
    if len(a) < 2 or len(b) < 2:
        return NO_INTERVAL
    difference = float(a.mean() - b.mean())
    if a.std() == 0 and b.std() == 0:
        return Interval(difference, difference, CONSTANT)
    found = stats.ttest_ind(a, b, equal_var=False).confidence_interval(level)
    return Interval(float(found.low), float(found.high), "Welch")


def share_interval(wins: float, count: int, level: float) -> Interval:
    """An interval of a probability from `wins` of `count`, of which ties may be halves (Wilson, 1927)."""
    if count == 0:
        return NO_INTERVAL
    z, share = float(stats.norm.ppf((1 + level) / 2)), wins / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return Interval(max(0.0, middle - half), min(1.0, middle + half), "Wilson")


def improvement(a: np.ndarray, b: np.ndarray) -> float:
    """The probability that a value of `a` exceeds one of `b`, ties counted by half (Mann and Whitney, 1947)."""
    return float(stats.mannwhitneyu(a, b).statistic / (len(a) * len(b)))


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


def paired_p(differences: np.ndarray) -> tuple[float, float]:
    """The p-values of the paired t-test and of Wilcoxon's signed-rank test; NaN where there is none."""
    if len(differences) < 2:
        return math.nan, math.nan
    if not differences.any():
        return 1.0, 1.0
    spread = differences.std(ddof=1)
    t = float(stats.ttest_1samp(differences, 0.0).pvalue) if spread > 0 else 0.0
    return t, float(stats.wilcoxon(differences).pvalue)


def welch_p(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The p-values of Welch's t-test and of the Mann–Whitney test; NaN where there is none."""
    if len(a) < 2 or len(b) < 2:
        return math.nan, math.nan
    if a.std() == 0 and b.std() == 0:
        return float(a[0] == b[0]), float(stats.mannwhitneyu(a, b).pvalue)
    return float(stats.ttest_ind(a, b, equal_var=False).pvalue), float(stats.mannwhitneyu(a, b).pvalue)


def smallest_p(n: int, m: int | None = None) -> float:
    """The smallest p-value that `n` pairs can have by Wilcoxon's test, or `n` and `m` values by Mann and Whitney's."""
    if n == 0 or m == 0:
        return 1.0
    return min(1.0, 2 / math.comb(n + m, n) if m is not None else 2.0 ** (1 - n))


def holm(p: np.ndarray) -> np.ndarray:
    """p-values `(tests,)` adjusted for their number (Holm, 1979); NaN stays, and is no test."""
    adjusted, known = np.full(len(p), np.nan), np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    scaled = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return adjusted


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
    bound, shift = float(stats.t.ppf(1 - alpha / 2, seeds - 1)), abs(size) * math.sqrt(seeds)
    found = float(stats.nct.sf(bound, seeds - 1, shift) + stats.nct.cdf(-bound, seeds - 1, shift))
    if math.isfinite(found):
        return found
    # the noncentral distribution is lost at large shifts: averaged over the sample's own standard deviation instead
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


@dataclass(frozen=True)
class Aggregate:
    """One configuration over several tasks: its IQM, mean and median over all runs, with bootstrap intervals."""

    iqm: float
    iqm_interval: Interval
    mean: float
    median: float
    tasks: int
    runs: int


def aggregate(scores: list[np.ndarray], level: float) -> Aggregate:
    """The aggregate of scores, one array `(seeds,)` for each task (Agarwal et al., 2021).

    The IQM is over the runs of all tasks; its interval is the percentile bootstrap that resamples the seeds
    within each task. Median is that of the tasks' means, as in the paper.
    """
    rng, pooled = np.random.default_rng(GENERATOR), np.concatenate(scores)
    resampled = np.concatenate([task[rng.integers(0, len(task), (RESAMPLES, len(task)))] for task in scores], axis=1)
    found = stats.trim_mean(resampled, 0.25, axis=1)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    interval = Interval(float(low), float(high), "stratified bootstrap") if len(pooled) > len(scores) else NO_INTERVAL
    means = np.array([task.mean() for task in scores])
    return Aggregate(iqm(pooled), interval, float(means.mean()), float(np.median(means)), len(scores), len(pooled))


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

"""Claims from samples: estimates of all points, differences between points, and what these show together.

The family of a study is all that its tables show: each interval and p-value is adjusted for the number of comparisons
over all rows and metrics, or over the primary metrics if some are declared. The adjustment is single-step (Bonferroni),
so that an interval excludes zero exactly where the adjusted p-value is below the level. A best point that the data have
chosen is one end of any of the pairs, so that the family of the best against the rest is all pairs.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from runner.analysis import statistics
from runner.analysis.contrasts import (
    Contrast,
    Method,
    bound_contrasts,
    compute_p_values,
    contrast_samples,
    fisher_p,
    mcnemar_p,
)
from runner.analysis.intervals import exceedance_bound, mean_bounds, median_bounds, share_bounds, tolerance_factor
from runner.analysis.replicates import Failures, Sample, Samples, impute_worst, share_lost

ROUNDING = 32
"""Spacings of a dtype that a difference may have from rounding alone: the error of a sum of a thousand numbers."""
TAIL = 0.1
"""The share of the worst seeds whose mean is the conditional value at risk."""
CONTENT = 0.9
"""The share of all seeds that a tolerance interval contains."""


class Against(Enum):
    """With whom points are compared, if not with given ones."""

    BEST = "best"
    """With the best point of the metric; with the first one, if the metric has no direction."""
    ALL = "all"
    """All pairs."""


class Conclusion(Enum):
    """What a comparison shows, as the column `conclusion` has it."""

    BETTER = "better"
    WORSE = "worse"
    DIFFERS = "differs"
    """Of a metric without a direction."""
    SAME = "same"
    """Within the margin, by two one-sided tests, or equal at all seeds."""
    NOT_SHOWN = "not shown"
    ONE_SEED = "one seed"
    """There is no variance, and so no test, with one seed."""
    NO_VARIANCE = "no variance"
    """The difference does not vary, and there are too few seeds for a test that needs no variance."""
    FAILS_MORE = "fails more"
    """More replicates have failed, which is significant, or what is left of them looks better."""
    FAILS_LESS = "fails less"
    """The same of the point that it is compared with."""


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


@dataclass(frozen=True)
class Claims:
    """Rows of the tables `points` and `differences`, without the labels of the points.

    `points` has a row for each metric and point with outcomes, whose index is in `point`. `differences` has one for
    each pair, the indexes of its points in `point` and `partner`. `best` has for each metric the best point of each
    group; `families` for primary (True) and exploratory (False) metrics the number of comparisons that p-values allow
    for.
    """

    points: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    best: Mapping[str, Mapping[Hashable, int]] = field(default_factory=dict)
    families: Mapping[bool, int] = field(default_factory=dict)


def compare_samples(
    samples: Samples,
    metrics: Mapping[str, Metric] | None = None,
    *,
    level: float = 0.95,
    alpha: float | None = None,
    against: Against | Sequence[int] = Against.BEST,
    groups: Sequence[Hashable] | None = None,
    failures: Failures = Failures.DROP,
) -> Claims:
    """Estimates of all points, and their differences with what they show.

    `samples` has for each metric one sample per point. `level` is that of the estimates' intervals, `alpha` the level
    that all claims of this look share, by default `1 - level`. `against` may be the index of each point's partner, its
    own for none. Only points of equal `groups`, such as tasks, are compared with one another. `planned` has the
    replicates of each point with the pending ones.

    >>> from runner.analysis.replicates import make_sample
    >>> low, high = (make_sample(np.array(values)) for values in ([1.0, 1.2, 1.1, 0.9], [3.0, 3.1, 3.3, 2.9]))
    >>> claims = compare_samples({"loss": [low, high]}, {"loss": Metric("loss", "minimize")})
    >>> [(row["point"], row["partner"], row["conclusion"]) for row in claims.differences]
    [(1, 0, 'worse')]
    """
    metrics = {name: Metric(name) for name in samples} if metrics is None else metrics
    alpha = 1 - level if alpha is None else alpha
    used = {name: _impute(own, metrics[name], failures) for name, own in samples.items()}
    points, best = [], {}
    for name, own in used.items():
        points += _estimate_points(own, metrics[name], level)
        best[name] = _find_best(own, metrics[name], groups or [0] * len(own))
    tests = {name: _test_metric(own, metrics[name], against, best[name], groups) for name, own in used.items()}
    families = {flag: sum(t.size for t in tests.values() if t.metric.is_primary is flag) for flag in (True, False)}
    differences = []
    for name, tested in tests.items():
        differences += _list_differences(tested, used[name], alpha, max(1, families[tested.metric.is_primary]))
    return Claims(points, differences, best, families)


def is_binary(samples: Sequence[Sample]) -> bool:
    """Whether all values of a metric are 0 or 1, some of them 1."""
    values = np.concatenate([np.empty(0), *(sample.values for sample in samples)])
    return bool(len(values)) and bool(np.all((values == 0) | (values == 1))) and bool(values.any())


def _impute(samples: Sequence[Sample], metric: Metric, failures: Failures) -> Sequence[Sample]:
    is_imputed = failures is Failures.WORST and metric.direction
    return impute_worst(samples, metric.direction) if is_imputed else samples


def _is_binary(samples: Sequence[Sample], metric: Metric) -> bool:
    return is_binary(samples) if metric.is_binary is None else metric.is_binary


# estimates


def _estimate_points(samples: Sequence[Sample], metric: Metric, level: float) -> list[dict[str, Any]]:
    """The rows of a metric's points; their intervals are simultaneous over the points with values."""
    rows = [_describe_sample(sample, metric) for sample in samples]
    columns = {name: np.array([row[name] for row in rows], dtype=float) for name in ("mean", "std", "count")}
    mean, spread, count = columns["mean"], columns["std"], columns["count"]
    alpha = (1 - level) / max(1, int((count > 0).sum()))
    noise = metric.resolution * np.abs(mean)
    spread = np.where(spread <= noise, 0.0, spread)
    has_shares = _is_binary(samples, metric)
    hits = np.nan_to_num(mean) * count
    (low, high), (one_low, one_high) = (
        share_bounds(np.rint(hits), count, each) if has_shares else mean_bounds(mean, spread, count, each)
        for each in (alpha, 1 - level)
    )
    factor = np.full(len(rows), np.nan) if has_shares else tolerance_factor(count, CONTENT, level)
    lost, total = (np.array([row[name] for row in rows]) for name in ("lost", "total"))
    failed_low, failed_high = share_bounds(lost, total, 1 - level)
    worse = exceedance_bound(count, level)
    for i, row in enumerate(rows):
        row |= {"point": i, "low": low[i], "high": high[i], "failed_low": failed_low[i], "failed_high": failed_high[i]}
        row |= {"interval": _name_interval(has_shares, int(count[i]), float(spread[i]))}
        row |= {"pointwise_low": one_low[i], "pointwise_high": one_high[i]}
        row["median_low"], row["median_high"] = median_bounds(np.sort(samples[i].values), 1 - level)
        row |= {"tolerance_low": mean[i] - factor[i] * spread[i], "tolerance_high": mean[i] + factor[i] * spread[i]}
        row["worse_share"] = worse[i] if metric.direction and count[i] else math.nan
    return [_order_columns(row, metric) for row in rows if row["total"]]


def _name_interval(has_shares: bool, count: int, spread: float) -> str:
    if has_shares:
        return "Clopper–Pearson" if count else ""
    if count < 2:
        return ""
    return "t" if spread > 0 else "constant"


def _describe_sample(sample: Sample, metric: Metric) -> dict[str, Any]:
    """What a sample has by itself."""
    values, count = sample.values, len(sample.values)
    row: dict[str, Any] = {"count": count, "total": sample.finished + sample.failed, "lost": len(sample.lost)}
    row |= {"finished": sample.finished, "nonfinite": sample.nonfinite, "failed": sample.failed}
    row["nonfinite_share"] = sample.nonfinite / sample.finished if sample.finished else math.nan
    empty = ("mean", "median", "iqm", "std", "min", "max", "cvar")
    seeds = ("min_seed", "max_seed", "worst_seed")
    if not count:
        return row | dict.fromkeys(empty, math.nan) | dict.fromkeys(seeds)
    ordered, least, most = np.sort(values), int(np.argmin(values)), int(np.argmax(values))
    ends = {"minimize": most, "maximize": least}
    tail = ordered if metric.sign > 0 else ordered[::-1]
    quarter = int(0.25 * count)
    is_constant = ordered[0] == ordered[-1]
    return row | {
        "mean": float(ordered[0] if is_constant else values.mean()) + 0.0,
        "median": float(ordered[(count - 1) // 2] + ordered[count // 2]) / 2,
        "iqm": float(ordered[quarter : count - quarter].mean()),
        "std": (0.0 if is_constant else float(values.std(ddof=1))) if count > 1 else math.nan,
        "min": float(values[least]),
        "min_seed": _name_seed(sample, least),
        "max": float(values[most]),
        "max_seed": _name_seed(sample, most),
        "worst_seed": _name_seed(sample, ends[metric.direction]) if metric.direction else None,
        "cvar": float(tail[: max(1, math.ceil(TAIL * count))].mean()) if metric.direction else math.nan,
    }


def _name_seed(sample: Sample, place: int) -> int | None:
    seed = int(sample.seed[place])
    return seed if seed >= 0 else None


COLUMNS = (
    *(
        "point",
        "metric",
        "finished",
        "nonfinite",
        "failed",
        "nonfinite_share",
        "failed_low",
        "failed_high",
        "mean",
        "low",
    ),
    *("high", "interval", "median", "iqm", "std", "min", "min_seed", "max", "max_seed", "worst_seed", "pointwise_low"),
    *("pointwise_high", "median_low", "median_high", "tolerance_low", "tolerance_high", "cvar", "worse_share"),
)
"""The columns of `points` that this module makes."""


def _order_columns(row: Mapping[str, Any], metric: Metric) -> dict[str, Any]:
    named = {**row, "metric": metric.name}
    return {name: float(named[name]) if isinstance(named[name], np.floating) else named[name] for name in COLUMNS}


# the best, and pairs


def _find_best(samples: Sequence[Sample], metric: Metric, groups: Sequence[Hashable]) -> dict[Hashable, int]:
    """For each group the point with the best mean; empty without a direction.

    Points that are shown to fail more than the one that fails least do not compete: the seeds at which they would have
    been bad may be those that are lost.
    """
    if not metric.direction:
        return {}
    lost = np.array([sample.nonfinite + sample.failed for sample in samples])
    total = np.array([sample.finished + sample.failed for sample in samples])
    low, high = share_bounds(lost, total, 0.05)
    means = [metric.sign * sample.values.mean() if len(sample.values) else -math.inf for sample in samples]
    best: dict[Hashable, int] = {}
    for group in dict.fromkeys(groups):
        own = [i for i, each in enumerate(groups) if each == group and len(samples[i].values)]
        if own:
            limit = min(high[i] for i in own)
            best[group] = max((i for i in own if low[i] <= limit), key=lambda i: means[i])
    return best


def _list_pairs(
    samples: Sequence[Sample],
    against: Against | Sequence[int],
    best: Mapping[Hashable, int],
    groups: Sequence[Hashable] | None,
) -> tuple[list[tuple[int, int]], int]:
    """The pairs of points with values that are compared, and the number of pairs that they are chosen from."""
    groups = groups or [0] * len(samples)
    known: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        if len(samples[i].values):
            known.setdefault(group, []).append(i)
    if against is Against.ALL:
        pairs = [(j, i) for own in known.values() for place, i in enumerate(own) for j in own[place + 1 :]]
        return pairs, len(pairs)
    if against is Against.BEST:
        firsts = {group: best.get(group, own[0]) for group, own in known.items()}
        pairs = [(i, firsts[group]) for group, own in known.items() for i in own if i != firsts[group]]
        chosen = sum(len(own) * (len(own) - 1) // 2 for own in known.values()) if best else len(pairs)
        return pairs, chosen
    pairs = [(i, j) for i, j in enumerate(against) if i != j and len(samples[i].values) and len(samples[j].values)]
    return pairs, len(pairs)


# differences


@dataclass(frozen=True)
class _Tested:
    """The pairs of a metric before they are adjusted; `size` is the number of tests that they add to their family."""

    metric: Metric
    margin: float
    pairs: Sequence[tuple[int, int]]
    contrasts: Sequence[Contrast]
    p: np.ndarray
    p_beyond: np.ndarray
    p_failures: np.ndarray
    size: int


def _test_metric(
    samples: Sequence[Sample],
    metric: Metric,
    against: Against | Sequence[int],
    best: Mapping[Hashable, int],
    groups: Sequence[Hashable] | None,
) -> _Tested:
    pairs, chosen_from = _list_pairs(samples, against, best, groups)
    binary = _is_binary(samples, metric)
    contrasts = [
        contrast_samples(samples[i], samples[j], is_binary=binary, resolution=metric.resolution) for i, j in pairs
    ]
    margin = _find_margin(samples, metric)
    found = compute_p_values(contrasts, margin)
    p_failures = np.array([_test_failures(samples[i], samples[j]) for i, j in pairs], dtype=float)
    has_failures = any(len(sample.lost) for sample in samples)
    return _Tested(
        metric, margin, pairs, contrasts, found.p, found.p_beyond, p_failures, chosen_from * (2 if has_failures else 1)
    )


def _find_margin(samples: Sequence[Sample], metric: Metric) -> float:
    """The smallest difference of interest; without one what rounding may do to the largest value."""
    if metric.margin is not None:
        return metric.margin
    largest = max((float(np.abs(sample.values).max()) for sample in samples if len(sample.values)), default=0.0)
    return ROUNDING * metric.resolution * largest


def _test_failures(a: Sample, b: Sample) -> float:
    """The p-value of different shares of lost replicates: over shared ones if there are enough; 1 if none is lost."""
    if not len(a.lost) and not len(b.lost):
        return 1.0
    first, second = (np.union1d(sample.replicate, sample.lost) for sample in (a, b))
    shared = np.intersect1d(first, second, assume_unique=True)
    if len(shared) >= 0.5 * max(len(first), len(second)):
        mine, theirs = np.isin(shared, a.lost), np.isin(shared, b.lost)
        return float(mcnemar_p(np.array((mine & ~theirs).sum()), np.array((theirs & ~mine).sum())))
    return fisher_p(len(a.lost), len(first), len(b.lost), len(second))


def _list_differences(tested: _Tested, samples: Sequence[Sample], alpha: float, family: int) -> list[dict[str, Any]]:
    """The rows of a metric's pairs, adjusted for the size of the family."""
    low, high = bound_contrasts(tested.contrasts, tested.p, alpha / family)
    adjusted = {name: np.minimum(1.0, getattr(tested, name) * family) for name in ("p", "p_beyond", "p_failures")}
    effects = [
        _measure_effect(c, samples[i], samples[j]) for c, (i, j) in zip(tested.contrasts, tested.pairs, strict=True)
    ]
    needed = statistics.count_seeds(np.array(effects, dtype=float), alpha / family)
    rows = []
    for place, ((i, j), contrast) in enumerate(zip(tested.pairs, tested.contrasts, strict=True)):
        row: dict[str, Any] = {
            "point": i,
            "partner": j,
            "metric": tested.metric.name,
            "kind": contrast.kind.value,
            "pairs": contrast.pairs,
            "difference": contrast.difference,
            "low": float(low[place]),
            "high": float(high[place]),
            "interval": contrast.method.value,
            "p": float(tested.p[place]),
            "p_adjusted": float(adjusted["p"][place]),
            "p_same": float(adjusted["p_beyond"][place]),
            "p_failures": float(adjusted["p_failures"][place]),
            "margin": tested.margin,
            "exploratory": not tested.metric.is_primary,
        }
        conclusion = _conclude(row, tested.metric, (samples[i], samples[j]), alpha, contrast)
        row |= {"conclusion": conclusion.value}
        row |= {"verdict": _describe(conclusion, row, (samples[i], samples[j]), contrast)}
        row |= {
            "effect": effects[place],
            **_measure_improvement(contrast, samples[i], samples[j], tested.metric, alpha),
        }
        detectable = statistics.detectable(contrast.pairs, alpha / family) * contrast.spread
        row |= {"detectable": detectable, "seeds_needed": int(needed[place]) if needed[place] > 0 else None}
        rows.append(row)
    return rows


def _conclude(
    row: Mapping[str, Any], metric: Metric, pair: tuple[Sample, Sample], alpha: float, contrast: Contrast
) -> Conclusion:
    more = math.copysign(1.0, share_lost(pair[0]) - share_lost(pair[1])) if _differ_in_lost(pair) else 0.0
    value = _conclude_values(row, metric, alpha, contrast)
    winner = {Conclusion.BETTER: 1.0, Conclusion.WORSE: -1.0}.get(value, 0.0)
    looks_better = bool(winner) and winner == more
    if looks_better or (row["p_failures"] < alpha and winner != -more):
        return Conclusion.FAILS_MORE if more > 0 else Conclusion.FAILS_LESS
    if value is Conclusion.DIFFERS and more:
        return Conclusion.FAILS_MORE if more > 0 else Conclusion.FAILS_LESS
    return value


def _differ_in_lost(pair: tuple[Sample, Sample]) -> bool:
    return share_lost(pair[0]) != share_lost(pair[1])


def _conclude_values(row: Mapping[str, Any], metric: Metric, alpha: float, contrast: Contrast) -> Conclusion:
    """What the finite values show."""
    if contrast.method is Method.NONE:
        return Conclusion.ONE_SEED
    if _is_same(row, alpha, contrast):
        return Conclusion.SAME
    if row["p_adjusted"] < alpha:
        if not metric.direction:
            return Conclusion.DIFFERS
        return Conclusion.BETTER if metric.sign * row["difference"] > 0 else Conclusion.WORSE
    return Conclusion.NO_VARIANCE if contrast.method in (Method.SIGN, Method.PERMUTATION) else Conclusion.NOT_SHOWN


def _is_same(row: Mapping[str, Any], alpha: float, contrast: Contrast) -> bool:
    if contrast.method in (Method.SIGN, Method.PERMUTATION):
        return abs(row["difference"]) <= row["margin"]
    return row["p_same"] < alpha or max(-row["low"], row["high"]) < row["margin"]


def _describe(conclusion: Conclusion, row: Mapping[str, Any], pair: tuple[Sample, Sample], contrast: Contrast) -> str:
    """The conclusion in words."""
    counts = " against ".join(
        f"{sample.nonfinite + sample.failed} of {sample.finished + sample.failed}" for sample in pair
    )
    if conclusion in (Conclusion.FAILS_MORE, Conclusion.FAILS_LESS):
        is_significant = "" if row["p_failures"] < 0.05 else ", which may be chance"
        return f"{conclusion.value} ({counts}{is_significant}); the finite values alone do not tell"
    if conclusion is Conclusion.SAME:
        is_equal = contrast.method in (Method.SIGN, Method.PERMUTATION)
        return "equal at all seeds" if is_equal else f"the same within {row['margin']:.3g}"
    return {
        Conclusion.ONE_SEED: "one seed shows no difference",
        Conclusion.NO_VARIANCE: f"no variance: all {row['pairs']} seeds differ alike, which is too few to show it",
        Conclusion.NOT_SHOWN: "not shown",
    }.get(conclusion, conclusion.value)


def _measure_effect(contrast: Contrast, a: Sample, b: Sample) -> float:
    """The difference in standard deviations: of the paired differences, or of both samples' values."""
    if contrast.gaps is not None:
        return contrast.difference / contrast.spread if contrast.spread > 0 else math.nan
    return statistics.effect_of(a.values, b.values)


def _measure_improvement(contrast: Contrast, a: Sample, b: Sample, metric: Metric, alpha: float) -> dict[str, float]:
    """The probability that the first is better at a further seed, with an interval."""
    if contrast.gaps is not None:
        gaps = metric.sign * contrast.gaps
        wins = float((gaps > 0).sum() + 0.5 * (gaps == 0).sum())
        share, interval = wins / contrast.pairs, statistics.share_interval(wins, contrast.pairs, 1 - alpha)
    else:
        x, y = metric.sign * a.values, metric.sign * b.values
        share, interval = statistics.improvement(x, y), statistics.improvement_interval(x, y, 1 - alpha)
    return {"improvement": share, "improvement_low": interval.low, "improvement_high": interval.high}

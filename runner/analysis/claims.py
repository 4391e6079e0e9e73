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
from runner.analysis.conclusions import Conclusion, conclude, describe_conclusion
from runner.analysis.contrasts import (
    Contrast,
    bound_contrasts,
    compute_p_values,
    contrast_samples,
    fisher_p,
    mcnemar_p,
)
from runner.analysis.estimates import estimate_points
from runner.analysis.intervals import share_bounds
from runner.analysis.metrics import Metric, find_margins
from runner.analysis.replicates import Failures, Sample, Samples, impute_worst

__all__ = ["Against", "Claims", "Conclusion", "Metric", "compare_samples"]


class Against(Enum):
    """With whom points are compared, if not with given ones."""

    BEST = "best"
    """With the best point of the metric; with the first one, if the metric has no direction."""
    ALL = "all"
    """All pairs."""


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
    own for none. Only points of equal `groups`, such as tasks, are compared with one another.

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
        points += estimate_points(own, metrics[name], level)
        best[name] = find_best(own, metrics[name], groups or [0] * len(own))
    tests = {name: _test_metric(own, metrics[name], against, best[name], groups) for name, own in used.items()}
    families = {flag: sum(t.size for t in tests.values() if t.metric.is_primary is flag) for flag in (True, False)}
    differences = []
    for name, tested in tests.items():
        differences += _list_differences(tested, used[name], alpha, max(1, families[tested.metric.is_primary]))
    return Claims(points, differences, best, families)


def _impute(samples: Sequence[Sample], metric: Metric, failures: Failures) -> Sequence[Sample]:
    is_imputed = failures is Failures.WORST and metric.direction
    return impute_worst(samples, metric.direction) if is_imputed else samples


def find_best(samples: Sequence[Sample], metric: Metric, groups: Sequence[Hashable]) -> dict[Hashable, int]:
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
    """The pairs of points with outcomes that are compared, and the number of pairs that they are chosen from."""
    groups = groups or [0] * len(samples)
    known: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        if len(samples[i].values) + len(samples[i].lost):
            known.setdefault(group, []).append(i)
    if against is Against.ALL:
        pairs = [(j, i) for own in known.values() for place, i in enumerate(own) for j in own[place + 1 :]]
        return pairs, len(pairs)
    if against is Against.BEST:
        firsts = {group: best.get(group, own[0]) for group, own in known.items()}
        pairs = [(i, firsts[group]) for group, own in known.items() for i in own if i != firsts[group]]
        chosen = sum(len(own) * (len(own) - 1) // 2 for own in known.values()) if best else len(pairs)
        return pairs, chosen
    has_outcomes = {i for own in known.values() for i in own}
    pairs = [(i, j) for i, j in enumerate(against) if i != j and {i, j} <= has_outcomes]
    return pairs, len(pairs)


@dataclass(frozen=True)
class _Tested:
    """The pairs of a metric before they are adjusted; `size` is the number of tests that they add to their family."""

    metric: Metric
    margins: np.ndarray
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
    binary = metric.has_shares(samples)
    contrasts = [
        contrast_samples(samples[i], samples[j], is_binary=binary, resolution=metric.resolution) for i, j in pairs
    ]
    margins = find_margins(samples, metric, pairs)
    found = compute_p_values(contrasts, margins)
    p_failures = np.array([_test_failures(samples[i], samples[j]) for i, j in pairs], dtype=float)
    has_failures = any(len(sample.lost) for sample in samples)
    return _Tested(
        metric, margins, pairs, contrasts, found.p, found.p_beyond, p_failures, chosen_from * (2 if has_failures else 1)
    )


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
    metric, contrasts = tested.metric, tested.contrasts
    pairs = [(samples[i], samples[j]) for i, j in tested.pairs]
    low, high = bound_contrasts(contrasts, tested.p, alpha / family)
    effects = [_measure_effect(contrast, *pair) for contrast, pair in zip(contrasts, pairs, strict=True)]
    columns = {
        "difference": [contrast.difference for contrast in contrasts],
        "low": low,
        "high": high,
        "p": tested.p,
        "p_adjusted": np.minimum(1.0, tested.p * family),
        "p_same": np.minimum(1.0, tested.p_beyond * family),
        "p_failures": np.minimum(1.0, tested.p_failures * family),
        "margin": tested.margins,
        "effect": effects,
        "detectable": [statistics.detectable(each.pairs, alpha / family) * each.spread for each in contrasts],
    }
    needed = statistics.count_seeds(np.array(effects, dtype=float), alpha / family).tolist()
    rows = []
    for place, (contrast, pair) in enumerate(zip(contrasts, pairs, strict=True)):
        numbers = {name: float(column[place]) for name, column in columns.items()}
        conclusion = conclude(numbers, metric, pair, alpha, contrast)
        texts = {"metric": metric.name, "kind": contrast.kind.value, "interval": contrast.method.value}
        texts |= {
            "conclusion": conclusion.value,
            "verdict": describe_conclusion(conclusion, numbers, pair, alpha, contrast),
        }
        counts = {"pairs": contrast.pairs, "seeds_needed": needed[place] if needed[place] > 0 else None}
        i, j = tested.pairs[place]
        row = {"point": i, "partner": j, "exploratory": not metric.is_primary, **numbers, **texts, **counts}
        row |= _measure_improvement(contrast, *pair, metric, alpha)
        rows.append({name: row[name] for name in COLUMNS})
    return rows


COLUMNS = (
    *("point", "partner", "metric", "kind", "pairs", "difference", "low", "high", "interval", "p", "p_adjusted"),
    *("p_same", "margin", "p_failures", "exploratory", "conclusion", "verdict", "effect", "improvement"),
    *("improvement_low", "improvement_high", "detectable", "seeds_needed"),
)
"""The columns of `differences` that this module makes."""


def _measure_effect(contrast: Contrast, a: Sample, b: Sample) -> float:
    """The difference in standard deviations: of the paired differences, or of both samples' values."""
    if contrast.gaps is not None:
        return contrast.difference / contrast.spread if contrast.spread > 0 else math.nan
    return statistics.effect_of(a.values, b.values)


def _measure_improvement(contrast: Contrast, a: Sample, b: Sample, metric: Metric, alpha: float) -> dict[str, float]:
    """The probability that the first is better at a further seed, with an interval."""
    if not len(a.values) or not len(b.values):
        share, interval = math.nan, statistics.NO_INTERVAL
    elif contrast.gaps is not None:
        gaps = metric.sign * contrast.gaps
        wins = float((gaps > 0).sum() + 0.5 * (gaps == 0).sum())
        share, interval = wins / contrast.pairs, statistics.share_interval(wins, contrast.pairs, 1 - alpha)
    else:
        x, y = metric.sign * a.values, metric.sign * b.values
        share, interval = statistics.improvement(x, y), statistics.improvement_interval(x, y, 1 - alpha)
    return {"improvement": share, "improvement_low": interval.low, "improvement_high": interval.high}

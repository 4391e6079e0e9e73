"""Estimates of points: counts, means, quantiles and tails of each sample, with intervals for all points of a metric."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from runner.analysis.intervals import exceedance_bound, mean_bounds, median_bounds, share_bounds, tolerance_factor
from runner.analysis.metrics import Metric
from runner.analysis.replicates import Sample

TAIL = 0.1
"""The share of the worst seeds whose mean is the conditional value at risk."""
CONTENT = 0.9
"""The share of all seeds that a tolerance interval contains."""


def estimate_points(samples: Sequence[Sample], metric: Metric, level: float) -> list[dict[str, Any]]:
    """The rows of a metric's points; their intervals are simultaneous over the points with values."""
    rows = [_describe_sample(sample, metric) for sample in samples]
    columns = {name: np.array([row[name] for row in rows], dtype=float) for name in ("mean", "std", "count")}
    mean, spread, count = columns["mean"], columns["std"], columns["count"]
    alpha = (1 - level) / max(1, int((count > 0).sum()))
    noise = metric.resolution * np.abs(mean)
    spread = np.where(spread <= noise, 0.0, spread)
    has_shares = metric.has_shares(samples)
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
        "median": float(ordered[(count - 1) // 2] + ordered[count // 2]) / 2 + 0.0,
        "iqm": float(ordered[quarter : count - quarter].mean()),
        "std": (0.0 if is_constant else float(values.std(ddof=1))) if count > 1 else math.nan,
        "min": float(values[least]) + 0.0,
        "min_seed": _name_seed(sample, least),
        "max": float(values[most]) + 0.0,
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

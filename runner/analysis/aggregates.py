"""Several tasks as one: interquartile means over tasks of one scale, and the probability of improvement."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runner.analysis import statistics
from runner.analysis.load import Runs, is_same
from runner.analysis.replicates import Sample

LARGEST_RATIO = 10.0
"""The largest ratio of the values of two tasks that are averaged without being brought to one scale."""

Scores = dict[tuple[Any, ...], list[np.ndarray]]
"""For each point, apart from the task, the finite values `(seeds,)` of each task."""


@dataclass(frozen=True)
class Aggregates:
    """The rows of the table `aggregates`, and what a reader has to know of them."""

    rows: list[dict[str, Any]]
    notes: tuple[str, ...] = ()


def group_scores(runs: Runs, samples: Mapping[str, Sequence[Sample]], metric: str) -> Scores:
    """For each point, apart from the task, the finite values of each task, where all tasks have some.

    Empty if there is only one task.
    """
    if "task" not in runs.points or runs.points["task"].nunique() < 2 or len(runs.points) > len(samples[metric]):
        return {}
    others = [name for name in runs.points if name != "task"]
    groups: Scores = {}
    for sample, key in zip(samples[metric], runs.points[others].itertuples(index=False, name=None), strict=True):
        groups.setdefault(tuple(key), []).append(sample.values)
    tasks = max(map(len, groups.values()))
    return {key: own for key, own in groups.items() if len(own) == tasks and min(map(len, own)) > 0}


def aggregate_tasks(
    runs: Runs,
    samples: Mapping[str, Sequence[Sample]],
    baseline: Mapping[str, Any] | None,
    level: float,
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> Aggregates:
    """A row for each point over all tasks: its aggregate, and the probability that it improves on its baseline.

    Scores are min–max normalized by declared bounds of the metric, or divided by the mean of the baseline in each task;
    with neither they are averaged only if the tasks have values of one scale. Otherwise the aggregate is NaN.
    """
    rows, notes = [], []
    for metric in runs.values:
        groups = group_scores(runs, samples, metric)
        if not groups:
            continue
        partners = _find_partners(runs, groups, baseline)
        scaled, how = _normalize(
            groups, partners, runs.directions.get(metric, ""), (bounds or {}).get(metric), baseline
        )
        notes.append(f"{metric}: {how}")
        rows += [_build_row(runs, metric, key, groups, scaled, partners, level) for key in groups]
    return Aggregates(rows, tuple(notes))


def _find_partners(runs: Runs, groups: Scores, baseline: Mapping[str, Any] | None) -> dict[tuple[Any, ...], Any]:
    """For each point the one that it is compared with; the first without a baseline."""
    wanted = {name: value for name, value in (baseline or {}).items() if name != "task"}
    others = [name for name in runs.points if name != "task"]
    found = {}
    for key in groups:
        base = tuple(wanted.get(name, has) for name, has in zip(others, key, strict=True))
        base = base if wanted else next(iter(groups))
        found[key] = next((other for other in groups if all(map(is_same, other, base))), key)
    return found


def _normalize(
    groups: Scores,
    partners: Mapping[tuple[Any, ...], Any],
    direction: str,
    bounds: tuple[float, float] | None,
    baseline: Mapping[str, Any] | None,
) -> tuple[Scores | None, str]:
    """The scores on one scale, None if there is none, and how they were brought to it."""
    if bounds is not None:
        low, high = bounds if direction != "minimize" else bounds[::-1]
        scaled = {key: [(task - low) / (high - low) for task in own] for key, own in groups.items()}
        return (
            scaled,
            f"aggregates are of scores from 0 (at {low:g}) to 1 (at {high:g}); the gap is what is missing to 1",
        )
    if baseline:
        bases = {key: [task.mean() for task in groups[partners[key]]] for key in groups}
        if all(base > 0 for own in bases.values() for base in own):
            scaled = {key: [t / b for t, b in zip(own, bases[key], strict=True)] for key, own in groups.items()}
            return scaled, "aggregates are of scores divided by the baseline's mean in each task"
    sizes = [
        max(float(np.abs(own[i]).max()) for own in groups.values()) for i in range(len(next(iter(groups.values()))))
    ]
    if min(sizes) > 0 and max(sizes) / min(sizes) <= LARGEST_RATIO:
        return groups, "aggregates are of the values as they are, which have one scale in all tasks"
    return None, (
        f"the tasks have different scales (values up to {min(sizes):.3g} and {max(sizes):.3g}), and are not averaged; "
        "declare --bounds NAME=LOW,HIGH, or name a --baseline with positive means"
    )


def _build_row(
    runs: Runs,
    metric: str,
    key: tuple[Any, ...],
    groups: Scores,
    scaled: Scores | None,
    partners: Mapping[tuple[Any, ...], Any],
    level: float,
) -> dict[str, Any]:
    sign = {"minimize": -1.0}.get(runs.directions.get(metric, ""), 1.0)
    own, other = groups[key], groups[partners[key]]
    share, interval = math.nan, statistics.NO_INTERVAL
    if partners[key] != key:
        mine, theirs = ([sign * values for values in side] for side in (own, other))
        share, interval = statistics.average_improvement(mine, theirs, level)
    row: dict[str, Any] = {"tasks": len(own), "runs": sum(map(len, own))}
    row |= dict.fromkeys(("iqm", "low", "high", "mean", "mean_low", "mean_high", "median", "gap"), math.nan)
    if scaled is not None:
        found = statistics.aggregate(scaled[key], level)
        row |= {"iqm": found.iqm, "low": found.iqm_interval.low, "high": found.iqm_interval.high}
        row |= {"mean_low": found.mean_interval.low, "mean_high": found.mean_interval.high}
        row |= {"mean": found.mean, "median": found.median, "gap": statistics.optimality_gap(scaled[key])}
    row |= {"improvement": share, "improvement_low": interval.low, "improvement_high": interval.high}
    others = [name for name in runs.points if name != "task"]
    return {**dict(zip(others, key, strict=True)), "metric": metric, **row}

"""Studies compared across seeds: estimates for each point, and paired differences to a baseline."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis import statistics
from runner.analysis.formats import format_label
from runner.analysis.load import STATUS_CODES, Runs, load_runs
from runner.errors import InvalidInputError
from runner.plan.status import Status
from runner.storage.environment import format_command

MOST_POINTS = 5000
"""Points that are compared; if there are more, those that come first in the tables."""
MOST_SEEDS = 10**6
"""Seeds that a command to add some may ask for."""


@dataclass(frozen=True)
class Sample:
    """The finite values of one metric at one point with their replicates and seeds, `(seeds,)`, in replicate order."""

    values: np.ndarray
    replicate: np.ndarray
    seed: np.ndarray
    finished: int
    nonfinite: int
    failed: int


@dataclass(frozen=True)
class Comparison:
    """What the seeds show; `points`, `differences` and `aggregates` have a row for each point and metric.

    `points` are estimates, `differences` those to the baseline, `aggregates` those over several tasks (empty if there
    is one). `samples` has for each metric the values of each point. `notes` is what a reader has to know, and
    `suggestion` a command that adds seeds, or empty. docs/reference/columns.md describes the columns.
    """

    runs: Runs
    level: float
    metrics: tuple[str, ...]
    axes: tuple[str, ...]
    points: pd.DataFrame
    differences: pd.DataFrame
    aggregates: pd.DataFrame
    samples: Mapping[str, Sequence[Sample]]
    notes: tuple[str, ...]
    suggestion: str

    def select_samples(self, metric: str, rows: pd.DataFrame) -> list[Sample]:
        """The samples of the points in some rows of `points` or `differences`."""
        if not self.axes:
            return [self.samples[metric][0]] * len(rows)
        labels = self.runs.points.itertuples(index=False, name=None)
        place = {tuple(map(str, label)): i for i, label in enumerate(labels)}
        wanted = rows[list(self.axes)].itertuples(index=False, name=None)
        return [self.samples[metric][place[tuple(map(str, label))]] for label in wanted]


class Conclusion(Enum):
    """What the tests show of a difference."""

    ONE_SEED = "one seed"
    """There is no variance, and so no test, with one seed."""
    SHOWN = "shown"
    """By both tests."""
    SHOWN_BY_T = "shown by t"
    SHOWN_BY_RANK = "shown by rank"
    NOT_SHOWN = "not shown"


def compare_studies(
    folders: Sequence[Path | str],
    *,
    metrics: Sequence[str] | None = None,
    by: Sequence[str] | None = None,
    baseline: Mapping[str, Any] | None = None,
    level: float = 0.95,
    keep: str | None = None,
) -> Comparison:
    """Compares the points of studies across their seeds.

    `metrics` are scalar outputs, or numbers of arrays such as `y.mean`; None takes all scalars. `by` are the axes that
    distinguish points; None takes all that vary. `baseline` gives values of axes, and each point is compared with the
    one that has these values instead of its own; without it, with the first point of its task. `level` is the
    confidence level, at least 0.5 and less than 1. `keep` selects runs by an expression for `pandas.DataFrame.eval`.

    Raises InvalidInputError for a study, metric, axis or value that does not exist, and a filter that is not valid.

    With the study of `python -m runner -m task=mixed_train lr=0.1,0.2 'seed=range(0,5)' study=lr_scan`:

    >>> comparison = compare_studies(["outputs/lr_scan"], metrics=["loss_after"], baseline={"lr": 0.1})
    >>> comparison.points["seeds"].tolist()
    [5, 5]
    >>> comparison.differences["against"].tolist()
    ['lr=0.1']
    """
    if not 0.5 <= level < 1:
        raise InvalidInputError(f"the confidence level must be at least 0.5 and less than 1, got {level}")
    runs = load_runs([Path(folder) for folder in folders], metrics, by, keep)
    baselines, labels = _find_baselines(runs, baseline), _list_labels(runs)
    samples = _group_samples(runs)
    points: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    unresolved: list[dict[str, Any]] = []
    for metric, of_points in samples.items():
        direction = runs.directions.get(metric, "")
        rows = [_estimate(sample, level, direction, int(runs.planned[i])) for i, sample in enumerate(of_points)]
        points += [{**labels[i], "metric": metric, **row} for i, row in enumerate(rows) if row["seeds"]]
        pairs = [(i, j) for i, j in enumerate(baselines) if i != j and max(i, j) < len(of_points)]
        pairs = [(i, j) for i, j in pairs if len(of_points[i].values) and len(of_points[j].values)]
        compared = [_compare_samples(of_points[i], of_points[j], level, direction) for i, j in pairs]
        conclusions = _conclude(compared, level)
        for (i, j), row, conclusion in zip(pairs, compared, conclusions, strict=True):
            row["command"] = _suggest_command(runs, row.pop("more"))
            against = format_label(labels[j], list(runs.points.columns))
            differences.append({**labels[i], "metric": metric, "against": against, **row})
            unresolved += [row] if conclusion is Conclusion.NOT_SHOWN and row["command"] else []
    aggregates = _aggregate_tasks(runs, samples, baseline, level)
    frames = pd.DataFrame(points), pd.DataFrame(differences), pd.DataFrame(aggregates)
    suggestion = max(unresolved, key=lambda row: row["seeds_needed"])["command"] if unresolved else ""
    notes = (*_describe_runs(runs), *_describe_estimates(frames[0], frames[1]))
    axes = tuple(runs.points.columns)
    return Comparison(runs, level, tuple(runs.values), axes, *frames, samples, notes, suggestion)


def _list_labels(runs: Runs) -> list[dict[str, Any]]:
    return runs.points.to_dict("records") if len(runs.points.columns) else [{}]


def _find_baselines(runs: Runs, baseline: Mapping[str, Any] | None) -> list[int]:
    """For each point the index of the one that it is compared with."""
    count, frame = min(len(runs.points), MOST_POINTS), runs.points
    if baseline is None:  # tasks have different scales, so each has a baseline of its own
        tasks = frame["task"].tolist() if "task" in frame else [""] * count
        firsts = {task: tasks.index(task) for task in dict.fromkeys(tasks)}
        return [firsts[task] for task in tasks[:count]]
    for name, value in baseline.items():
        if name not in frame:
            axes = ", ".join(frame.columns) or "none"
            raise InvalidInputError(f"the baseline names {name!r}; the axes are: {axes}")
        if not frame[name].map(lambda has, value=value: is_same(has, value)).any():
            has = ", ".join(dict.fromkeys(map(str, frame[name])))
            raise InvalidInputError(f"the baseline has {name}={value}; there are: {has}")
    keys = [tuple(row) for row in frame.itertuples(index=False, name=None)]
    place = {key: i for i, key in enumerate(keys)}
    chosen = {name: next(has for has in frame[name] if is_same(has, value)) for name, value in baseline.items()}
    partners = [tuple(chosen.get(name, own) for name, own in zip(frame, key, strict=True)) for key in keys[:count]]
    return [place.get(key, i) for i, key in enumerate(partners)]


def is_same(has: Any, value: Any) -> bool:
    """Whether a value of an axis is the one that somebody has typed: numbers by value, anything else by its text."""
    try:
        return bool(np.float32(has) == np.float32(value))
    except (TypeError, ValueError):
        return str(has) == str(value)


def _group_samples(runs: Runs) -> dict[str, list[Sample]]:
    """For each metric the sample of each point; the runs are sorted once for all metrics."""
    count = min(len(runs.points), MOST_POINTS) if len(runs.points.columns) else 1
    order = np.lexsort((runs.replicate, runs.point))
    bounds = np.searchsorted(runs.point[order], np.arange(count + 1))
    rows = [order[start:stop] for start, stop in pairwise(bounds)]
    return {metric: [_take_sample(runs, values, own) for own in rows] for metric, values in runs.values.items()}


def _take_sample(runs: Runs, values: np.ndarray, rows: np.ndarray) -> Sample:
    status, finite = runs.status[rows], np.isfinite(values[rows])
    # an empty cell of a run that is ok belongs to a task without this output
    given = finite | (status != STATUS_CODES[Status.OK])
    failed = int((status == STATUS_CODES[Status.FAILED]).sum())
    finished, kept = int(given.sum()) - failed, rows[finite]
    nonfinite = finished - len(kept)
    return Sample(values[kept], runs.replicate[kept], runs.seed[kept], finished, nonfinite, failed)


def _estimate(sample: Sample, level: float, direction: str, planned: int) -> dict[str, Any]:
    """The row of a point; the estimates are of the finite values."""
    values = sample.values
    counts = {
        "seeds": planned if sample.finished + sample.failed else 0,
        "finished": sample.finished,
        "nonfinite": sample.nonfinite,
        "nonfinite_share": sample.nonfinite / sample.finished if sample.finished else math.nan,
        "failed": sample.failed,
    }
    empty = dict.fromkeys(("mean", "low", "high", "median", "iqm", "std", "min", "max"), math.nan)
    if not len(values):
        return {**counts, **empty, "interval": "", "min_seed": -1, "max_seed": -1, "worst_seed": -1}
    interval = statistics.mean_interval(values, level)
    least, most = int(np.argmin(values)), int(np.argmax(values))
    worst = {"minimize": int(sample.seed[most]), "maximize": int(sample.seed[least])}.get(direction, -1)
    return {
        **counts,
        "mean": float(values.mean()),
        "low": interval.low,
        "high": interval.high,
        "interval": interval.method,
        "median": float(np.median(values)),
        "iqm": statistics.iqm(values),
        "std": float(values.std(ddof=1)) if len(values) > 1 else math.nan,
        "min": float(values[least]),
        "min_seed": int(sample.seed[least]),
        "max": float(values[most]),
        "max_seed": int(sample.seed[most]),
        "worst_seed": worst,
    }


def _compare_samples(a: Sample, b: Sample, level: float, direction: str) -> dict[str, Any]:
    """A point minus its baseline: paired over the common replicates, or by Welch's test if there are none."""
    alpha, sign = 1 - level, {"minimize": -1.0}.get(direction, 1.0)
    common, left, right = np.intersect1d(a.replicate, b.replicate, return_indices=True)
    if len(common):
        x, y = a.values[left], b.values[right]
        gaps, pairs, kind = x - y, len(common), "paired"
        interval, (t, rank) = statistics.mean_interval(gaps, level), statistics.paired_p(gaps)
        size = statistics.effect(gaps)
        wins = float((sign * gaps > 0).sum() + 0.5 * (gaps == 0).sum())
        share, shared = wins / pairs, statistics.share_interval(wins, pairs, level)
        least, spread = statistics.smallest_p(pairs), float(gaps.std(ddof=1)) if pairs > 1 else math.nan
        gap, needed = float(gaps.mean()), statistics.seeds_needed(size, alpha)
    else:
        x, y, kind = a.values, b.values, "Welch"
        pairs, gap = min(len(x), len(y)), float(x.mean() - y.mean())
        interval, (t, rank) = statistics.welch_interval(x, y, level), statistics.welch_p(x, y)
        size, share = statistics.effect_of(x, y), statistics.improvement(sign * x, sign * y)
        shared = statistics.improvement_interval(sign * x, sign * y, level)
        least, spread, needed = statistics.smallest_p(len(x), len(y)), math.nan, None
    return {
        "kind": kind,
        "pairs": pairs,
        "difference": gap,
        "low": interval.low,
        "high": interval.high,
        "interval": interval.method,
        "p_t": t,
        "p_rank": rank,
        "smallest_p_rank": least,
        "effect": size,
        "improvement": share,
        "improvement_low": shared.low,
        "improvement_high": shared.high,
        "detectable": statistics.detectable(pairs, alpha) * spread if pairs > 1 else math.nan,
        "seeds_needed": needed,
        "more": max(0, needed - pairs) if needed and needed <= MOST_SEEDS else 0,
        "better": {1: "yes", -1: "no"}.get(int(np.sign(sign * gap)), "equal") if direction else "",
    }


def _conclude(rows: list[dict[str, Any]], level: float) -> list[Conclusion]:
    """Adjusts the p-values of one metric's comparisons for their number, and adds what they show to the rows."""
    for name in ("p_t", "p_rank"):
        adjusted = statistics.holm(np.array([row[name] for row in rows], dtype=float))
        for row, p in zip(rows, adjusted, strict=True):
            row[f"{name}_holm"] = float(p)
    conclusions = [_conclude_row(row, 1 - level) for row in rows]
    for row, conclusion in zip(rows, conclusions, strict=True):
        row["verdict"] = _describe_conclusion(conclusion, row, len(rows), 1 - level)
    return conclusions


def _conclude_row(row: Mapping[str, Any], alpha: float) -> Conclusion:
    if row["pairs"] < 2:
        return Conclusion.ONE_SEED
    by_t, by_rank = row["p_t_holm"] < alpha, row["p_rank_holm"] < alpha
    if by_t and by_rank:
        return Conclusion.SHOWN
    if by_t:
        return Conclusion.SHOWN_BY_T
    return Conclusion.SHOWN_BY_RANK if by_rank else Conclusion.NOT_SHOWN


def _describe_conclusion(conclusion: Conclusion, row: Mapping[str, Any], comparisons: int, alpha: float) -> str:
    """The verdict in words, which also say if so many seeds cannot reach the level by rank."""
    direction = {"yes": "better", "no": "worse"}.get(row["better"], "differs")
    if conclusion is Conclusion.ONE_SEED:
        return "one seed shows no difference"
    smallest = min(1.0, row["smallest_p_rank"] * comparisons)
    if smallest >= alpha:
        limit = f"by rank {row['pairs']} seeds cannot reach {alpha:.2g} (at best {smallest:.3g})"
        return f"{direction} by t; {limit}" if conclusion is Conclusion.SHOWN_BY_T else f"not shown; {limit}"
    return {
        Conclusion.SHOWN: direction,
        Conclusion.SHOWN_BY_T: f"{direction} by t only",
        Conclusion.SHOWN_BY_RANK: f"{direction} by rank only",
    }.get(conclusion, "not shown")


def _suggest_command(runs: Runs, more: int) -> str:
    """The command that adds `more` seeds to the study; empty if there is nothing to add."""
    folder = runs.studies[0]
    if more <= 0 or len(runs.studies) > 1 or not folder.environment.exists() or runs.seed.max() < 0:
        return ""
    other = ("seed=", "study=", "overwrite=")
    words = [word for word in shlex.split(format_command(folder)) if not word.startswith(other)]
    is_sweep = any(word in ("-m", "--multirun") for word in words[3:]) or any("experiment=" in word for word in words)
    first = int(runs.seed.max()) + 1
    added = [*([] if is_sweep else ["-m"]), f"seed=range({first},{first + more})", f"study={folder.path.name}"]
    return shlex.join([*words, *added])


def _describe_runs(runs: Runs) -> list[str]:
    notes = []
    if runs.pending:
        notes.append(f"{runs.pending:,} planned runs are pending; the estimates are of the {len(runs):,} that are done")
    if runs.pooled:
        notes.append(
            f"each point pools the runs of all values of {', '.join(runs.pooled)}; pairs have the same of these values "
            "and the same seed"
        )
    if runs.categorical:
        notes.append(f"{', '.join(runs.categorical)}: categorical outputs, which are in the table and not compared")
    if runs.values and not any(np.isfinite(values).any() for values in runs.values.values()):
        notes.append(f"no run has a finite value of {', '.join(runs.values)}")
    if len(runs.points) > MOST_POINTS:
        notes.append(f"the first {MOST_POINTS:,} of {len(runs.points):,} points; choose others by --filter")
    return notes


def _describe_estimates(points: pd.DataFrame, differences: pd.DataFrame) -> list[str]:
    notes = []
    if len(points) and (points["finished"] <= 1).all():
        notes.append("one seed for each point: there is no variance, and so no interval and no test")
    if len(points) and points["nonfinite"].sum():
        notes.append(
            f"{points['nonfinite'].sum():,} values of {points['finished'].sum():,} are not finite; "
            "estimates are of the finite ones"
        )
    if len(differences) and (differences["kind"] == "Welch").any():
        notes.append("points without a common seed are compared unpaired, by Welch's test: common seeds show more")
    return notes


def group_scores(
    runs: Runs, samples: Mapping[str, Sequence[Sample]], metric: str
) -> dict[tuple[Any, ...], list[np.ndarray]]:
    """For each point, apart from the task, the finite values `(seeds,)` of each task, where all tasks have some.

    Empty if there is only one task.
    """
    if "task" not in runs.points or runs.points["task"].nunique() < 2 or len(runs.points) > MOST_POINTS:
        return {}
    others = [name for name in runs.points if name != "task"]
    groups: dict[tuple[Any, ...], list[np.ndarray]] = {}
    for sample, key in zip(samples[metric], runs.points[others].itertuples(index=False, name=None), strict=True):
        groups.setdefault(tuple(key), []).append(sample.values)
    tasks = max(map(len, groups.values()))
    return {key: own for key, own in groups.items() if len(own) == tasks and min(map(len, own)) > 0}


def _aggregate_tasks(
    runs: Runs, samples: Mapping[str, Sequence[Sample]], baseline: Mapping[str, Any] | None, level: float
) -> list[dict[str, Any]]:
    """A row for each point over all tasks: its aggregate, and the probability that it improves on its baseline."""
    wanted = {name: value for name, value in (baseline or {}).items() if name != "task"}
    others = [name for name in runs.points if name != "task"]
    rows = []
    for metric in runs.values:
        sign = {"minimize": -1.0}.get(runs.directions.get(metric, ""), 1.0)
        groups = group_scores(runs, samples, metric)
        for key, own in groups.items():
            base = tuple(wanted.get(name, has) for name, has in zip(others, key, strict=True))
            base = base if wanted else next(iter(groups))
            other = next((s for k, s in groups.items() if all(map(is_same, k, base))), own)
            share, interval = math.nan, statistics.NO_INTERVAL
            if other is not own:
                mine, theirs = ([sign * values for values in side] for side in (own, other))
                share, interval = statistics.average_improvement(mine, theirs, level)
            found = statistics.aggregate(own, level)
            row = {"tasks": found.tasks, "runs": found.runs, "iqm": found.iqm, "low": found.iqm_interval.low}
            row |= {"high": found.iqm_interval.high, "mean": found.mean, "median": found.median, "improvement": share}
            row |= {"improvement_low": interval.low, "improvement_high": interval.high}
            rows.append({**dict(zip(others, key, strict=True)), "metric": metric, **row})
    return rows


def format_json(comparison: Comparison) -> str:
    """The comparison as JSON for programs; what is not a number is null."""
    frames = {
        "points": comparison.points,
        "differences": comparison.differences,
        "aggregates": comparison.aggregates,
    }
    tables = {name: json.loads(frame.to_json(orient="records", double_precision=15)) for name, frame in frames.items()}
    studies = [str(folder.path) for folder in comparison.runs.studies]
    data = {"studies": studies, "level": comparison.level, "axes": comparison.axes, **tables, "notes": comparison.notes}
    return json.dumps(data, indent=1)

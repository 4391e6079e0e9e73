"""The answer of a comparison in words: what was run, which point is best, what is shown, what would settle the rest."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from runner.analysis.comparison import Best, Comparison
from runner.analysis.conclusions import Conclusion
from runner.analysis.formats import count_things, format_bounds, format_estimate, format_label, format_short, join_words
from runner.analysis.load import STATUS_CODES
from runner.analysis.standings import describe_goal, rank_points
from runner.plan.status import Status

NAMED = 3
"""Points that a sentence names; of more the number is given."""
NAMED_CHARACTERS = 60
"""What their names may take together, but for the first one."""
MOST_ANSWERS = 3
"""Metrics that are answered for."""
UNSETTLED = (Conclusion.NOT_SHOWN.value, Conclusion.ONE_SEED.value, Conclusion.NO_VARIANCE.value)
"""Conclusions that more seeds may change."""


@dataclass(frozen=True)
class MetricAnswer:
    """The three lines about a metric; `command` is what the third one refers to, or empty."""

    metric: str
    best: str
    shown: str
    settle: str
    command: str


@dataclass(frozen=True)
class Answer:
    """What was run, what there is to say of each metric, what failed, and what was left out of the comparison."""

    ran: str
    metrics: tuple[MetricAnswer, ...]
    failed: str
    left_out: tuple[str, ...]


def answer(comparison: Comparison) -> Answer:
    """The answer of a comparison, for its primary metrics, those with a direction first."""
    metrics = tuple(_answer_metric(comparison, metric) for metric in choose_metrics(comparison))
    return Answer(_tell_runs(comparison), metrics, _tell_failures(comparison), tuple(comparison.exclusions))


def choose_metrics(comparison: Comparison) -> list[str]:
    """The metrics that are answered for: primary ones, of which those with a direction come first."""
    candidates = [metric for metric in comparison.primary if metric in comparison.metrics] or list(comparison.metrics)
    directed = [metric for metric in candidates if metric in comparison.runs.directions]
    return (directed or candidates)[:MOST_ANSWERS]


def _tell_runs(comparison: Comparison) -> str:
    runs = comparison.runs
    text = f"{count_things(len(runs), 'run')} of {join_words([folder.path.name for folder in runs.studies])}"
    if comparison.axes:
        axes = [f"{count_things(runs.points[name].map(str).nunique(), 'value')} of {name}" for name in comparison.axes]
        text += f": {count_things(len(runs.points), 'point')} ({', '.join(axes)})"
    seeds = np.unique(np.bincount(runs.point, minlength=max(1, len(runs.points))))
    count = f"{seeds[0]:,}" if len(seeds) == 1 else f"{seeds[0]:,} to {seeds[-1]:,}"
    each = " each" if len(runs.points) > 1 else ""
    text += f", {count} {'run' if seeds[-1] == 1 else 'runs'}{each}" if comparison.axes else ""
    if runs.pending:
        text += f"; {count_things(runs.pending, 'run')} pending"
    if comparison.looks > 1:
        text += f"; look {comparison.looks} at this study, for which the level was lowered"
    return text + "."


def _tell_failures(comparison: Comparison) -> str:
    """How many runs failed or have a result that is not finite, and at which points most; empty if there are none."""
    runs = comparison.runs
    counts = {status: runs.status == STATUS_CODES[status] for status in (Status.FAILED, Status.NONFINITE)}
    words = {Status.FAILED: "failed", Status.NONFINITE: "have a result that is not finite"}
    told = [f"{mask.sum():,} of {len(runs):,} runs {words[status]}" for status, mask in counts.items() if mask.any()]
    if not told:
        return ""
    bad = np.bincount(runs.point[np.any([*counts.values()], axis=0)], minlength=max(1, len(runs.points)))
    text = join_words(told)
    worst = int(np.argmax(bad))
    if len(runs.points) > 1:
        label = format_label(runs.points.iloc[worst].to_dict(), comparison.axes)
        text += f", most at {label} ({bad[worst]:,} of {int((runs.point == worst).sum()):,})"
    return text + "."


def _answer_metric(comparison: Comparison, metric: str) -> MetricAnswer:
    rows = rank_points(comparison, metric)
    finite = rows[rows["mean"].notna()] if len(rows) else rows
    if not len(finite):
        return MetricAnswer(metric, f"No run has a finite value of {metric}.", "", "", "")
    settle, command = _tell_settling(comparison, rows)
    return MetricAnswer(metric, _tell_best(comparison, metric, finite), _tell_shown(rows), settle, command)


def _tell_best(comparison: Comparison, metric: str, rows: pd.DataFrame) -> str:
    """The best point with its corrected or confirmed estimate; or else what there is to say of the means."""
    level, goal = f"{100 * comparison.level:g} %", describe_goal(comparison, metric)
    best = comparison.best.get(metric)
    if best is not None:
        return tell_best(best, f"{metric} ({goal})", rows[rows["is_best"]].iloc[0]["name"], len(rows), level)
    if len(rows) == 1:
        row = rows.iloc[0]
        return f"{metric} is {format_bounds(row['mean'], row['low'], row['high'], level)}."
    if rows["is_best"].any():
        each = [f"{row['name']} {_format_row(row)}" for _, row in rows[rows["is_best"]].iterrows()]
        return f"Best {metric} ({goal}) of each task, not corrected for the choice: {join_words(each, NAMED)}."
    ends = [f"{format_short(rows.loc[i, 'mean'])} at {rows.loc[i, 'name']}" for i in _find_ends(rows)]
    return f"{metric} has no direction in task.metrics, so no point is the best; its means go from {' to '.join(ends)}."


def tell_best(best: Best, metric: str, name: str, points: int, level: str = "95 %") -> str:
    """The best of some points of a metric by its name, with its confirmed or corrected estimate."""
    text = f"Best {metric}: {name}, mean {format_short(best.estimate)}"
    if best.confirmed is not None:
        low, high = best.confirmed.low, best.confirmed.high
        return f"{text}; on fresh seeds alone {format_bounds(best.confirmed_mean, low, high, level)}."
    if not math.isfinite(best.corrected):
        return f"{text}; how much of that is chance cannot be told from these seeds."
    corrected = format_bounds(best.corrected, best.low, best.high, level)
    return f"{text}; corrected for the choice among {count_things(points, 'point')} {corrected}."


def _find_ends(rows: pd.DataFrame) -> tuple[int, int]:
    return int(rows["mean"].idxmin()), int(rows["mean"].idxmax())


def _format_row(row: pd.Series) -> str:
    return format_estimate(row["mean"], row["low"], row["high"])


CONCLUDED = {
    Conclusion.BETTER.value: "better than {}",
    Conclusion.WORSE.value: "worse than {}",
    Conclusion.DIFFERS.value: "different from {}",
    Conclusion.SAME.value: "the same as {}",
    Conclusion.FAILS_MORE.value: "failing more than {}",
    Conclusion.FAILS_LESS.value: "failing less than {}",
}
"""How a sentence has the conclusions that something is shown by; the others tell what is not shown."""


def _tell_shown(rows: pd.DataFrame) -> str:
    """How many points are better, worse or neither than what they are compared with, and which."""
    best = rows.loc[rows["is_best"], "name"]
    rows = rows[rows["conclusion"].notna()]
    if not len(rows):
        return "There is nothing to compare."
    against = list(dict.fromkeys(rows["against"]))
    base = against[0] if len(against) == 1 else "what each is compared with"
    if set(against) <= set(best):
        base = "the best" if len(best) == 1 else "the best of their task"
    is_told = rows["conclusion"].isin(list(CONCLUDED))
    told = [
        f"{CONCLUDED[str(conclusion)].format(base)}: {_name_points(own)}"
        for conclusion, own in rows[is_told].groupby("conclusion", sort=False)
    ]
    rest = [
        f"{conclusion}: {_name_points(own)}" for conclusion, own in rows[~is_told].groupby("conclusion", sort=False)
    ]
    if not told:
        return f"No difference to {base} is shown ({'; '.join(rest)})."
    return f"Shown to be {'; '.join([*told, *rest])}."


def _name_points(rows: pd.DataFrame) -> str:
    """The number of points, with some names: `6 points (lr=0.1, lr=0.2, lr=0.3 and 3 more)`."""
    names = rows["name"].tolist()
    if len(names) == 1:
        return str(names[0])
    room = np.cumsum([len(name) for name in names[:NAMED]]) <= NAMED_CHARACTERS
    return f"{len(names):,} points ({join_words(names, max(1, int(room.sum())))})"


def _tell_settling(comparison: Comparison, rows: pd.DataFrame) -> tuple[str, str]:
    """What would settle what is not shown, and the command for it."""
    open_rows = rows[rows["conclusion"].isin(UNSETTLED)]
    if not len(open_rows):
        return "More seeds are not needed for these conclusions." if rows["conclusion"].notna().any() else "", ""
    if not comparison.suggestion:
        return f"For {_count(open_rows)}: --difference D proposes the seeds that show a difference of D.", ""
    return f"More seeds may settle {_count(open_rows)}:", comparison.suggestion


def _count(rows: pd.DataFrame) -> str:
    return "the point that is not shown" if len(rows) == 1 else f"the {len(rows):,} points that are not shown"


def list_lines(found: MetricAnswer) -> Sequence[str]:
    """The three lines about a metric, without those that have nothing to say."""
    return [line for line in (found.best, found.shown, found.settle) if line]

"""Distributions over the seeds, and performance profiles over tasks."""

import numpy as np

from runner.analysis import statistics
from runner.analysis.aggregates import Scores, group_scores
from runner.analysis.formats import count_things, format_short
from runner.analysis.pictures.scales import Scale, Tick, scale_numbers
from runner.analysis.pictures.scene import COLORS, Key, Line, Panel, Picture
from runner.analysis.pictures.subject import Subject, name_point
from runner.analysis.standings import SMALLER

MOST_PLACES = 401
"""Places of a line; the quantiles between them of more values."""
THRESHOLDS = 201
QUARTERS = tuple(
    Tick(share, text) for share, text in ((0.0, "0"), (0.25, "1/4"), (0.5, "1/2"), (0.75, "3/4"), (1, "1"))
)


def draw_distribution(subject: Subject) -> Picture | None:
    """The share of the runs with at most a value, of the best points."""
    rows = subject.rows[subject.rows["mean"].notna()][:COLORS]
    samples = subject.comparison.select_samples(subject.metric, rows)
    if max(len(sample.values) for sample in samples) < 3:
        return None
    lines, keys = [], []
    for i, (sample, name) in enumerate(zip(samples, rows.index, strict=True)):
        share = np.linspace(0, 1, min(len(sample.values) + 1, MOST_PLACES))
        places = np.quantile(sample.values, share, method="inverted_cdf")
        lines.append(Line(places, share, color=i, is_step=True))
        keys.append(Key(name_point(subject.rows.loc[name], subject.axes, is_full=True), i, has_line=True))
    x = scale_numbers(subject.label, np.concatenate([line.x for line in lines]), is_log=subject.is_log)
    panel = Panel(x, _scale_share("share of the seeds at most"), tuple(lines), title=subject.task)
    caption = "Share of the seeds whose value is at most that below."
    if len(subject.rows) > len(rows):
        caption += f" The {len(rows)} best of {len(subject.rows):,} points."
    medians = [f"{subject.names[i]} {format_short(float(rows.loc[i, 'median']))}" for i in rows.index]
    return Picture(
        name="ecdf",
        metric=subject.metric,
        title=f"{subject.metric}: distribution over the seeds",
        caption=caption,
        alternative=f"Distributions of {subject.metric}; medians: {', '.join(medians)}.",
        panels=(panel,),
        keys=tuple(keys),
    )


def draw_profile(subject: Subject) -> Picture | None:
    """The share of runs that are better than a threshold, averaged over tasks (Agarwal et al., 2021)."""
    comparison, metric = subject.comparison, subject.metric
    groups = group_scores(comparison.runs, comparison.samples, metric)
    if not groups:
        return None
    thresholds = np.linspace(0, 1, THRESHOLDS)
    others = tuple(name for name in comparison.axes if name != "task")
    scaled = _scale_tasks(groups, -1.0 if comparison.runs.directions.get(metric) == SMALLER else 1.0)
    shares = {key: statistics.profile(own, thresholds) for key, own in scaled.items()}
    ranked = sorted(shares, key=lambda key: -float(shares[key].mean()))
    lines = tuple(Line(thresholds, shares[key], color=i) for i, key in enumerate(ranked[:COLORS]))
    names = [name_point(dict(zip(others, key, strict=True)), others) for key in ranked]
    x = scale_numbers(f"{metric}: from the worst run of a task (0) to its best (1)", thresholds)
    tasks = count_things(len(next(iter(groups.values()))), "task")
    caption = f"Share of the runs that are better than a value within the range of their task, averaged over {tasks}."
    if len(groups) > COLORS:
        caption += f" The {COLORS} best of {len(groups):,} points."
    return Picture(
        name="profile",
        metric=metric,
        title=f"{metric}: performance profile over the tasks",
        caption=caption,
        alternative=f"Performance profiles of {metric}, averaged over {tasks}; highest on average: {names[0]}.",
        panels=(Panel(x, _scale_share("share of the runs that are better"), lines),),
        keys=tuple(Key(name, i, has_line=True) for i, name in enumerate(names[:COLORS])),
    )


def _scale_tasks(groups: Scores, sign: float) -> Scores:
    """Scores from 0, the worst run of a task, to 1, its best: tasks may have different scales."""
    pooled = [sign * np.concatenate(task) for task in zip(*groups.values(), strict=True)]
    ranges = [(float(np.min(task)), float(np.max(task))) for task in pooled]
    return {
        key: [(sign * task - low) / (high - low or 1.0) for task, (low, high) in zip(own, ranges, strict=True)]
        for key, own in groups.items()
    }


def _scale_share(label: str) -> Scale:
    return Scale(label, -0.02, 1.02, QUARTERS)

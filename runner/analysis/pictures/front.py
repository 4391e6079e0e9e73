"""The Pareto front of a search with several objectives."""

from itertools import combinations

import numpy as np

from runner.analysis.comparison import Comparison
from runner.analysis.formats import count_things, format_label, format_short
from runner.analysis.history import Search, average_points, find_sign, select_front
from runner.analysis.load import Runs
from runner.analysis.pictures.scales import AXIS_SPREAD, Scale, is_spread, scale_numbers
from runner.analysis.pictures.scene import MUTED, Dots, Key, Line, Mark, Panel, Picture, Symbols
from runner.analysis.pictures.shown import Shown
from runner.analysis.standings import LARGER, describe_goal

MOST_OBJECTIVES = 3
"""Objectives whose pairs have a panel each."""
MOST_NAMED = 300
"""Points of the front that are marked."""


def draw_front(comparison: Comparison, search: Search, shown: Shown) -> Picture | None:
    """The picture of all points over each pair of objectives, those of the front marked; None with one objective."""
    metrics = tuple(search.objectives)
    if len(metrics) < 2:
        return None
    runs = comparison.runs
    front = select_front(runs, metrics)
    panels = tuple(_draw_panel(comparison, pair, front, shown) for pair in combinations(metrics[:MOST_OBJECTIVES], 2))
    count = int(front.sum())
    caption = f"Filled: the {count_things(count, 'point')} of {len(runs.points):,} that no other one beats in all of "
    caption += f"{', '.join(metrics)}, by their means over the seeds; dots: runs, of which single ones may lie beyond."
    if len(metrics) > 2:
        caption += " Points of the front of all objectives may be beaten in the two of a panel."
    if len(metrics) > MOST_OBJECTIVES:
        caption += f" The first {MOST_OBJECTIVES} of {len(metrics)} objectives."
    if count > MOST_NAMED:
        caption += f" {MOST_NAMED:,} of them are marked."
    if shown.left_out:
        caption += f" {shown.left_out}."
    return Picture(
        name="front",
        metric="",
        title="Pareto front",
        caption=caption,
        alternative=_describe(comparison, metrics, front),
        panels=panels,
        keys=(Key("the front", 1, has_line=len(metrics) == 2), Key("runs", MUTED)),
        is_main=True,
    )


def _draw_panel(comparison: Comparison, pair: tuple[str, str], front: np.ndarray, shown: Shown) -> Panel:
    runs, own = comparison.runs, shown.runs
    values = [runs.values[metric][own] for metric in pair]
    means = [average_points(runs, metric) for metric in pair]
    x, y = (
        _scale(comparison, metric, np.concatenate([v, m])) for metric, v, m in zip(pair, values, means, strict=True)
    )
    kept = np.flatnonzero(front)
    kept = kept[np.argsort(means[0][kept], kind="stable")][:: max(1, -(-len(kept) // MOST_NAMED))]
    marks: list[Mark] = [Dots(values[0], values[1], np.arange(len(own)), MUTED)]
    if np.array_equal(select_front(runs, pair), front):  # otherwise it is no edge of these two
        marks.append(_trace_front(runs, pair, means, kept))
    titles = [_name(comparison, pair, point, means) for point in kept.tolist()]
    marks.append(Symbols(means[0][kept], means[1][kept], np.ones(len(kept), dtype=bool), titles, "square", 1))
    return Panel(x, y, tuple(marks), height=380)


def _trace_front(runs: Runs, pair: tuple[str, str], means: list[np.ndarray], kept: np.ndarray) -> Line:
    """The edge of what the points of the front beat: each holds until the next one is better."""
    x, y = means[0][kept], means[1][kept]
    if find_sign(runs, pair[0]) < 0:
        x, y = x[::-1], y[::-1]
    return Line(x, y, 1, is_step=True)


def _scale(comparison: Comparison, metric: str, values: np.ndarray) -> Scale:
    goal = describe_goal(comparison, metric)
    is_log = comparison.runs.directions.get(metric) != LARGER and is_spread(values, AXIS_SPREAD)
    return scale_numbers(f"{metric} ({goal})" if goal else metric, values, is_log=is_log)


def _name(comparison: Comparison, pair: tuple[str, str], point: int, means: list[np.ndarray]) -> str:
    label = format_label(comparison.runs.points.iloc[point].to_dict(), comparison.axes)
    values = [f"{metric} {format_short(float(own[point]))}" for metric, own in zip(pair, means, strict=True)]
    return f"{label}: {', '.join(values)}"


def _describe(comparison: Comparison, metrics: tuple[str, ...], front: np.ndarray) -> str:
    told = f"Front of {count_things(int(front.sum()), 'point')} of {len(front):,} over {', '.join(metrics)}"
    if not front.any():
        return f"{told}."
    ends = []
    for metric in metrics:
        means = average_points(comparison.runs, metric)[front]
        ends.append(f"{metric} from {format_short(float(means.min()))} to {format_short(float(means.max()))}")
    return f"{told}: {'; '.join(ends)}."

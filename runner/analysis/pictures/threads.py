"""Parallel coordinates: each run a line through its values of all axes and metrics."""

import numpy as np
import pandas as pd

from runner.analysis.comparison import Comparison
from runner.analysis.formats import count_things, format_short
from runner.analysis.history import Search, average_points, find_sign
from runner.analysis.pictures.scales import Scale, is_spread, scale_names
from runner.analysis.pictures.scene import MUTED, Dots, Key, Line, Mark, Panel, Picture, Rule
from runner.analysis.pictures.shown import Shown
from runner.analysis.pictures.slices import place_values
from runner.analysis.pictures.subject import format_axis_value

MOST_THREADS = 600
"""Runs in the picture; more lines are one area."""
MOST_COLUMNS = 12
TENTH = 0.1
"""The share of the points of a search that stands out."""


def draw_threads(comparison: Comparison, shown: Shown, search: Search | None = None) -> Picture | None:
    """The picture of all axes and metrics, if there are at least three of them; a missing value interrupts a line.

    Of a search, the best tenth of the points stands out.
    """
    names = [*comparison.axes, *comparison.metrics]
    if len(names) < 3 or not comparison.axes or len(shown) < 2:
        return None
    kept = np.arange(len(shown))[:: -(-len(shown) // MOST_THREADS)]
    own = shown.runs[kept]
    runs = comparison.runs
    heights = {name: _place_axis(runs.points[name], runs.point[own], search) for name in comparison.axes}
    values = {name: runs.values[name][own] for name in comparison.metrics}
    heights |= {name: _place_metric(column, is_log=is_spread(column)) for name, column in values.items()}
    columns = dict(list(heights.items())[:MOST_COLUMNS])
    marks: list[Mark] = [Rule(float(i)) for i in range(len(columns))]
    best, metric = _find_best(comparison, search)
    marks += _draw_threads([height for height, _ in columns.values()], kept, best[runs.point[own]])
    ends = [f"{name}: {ends}" for name, (_, ends) in columns.items()]
    caption = "Each line is a run; each upright line an axis or a metric, from the least value below to the greatest: "
    caption += "; ".join(ends) + "."
    if metric:
        caption += f" Blue: the best {count_things(int(best.sum()), 'point')} by the mean of {metric}."
    if len(own) < len(runs):
        caption += f" {len(own):,} of {len(runs):,} runs, evenly chosen."
    if len(heights) > len(columns):
        caption += f" The first {len(columns)} of {len(heights)} axes and metrics."
    y = Scale("", -0.05, 1.05, ())
    return Picture(
        name="threads",
        metric="",
        title="Runs, axis by axis",
        caption=caption,
        alternative=f"Parallel coordinates of {len(own):,} runs over {', '.join(columns)}.",
        panels=(Panel(scale_names("", list(columns)), y, tuple(marks), height=320),),
        keys=(Key("the best tenth of the points", 0, has_line=True), Key("others", MUTED, has_line=True))
        if metric
        else (),
    )


def _find_best(comparison: Comparison, search: Search | None) -> tuple[np.ndarray, str]:
    """The best tenth of the points of a search, bool `(points,)`, by which metric; none if it has no direction."""
    runs = comparison.runs
    none = np.zeros(max(1, len(runs.points)), dtype=bool)
    metric = next(
        (name for name in (*(search.objectives if search else ()), *runs.directions) if name in runs.values), ""
    )
    if search is None or not metric:
        return none, ""
    costs = find_sign(runs, metric) * average_points(runs, metric)
    if search.budget:
        costs = np.where(runs.points[search.budget] == runs.points[search.budget].max(), costs, np.nan)
    known = costs[np.isfinite(costs)]
    return (costs <= np.quantile(known, TENTH), metric) if len(known) else (none, "")


def _draw_threads(heights: list[np.ndarray], places: np.ndarray, is_best: np.ndarray) -> list[Mark]:
    """The lines of the runs, those of the best points above the others, and a dot for each value."""
    table = np.array(heights)
    lines = [_join_line(table[:, ~is_best], MUTED, is_faint=True)]
    lines += [_join_line(table[:, is_best], 0, is_faint=False)] if is_best.any() else []
    known = np.isfinite(table)
    dots: list[Mark] = [
        Dots(np.full(int(own.sum()), float(i)), table[i][own], places[own]) for i, own in enumerate(known)
    ]
    return [*lines, *dots]


def _join_line(table: np.ndarray, color: int, *, is_faint: bool) -> Line:
    """One line through the columns of a table `(columns, runs)` for each run, interrupted between two runs."""
    columns, count = table.shape
    x = np.append(np.arange(columns, dtype=float), np.nan)
    y = np.vstack([table, np.full(count, np.nan)])
    return Line(np.tile(x, count), y.T.ravel(), color, is_faint=is_faint)


def _place_axis(values: pd.Series, point: np.ndarray, search: Search | None) -> tuple[np.ndarray, str]:
    """The heights of runs on an axis, from 0 to 1, and what its ends are."""
    places, names = place_values(values.tolist())
    if not names:
        is_log = is_spread(places) if search is None else search.is_logarithmic(str(values.name), places)
        return _place_metric(places[point], is_log=is_log)
    texts = list(dict.fromkeys(map(format_axis_value, values)))
    codes = np.array([texts.index(format_axis_value(value)) for value in values], dtype=float)
    heights = codes / max(1, len(texts) - 1)
    return heights[point], f"{texts[0]} … {texts[-1]}" if len(texts) > 1 else texts[0]


def _place_metric(values: np.ndarray, *, is_log: bool) -> tuple[np.ndarray, str]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.full(len(values), np.nan), "no finite value"
    low, high = float(finite.min()), float(finite.max())
    ends = f"{format_short(low)} … {format_short(high)}"
    if high <= low:
        return np.where(np.isfinite(values), 0.5, np.nan), ends
    if is_log:
        return np.log(np.where(values > 0, values, np.nan) / low) / np.log(high / low), f"{ends}, logarithmic"
    return np.where(np.isfinite(values), (values - low) / (high - low), np.nan), ends

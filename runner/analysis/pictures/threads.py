"""Parallel coordinates: each run a line through its values of all axes and metrics."""

import numpy as np
import pandas as pd

from runner.analysis.comparison import Comparison
from runner.analysis.formats import format_short
from runner.analysis.pictures.scales import Scale, is_spread, scale_names
from runner.analysis.pictures.scene import MUTED, Dots, Line, Mark, Panel, Picture, Rule
from runner.analysis.pictures.shown import Shown
from runner.analysis.pictures.subject import format_axis_value, is_numeric

MOST_THREADS = 600
"""Runs in the picture; more lines are one area."""
MOST_COLUMNS = 12


def draw_threads(comparison: Comparison, shown: Shown) -> Picture | None:
    """The picture of all axes and metrics, if there are at least three of them; a missing value interrupts a line."""
    names = [*comparison.axes, *comparison.metrics]
    if len(names) < 3 or not comparison.axes or len(shown) < 2:
        return None
    kept = np.arange(len(shown))[:: -(-len(shown) // MOST_THREADS)]
    own = shown.runs[kept]
    runs = comparison.runs
    heights = {name: _place_axis(runs.points[name], runs.point[own]) for name in comparison.axes}
    heights |= {name: _place_metric(runs.values[name][own]) for name in comparison.metrics}
    columns = dict(list(heights.items())[:MOST_COLUMNS])
    marks: list[Mark] = [Rule(float(i)) for i in range(len(columns))]
    marks += _draw_threads([height for height, _ in columns.values()], kept)
    ends = [f"{name}: {ends}" for name, (_, ends) in columns.items()]
    caption = "Each line is a run; each upright line an axis or a metric, from the least value below to the greatest: "
    caption += "; ".join(ends) + "."
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
    )


def _draw_threads(heights: list[np.ndarray], places: np.ndarray) -> list[Mark]:
    table = np.array(heights)
    count, columns = table.shape[1], table.shape[0]
    x = np.append(np.arange(columns, dtype=float), np.nan)
    y = np.vstack([table, np.full(count, np.nan)])
    line = Line(np.tile(x, count), y.T.ravel(), MUTED, is_faint=True)
    known = np.isfinite(table)
    dots = [Dots(np.full(int(known[i].sum()), float(i)), table[i][known[i]], places[known[i]]) for i in range(columns)]
    return [line, *dots]


def _place_axis(values: pd.Series, point: np.ndarray) -> tuple[np.ndarray, str]:
    """The heights of runs on an axis, from 0 to 1, and what its ends are."""
    if is_numeric(values):
        return _place_metric(values.to_numpy(float)[point])
    texts = list(dict.fromkeys(map(format_axis_value, values)))
    codes = np.array([texts.index(format_axis_value(value)) for value in values], dtype=float)
    heights = codes / max(1, len(texts) - 1)
    return heights[point], f"{texts[0]} … {texts[-1]}" if len(texts) > 1 else texts[0]


def _place_metric(values: np.ndarray) -> tuple[np.ndarray, str]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.full(len(values), np.nan), "no finite value"
    low, high = float(finite.min()), float(finite.max())
    ends = f"{format_short(low)} … {format_short(high)}"
    if high <= low:
        return np.where(np.isfinite(values), 0.5, np.nan), ends
    if is_spread(finite):
        return np.log(np.where(values > 0, values, np.nan) / low) / np.log(high / low), f"{ends}, logarithmic"
    return np.where(np.isfinite(values), (values - low) / (high - low), np.nan), ends

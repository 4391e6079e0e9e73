"""Slices of a search: a metric along each axis, whatever the others are."""

import math
from typing import Any

import numpy as np

from runner.analysis.formats import AXIS, count_things, format_short
from runner.analysis.history import Search, divide_points, group_axis
from runner.analysis.pictures.history import color_stages, find_lost, list_stages, mark_lost, scale_metric
from runner.analysis.pictures.scales import scale_names, scale_numbers
from runner.analysis.pictures.scene import Dots, Line, Panel, Picture, Star
from runner.analysis.pictures.subject import Subject, format_axis_value

MOST_PANELS = 12
JITTER = 0.28
"""How far dots are shifted across a category, at most."""
GOLDEN = 0.618034
MOST_NAMED = 6
"""Values of a numeric axis that are drawn like categories."""
FEWEST = 16
"""Points from which on the medians along a numeric axis tell something."""


def draw_slices(subject: Subject, search: Search) -> Picture | None:
    """The picture of a metric along each axis but the budget; None without one."""
    axes = [name for name in subject.axes if name != search.budget]
    if not axes:
        return None
    _, names = divide_points(subject.comparison.runs, search)
    return Picture(
        name="slices",
        metric=subject.metric,
        title=f"{subject.metric} along each axis",
        caption=_tell(subject, search, axes),
        alternative=_describe(subject, axes),
        panels=tuple(_draw_panel(subject, search, name) for name in axes[:MOST_PANELS]),
        keys=list_stages(search, names),
        is_main=True,
    )


def _tell(subject: Subject, search: Search, axes: list[str]) -> str:
    """The caption: what is drawn, and what of the points and the axes is not."""
    shown = axes[:MOST_PANELS]
    text = "Dots: runs"
    if any(_has_medians(subject, name) for name in axes):
        least = " with the least budget" if search.budget else ""
        text += f"; lines: medians of the points{least} in eight parts of an axis with equally many points"
    text += ". What else differs between the runs is not shown."
    if find_lost(subject).any():
        text += " Crosses at the edge: points with a run that has no finite value."
    if absent := [name for name in shown if _read_axis(subject, name)[1].any()]:
        text += f" Points that do not have {', '.join(absent)} are in the other panels only."
    if len(axes) > MOST_PANELS:
        text += f" The first {MOST_PANELS} of {len(axes)} axes."
    return text


def place_values(values: list[Any], most_named: int = 2) -> tuple[np.ndarray, list[str]]:
    """Numbers as they are, or the places of texts, and of at most so many numbers, with their names in order.

    NaN where a point does not have the axis.
    """
    given = list({value for value in values if value is not None and value == value})
    are_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in given)
    if are_numbers and len(given) > most_named:
        return np.array([math.nan if value is None else value for value in values], dtype=float), []
    names = list(dict.fromkeys(map(format_axis_value, sorted(given, key=None if are_numbers else str))))
    places = {value: float(names.index(format_axis_value(value))) for value in given}
    return np.array([math.nan if value is None else places.get(value, math.nan) for value in values]), names


def _read_axis(subject: Subject, name: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The place of each point on an axis, which of them do not have it, `(points,)` each, and the names of texts."""
    places, names = place_values(subject.comparison.runs.points[name].tolist(), MOST_NAMED)
    return places, np.isnan(places), names


def _has_medians(subject: Subject, name: str) -> bool:
    _, absent, names = _read_axis(subject, name)
    return not names and int((~absent).sum()) >= FEWEST


def _draw_panel(subject: Subject, search: Search, name: str) -> Panel:
    runs = subject.comparison.runs
    places, absent, names = _read_axis(subject, name)
    label = name.removeprefix(AXIS)
    log = not names and search.is_logarithmic(name, places)
    x = scale_names(label, names) if names else scale_numbers(label, places, is_log=log)
    kept, _, values = subject.find_runs(subject.rows)
    own = subject.shown.runs[kept]
    y = scale_metric(subject, values)
    point = runs.point[own]
    shift = JITTER * (2 * ((np.arange(len(own)) * GOLDEN) % 1) - 1) if names else np.zeros(len(own))
    stage, stages = divide_points(runs, search)
    marks = mark_lost(subject, x, y, places[find_lost(subject) & ~absent])
    for number, color in enumerate(color_stages(search, len(stages))):
        here = (stage[point] == number) & ~absent[point]
        marks.append(Dots(places[point][here] + shift[here], values[here], kept[here], color))
    if _has_medians(subject, name):
        marks.append(_draw_medians(subject, stage == 0 if search.budget else ~absent, places))
    return Panel(x, y, (*marks, *_mark_best(subject, places)), height=260)


def _draw_medians(subject: Subject, own: np.ndarray, places: np.ndarray) -> Line:
    """The median of the points' means in each part of an axis, at the median of the part."""
    rows = subject.rows[subject.rows["mean"].notna()]
    point = rows["point"].to_numpy(int)
    here = own[point] & np.isfinite(places[point])
    x, y = places[point][here], rows["mean"].to_numpy(float)[here]
    groups = group_axis(x.tolist())
    parts = sorted({int(group) for group in groups}, key=lambda group: float(np.median(x[groups == group])))
    return Line(
        np.array([np.median(x[groups == part]) for part in parts]),
        np.array([np.median(y[groups == part]) for part in parts]),
        1,
    )


def _mark_best(subject: Subject, places: np.ndarray) -> list[Star]:
    if subject.best is None:
        return []
    best = subject.rows.iloc[subject.best]
    at = float(places[int(best["point"])])
    return [Star(at, float(best["mean"]))] if np.isfinite(at) else []


def _describe(subject: Subject, axes: list[str]) -> str:
    told = [f"{subject.metric} along {count_things(len(axes), 'axis', 'axes')}"]
    best = None if subject.best is None else subject.rows.iloc[subject.best]
    for name in axes:
        places, absent, names = _read_axis(subject, name)
        known = places[~absent]
        if names:
            text = f"{name}: {', '.join(names)}"
        else:
            text = f"{name} from {format_short(float(known.min()))} to {format_short(float(known.max()))}"
        told.append(text + ("" if best is None else f", the best at {format_axis_value(best[name])}"))
    return "; ".join(told) + "."

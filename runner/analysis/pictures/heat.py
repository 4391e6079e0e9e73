"""Maps of the means over two axes; with more axes, a panel for each combination of the others."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.formats import count_things, format_short
from runner.analysis.pictures.scales import Scale, scale_names
from runner.analysis.pictures.scene import Cells, Key, Panel, Picture, Shades, Star
from runner.analysis.pictures.subject import Subject, format_axis_value

MOST_PANELS = 24
MOST_VALUES = 60
"""Values of an axis of a map; more would be narrower than 5 pixels."""
MOST_TEXTS = 12
"""Columns of a map whose cells have their values written in."""
SHADES = 5
"""Values in the legend of the colours."""


def draw_heat_maps(subject: Subject) -> Picture | None:
    """The picture of a metric over the two axes that change it most, if there are two."""
    if len(subject.axes) < 2:
        return None
    strength = measure_axes(subject)
    strongest = sorted(strength, key=lambda name: -strength[name])[:2]
    if max(subject.rows[name].map(str).nunique() for name in strongest) > MOST_VALUES:
        return None
    across, down = _orient(subject, strongest)
    others = [name for name in subject.axes if name not in strongest]
    groups = _group_rows(subject.rows, others)
    low, high, is_log = _find_range(subject)
    panels = [
        _draw_map(subject, rows, (across, down), (low, high, is_log), title)
        for title, rows in list(groups.items())[:MOST_PANELS]
    ]
    panels[-1] = replace(panels[-1], shades=Shades(subject.label, _list_shades(low, high, is_log)))
    caption = "Colour: mean over the seeds."
    if others:
        caption += f" A map for each value of {', '.join(others)}; {across} and {down} change the mean most."
    if len(groups) > MOST_PANELS:
        caption += f" The first {MOST_PANELS} of {len(groups):,} maps, those with the best points first."
    return Picture(
        name="heat",
        metric=subject.metric,
        title=f"{subject.metric} over {across} and {down}",
        caption=caption,
        alternative=_describe(subject, across, down, strength),
        panels=tuple(panels),
        keys=(Key("the best mean", 1, shape="star"),) if subject.best is not None else (),
        is_main=True,
    )


def measure_axes(subject: Subject) -> dict[str, float]:
    """The share of the variance of the points' means that each axis explains alone; of logarithms on such a scale."""
    rows = subject.rows[subject.rows["mean"].notna()]
    means = rows["mean"].to_numpy(float)
    means = np.log(means) if subject.is_log else means
    total = float(means.var())
    shares = {}
    for name in subject.axes:
        groups = pd.Series(means).groupby(rows[name].map(str).to_numpy())
        shares[name] = float(groups.transform("mean").var(ddof=0)) / total if total > 0 else 0.0
    return shares


def _orient(subject: Subject, axes: list[str]) -> tuple[str, str]:
    """Which axis goes across: the one of short labels and many values, since long labels are legible down the side."""

    def measure_labels(name: str) -> tuple[int, int]:
        texts = {format_axis_value(value) for value in subject.rows[name]}
        return max(map(len, texts)) > 8, -len(texts)

    first, second = sorted(axes, key=measure_labels)
    return first, second


def _group_rows(rows: pd.DataFrame, others: list[str]) -> dict[str, pd.DataFrame]:
    """The rows of each combination of values, the one with the best point first, by its description."""
    names = [" ".join(f"{name}={format_axis_value(row[name])}" for name in others) for row in rows.to_dict("records")]
    keys = np.array(names, dtype=object)
    return {key: rows[keys == key] for key in dict.fromkeys(names)}


def _find_range(subject: Subject) -> tuple[float, float, bool]:
    means = subject.rows["mean"].dropna().to_numpy(float)
    means = means[np.isfinite(means)]
    low, high = float(means.min()), float(means.max())
    return low, high, subject.is_log and low > 0


def _draw_map(
    subject: Subject, rows: pd.DataFrame, axes: tuple[str, str], limits: tuple[float, float, bool], title: str
) -> Panel:
    columns, lines = (_list_values(subject.rows[name]) for name in axes)
    shape = (len(lines), len(columns))
    shade, texts, titles = np.full(shape, np.nan), np.full(shape, "", object), np.full(shape, "no run", object)
    star = None
    for row in rows.index:
        own = subject.records[row]
        i, j = lines.index(format_axis_value(own[axes[1]])), columns.index(format_axis_value(own[axes[0]]))
        shade[i, j] = _place(float(own["mean"]), *limits)
        texts[i, j] = "×" if math.isnan(own["mean"]) else format_short(float(own["mean"]), is_padded=True)
        titles[i, j] = subject.describe_row(int(row))
        star = Star(float(j), float(i)) if row == subject.best else star
    if shape[1] > MOST_TEXTS:
        texts[texts != "×"] = ""
    cells = Cells(shade, texts.tolist(), titles.tolist())
    title = " ".join(part for part in (subject.task, title) if part)
    return Panel(_scale(axes[0], columns), _scale(axes[1], lines), (cells, *([star] if star else [])), title=title)


def _scale(name: str, values: list[str]) -> Scale:
    return scale_names(name, values)


def _list_values(values: pd.Series) -> list[str]:
    """The distinct values of an axis, numbers in ascending order and others as in the table."""
    distinct: list[Any] = list(dict.fromkeys(values.tolist()))
    if pd.api.types.is_numeric_dtype(values):
        distinct = sorted(distinct)
    else:
        distinct = sorted(distinct, key=lambda value: (value is None, 0))
    return list(dict.fromkeys(map(format_axis_value, distinct)))


def _place(value: float, low: float, high: float, is_log: bool) -> float:
    if not math.isfinite(value):
        return math.nan
    if high <= low:
        return 0.5
    if is_log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _list_shades(low: float, high: float, is_log: bool) -> tuple[str, ...]:
    shares = np.linspace(0, 1, SHADES)
    values = low * (high / low) ** shares if is_log else low + (high - low) * shares
    return tuple(format_short(float(value)) for value in values)


def _describe(subject: Subject, across: str, down: str, strength: dict[str, float]) -> str:
    rows = subject.rows[subject.rows["mean"].notna()]
    least, most = rows["mean"].idxmin(), rows["mean"].idxmax()
    text = f"Map of {subject.metric} over {across} and {down}, {count_things(len(subject.rows), 'point')}: "
    text += f"the least mean is {format_short(float(rows.loc[least, 'mean']))} at {subject.names[least]}, "
    text += f"the greatest {format_short(float(rows.loc[most, 'mean']))} at {subject.names[most]}; "
    shares = [f"{name} {100 * strength[name]:.0f} %" for name in (across, down)]
    text += f"of the variance between the points, {' and '.join(shares)} go with the axis alone"
    empty = len(subject.rows) - len(rows)
    return text + (f"; {count_things(empty, 'point')} without a finite value." if empty else ".")

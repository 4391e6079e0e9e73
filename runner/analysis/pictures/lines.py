"""A metric along the numeric axis that changes it most, a line for each combination of the other axes."""

import numpy as np
import pandas as pd

from runner.analysis.formats import count_things, format_short
from runner.analysis.pictures.heat import measure_axes
from runner.analysis.pictures.scales import scale_numbers, scale_values
from runner.analysis.pictures.scene import COLORS, SHAPES, Band, Key, Line, Mark, Panel, Picture, Star, Symbols
from runner.analysis.pictures.subject import Subject, is_numeric, name_point


def draw_lines(subject: Subject) -> Picture | None:
    """The picture of the best lines, if the metric has a numeric axis and others."""
    numeric = [name for name in subject.axes if is_numeric(subject.rows[name])]
    if not numeric or len(subject.axes) < 2:
        return None
    strength = measure_axes(subject)
    axis = max(numeric, key=lambda name: strength[name])
    others = tuple(name for name in subject.axes if name != axis)
    groups = _group_rows(subject, others)
    marks: list[Mark] = []
    for color, rows in enumerate(list(groups.values())[:COLORS]):
        marks += _draw_line(subject, rows.sort_values(axis), axis, color)
    if subject.best is not None:
        best = subject.rows.iloc[subject.best]
        marks.append(Star(float(best[axis]), float(best["mean"])))
    drawn = pd.concat(list(groups.values())[:COLORS])
    y = scale_numbers(subject.label, subject.list_bounds(drawn), is_log=subject.is_log)
    panel = Panel(scale_values(axis, subject.rows[axis].to_numpy(float)), y, tuple(marks), title=subject.task)
    caption = f"Lines: means over the seeds; bands: simultaneous {subject.level} intervals."
    if len(groups) > COLORS:
        caption += f" The {COLORS} of {len(groups):,} lines that have the best points."
    return Picture(
        name="lines",
        metric=subject.metric,
        title=f"{subject.metric} along {axis}, by {', '.join(others)}",
        caption=caption,
        alternative=_describe(subject, axis, groups),
        panels=(panel,),
        keys=tuple(Key(name, i, SHAPES[i], has_line=True) for i, name in enumerate(list(groups)[:COLORS])),
        is_main=True,
    )


def _group_rows(subject: Subject, others: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """The rows of each combination, the one with the best point first."""
    names = [name_point(row, others) for row in subject.rows.to_dict("records")]
    if len(others) == 1:
        names = [f"{others[0]}={name}" for name in names]
    keys = np.array(names, dtype=object)
    groups = {key: subject.rows[keys == key] for key in dict.fromkeys(names)}
    return {key: rows for key, rows in groups.items() if rows["mean"].notna().any()}


def _draw_line(subject: Subject, rows: pd.DataFrame, axis: str, color: int) -> list[Mark]:
    place, mean = rows[axis].to_numpy(float), rows["mean"].to_numpy(float)
    titles = [subject.describe_row(int(i)) for i in rows.index]
    return [
        Band(place, rows["low"].to_numpy(float), rows["high"].to_numpy(float), color),
        Line(place, mean, color),
        Symbols(place, mean, rows["is_shown"].to_numpy(bool), titles, SHAPES[color], color),
    ]


def _describe(subject: Subject, axis: str, groups: dict[str, pd.DataFrame]) -> str:
    told = [f"{count_things(len(groups), 'line')} of {subject.metric} along {axis}"]
    for name, rows in list(groups.items())[:COLORS]:
        known = rows[rows["mean"].notna()]
        least, most = known.loc[known["mean"].idxmin()], known.loc[known["mean"].idxmax()]
        low, high = (f"{format_short(float(row['mean']))} at {format_short(float(row[axis]))}" for row in (least, most))
        told.append(f"{name} between {low} and {high}")
    return "; ".join(told) + "."

"""Points in rows, the best on top: the interval of each mean, and every seed."""

import numpy as np

from runner.analysis.formats import count_things, format_estimate
from runner.analysis.pictures.curve import list_keys
from runner.analysis.pictures.scales import scale_names, scale_numbers
from runner.analysis.pictures.scene import INK, MUTED, Dots, Mark, Panel, Picture, Star, Symbols, Whiskers
from runner.analysis.pictures.subject import Subject

MOST_ROWS = 300
"""Points of a picture in rows; more are too long for one."""
JITTER = 0.24
"""How far dots are shifted across, at most, so that equal ones are told apart; in rows."""
GOLDEN = 0.618034
"""Multiples of it, without their whole part, are evenly spread, and do not look like a pattern."""


def draw_points(subject: Subject) -> Picture:
    """The picture of all points of a metric."""
    rows = subject.rows[:MOST_ROWS]
    at = np.arange(len(rows), dtype=float)
    mean, low, high = (rows[name].to_numpy(float) for name in ("mean", "low", "high"))
    runs, row, values = subject.find_runs(rows)
    shift = JITTER * (2 * ((np.arange(len(runs)) * GOLDEN) % 1) - 1)
    marks: list[Mark] = [
        Whiskers(at, rows["min"].to_numpy(float), rows["max"].to_numpy(float), color=MUTED, is_thin=True),
        Dots(values, at[row] + shift, runs),
        Whiskers(at, low, high, color=INK),
        Symbols(mean, at, rows["is_shown"].to_numpy(bool), [subject.describe_row(i) for i in range(len(rows))]),
    ]
    if subject.best is not None and subject.best < len(rows):
        marks.append(Star(float(mean[subject.best]), float(subject.best)))
    scale = scale_numbers(subject.label, subject.list_values(), is_log=subject.is_log)
    axis = subject.axes[0] if len(subject.axes) == 1 else ""
    panel = Panel(scale, scale_names(axis, subject.names[: len(rows)]), tuple(marks), title=subject.task)
    return Picture(
        name="points",
        metric=subject.metric,
        title=f"{subject.metric}: every point",
        caption=_describe_marks(subject, len(rows)),
        alternative=_describe(subject),
        panels=(panel,),
        keys=list_keys(subject),
        is_main=True,
    )


def _describe_marks(subject: Subject, shown: int) -> str:
    caption = f"Bars: simultaneous {subject.level} intervals of the means; thin lines: from the least run to the "
    caption += "greatest; small dots: runs."
    empty = int(subject.rows["mean"].isna().sum())
    if empty:
        caption += f" {count_things(empty, 'point')} without a finite value {'has' if empty == 1 else 'have'} no mark."
    if len(subject.rows) > shown:
        caption += f" The first {shown:,} of {len(subject.rows):,} points by merit; the others are in the table."
    return caption


def _describe(subject: Subject) -> str:
    """The ends of the order, and how many differences are shown."""
    rows = subject.rows[subject.rows["mean"].notna()]
    first, last = rows.index[0], rows.index[-1]
    text = f"{count_things(len(subject.rows), 'point')} of {subject.metric} with intervals"
    for word, i in (("from", first), ("to", last)):
        estimate = format_estimate(*(float(rows.loc[i, name]) for name in ("mean", "low", "high")))
        text += f" {word} {estimate} at {subject.names[i]}" if len(rows) > 1 or word == "from" else ""
    shown = int(subject.rows["is_shown"].sum())
    return f"{text}. {count_things(shown, 'difference')} of {int(subject.rows['against'].notna().sum())} shown."

"""A metric along one numeric axis: the curve of the means with its band, and every seed."""

import numpy as np

from runner.analysis.formats import format_estimate, format_short
from runner.analysis.pictures.scales import scale_numbers, scale_values
from runner.analysis.pictures.scene import Band, Dots, Key, Line, Mark, Panel, Picture, Star, Symbols, Whiskers
from runner.analysis.pictures.subject import Subject, is_numeric


def draw_curve(subject: Subject) -> Picture | None:
    """The picture of a metric with one axis, if it has numbers."""
    if len(subject.axes) != 1 or not is_numeric(subject.rows[subject.axes[0]]):
        return None
    axis = subject.axes[0]
    rows = subject.rows.sort_values(axis)
    place, mean = rows[axis].to_numpy(float), rows["mean"].to_numpy(float)
    low, high = rows["low"].to_numpy(float), rows["high"].to_numpy(float)
    runs, row, values = subject.find_runs(rows)
    marks: list[Mark] = [Band(place, low, high), Dots(place[row], values, runs), Line(place, mean)]
    marks.append(Whiskers(place, low, high, color=0, is_upright=True))
    titles = [subject.describe_row(int(i)) for i in rows.index]
    marks.append(Symbols(place, mean, rows["is_shown"].to_numpy(bool), titles))
    if subject.best is not None:
        best = subject.rows.iloc[subject.best]
        marks.append(Star(float(best[axis]), float(best["mean"])))
    y = scale_numbers(subject.label, subject.list_values(), is_log=subject.is_log)
    panel = Panel(scale_values(axis, place), y, tuple(marks), height=360, title=subject.task)
    return Picture(
        name="axis",
        metric=subject.metric,
        title=f"{subject.metric} along {axis}",
        caption=f"Line: mean over the seeds; band and bars: simultaneous {subject.level} intervals; small dots: runs.",
        alternative=_describe_shape(subject, axis, place, mean),
        panels=(panel,),
        keys=list_keys(subject),
        is_main=True,
    )


def list_keys(subject: Subject) -> tuple[Key, ...]:
    """What filled, hollow and starred marks mean."""
    keys, compared = [], subject.rows[subject.rows["conclusion"].notna()]
    if compared["is_shown"].any():
        keys.append(Key("the difference is shown", 0))
    if not compared["is_shown"].all():
        keys.append(Key("no difference is shown", 0, is_filled=False))
    if subject.best is not None:
        keys.append(Key("the best mean", 1, shape="star"))
    return tuple(keys)


def _describe_shape(subject: Subject, axis: str, place: np.ndarray, mean: np.ndarray) -> str:
    """What the curve looks like: its ends and its extremes."""
    known = np.flatnonzero(np.isfinite(mean))
    first, last = known[0], known[-1]
    least, most = known[np.argmin(mean[known])], known[np.argmax(mean[known])]
    told = [f"Curve of {subject.metric} over {len(place)} values of {axis}"]
    told[0] += f" from {format_short(place[0])} to {format_short(place[-1])}"
    told.append(f"it begins at {format_short(mean[first])} and ends at {format_short(mean[last])}")
    told.append(f"the least mean is {format_short(mean[least])} at {axis}={format_short(place[least])}")
    told.append(f"the greatest is {format_short(mean[most])} at {axis}={format_short(place[most])}")
    if subject.best is not None:
        best = subject.rows.iloc[subject.best]
        told.append(f"the best is {subject.names[subject.best]} with {_estimate(best)}")
    return "; ".join(told) + "."


def _estimate(row: "object") -> str:
    return format_estimate(row["mean"], row["low"], row["high"])  # type: ignore[index]

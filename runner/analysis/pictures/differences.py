"""Differences between points with their intervals, and what is shown of them."""

import numpy as np

from runner.analysis.formats import count_things
from runner.analysis.pictures.curve import list_keys
from runner.analysis.pictures.points import MOST_ROWS
from runner.analysis.pictures.scales import scale_names, scale_numbers
from runner.analysis.pictures.scene import INK, Panel, Picture, Rule, Symbols, Whiskers
from runner.analysis.pictures.subject import Subject


def draw_differences(subject: Subject) -> Picture | None:
    """The picture of the differences of a metric, if there are some."""
    rows = subject.rows[subject.rows["difference"].notna()]
    if not len(rows):
        return None
    shown = rows[:MOST_ROWS]
    at = np.arange(len(shown), dtype=float)
    gap, low, high = (shown[name].to_numpy(float) for name in ("difference", "difference_low", "difference_high"))
    titles = [subject.describe_row(int(i)) for i in shown.index]
    marks = (Rule(0.0), Whiskers(at, low, high, color=INK), Symbols(gap, at, shown["is_shown"].to_numpy(bool), titles))
    scale = scale_numbers(f"difference of {subject.label}", np.concatenate([gap, low, high, [0.0]]))
    names = [subject.names[i] for i in shown.index]
    against = list(dict.fromkeys(rows["against"]))
    what = against[0] if len(against) == 1 else "the point that each is compared with"
    title = f"{subject.task}: to {what}" if subject.task else ""
    what = f"the best of {subject.task}" if subject.task and subject.best is not None else what
    panel = Panel(scale, scale_names("", names), marks, title=title)
    caption = f"Bars: simultaneous {subject.level} intervals, of the test that the verdict is by."
    if len(rows) > len(shown):
        caption += f" The first {len(shown):,} of {len(rows):,} by merit; the others are in the table."
    return Picture(
        name="differences",
        metric=subject.metric,
        title=f"{subject.metric}: differences" + ("" if subject.task else f" to {what}"),
        caption=caption,
        alternative=_describe(subject, what),
        panels=(panel,),
        keys=tuple(key for key in list_keys(subject) if key.shape != "star"),
    )


def _describe(subject: Subject, what: str) -> str:
    rows = subject.rows[subject.rows["difference"].notna()]
    counts = rows["conclusion"].value_counts(sort=False)
    told = ", ".join(f"{conclusion}: {count:,}" for conclusion, count in counts.items())
    return f"{count_things(len(rows), 'difference')} of {subject.metric} to {what}. {told}."

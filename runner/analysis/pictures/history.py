"""The history of a search: every run in the order of the table, and the best so far; and the rungs of halving."""

from collections.abc import Sequence

import numpy as np

from runner.analysis.formats import AXIS, count_things, format_short, join_words
from runner.analysis.history import History, Search, divide_points, find_sign, trace_best, trace_history
from runner.analysis.pictures.scales import AXIS_SPREAD, Scale, is_spread, scale_numbers, scale_values
from runner.analysis.pictures.scene import COLORS, MUTED, Dots, Key, Line, Mark, Panel, Picture, Star, Symbols
from runner.analysis.pictures.subject import Subject, name_point
from runner.analysis.standings import LARGER

MOST_LOST = 300
"""Runs without a finite value that are marked; more are one line of crosses."""


def draw_history(subject: Subject, search: Search) -> Picture | None:
    """The picture of a metric over the runs of a search, and over its seconds where they are known."""
    runs = subject.comparison.runs
    if subject.metric not in (search.objectives or runs.directions):
        return None
    history = trace_history(runs, subject.metric)
    stage, names = divide_points(runs, search)
    panels = [_draw_panel(subject, search, history, over_time=False)]
    if np.isfinite(history.seconds).any():
        panels.append(_draw_panel(subject, search, history, over_time=True))
    return Picture(
        name="history",
        metric=subject.metric,
        title=f"{subject.metric}: history of the search",
        caption=_describe_marks(subject, search, stage, names, is_timed=len(panels) > 1),
        alternative=_describe(subject, history),
        panels=tuple(panels),
        keys=list_stages(search, names),
        is_main=True,
    )


def list_stages(search: Search, names: Sequence[str]) -> tuple[Key, ...]:
    """The legend of the stages of a search, if there are several."""
    if len(names) == 1:
        return ()
    colors = color_stages(search, len(names))
    return tuple(Key(name, color, has_line=bool(search.budget)) for name, color in zip(names, colors, strict=True))


def color_stages(search: Search, count: int) -> list[int]:
    """The colour of each stage: the last one, which counts, has the first colour."""
    if search.budget:
        return [min(count - 1 - i, COLORS - 1) for i in range(count)]
    return [MUTED, 0][-count:]


def scale_metric(subject: Subject, values: np.ndarray) -> Scale:
    """The scale of the metric of a search, logarithmic from a smaller spread on than other pictures."""
    is_larger = subject.comparison.runs.directions.get(subject.metric) == LARGER
    return scale_numbers(subject.label, values, is_log=not is_larger and is_spread(values, AXIS_SPREAD))


def mark_lost(subject: Subject, x: Scale, y: Scale, places: np.ndarray) -> list[Mark]:
    """Crosses at the worse edge of the panel, at the places of runs without a finite value, `(points,)`."""
    if not len(places):
        return []
    kept = places[:: max(1, -(-len(places) // MOST_LOST))]
    sign = find_sign(subject.comparison.runs, subject.metric)
    edge = np.full(len(kept), y.high if sign > 0 else y.low)
    titles = [f"{x.label} {format_short(float(place))}: no finite value" for place in kept]
    return [Symbols(kept, edge, np.zeros(len(kept), dtype=bool), titles, "cross", MUTED)]


def find_lost(subject: Subject) -> np.ndarray:
    """Which of the points have a run without a finite value, bool `(points,)`."""
    runs = subject.comparison.runs
    bad = ~np.isfinite(runs.values[subject.metric])
    return np.bincount(runs.point[bad], minlength=len(runs.points)) > 0


def _draw_panel(subject: Subject, search: Search, history: History, *, over_time: bool) -> Panel:
    runs = subject.comparison.runs
    kept, _, values = subject.find_runs(subject.rows)
    own = subject.shown.runs[kept]
    at = history.seconds if over_time else history.runs.astype(float)
    place = at[runs.point[own]] if over_time else runs.number[own] + 1.0
    stage, names = divide_points(runs, search)
    x = scale_numbers("seconds" if over_time else "runs, in the order of the table", np.append(place, 0.0))
    y = scale_metric(subject, values)
    marks = mark_lost(subject, x, y, at[find_lost(subject)])
    lines: list[Mark] = []
    for number, color in enumerate(color_stages(search, len(names))):
        here = stage[runs.point[own]] == number
        marks.append(Dots(place[here], values[here], kept[here], color))
        if search.budget:
            lines.append(_trace(subject, history, at, stage == number, color))
    whole = np.ones(len(at), dtype=bool)
    lines = lines or [_trace(subject, history, at, whole, 0)]
    title = "over time" if over_time else "over the runs"
    competing = stage == len(names) - 1 if search.budget else whole
    return Panel(x, y, (*marks, *lines, *_mark_best(history, at, competing, subject)), title=title)


def _trace(subject: Subject, history: History, at: np.ndarray, own: np.ndarray, color: int) -> Line:
    """The best mean so far among some of the points."""
    best = trace_best(history.values[own], find_sign(subject.comparison.runs, subject.metric))
    return Line(at[own], best, color, is_step=True)


def _mark_best(history: History, at: np.ndarray, competing: np.ndarray, subject: Subject) -> list[Star]:
    """The point with the best mean among those that compete."""
    costs = find_sign(subject.comparison.runs, subject.metric) * history.values
    allowed = np.isfinite(costs) & competing
    if not allowed.any():
        return []
    best = int(np.argmin(np.where(allowed, costs, np.inf)))
    return [Star(float(at[best]), float(history.values[best]))] if np.isfinite(at[best]) else []


def _describe_marks(
    subject: Subject, search: Search, stage: np.ndarray, names: Sequence[str], *, is_timed: bool
) -> str:
    caption = "Dots: runs; line: the best mean over the seeds so far; star: the best of all."
    if search.budget:
        counts = [f"{count_things(int((stage == i).sum()), 'point')} with {name}" for i, name in enumerate(names)]
        caption = "Dots: runs; lines: the best mean over the seeds so far, of each budget: "
        caption += f"{join_words(counts)}; star: the best with the largest budget."
    lost = int(find_lost(subject).sum())
    if lost:
        caption += f" Crosses at the edge: {count_things(lost, 'point')} with a run that has no finite value."
    if not is_timed:
        caption += " When each run had ended is not recorded, so that the order is that of the table."
    return f"{caption} The best mean flatters its point; the answer above has what the seeds show of it."


def _describe(subject: Subject, history: History) -> str:
    known = np.flatnonzero(np.isfinite(history.best))
    told = f"History of {count_things(len(history.best), 'point')} of {subject.metric}"
    if not len(known):
        return f"{told}, none of which has a finite mean."
    first, last = known[0], known[-1]
    reached = int(np.flatnonzero(history.best == history.best[last])[0])
    return (
        f"{told}: the best mean so far begins at {format_short(float(history.best[first]))} and ends at "
        f"{format_short(float(history.best[last]))}, reached after {int(history.runs[reached]):,} of "
        f"{int(history.runs[-1]):,} runs."
    )


def draw_rungs(subject: Subject, search: Search) -> Picture | None:
    """The picture of the points of halving along their budgets: each point a line, which ends where it was dropped."""
    if not search.budget:
        return None
    rows = subject.rows[subject.rows["mean"].notna()]
    axes = tuple(name for name in subject.axes if name != search.budget)
    groups = list(rows.groupby([name_point(row, axes, is_full=True) for row in rows.to_dict("records")], sort=False))
    marks: list[Mark] = []
    most = rows[search.budget].max()
    for _, own in groups:
        ordered = own.sort_values(search.budget)
        budget, mean = ordered[search.budget].to_numpy(float), ordered["mean"].to_numpy(float)
        is_last = budget[-1] == most
        marks.append(Line(budget, mean, 0 if is_last else MUTED, is_faint=not is_last))
        titles = [subject.describe_row(int(i)) for i in ordered.index]
        filled = np.full(len(budget), is_last)
        marks.append(Symbols(budget, mean, filled, titles, color=0 if is_last else MUTED))
    counts = {float(b): int((rows[search.budget] == b).sum()) for b in sorted(rows[search.budget].unique())}
    budgets = np.array(list(counts))
    x = _scale_budgets(search.budget.removeprefix(AXIS), budgets)
    y = scale_metric(subject, rows["mean"].to_numpy(float))
    told = join_words([f"{count:,} with {budget:g}" for budget, count in counts.items()])
    return Picture(
        name="rungs",
        metric=subject.metric,
        title=f"{subject.metric}: the rungs of halving",
        caption=f"Lines: points, by their means over the seeds with each budget; {told}. Filled: points that were "
        "given the largest budget.",
        alternative=f"{count_things(len(groups), 'point')} of {subject.metric} along the budgets: {told}.",
        panels=(Panel(x, y, tuple(marks), height=320),),
        is_main=True,
    )


def _scale_budgets(label: str, budgets: np.ndarray) -> Scale:
    if len(budgets) > 1 and is_spread(budgets, AXIS_SPREAD):
        return scale_values(label, budgets)
    return scale_numbers(label, budgets, is_log=len(budgets) > 1)

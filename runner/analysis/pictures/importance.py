"""Which axes matter in a search."""

import numpy as np

from runner.analysis.formats import AXIS, format_short
from runner.analysis.history import Search, average_points, find_sign, measure_importance
from runner.analysis.pictures.scales import Scale, Tick, scale_names
from runner.analysis.pictures.scene import Mark, Panel, Picture, Symbols, Whiskers
from runner.analysis.pictures.subject import Subject
from runner.search.importance import rank_by_optuna
from runner.search.optimization import has_optuna

FEW_POINTS = 50
"""Points below which shares are mostly chance."""
BY_OPTUNA = (
    "How much an axis distinguishes the best tenth of the points from all of them, by Optuna's PED-ANOVA; "
    "axes that only some points have, among these."
)
BY_VARIANCE = (
    "The share of the variance over the points that an axis explains alone. "
    "pip install 'seedbed[optuna]' gives Optuna's PED-ANOVA."
)
SHARES = tuple(Tick(share / 4, text) for share, text in enumerate(("0", "25 %", "50 %", "75 %", "100 %")))


def draw_importance(subject: Subject, search: Search) -> Picture | None:
    """The picture of the shares of all axes but the budget, by Optuna where it is installed; None with one axis."""
    axes = [name for name in subject.axes if name != search.budget]
    if len(axes) < 2 or subject.metric not in subject.comparison.runs.directions:
        return None
    shares, caption = _measure(subject, search, axes)
    if not shares:
        return None
    if len(subject.rows) < FEW_POINTS:
        caption += f" With {len(subject.rows)} points the shares are rough."
    at, share = np.arange(len(shares), dtype=float), np.array(list(shares.values()))
    told = [f"{name.removeprefix(AXIS)}: {format_short(100 * value, 2)} %" for name, value in shares.items()]
    marks: tuple[Mark, ...] = (
        Whiskers(at, np.zeros(len(at)), share, color=0),
        Symbols(share, at, np.ones(len(at), dtype=bool), told),
    )
    x = Scale("share", -0.02, 1.02, SHARES)
    return Picture(
        name="importance",
        metric=subject.metric,
        title=f"{subject.metric}: which axes matter",
        caption=caption,
        alternative=f"Importance of the axes for {subject.metric}: {', '.join(told)}.",
        panels=(Panel(x, scale_names("", [name.removeprefix(AXIS) for name in shares]), marks),),
    )


def _measure(subject: Subject, search: Search, axes: list[str]) -> tuple[dict[str, float], str]:
    """The share of each axis, and how it was measured."""
    runs = subject.comparison.runs
    costs = find_sign(runs, subject.metric) * average_points(runs, subject.metric)
    of_budget = ""
    if search.budget:  # the metric depends on the budget first of all
        budgets = runs.points[search.budget].to_numpy(float)
        costs = np.where(budgets == budgets.min(), costs, np.nan)
        of_budget = f" Points with {search.budget.removeprefix(AXIS)}={budgets.min():g} only, which all of them have."
    if has_optuna():
        points = [{n: v for n, v in row.items() if v is not None and v == v} for row in _list_rows(subject, axes)]
        return rank_by_optuna(points, costs), f"{BY_OPTUNA}{of_budget}"
    shares = {name: share for name, share in measure_importance(runs, subject.metric).items() if name in axes}
    return shares, BY_VARIANCE


def _list_rows(subject: Subject, axes: list[str]) -> list[dict[str, object]]:
    frame = subject.comparison.runs.points[axes]
    return [dict(zip(axes, row, strict=True)) for row in frame.itertuples(index=False, name=None)]

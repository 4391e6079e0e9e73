"""The points of a metric by merit, each with its difference: for tables, pictures and the answer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.comparison import Comparison
from runner.analysis.conclusions import Conclusion
from runner.analysis.formats import format_label

SHOWN = (Conclusion.BETTER, Conclusion.WORSE, Conclusion.DIFFERS)
"""The conclusions that a difference is shown by."""
OF_DIFFERENCES = ("against", "kind", "pairs", "difference", "low", "high", "p_adjusted", "conclusion", "verdict")
"""What a standing has of its difference; the bounds are `difference_low` and `difference_high` there."""
LARGER, SMALLER = "maximize", "minimize"


def rank_points(comparison: Comparison, metric: str) -> pd.DataFrame:
    """The rows of a metric in `points` with those of their differences, the best first.

    Further columns: `point`, the number in `runs.points`; `name`, the values of the axes; `is_best`; `is_shown`,
    whether the difference is. Points without a finite value come last. A metric without a direction keeps the order of
    the table. Where a point has several differences, it is the one to the best point, or else the first.
    """
    rows = comparison.points
    rows = rows[rows["metric"] == metric].reset_index(drop=True) if len(rows) else rows
    if not len(rows):
        return pd.DataFrame()
    rows["point"], rows["name"] = locate_points(comparison, rows), _name_rows(rows, comparison.axes)
    rows["is_best"] = _find_best(comparison, metric, rows)
    rows = rows.join(_take_differences(comparison, metric, rows).set_index("point"), on="point")
    rows["is_shown"] = rows["conclusion"].isin([conclusion.value for conclusion in SHOWN])
    order = _order_by_merit(rows, comparison.runs.directions.get(metric))
    return rows.iloc[order].reset_index(drop=True)


def _order_by_merit(rows: pd.DataFrame, direction: str | None) -> np.ndarray:
    """The places `(points,)` of rows, the best one first and those without a finite mean last, task by task; stable.

    The best one need not have the best mean: points that fail more do not compete.
    """
    means, is_best = rows["mean"].to_numpy(float), rows["is_best"].to_numpy(bool)
    sign = {LARGER: -1.0, SMALLER: 1.0}.get(direction or "", 0.0)
    merit = np.where(np.isfinite(means), sign * np.nan_to_num(means), 0.0)
    task = pd.factorize(rows["task"])[0] if "task" in rows else np.zeros(len(rows), dtype=int)
    return np.lexsort((merit, ~is_best, ~np.isfinite(means), task))


def _find_best(comparison: Comparison, metric: str, rows: pd.DataFrame) -> np.ndarray:
    """Which rows are the best point, bool `(rows,)`: of several tasks the one of each, if the metric has a direction.

    Points that fail more than what they are compared with do not compete.
    """
    best = comparison.best.get(metric)
    if best is not None:
        return rows["point"].to_numpy() == best.point
    is_best = np.zeros(len(rows), dtype=bool)
    frame = comparison.differences
    if "task" not in rows or metric not in comparison.runs.directions or not len(frame):
        return is_best
    own = frame[(frame["metric"] == metric) & (frame["conclusion"] == Conclusion.FAILS_MORE.value)]
    competes = ~rows["point"].isin(locate_points(comparison, own)) & rows["mean"].notna()
    sign = 1.0 if comparison.runs.directions[metric] == SMALLER else -1.0
    for _, group in rows[competes].groupby("task", sort=False):
        is_best[(sign * group["mean"]).idxmin()] = len(rows[rows["task"] == group["task"].iloc[0]]) > 1
    return is_best


def locate_points(comparison: Comparison, rows: pd.DataFrame) -> np.ndarray:
    """The number in `runs.points` of each row of `points` or `differences`, int64 `(rows,)`."""
    if not comparison.axes:
        return np.zeros(len(rows), dtype=np.int64)
    place = {key: i for i, key in enumerate(_list_keys(comparison.runs.points, comparison.axes))}
    return np.array([place[key] for key in _list_keys(rows, comparison.axes)], dtype=np.int64)


def describe_goal(comparison: Comparison, metric: str) -> str:
    """`less is better`, `more is better`, or nothing."""
    return name_goal(comparison.runs.directions.get(metric, ""))


def name_goal(direction: str) -> str:
    """What a direction says is better, in words; nothing for none."""
    return {SMALLER: "less is better", LARGER: "more is better"}.get(direction, "")


def _list_keys(frame: pd.DataFrame, axes: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(map(str, label)) for label in frame[list(axes)].itertuples(index=False, name=None)]


def _name_rows(rows: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    labels: list[dict[Any, Any]] = rows[list(axes)].to_dict("records") if axes else [{}] * len(rows)
    return [format_label(label, axes) if axes else "all runs" for label in labels]


def _take_differences(comparison: Comparison, metric: str, points: pd.DataFrame) -> pd.DataFrame:
    """For each point one row of its differences; none for points that are compared with nothing."""
    frame = comparison.differences
    rows = frame[frame["metric"] == metric].reset_index(drop=True) if len(frame) else frame
    if not len(rows):
        return pd.DataFrame({"point": [], **{_rename(name): [] for name in OF_DIFFERENCES}}).astype({"point": int})
    best = points.loc[points["is_best"], "name"]
    is_preferred = rows["against"].isin(best)
    rows = rows.assign(point=locate_points(comparison, rows), is_other=~is_preferred)
    rows = rows.sort_values("is_other", kind="stable").drop_duplicates("point")
    return rows[["point", *OF_DIFFERENCES]].rename(columns=_rename)


def _rename(name: str) -> str:
    return f"difference_{name}" if name in ("low", "high") else name

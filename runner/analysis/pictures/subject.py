"""What a picture is of: a metric at the points of one task."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.comparison import Comparison
from runner.analysis.formats import format_estimate, format_value, is_missing
from runner.analysis.pictures.scales import is_spread
from runner.analysis.pictures.shown import Shown
from runner.analysis.standings import LARGER, describe_goal, rank_points

UNDIRECTED_SPREAD = 1000.0
"""The ratio of the largest to the smallest value from which a metric without a direction gets a logarithmic scale."""


LOWEST = 10.0
"""By which factor an interval on a logarithmic scale may go below its mean; it is cut off there."""


@dataclass(frozen=True)
class Subject:
    """A metric at the points of one task: `rows` are their standings, the best first, `axes` those that vary."""

    comparison: Comparison
    metric: str
    shown: Shown
    task: str
    rows: pd.DataFrame
    axes: tuple[str, ...]

    @property
    def label(self) -> str:
        """The metric, and which direction is better."""
        goal = describe_goal(self.comparison, self.metric)
        return f"{self.metric} ({goal})" if goal else self.metric

    @property
    def level(self) -> str:
        """The confidence level as a text, such as `95 %`."""
        return f"{100 * self.comparison.level:g} %"

    @cached_property
    def is_log(self) -> bool:
        """Whether the metric has a logarithmic scale: never one that is to be large, such as an accuracy."""
        direction = self.comparison.runs.directions.get(self.metric)
        times = () if direction else (UNDIRECTED_SPREAD,)
        _, _, values = self.find_runs(self.rows)
        return direction != LARGER and is_spread(np.concatenate([values, self.rows["mean"].to_numpy(float)]), *times)

    @cached_property
    def names(self) -> list[str]:
        """A name for each row, of the axes that vary in this task: the value alone where there is one axis."""
        return [name_point(row, self.axes) for row in self.records]

    @cached_property
    def records(self) -> list[dict[Hashable, Any]]:
        """The rows, each as a dict."""
        return self.rows.to_dict("records")

    @cached_property
    def best(self) -> int | None:
        """The row of the best point, None if there is none, or it is of another task."""
        found = np.flatnonzero(self.rows["is_best"].to_numpy(bool))
        return int(found[0]) if len(found) else None

    def list_values(self) -> np.ndarray:
        """All that the scale of the metric has to hold: the values of the shown runs, and the intervals."""
        _, _, values = self.find_runs(self.rows)
        return np.concatenate([values, self.list_bounds(self.rows)])

    def list_bounds(self, rows: pd.DataFrame) -> np.ndarray:
        """The means of some rows with their bounds, without lower ones that a logarithmic scale would fall far for."""
        bounds = rows[["mean", "low", "high"]].to_numpy(float, copy=True)
        if self.is_log:
            bounds[:, 1] = np.maximum(bounds[:, 1], bounds[:, 0] / LOWEST)
        return bounds.ravel()

    def find_runs(self, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The shown runs at the points of some rows that have a finite value.

        Per run, `(dots,)`: its place among the shown ones, its place in `rows`, and its value.
        """
        runs = self.comparison.runs
        own = self.shown.runs
        place = np.full(max(1, len(runs.points)), -1)
        place[rows["point"].to_numpy(int)] = np.arange(len(rows))
        values, row = runs.values[self.metric][own], place[runs.point[own]]
        kept = np.flatnonzero((row >= 0) & np.isfinite(values))
        return kept, row[kept], values[kept]

    def describe_row(self, row: int) -> str:
        """A point with its estimate, difference and verdict."""
        return describe_point(self.records[row], self.metric, self.names[row])


def list_subjects(comparison: Comparison, metric: str, shown: Shown) -> Iterator[Subject]:
    """For each task that has a finite value of the metric, what its pictures are of."""
    rows = rank_points(comparison, metric)
    if not len(rows) or not rows["mean"].notna().any():
        return
    tasks: Sequence[Any] = list(dict.fromkeys(comparison.runs.points["task"])) if "task" in comparison.axes else [None]
    for task in tasks:
        own = rows if task is None else rows[rows["task"] == task].reset_index(drop=True)
        if len(own) and own["mean"].notna().any():
            axes = tuple(name for name in comparison.axes if own[name].map(str).nunique() > 1)
            yield Subject(comparison, metric, shown, "" if task is None else str(task), own, axes)


def name_point(row: Any, axes: Sequence[str], *, is_full: bool = False) -> str:
    """The values of some axes: `lr=0.1 hidden=4`; of one axis the value alone, unless the full name is wanted."""
    if not axes:
        return "all runs"
    if len(axes) == 1 and not is_full:
        return format_axis_value(row[axes[0]])
    return " ".join(f"{name}={format_axis_value(row[name])}" for name in axes if not is_missing(row[name]))


def format_axis_value(value: Any) -> str:
    """A value of an axis; `null` for none."""
    return format_value(value) or "null"


def describe_point(row: Any, metric: str, name: str) -> str:
    """A point with its estimate, its difference and the verdict, for a reader who points at it."""
    estimate = format_estimate(row["mean"], row["low"], row["high"]) or "no finite value"
    parts = [f"{name}: {metric} {estimate}"]
    if isinstance(row["against"], str):
        difference = format_estimate(row["difference"], row["difference_low"], row["difference_high"], is_signed=True)
        parts.append(f"{difference} against {row['against']}: {row['conclusion']}")
    if row["is_best"]:
        parts.append("the best")
    return "; ".join(parts)


def is_numeric(values: pd.Series) -> bool:
    """Whether an axis has numbers, and at least three of them: fewer are drawn like categories."""
    is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return bool(is_number and values.notna().all() and values.nunique() > 2)

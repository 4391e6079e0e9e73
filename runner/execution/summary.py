"""The summary of a study: per point count, mean and deviation over the seeds, and counts of categories.

It is accumulated block by block, so that memory does not grow with the number of runs.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from runner.contract.task import Output
from runner.plan.pending import Block
from runner.plan.segments import Plan, Segment
from runner.storage.folder import Folder
from runner.storage.reader import KeyedRows, read_keyed_rows
from runner.storage.run_index import RunIndex
from runner.storage.saved import SavedStudy

MOMENTS = ("runs", "values", "count", "mean", "squares")

SHOWN_POINTS = 20
"""Points that a summary has; the others are in the table only."""


@dataclass(frozen=True)
class Points:
    """The points of a plan, numbered in the order of the table: one value for each axis but the seed."""

    plan: Plan

    @cached_property
    def axes(self) -> tuple[int, ...]:
        """The indices of the axes that distinguish points: all but the one of the seed alone."""
        return tuple(i for i, axis in enumerate(self.plan.axes) if set(axis.columns) != {"seed"})

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.plan.shape[i] for i in self.axes)

    @cached_property
    def families(self) -> tuple[list[int], list[Segment]]:
        """For each segment the number of its family, and for each family one segment.

        The segments of a family differ in the seed only, so that their runs belong to the same points.
        """
        families: dict[str, int] = {}
        examples: list[Segment] = []
        numbers = []
        for segment in self.plan.segments:
            swept = {key: value for key, value in segment.swept.items() if key != "seed"}
            number = families.setdefault(repr((segment.task.name, swept)), len(families))
            examples += [segment] if number == len(examples) else []
            numbers.append(number)
        return numbers, examples

    @property
    def count(self) -> int:
        return len(self.families[1]) * int(np.prod(self.shape))

    def find_points(self, block: Block) -> np.ndarray:
        """The number of the point of each run of a block, int64 `(runs,)`."""
        positions = self.plan.positions(block.places)
        within = np.zeros(len(block), dtype=np.int64)
        if self.shape:
            within = np.ravel_multi_index([positions[i] for i in self.axes], self.shape)
        return self.families[0][block.segment] * int(np.prod(self.shape)) + within

    def label(self, number: int) -> dict[str, Any]:
        """The values that identify a point: its task, the swept values of its segment, and those of its axes."""
        family, within = divmod(number, int(np.prod(self.shape)))
        segment = self.families[1][family]
        swept = {key: value for key, value in segment.swept.items() if key not in ("seed", "task")}
        places = np.unravel_index(within, self.shape) if self.shape else ()
        for axis, place in zip(self.axes, places, strict=True):
            swept |= {name: column[place] for name, column in self.plan.axes[axis].columns.items()}
        return {"task": segment.task.name, **swept}


@dataclass(frozen=True)
class Summary:
    """The moments of the first points of a plan.

    `runs` is int64 `(points,)`. All others are float64 `(points, metrics)`: the number of `values`, and of the finite
    ones `count`, `mean` and the sum of squared deviations, `squares`.
    """

    points: Points
    metrics: tuple[str, ...]
    """The scalar outputs that are numbers; if there are none, the means of arrays, as `y.mean`."""
    arrays: tuple[str, ...]
    """Array outputs, which are in the table only, or have a mean."""
    runs: np.ndarray
    values: np.ndarray
    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    categories: Mapping[str, tuple[Counter[str], ...]]
    """For each categorical output and each point, the number of runs by category."""

    @property
    def deviation(self) -> np.ndarray:
        """The sample standard deviation, float64 `(points, metrics)`; NaN for fewer than two values."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.count > 1, np.sqrt(self.squares / (self.count - 1)), np.nan)


def empty_summary(plan: Plan, outputs: Sequence[Output]) -> Summary:
    """The summary of a plan with these outputs, before its first run."""
    points = Points(plan)
    scalars = tuple(dict.fromkeys(o.name for o in outputs if o.shape == () and not o.is_categorical))
    arrays = tuple(dict.fromkeys(output.name for output in outputs if output.shape != ()))
    metrics = scalars or tuple(f"{name}.mean" for name in arrays)
    shown = min(points.count, SHOWN_POINTS)
    categories: dict[str, tuple[Counter[str], ...]] = {
        output.name: (Counter(),) * shown for output in outputs if output.is_categorical
    }
    zeros = np.zeros((shown, len(metrics)))
    return Summary(points, metrics, arrays, np.zeros(shown, dtype=np.int64), zeros, zeros, zeros, zeros, categories)


def add_block(summary: Summary, block: Block, outputs: Mapping[str, np.ndarray] | None) -> Summary:
    """The summary with the runs of one more block; `outputs` are arrays `(runs, …)`, None where the block failed."""
    points = summary.points.find_points(block)
    shown = points < len(summary.runs)
    if not shown.any():
        return summary
    points = points[shown]
    summary = replace(summary, runs=summary.runs + np.bincount(points, minlength=len(summary.runs)))
    if outputs is None:
        return summary
    values = np.full((len(points), len(summary.metrics)), np.nan)
    given = np.zeros_like(values)
    for i, name in enumerate(summary.metrics):
        column = _reduce_output(outputs, name)
        if column is not None:
            values[:, i], given[:, i] = column[shown], 1
    for name in [name for name in summary.categories if name in outputs]:
        summary = _count_categories(summary, name, points, outputs[name][shown])
    return _add_values(replace(summary, values=summary.values + _sum_by_point(summary, points, given)), points, values)


def _reduce_output(outputs: Mapping[str, np.ndarray], metric: str) -> np.ndarray | None:
    """A metric of the runs of a block, `(runs,)`: a scalar, or the mean of each array; None if they do not have it."""
    if metric in outputs:
        return outputs[metric] if outputs[metric].ndim == 1 else None
    rows = outputs.get(metric.removesuffix(".mean"))
    if rows is None or rows.ndim == 1:
        return rows
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    return flat.mean(axis=1) if flat.size else np.full(len(rows), np.nan)


def _count_categories(summary: Summary, name: str, points: np.ndarray, texts: np.ndarray) -> Summary:
    counters = [Counter(counter) for counter in summary.categories[name]]
    for (point, text), count in Counter(zip(points.tolist(), texts.tolist(), strict=True)).items():
        if isinstance(text, str):  # an empty cell belongs to a run whose task has no such output
            counters[point][text] += count
    return replace(summary, categories={**summary.categories, name: tuple(counters)})


def add_saved_runs(summary: Summary, saved: SavedStudy, index: RunIndex) -> Summary:
    """The summary with those runs of its plan, whose index is given, that have a row in the study's table."""
    if saved.manifest is None or not saved.rows:
        return summary
    return add_rows(summary, index, read_keyed_rows(saved.folder, saved.manifest))


def add_rows(summary: Summary, index: RunIndex, batches: Iterable[KeyedRows]) -> Summary:
    """The summary with the rows of a table that are in the index of its plan."""
    segments = summary.points.plan.segments
    for rows in batches:
        places, outputs = index.find_runs(rows.key, rows.traced, len(rows.numbers)), rows.outputs
        numbers, within = np.divmod(places, max(1, index.runs_per_segment))
        for number in np.unique(numbers[places >= 0]):
            here = (places >= 0) & (numbers == number)
            names = segments[number].task.outputs or outputs
            block = Block(int(number), within[here], rows.numbers[here])
            summary = add_block(summary, block, {name: v[here] for name, v in outputs.items() if name in names})
    return summary


def add_parts(summary: Summary, folder: Folder) -> Summary | None:
    """The summary with those of a study's parts; None if a part has none, because its shard was lost."""
    try:
        for part in folder.parts:
            summary = join_packed(summary, json.loads(part.summary.read_text()))
    except (ValueError, KeyError, TypeError, AttributeError, OSError):  # none, or damaged: the table has the rows
        return None
    return summary


def _add_values(summary: Summary, points: np.ndarray, values: np.ndarray) -> Summary:
    """The summary with new values `(runs, metrics)`."""
    finite = np.isfinite(values)
    values = np.where(finite, values, 0.0)
    added = _sum_by_point(summary, points, finite)
    mean = np.divide(_sum_by_point(summary, points, values), added, out=np.zeros_like(summary.mean), where=added > 0)
    squares = _sum_by_point(summary, points, np.where(finite, (values - mean[points]) ** 2, 0.0))
    return _join_moments(summary, added, mean, squares)


def _join_moments(summary: Summary, added: np.ndarray, mean: np.ndarray, squares: np.ndarray) -> Summary:
    """The moments of two sets of values as those of their union (Chan, Golub and LeVeque, 1979)."""
    count = summary.count + added
    share = np.divide(added, count, out=np.zeros_like(count), where=count > 0)
    delta = mean - summary.mean
    return replace(
        summary,
        count=count,
        mean=summary.mean + delta * share,
        squares=summary.squares + squares + delta**2 * summary.count * share,
    )


def pack_summary(summary: Summary) -> dict[str, Any]:
    """The moments and counts as JSON values."""
    moments = {name: getattr(summary, name).tolist() for name in MOMENTS}
    return {**moments, "categories": dict(summary.categories)}


def join_packed(summary: Summary, data: Mapping[str, Any]) -> Summary:
    """The summary together with a packed one of the same plan."""
    more = {name: np.array(data[name]).reshape(getattr(summary, name).shape) for name in MOMENTS}
    categories = {
        name: tuple(counter + Counter(other) for counter, other in zip(counters, data["categories"][name], strict=True))
        for name, counters in summary.categories.items()
    }
    joined = replace(
        summary, runs=summary.runs + more["runs"], values=summary.values + more["values"], categories=categories
    )
    return _join_moments(joined, more["count"], more["mean"], more["squares"])


def _sum_by_point(summary: Summary, points: np.ndarray, values: np.ndarray) -> np.ndarray:
    sums = np.zeros_like(summary.mean)
    np.add.at(sums, points, values)
    return sums

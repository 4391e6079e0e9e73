"""Per point the count, mean and standard deviation over the seeds, gathered block by block; of words how often each."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from runner.plan.contract import Output
from runner.plan.study import Block, Plan, Segment
from runner.storage.run_index import RunIndex, Values

GATHERED = ("runs", "values", "count", "mean", "squares")

SHOWN_POINTS = 20
"""Points that a printed summary shows; of the others nothing is gathered, and memory stays bounded."""


@dataclass(frozen=True)
class Points:
    """The points of a plan, numbered in the order of the table: one value for each axis but the seed."""

    plan: Plan

    @cached_property
    def axes(self) -> tuple[int, ...]:
        """Which of the study's axes make points: all but the one of seeds alone."""
        return tuple(i for i, axis in enumerate(self.plan.study.axes) if set(axis.columns) != {"seed"})

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.plan.shape[i] for i in self.axes)

    @cached_property
    def of_segment(self) -> tuple[list[int], list[Segment]]:
        """For each segment the number of its points' family, and for each family one segment."""
        families: dict[str, int] = {}
        examples: list[Segment] = []
        numbers = []
        for segment in self.plan.study.segments:
            swept = {key: value for key, value in segment.swept.items() if key != "seed"}
            number = families.setdefault(repr((segment.task.name, swept)), len(families))
            examples += [segment] if number == len(examples) else []
            numbers.append(number)
        return numbers, examples

    @property
    def count(self) -> int:
        return len(self.of_segment[1]) * int(np.prod(self.shape))

    def numbers(self, block: Block) -> np.ndarray:
        """The point of each run of the block, int64 `(runs,)`."""
        positions = self.plan.positions(block.places)
        within = np.zeros(len(block), dtype=np.int64)
        if self.shape:
            within = np.ravel_multi_index([positions[i] for i in self.axes], self.shape)
        return self.of_segment[0][block.segment] * int(np.prod(self.shape)) + within

    def label(self, number: int) -> dict[str, Any]:
        """The values that name a point: what its segment was swept over, and its place on the axes."""
        family, within = divmod(number, int(np.prod(self.shape)))
        segment = self.of_segment[1][family]
        swept = {key: value for key, value in segment.swept.items() if key not in ("seed", "task")}
        places = np.unravel_index(within, self.shape) if self.shape else ()
        for axis, place in zip(self.axes, places, strict=True):
            swept |= {name: column[place] for name, column in self.plan.study.axes[axis].columns.items()}
        return {"task": segment.task.name, **swept}


@dataclass(frozen=True)
class Summary:
    """Runs `(points,)`, and `(points, metrics)` the number of values, and of the finite ones count, mean and
    sum of squared deviations.
    """

    points: Points
    metrics: tuple[str, ...]
    arrays: tuple[str, ...]
    """Outputs that are no scalars, of which nothing is gathered."""
    runs: np.ndarray
    values: np.ndarray
    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    categories: Mapping[str, tuple[Counter[str], ...]]
    """Of each output of words, for each point, how many runs have which: no more than its groups have words."""

    def has(self, segment: int, output: str) -> bool:
        """Whether the task of a segment returns an output, as far as its YAML tells."""
        names = self.points.plan.study.segments[segment].task.outputs
        return not names or output in names

    @property
    def deviation(self) -> np.ndarray:
        """The sample standard deviation; NaN for fewer than two values."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.count > 1, np.sqrt(self.squares / (self.count - 1)), np.nan)


def summary(plan: Plan, outputs: Sequence[Output]) -> Summary:
    """The empty summary of a plan, over its scalar outputs and its first points."""
    points = Points(plan)
    metrics = tuple(
        dict.fromkeys(output.name for output in outputs if output.shape == () and not output.is_categorical)
    )
    arrays = tuple(dict.fromkeys(output.name for output in outputs if output.shape != ()))
    shown = min(points.count, SHOWN_POINTS)
    categories: dict[str, tuple[Counter[str], ...]] = {
        o.name: (Counter(),) * shown for o in outputs if o.is_categorical
    }
    zeros = np.zeros((shown, len(metrics)))
    return Summary(points, metrics, arrays, np.zeros(shown, dtype=np.int64), zeros, zeros, zeros, zeros, categories)


def add(summary: Summary, block: Block, outputs: Mapping[str, np.ndarray] | None) -> Summary:
    """The summary with the runs of one more block."""
    numbers = summary.points.numbers(block)
    shown = numbers < len(summary.runs)
    if not shown.any():
        return summary
    numbers = numbers[shown]
    summary = replace(summary, runs=summary.runs + np.bincount(numbers, minlength=len(summary.runs)))
    if outputs is None:
        return summary
    values = np.full((len(numbers), len(summary.metrics)), np.nan)
    given = np.zeros_like(values)
    for i, name in enumerate(summary.metrics):
        if name in outputs and outputs[name].ndim == 1:
            values[:, i], given[:, i] = outputs[name][shown], 1
    for name in [name for name in summary.categories if name in outputs]:
        summary = _with_categories(summary, name, numbers, outputs[name][shown])
    return _merge(replace(summary, values=summary.values + _sums(summary, numbers, given)), numbers, values)


def _with_categories(summary: Summary, name: str, numbers: np.ndarray, words: np.ndarray) -> Summary:
    counts = [Counter(counter) for counter in summary.categories[name]]
    for (number, word), count in Counter(zip(numbers.tolist(), words.tolist(), strict=True)).items():
        if isinstance(word, str):  # an empty cell read back: the run's task has no such output
            counts[number][word] += count
    return replace(summary, categories={**summary.categories, name: tuple(counts)})


def add_table(summary: Summary, extent: RunIndex, batches: Iterable[tuple[str, Values, Values]]) -> Summary:
    """The summary with the runs of a table that belong to its plan; `extent` is that plan's."""
    for key, traced, outputs in batches:
        count = len(next(iter([*traced.values(), *outputs.values()]), ()))
        found = extent.find(key, traced, count)
        segments, within = np.divmod(found, max(1, extent.runs_per_part))
        for segment in np.unique(segments[found >= 0]):
            here = (found >= 0) & (segments == segment)
            block = Block(int(segment), within[here], 0)
            has = {output: values[here] for output, values in outputs.items() if summary.has(int(segment), output)}
            summary = add(summary, block, has)
    return summary


def _merge(summary: Summary, numbers: np.ndarray, values: np.ndarray) -> Summary:
    """Adds the moments of new values `(runs, metrics)` to those gathered."""
    finite = np.isfinite(values)
    values = np.where(finite, values, 0.0)
    added = _sums(summary, numbers, finite)
    mean = np.divide(_sums(summary, numbers, values), added, out=np.zeros_like(summary.mean), where=added > 0)
    squares = _sums(summary, numbers, np.where(finite, (values - mean[numbers]) ** 2, 0.0))
    return _joined(summary, added, mean, squares)


def _joined(summary: Summary, added: np.ndarray, mean: np.ndarray, squares: np.ndarray) -> Summary:
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


def packed(summary: Summary) -> dict[str, Any]:
    """What was gathered, as JSON holds it."""
    return {**{name: getattr(summary, name).tolist() for name in GATHERED}, "categories": dict(summary.categories)}


def joined(summary: Summary, data: Mapping[str, Any]) -> Summary:
    """The summary with what another one of the same plan has gathered and packed."""
    more = {name: np.array(data[name]).reshape(getattr(summary, name).shape) for name in GATHERED}
    categories = {
        name: tuple(counter + Counter(other) for counter, other in zip(own, data["categories"][name], strict=True))
        for name, own in summary.categories.items()
    }
    counted = replace(
        summary, runs=summary.runs + more["runs"], values=summary.values + more["values"], categories=categories
    )
    return _joined(counted, more["count"], more["mean"], more["squares"])


def _sums(summary: Summary, numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
    sums = np.zeros_like(summary.mean)
    np.add.at(sums, numbers, values)
    return sums

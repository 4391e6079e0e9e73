"""Curves of array outputs over their steps, of the best points of all studies."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from runner.analysis import statistics
from runner.analysis.comparison import Comparison
from runner.analysis.formats import count_things, format_label, format_short
from runner.analysis.load import Runs
from runner.analysis.pictures.scales import is_spread, scale_numbers
from runner.analysis.pictures.scene import COLORS, Band, Key, Line, Mark, Panel, Picture
from runner.analysis.standings import LARGER, rank_points
from runner.storage.manifest import Manifest
from runner.storage.reader import read_arrays

MOST_CURVES = 20_000
"""Runs whose arrays are read for one picture."""
LEAST_LENGTH = 3
"""Elements of an array from which it is a curve."""
EVERY = "every"
"""The parameter by which a task declares that it records an element of its curves each so many steps."""
SUFFIX = "_curve"
"""What the name of a curve has after that of its metric."""


@dataclass(frozen=True)
class Curves:
    """The curves of one point: `steps` `(elements,)`, and `values` `(seeds, elements)`, NaN beyond a run's end."""

    point: int
    steps: np.ndarray
    values: np.ndarray

    def average(self) -> np.ndarray:
        """The mean over the runs that have a finite value there, `(elements,)`."""
        counts = np.isfinite(self.values).sum(axis=0)
        sums = np.where(np.isfinite(self.values), self.values, 0.0).sum(axis=0)
        return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)

    def find_interval(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Student's interval of the mean at each step, NaN where there are less than two runs."""
        counts = np.isfinite(self.values).sum(axis=0)
        mean, low, high = self.average(), np.full(len(counts), np.nan), np.full(len(counts), np.nan)
        for count in np.unique(counts[counts > 1]):
            here = counts == count
            spread = np.nanstd(self.values[:, here], axis=0, ddof=1)
            half = statistics.mean_half_width(spread, int(count), level)
            low[here], high[here] = mean[here] - half, mean[here] + half
        return low, high


def draw_steps(comparison: Comparison) -> Iterator[Picture]:
    """A picture for each array output of one axis, with the best points by the metric that it belongs to."""
    runs = comparison.runs
    for name in _list_outputs(runs):
        metric = _find_metric(comparison, name)
        points = _order_points(comparison, metric)
        drawn = [own for point in points[:COLORS] if (own := _read_point(runs, name, point, len(points))) is not None]
        if drawn:
            yield _draw(comparison, name, metric, drawn, len(points))


def _list_outputs(runs: Runs) -> list[str]:
    outputs = [output for manifest in runs.manifests for output in manifest.columns.outputs]
    return list(dict.fromkeys(o.name for o in outputs if len(o.shape) == 1 and o.shape[0] >= LEAST_LENGTH))


def _find_metric(comparison: Comparison, name: str) -> str | None:
    """The metric that a curve is of, or else the first with a direction, by which points are ordered."""
    base = name.removesuffix(SUFFIX)
    directed = [metric for metric in comparison.metrics if metric in comparison.runs.directions]
    own = [metric for metric in directed if metric in (base, f"best_{base}")]
    return next(iter([*own, *directed]), None)


def _order_points(comparison: Comparison, metric: str | None) -> list[int]:
    """The numbers of all points that have runs, the best first."""
    rows = rank_points(comparison, metric) if metric else None
    ranked = [int(point) for point in rows["point"]] if rows is not None and len(rows) else []
    known = np.unique(comparison.runs.point).tolist()
    return list(dict.fromkeys([*ranked, *known]))


def _read_point(runs: Runs, name: str, point: int, points: int) -> Curves | None:
    """The curves of a point, of whatever studies it is in; None if there are none."""
    curves: list[np.ndarray] = []
    steps: list[np.ndarray] = []
    for i, (folder, manifest) in enumerate(zip(runs.studies, runs.manifests, strict=True)):
        here = np.flatnonzero((runs.point == point) & (runs.study == i))[: MOST_CURVES // min(points, COLORS)]
        if not len(here) or name not in {output.name for output in manifest.columns.outputs}:
            continue
        arrays = [array for array in read_arrays(folder, manifest, name, runs.number[here]) if array is not None]
        curves += arrays
        steps += [count_steps(runs, manifest, point, len(array)) for array in arrays]
    if not curves:
        return None
    longest = max(range(len(curves)), key=lambda k: len(curves[k]))
    values = np.full((len(curves), len(curves[longest])), np.nan)
    for row, curve in zip(values, curves, strict=True):
        row[: len(curve)] = curve
    return Curves(point, steps[longest], values)


def count_steps(runs: Runs, manifest: Manifest, point: int, length: int) -> np.ndarray:
    """The steps at which the elements of a curve were recorded, `(length,)`; from 0 where no task says how often."""
    every = find_every(runs, manifest, point)
    return np.arange(length, dtype=float) if every is None else every * np.arange(1, length + 1, dtype=float)


def find_every(runs: Runs, manifest: Manifest, point: int) -> int | None:
    """How many steps apart the elements of a curve are, None where the task has no such parameter or does not tell."""
    if EVERY in runs.points:
        found = {str(runs.points[EVERY].iloc[point])}
    else:
        segments = [segment for index in manifest.indexes for segment in index.segments]
        found = {segment.cells.get(EVERY, "") for segment in segments}
    text = found.pop() if len(found) == 1 else ""
    return int(text) if text.isdecimal() and int(text) > 0 else None


def _draw(comparison: Comparison, name: str, metric: str | None, drawn: list[Curves], points: int) -> Picture:
    marks: list[Mark] = []
    for color, curves in enumerate(drawn):
        low, high = curves.find_interval(comparison.level)
        marks += [Band(curves.steps, low, high, color), Line(curves.steps, curves.average(), color)]
    means = np.concatenate([curves.average() for curves in drawn])
    direction = _find_direction(comparison, name)
    is_log = direction != LARGER and is_spread(means)
    bounds = np.concatenate([np.concatenate(curves.find_interval(comparison.level)) for curves in drawn])
    bounds = bounds[bounds > 0] if is_log else bounds
    y = scale_numbers(name, np.concatenate([means, bounds[np.isfinite(bounds)]]), is_log=is_log)
    is_counted = any(find_every(comparison.runs, known, drawn[0].point) for known in comparison.runs.manifests)
    x = scale_numbers("step" if is_counted else "element", np.concatenate([curves.steps for curves in drawn]))
    caption = f"Mean over the seeds with the {100 * comparison.level:g} % interval by Student's t at each step."
    if points > len(drawn):
        by = f" by {metric}" if metric else ""
        caption += f" The {'best ' if metric else ''}{len(drawn)} of {points:,} points{by}."
    names = [_name(comparison, curves.point) for curves in drawn]
    return Picture(
        name="curves",
        metric=name,
        title=f"{name} over its {x.label}s",
        caption=caption,
        alternative=_describe(name, x.label, drawn, names),
        panels=(Panel(x, y, tuple(marks), height=360),),
        keys=tuple(Key(text, i, has_line=True) for i, text in enumerate(names)),
        is_main=True,
    )


def _find_direction(comparison: Comparison, name: str) -> str | None:
    return comparison.runs.directions.get(name, comparison.runs.directions.get(name.removesuffix(SUFFIX)))


def _name(comparison: Comparison, point: int) -> str:
    if not comparison.axes:
        return "all runs"
    return format_label(comparison.runs.points.iloc[point].to_dict(), comparison.axes)


def _describe(name: str, unit: str, drawn: list[Curves], names: list[str]) -> str:
    told = [f"{count_things(len(drawn), 'curve')} of {name} over {drawn[0].steps[-1]:,.0f} {unit}s"]
    for curves, text in zip(drawn, names, strict=True):
        mean = curves.average()
        known = mean[np.isfinite(mean)]
        if len(known):
            told.append(f"{text} from {format_short(float(known[0]))} to {format_short(float(known[-1]))}")
    return "; ".join(told) + "."

"""What a search has led to: its history, slices along each axis, what matters, and the front; as data and as figures.

All functions take the loaded runs of a study. A point's value is the mean of a metric over its runs, NaN if one of them
is not finite.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from runner.analysis.load import Runs
from runner.plan.status import Status
from runner.search.ranking import find_front
from runner.storage.folder import Folder

MINIMIZE = "minimize"
BINS = 8
"""Parts of a numeric axis, with equally many points each, whose means are compared."""
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"
"""Distinguishable by colour-blind people (Okabe and Ito, 2008)."""


@dataclass(frozen=True)
class History:
    """The points of a study in the order of its table, `(points,)` each.

    `runs` are those of all points up to each one. `best` is the best value so far, NaN before the first finite one.
    `seconds` are those of the search until the batch of a point had ended, NaN where that is not known.
    """

    runs: np.ndarray
    values: np.ndarray
    best: np.ndarray
    seconds: np.ndarray


def is_search(runs: Runs) -> bool:
    """Whether some study proposed its points itself, so that their order tells something."""
    return any(manifest.fingerprint.search for manifest in runs.manifests)


def average_points(runs: Runs, metric: str) -> np.ndarray:
    """The mean of a metric over the runs of each point, float64 `(points,)`."""
    count = np.bincount(runs.point, minlength=len(runs.points))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.bincount(runs.point, weights=runs.values[metric], minlength=len(runs.points)) / count


def trace_history(runs: Runs, metric: str) -> History:
    """How the best value of a metric has changed from point to point."""
    values = average_points(runs, metric)
    sign = find_sign(runs, metric)
    costs = np.where(np.isfinite(values), sign * values, np.inf)
    best = np.minimum.accumulate(costs)
    count = np.cumsum(np.bincount(runs.point, minlength=len(runs.points)))
    known = np.where(np.isfinite(best), sign * best, np.nan)
    return History(count, values, known, _time_points(runs, count))


def _time_points(runs: Runs, count: np.ndarray) -> np.ndarray:
    """The seconds at which the batch of each point had ended."""
    rows = read_batches(runs.studies[0]) if len(runs.studies) == 1 else []
    ends, seconds = [row[1] for row in rows], [*(row[2] for row in rows), math.nan]
    return np.array(seconds)[np.searchsorted(ends, count)] if rows else np.full(len(count), np.nan)


def read_batches(folder: Folder) -> list[tuple[int, int, float]]:
    """Of each batch of a search its number, the runs until its end, and the seconds until then; none if unknown."""
    if not folder.batches.exists():
        return []
    try:
        with folder.batches.open(newline="") as file:
            return [(int(r["batch"]), int(r["runs"]), float(r["seconds"])) for r in csv.DictReader(file)]
    except (ValueError, KeyError, TypeError):  # it tells nothing that a result depends on
        return []


def find_sign(runs: Runs, metric: str) -> float:
    """What makes smaller values of a metric better: 1, or -1 for one that is maximized."""
    return 1.0 if runs.directions.get(metric, MINIMIZE) == MINIMIZE else -1.0


def measure_importance(runs: Runs, metric: str) -> dict[str, float]:
    """The share of the variance of a metric over the points that each axis explains alone, the largest first.

    It is the first-order term of the functional analysis of variance (Hutter et al., ICML 2014), estimated by the means
    over parts of each axis, less what as many random groups would explain (epsilon squared; Kelley, PNAS 21, 1935).
    Interactions are in no share, so that the sum may be far below 1.
    """
    values = average_points(runs, metric)
    shares = {}
    for axis in runs.points.columns:
        groups = group_axis(runs.points[axis].tolist())
        known = np.isfinite(values) & (groups >= 0)
        shares[str(axis)] = _explain(values[known], groups[known])
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def group_axis(values: Sequence[object]) -> np.ndarray:
    """The number of the part of an axis for each value: of quantiles of numbers, or of each text; -1 for none."""
    is_numeric = all(isinstance(value, int | float) for value in values if value is not None)
    given = np.array([value is not None and value == value for value in values])
    groups = np.full(len(values), -1)
    if not given.any():
        return groups
    chosen = [value for value, is_given in zip(values, given, strict=True) if is_given]
    if not is_numeric or len(set(chosen)) <= BINS:
        names = {name: number for number, name in enumerate(dict.fromkeys(chosen))}
        groups[given] = [names[value] for value in chosen]
        return groups
    numbers = np.array(chosen, dtype=float)
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, BINS + 1)[1:-1]))
    groups[given] = np.searchsorted(edges, numbers, side="right")
    return groups


def _explain(values: np.ndarray, groups: np.ndarray) -> float:
    """Epsilon squared of a one-way analysis of variance, at least 0; NaN where there is nothing to explain."""
    _, number = np.unique(groups, return_inverse=True)
    count = np.bincount(number)
    total = float(((values - values.mean()) ** 2).sum()) if len(values) else 0.0
    if len(count) < 2 or len(values) <= len(count) or not total:
        return 0.0
    means = np.bincount(number, weights=values) / count
    within = float(((values - means[number]) ** 2).sum())
    return max(0.0, 1.0 - within / (len(values) - len(count)) * (len(values) - 1) / total)


def select_front(runs: Runs, metrics: Sequence[str]) -> np.ndarray:
    """Which points no other one is at least as good as in all metrics and better in one, bool `(points,)`."""
    costs = np.stack([find_sign(runs, metric) * average_points(runs, metric) for metric in metrics], axis=1)
    finite = np.isfinite(costs).all(axis=1)
    front = np.zeros(len(costs), dtype=bool)
    front[finite] = find_front(costs[finite])
    return front


def draw_history(runs: Runs, metric: str, *, over_time: bool = False) -> Figure | None:
    """Every point and the best so far over the runs, or over seconds; None where the seconds are not known."""
    history = trace_history(runs, metric)
    x = history.seconds if over_time else history.runs
    if not np.isfinite(x).any():
        return None
    figure, axes = _create_axes()
    axes.plot(x, history.values, ".", color=GREY, markersize=4, label="points")
    axes.step(x, history.best, where="post", color=BLUE, linewidth=1.8, label="best so far")
    axes.set_xlabel("seconds" if over_time else "runs")
    axes.set_ylabel(_escape(metric))
    _scale(axes, "y", history.values)
    axes.legend(frameon=False)
    return figure


def draw_slices(runs: Runs, metric: str) -> Figure | None:
    """The value of every point along each axis, later points darker; None without an axis."""
    names, values = list(runs.points.columns), average_points(runs, metric)
    if not names:
        return None
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(3.2 * columns, 2.6 * rows), layout="constrained")
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, place + 1)
        x, ticks = _place_values(runs.points[name].tolist())
        axes.scatter(x, values, c=np.arange(len(values)), cmap="cividis_r", s=9, linewidths=0)
        axes.set_xlabel(_escape(str(name)))
        if ticks:
            axes.set_xticks(range(len(ticks)), [_escape(tick) for tick in ticks])
        else:
            _scale(axes, "x", x)
        if place % columns == 0:
            axes.set_ylabel(_escape(metric))
        _scale(axes, "y", values)
    return figure


def draw_importance(runs: Runs, metric: str) -> Figure | None:
    """The share of the variance that each axis explains alone; None without an axis."""
    shares = measure_importance(runs, metric)
    if not shares:
        return None
    figure, axes = _create_axes(height=0.8 + 0.35 * len(shares))
    names = list(shares)[::-1]
    axes.barh([_escape(name) for name in names], [shares[name] for name in names], color=BLUE)
    axes.set_xlim(0, 1)
    axes.set_xlabel(_escape(f"share of the variance of {metric} explained by the axis alone"))
    return figure


def draw_front(runs: Runs, metrics: Sequence[str]) -> Figure:
    """All points over two metrics, those of the front marked."""
    first, second = metrics[:2]
    x, y = average_points(runs, first), average_points(runs, second)
    front = select_front(runs, (first, second))
    figure, axes = _create_axes()
    axes.plot(x, y, ".", color=GREY, markersize=4, label="points")
    order = np.argsort(x[front], kind="stable")
    axes.plot(x[front][order], y[front][order], "o-", color=ORANGE, markersize=5, linewidth=1, label="front")
    axes.set_xlabel(_escape(first))
    axes.set_ylabel(_escape(second))
    axes.legend(frameon=False)
    return figure


def draw_parallel(runs: Runs, metric: str) -> Figure | None:
    """A line for each point over all axes and the metric, the best drawn last; None without an axis."""
    names, values = list(runs.points.columns), average_points(runs, metric)
    finite = np.isfinite(values)
    if not names or not finite.any():
        return None
    columns = [*(_spread(_place_values(runs.points[name].tolist())[0]) for name in names), _spread(values)]
    cost = find_sign(runs, metric) * values
    order = np.flatnonzero(finite)[np.argsort(-cost[finite], kind="stable")]
    heights = np.stack(columns, axis=1)[order]
    heights = np.where(np.isfinite(heights), heights, -0.05)  # a point that does not have the axis
    lines = np.stack([np.broadcast_to(np.arange(len(columns)), heights.shape), heights], axis=2)
    figure, axes = _create_axes(width=1.6 + 1.4 * len(columns))
    collection = LineCollection(list(lines), cmap="cividis", linewidths=0.9)
    collection.set_array(np.arange(len(order)))
    axes.add_collection(collection)
    axes.set_xlim(0, len(columns) - 1)
    axes.set_ylim(-0.08, 1.05)
    axes.set_xticks(range(len(columns)), [_escape(str(name)) for name in (*names, metric)])
    axes.set_yticks([0, 1], ["least", "greatest"])
    return figure


def draw_search(runs: Runs, metrics: Sequence[str]) -> dict[str, Figure]:
    """The figures of a search by their titles, for its first metric and, with two or more, for the front."""
    if not is_search(runs) or not metrics or not (runs.status != Status.FAILED).any():
        return {}
    metric = metrics[0]
    drawn: Mapping[str, Figure | None] = {
        "best so far over the runs": draw_history(runs, metric),
        "best so far over the seconds": draw_history(runs, metric, over_time=True),
        "along each axis": draw_slices(runs, metric),
        "what each axis explains": draw_importance(runs, metric),
        "all axes": draw_parallel(runs, metric),
        "front": draw_front(runs, metrics) if len(metrics) > 1 else None,
    }
    return {f"{metric}: {title}": figure for title, figure in drawn.items() if figure is not None}


def _create_axes(width: float = 6.4, height: float = 3.6) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _place_values(values: Sequence[object]) -> tuple[np.ndarray, list[str]]:
    """Numbers as they are, or the places of texts with their names; NaN where a point does not have the axis."""
    given = [value for value in values if value is not None]
    if all(isinstance(value, int | float) for value in given):
        return np.array([math.nan if value is None else value for value in values], dtype=float), []
    names = {str(value): place for place, value in enumerate(dict.fromkeys(map(str, given)))}
    return np.array([math.nan if value is None else names[str(value)] for value in values]), list(names)


def _spread(values: np.ndarray) -> np.ndarray:
    """The values from 0 to 1, by their logarithm where they span more than two orders of magnitude."""
    finite = values[np.isfinite(values)]
    if _is_wide(finite):
        values, finite = np.log(values), np.log(finite)
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    return (values - low) / (high - low) if high > low else np.where(np.isfinite(values), 0.5, np.nan)


def _scale(axes: Axes, name: str, values: np.ndarray) -> None:
    if _is_wide(values[np.isfinite(values)]):
        (axes.set_xscale if name == "x" else axes.set_yscale)("log")


def _is_wide(finite: np.ndarray) -> bool:
    return len(finite) > 0 and finite.min() > 0 and finite.max() > 100 * finite.min()


def _escape(text: str) -> str:
    """A name in a label; matplotlib would read text between dollar signs as a formula."""
    return text.replace("$", r"\$")

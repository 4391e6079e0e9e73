"""What a search has led to: its history, what matters, and the front; `pictures` draws them.

All functions take the loaded runs of a study. A point's value is the mean of a metric over its runs, NaN if one of them
is not finite.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from runner.analysis.formats import AXIS
from runner.analysis.load import Runs
from runner.search.optimization import Method
from runner.search.ranking import find_front
from runner.storage.folder import Folder

MINIMIZE = "minimize"
LEARNING = tuple(method for method in Method if method not in (Method.QMC, Method.RANDOM))
"""Samplers whose later points depend on the results of earlier ones."""
WIDE = 10.0
"""The ratio of the largest to the smallest value from which a scale is logarithmic."""
BINS = 8
"""Parts of a numeric axis, with equally many points each, whose means are compared."""


@dataclass(frozen=True)
class Search:
    """How a study found its points.

    `objectives` are the outputs that it was to improve, with their directions; there are none where its points were
    drawn. `budget` is the axis that halving divides, or empty. `is_learning` says that later points depend on earlier
    ones. `logarithmic` are the keys that were searched by their logarithm, None in studies that do not record them.
    """

    objectives: Mapping[str, str] = field(default_factory=dict)
    budget: str = ""
    is_learning: bool = False
    logarithmic: tuple[str, ...] | None = None

    def is_logarithmic(self, axis: str, values: np.ndarray) -> bool:
        """Whether an axis has a logarithmic scale: one that was searched so, or if that is not recorded, a wide one."""
        finite = values[np.isfinite(values)]
        if not len(finite) or finite.min() <= 0:
            return False
        if self.logarithmic is not None and axis.removeprefix(AXIS) != self.budget.removeprefix(AXIS):
            return axis.removeprefix(AXIS) in self.logarithmic
        return bool(finite.max() >= WIDE * finite.min())


@dataclass(frozen=True)
class History:
    """The points of a study in the order of its table, `(points,)` each.

    `runs` are those of the table up to each point. `best` is the best value so far, NaN before the first finite one.
    `seconds` are those of the search until the batch of a point had ended, NaN where that is not known.
    """

    runs: np.ndarray
    values: np.ndarray
    best: np.ndarray
    seconds: np.ndarray


def find_search(runs: Runs) -> Search | None:
    """How the points of a study were found, None where somebody listed them, and for several studies."""
    facts = runs.manifests[0].fingerprint.search if len(runs.manifests) == 1 else None
    if not facts:
        return None
    budget = str(facts.get("budget", ""))
    axis = next((str(name) for name in runs.points.columns if str(name).removeprefix(AXIS) == budget), "")
    directions = {name: way for name, way in facts.get("directions", {}).items() if name in runs.values}
    logarithmic = facts.get("logarithmic")
    is_learning = facts.get("sampler") in LEARNING
    return Search(directions, axis, is_learning, None if logarithmic is None else tuple(logarithmic))


def average_points(runs: Runs, metric: str) -> np.ndarray:
    """The mean of a metric over the runs of each point, float64 `(points,)`."""
    count = np.bincount(runs.point, minlength=len(runs.points))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.bincount(runs.point, weights=runs.values[metric], minlength=len(runs.points)) / count


def trace_history(runs: Runs, metric: str) -> History:
    """How the best value of a metric has changed from point to point."""
    values = average_points(runs, metric)
    count = count_runs(runs)
    return History(count, values, trace_best(values, find_sign(runs, metric)), _time_points(runs, count))


def count_runs(runs: Runs) -> np.ndarray:
    """How many runs the table of a study has up to the last run of each point, int64 `(points,)`."""
    last = np.full(len(runs.points), -1)
    np.maximum.at(last, runs.point, runs.number)
    return np.maximum.accumulate(last) + 1


def trace_best(values: np.ndarray, sign: float) -> np.ndarray:
    """The best value so far at each place, NaN before the first finite one; with a sign of -1 the largest one."""
    best = np.minimum.accumulate(np.where(np.isfinite(values), sign * values, np.inf))
    return np.where(np.isfinite(best), sign * best, np.nan)


def divide_points(runs: Runs, search: Search) -> tuple[np.ndarray, list[str]]:
    """The stage of the search that each point belongs to, `(points,)`, and the names of the stages.

    Stages are the budgets, the least first, or the halves of a search that learns; there is one in any other.
    """
    if search.budget:
        budgets, stage = np.unique(runs.points[search.budget].to_numpy(float), return_inverse=True)
        return stage, [f"{search.budget.removeprefix(AXIS)}={budget:g}" for budget in budgets]
    count = len(runs.points)
    if search.is_learning and count > 1:
        return (np.arange(count) >= count / 2).astype(int), ["first half of the search", "second half"]
    return np.zeros(count, dtype=int), ["points"]


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

"""The best trials of a search: in the order of their values, or those that no other one dominates."""

from collections.abc import Sequence

import numpy as np

from runner.search.objectives import Objective
from runner.search.points import Trial


def rank_trials(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """The feasible trials with values, each point once, the best first; of several objectives those of the front.

    Of points that had several budgets only the runs with the largest one count. The first of equal ones comes first.
    """
    budget = max((trial.budget or 0 for trial in trials), default=0)
    valid = [t for t in trials if t.values is not None and t.is_feasible and (t.budget or 0) == budget]
    distinct = list({repr(sorted(trial.point.items())): trial for trial in reversed(valid)}.values())[::-1]
    if not distinct:
        return []
    costs = np.array([trial.values for trial in distinct]) * [objective.sign for objective in objectives]
    if len(objectives) > 1:
        distinct = [trial for trial, is_best in zip(distinct, find_front(costs), strict=True) if is_best]
        costs = np.array([trial.values for trial in distinct]) * [objective.sign for objective in objectives]
    return [distinct[i] for i in np.argsort(costs[:, 0], kind="stable")]


def find_front(costs: np.ndarray) -> np.ndarray:
    """Which points, of costs `(points, objectives)`, no other one dominates, bool `(points,)`.

    Each point that is taken discards what it dominates, so that this takes as many steps as the front has points.
    """
    left, front = np.arange(len(costs)), np.zeros(len(costs), dtype=bool)
    while len(left):
        best = left[np.lexsort(costs[left].T[::-1])[0]]  # nothing that is left dominates the first in this order
        front[best] = True
        equal = (costs[left] == costs[best]).all(axis=1)
        front[left[equal]] = True
        left = left[~equal & (costs[left] < costs[best]).any(axis=1)]
    return front

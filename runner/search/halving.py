"""Budgets: successive halving and Hyperband over points that are given.

Li et al., Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization, JMLR 18 (2018). Survivors
are executed again from the start with the larger budget: no state is kept, and their curves repeat to the bit.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from runner.errors import InvalidInputError
from runner.plan.values import as_integer
from runner.search.objectives import Objective, judge, list_directions
from runner.search.optimization import list_trials
from runner.search.points import Point, Proposals, Trial

KEYS = ("budget", "eta", "least", "method")


class Method(StrEnum):
    """How budgets are divided."""

    SUCCESSIVE = "successive"
    """All points start with the smallest budget."""
    HYPERBAND = "hyperband"
    """Some points start with the smallest budget, some with the next one, and so on."""


@dataclass(frozen=True)
class Halving:
    """After each rung the best `1 / eta` of the points are executed again with `eta` times the budget.

    `budget` is the key that is the budget, `most` its value in the last rung, `least` the smallest one that is used,
    None for as many rungs as the points are enough for.
    """

    budget: str
    most: int
    eta: float
    least: int | None
    method: Method
    objective: Objective

    @property
    def facts(self) -> dict[str, Any]:
        """What the rungs depend on, for the fingerprint of a study."""
        text = f"{self.method} budget={self.budget} eta={self.eta:g} least={self.least or 'auto'} most={self.most}"
        directions = list_directions([self.objective])
        return {"halving": text, "budget": self.budget, "objective": str(self.objective), "directions": directions}

    def count_rungs(self, points: int) -> int:
        """How many rungs this many points have, the last one with the whole budget."""
        rounds = math.log(max(1, points), self.eta)
        budgets = math.log(self.most / (self.least or 1), self.eta)
        return 1 + max(0, math.floor(min(rounds, budgets) + 1e-9))

    def spend(self, rung: int, rungs: int) -> int:
        """The budget of a rung, counted from 0."""
        return max(1, round(self.most * self.eta ** (rung + 1 - rungs)))


def check_halving(given: Any) -> Mapping[str, Any]:
    """The checked mapping of `hydra.sweeper.halving`. Raises InvalidInputError for what is not valid."""
    if not isinstance(given, Mapping) or not isinstance(given.get("budget"), str):
        raise InvalidInputError(f"hydra.sweeper.halving must be of the form {{budget: steps, eta: 3}}, got {given!r}")
    unknown = [key for key in given if key not in KEYS]
    if unknown:
        raise InvalidInputError(f"hydra.sweeper.halving has no {unknown[0]!r}; it has: {', '.join(KEYS)}")
    eta, least, method = given.get("eta", 3), given.get("least"), given.get("method", Method.SUCCESSIVE.value)
    if isinstance(eta, bool) or not isinstance(eta, int | float) or not 1 < eta < math.inf:
        raise InvalidInputError(f"hydra.sweeper.halving.eta must be a number above 1, got {eta!r}")
    if least is not None and ((number := as_integer(least)) is None or number < 1):
        raise InvalidInputError(f"hydra.sweeper.halving.least must be a positive integer, got {least!r}")
    if method not in list(Method):
        raise InvalidInputError(f"hydra.sweeper.halving.method must be {' or '.join(Method)}, got {method!r}")
    return {"budget": given["budget"], "eta": float(eta), "least": as_integer(least), "method": Method(method)}


def halve(points: Sequence[Point], settings: Halving) -> Proposals:
    """Proposes the rungs of all brackets one after the other. Ties are decided by the order of the points."""
    trials: tuple[Trial, ...] = ()
    worst: tuple[float, ...] = ()
    number = 0
    for bracket, rungs in cut_brackets(len(points), settings):
        members = list(bracket)
        for rung in range(rungs):
            budget = settings.spend(rung, rungs)
            proposed = [{**points[i], settings.budget: budget} for i in members]
            judged = judge((yield proposed), [settings.objective], (), worst)
            worst = judged.worst
            trials += list_trials([points[i] for i in members], judged, number, budget)
            number += 1
            members = keep_best(members, judged.values[:, 0], len(bracket), rung, settings)
    return trials


def cut_brackets(count: int, settings: Halving) -> Iterator[tuple[range, int]]:
    """The points of each bracket, and its number of rungs: one bracket, or those of Hyperband as often as they fit."""
    if settings.method is Method.SUCCESSIVE:
        yield range(count), settings.count_rungs(count)
        return
    start, most = 0, settings.count_rungs(count)
    while start < count:
        for rungs in range(most, 0, -1):
            size = math.ceil(most / rungs * settings.eta ** (rungs - 1))
            if bracket := range(start, min(start + size, count)):
                yield bracket, min(rungs, settings.count_rungs(len(bracket)))
            start += size


def keep_best(members: Sequence[int], values: np.ndarray, first: int, rung: int, settings: Halving) -> list[int]:
    """The points that go on to the next rung, in their order; `first` were in the first one. NaN is worse than all."""
    kept = max(1, math.floor(first * settings.eta ** -(rung + 1) + 1e-9))
    order = np.argsort(np.where(np.isnan(values), np.inf, settings.objective.sign * values), kind="stable")
    return [members[i] for i in np.sort(order[:kept])]

"""Objectives: outputs reduced over the runs of a point, and constraints on them."""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from runner.contract.task import Output
from runner.errors import InvalidInputError
from runner.search.points import Results

ONE_SIDED = 0.95
"""The confidence of the bound that `upper` stands for."""


class Direction(StrEnum):
    """Which values of an output are better."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


class Reduction(StrEnum):
    """How the values of a point's runs become one."""

    MEAN = "mean"
    MEDIAN = "median"
    IQM = "iqm"
    """The mean of the middle half."""
    WORST = "worst"
    UPPER = "upper"
    """The pessimistic end of Student's one-sided 95 % interval of the mean: the upper one of what is minimised."""


@dataclass(frozen=True)
class Objective:
    """An output that is to be made small or large."""

    output: str
    direction: Direction
    reduction: Reduction = Reduction.MEAN

    @property
    def sign(self) -> float:
        """What makes smaller values better: 1 or -1."""
        return 1.0 if self.direction is Direction.MINIMIZE else -1.0

    def __str__(self) -> str:
        return f"{self.direction} the {self.reduction} of {self.output}"


def list_directions(objectives: Sequence[Objective]) -> dict[str, str]:
    """The outputs of some objectives with their directions."""
    return {objective.output: objective.direction.value for objective in objectives}


@dataclass(frozen=True)
class Constraint:
    """The mean of an output over the runs of a point must be at most, or with a `sign` of -1 at least, the bound."""

    output: str
    sign: float
    bound: float

    def measure(self, values: np.ndarray) -> np.ndarray:
        """How far the points `(points, runs)` are beyond the bound, `(points,)`; infinitely if a run is nonfinite."""
        with np.errstate(invalid="ignore"):
            beyond = self.sign * (values.mean(axis=1) - self.bound)
        return np.where(np.isfinite(beyond), beyond, np.inf)

    def __str__(self) -> str:
        return f"{self.output}{'<=' if self.sign > 0 else '>='}{self.bound:g}"


_CONSTRAINT = re.compile(r"\s*([^<>=\s]+)\s*(<=|>=)\s*(\S+)\s*")


def parse_constraint(text: Any) -> Constraint:
    """The constraint of a text such as `train_loss<=0.5`. Raises InvalidInputError for another form."""
    found = _CONSTRAINT.fullmatch(text) if isinstance(text, str) else None
    try:
        assert found is not None
        bound = float(found[3])
        assert math.isfinite(bound)
    except (AssertionError, ValueError):
        raise InvalidInputError(
            f"a constraint must be of the form output<=number or output>=number, got {text!r}"
        ) from None
    return Constraint(found[1], 1.0 if found[2] == "<=" else -1.0, bound)


def make_objectives(
    objective: Any, direction: Any, reduction: Any, metrics: Mapping[str, str]
) -> tuple[Objective, ...]:
    """The objectives that a search was given, by default the first metric of its task.

    `metrics` are those of the task with their directions. Raises InvalidInputError for a direction or reduction that
    does not exist, and for an objective without a direction.
    """
    if reduction not in list(Reduction):
        raise InvalidInputError(f"hydra.sweeper.reduce must be one of {', '.join(Reduction)}, got {reduction!r}")
    names = list(metrics)[:1] if objective is None else _list_texts("objective", objective)
    if not names:
        raise InvalidInputError("the task declares no metrics; give hydra.sweeper.objective=OUTPUT, and a direction")
    if len(set(names)) < len(names):
        raise InvalidInputError(f"hydra.sweeper.objective names an output twice: {', '.join(names)}")
    given = [None] * len(names) if direction is None else _list_texts("direction", direction)
    if len(given) != len(names):
        raise InvalidInputError(
            f"hydra.sweeper.direction must have one of minimize and maximize for each of {', '.join(names)}, got "
            f"{', '.join(map(str, given))}"
        )
    return tuple(
        Objective(name, _find_direction(name, own, metrics), Reduction(reduction))
        for name, own in zip(names, given, strict=True)
    )


def _list_texts(name: str, value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or not texts or not all(isinstance(text, str) for text in texts):
        raise InvalidInputError(f"hydra.sweeper.{name} must be a name, or a list of names, got {value!r}")
    return list(texts)


def _find_direction(output: str, given: str | None, metrics: Mapping[str, str]) -> Direction:
    if given is None and output not in metrics:
        has = ", ".join(metrics) or "none"
        raise InvalidInputError(
            f"{output} has no direction, being none of the task's metrics ({has}); give the name of one, or "
            "hydra.sweeper.direction=minimize or maximize"
        )
    wanted = metrics[output] if given is None else given
    if wanted not in list(Direction):
        raise InvalidInputError(f"hydra.sweeper.direction must be minimize or maximize, got {wanted!r}")
    return Direction(wanted)


def check_outputs(names: Collection[str], outputs: Collection[Output]) -> None:
    """Raises InvalidInputError for a name that is none of these outputs, or one of an array or of text."""
    known = {output.name: output for output in outputs}
    scalars = ", ".join(name for name, o in known.items() if o.shape == () and not o.is_categorical) or "none"
    for name in names:
        if name not in known:
            raise InvalidInputError(f"the task returns no {name!r}; its numbers are: {scalars}")
        if known[name].is_categorical:
            raise InvalidInputError(f"{name} is text, and cannot be an objective; the task's numbers are: {scalars}")
        if known[name].shape != ():
            shape = "×".join(map(str, known[name].shape))
            raise InvalidInputError(f"{name} is an array of {shape}, no number; the task's numbers are: {scalars}")


@dataclass(frozen=True)
class Judged:
    """The values of some points, float64 `(points, objectives)`, NaN where all runs are nonfinite; `violations` alike.

    A point is feasible where no violation `(points, constraints)` is above 0. `worst` has the worst finite value of a
    run of each objective, in all results so far.
    """

    values: np.ndarray
    violations: np.ndarray
    worst: tuple[float, ...]


def judge(
    results: Results, objectives: Sequence[Objective], constraints: Sequence[Constraint], worst: Sequence[float] = ()
) -> Judged:
    """The values of the points of some results.

    A run without a finite value counts as the worst finite one of any run so far, those of earlier results `worst`
    included, unless no run of its point has one: then the point has no value.
    """
    known = list(worst) or [math.nan] * len(objectives)
    columns = []
    for i, objective in enumerate(objectives):
        values = objective.sign * results.outputs[objective.output]
        finite = np.isfinite(values)
        known[i] = float(np.fmax(known[i], np.max(values[finite], initial=-math.inf))) if finite.any() else known[i]
        filled = np.where(finite, values, known[i])
        columns.append(np.where(finite.any(axis=1), objective.sign * _REDUCE[objective.reduction](filled), np.nan))
    violations = [constraint.measure(results.outputs[constraint.output]) for constraint in constraints]
    points = len(columns[0])
    return Judged(np.stack(columns, axis=1), np.reshape(violations, (len(constraints), points)).T, tuple(known))


def _mean_middle_half(values: np.ndarray) -> np.ndarray:
    from scipy.stats import trim_mean

    return trim_mean(values, 0.25, axis=1)


def _bound_mean(values: np.ndarray) -> np.ndarray:
    from scipy.special import stdtrit

    count = values.shape[1]
    if count < 2:
        return values[:, 0]
    return values.mean(axis=1) + stdtrit(count - 1, ONE_SIDED) * values.std(axis=1, ddof=1) / math.sqrt(count)


_REDUCE: Mapping[Reduction, Callable[[np.ndarray], np.ndarray]] = {
    Reduction.MEAN: lambda values: values.mean(axis=1),
    Reduction.MEDIAN: lambda values: np.median(values, axis=1),
    Reduction.IQM: _mean_middle_half,
    Reduction.WORST: lambda values: values.max(axis=1),
    Reduction.UPPER: _bound_mean,
}
"""Of values that are better the smaller they are, `(points, runs)`."""

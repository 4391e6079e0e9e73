"""Searches by Optuna's samplers: a batch of points is asked for, executed, and told.

Optuna keeps nothing: its study is built again in each call from the results of the table, batch by batch, and each
batch has a sampler of its own, whose seed depends on the search's seed and on the number of the batch alone. So a
resumed search proposes the same points as an uninterrupted one. Source of the samplers: optuna.readthedocs.io.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import metadata, util
from typing import Any

import numpy as np

from runner.errors import InvalidInputError
from runner.plan.size import MOST_VALUES
from runner.plan.values import as_integer
from runner.search.intervals import Interval
from runner.search.objectives import Constraint, Judged, Objective, judge, list_directions
from runner.search.points import Point, Proposals, Trial
from runner.search.samplers import Sampler, Sampling, check_seed, draw_unit
from runner.search.space import Choice, Dimension, Space

OLDEST_OPTUNA = 5
LEAST_POPULATION = 4
"""CMA-ES averages the better half of its population, and divides by what a single one would leave."""


class Method(StrEnum):
    """Who proposes points."""

    TPE = "tpe"
    CMAES = "cmaes"
    GP = "gp"
    NSGA2 = "nsga2"
    NSGA3 = "nsga3"
    QMC = "qmc"
    """Sobol's sequence by SciPy; Optuna's own sampler would build its engine again for each point."""
    RANDOM = "random"


PACKAGES: Mapping[Method, str] = {Method.CMAES: "cmaes", Method.GP: "torch"}
"""What a sampler needs beside Optuna."""


@dataclass(frozen=True)
class Optimization:
    """The settings of a search: who proposes, how many points in all and at once, and what for.

    `options` are further arguments of Optuna's sampler.
    """

    method: Method
    trials: int
    batch: int
    seed: int
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        """What the points depend on, for the fingerprint; not on `trials`, since a search can be extended."""
        facts: dict[str, Any] = {
            "sampler": self.method.value,
            "sampler_seed": self.seed,
            "batch": self.batch,
            "objective": ", ".join(map(str, self.objectives)),
            "directions": list_directions(self.objectives),
            "constraints": ", ".join(map(str, self.constraints)),
            "options": dict(self.options),
        }
        package = "scipy" if self.method is Method.QMC else "optuna"
        return facts | {f"version of {package}": metadata.version(package)}

    def cut_batches(self) -> Iterator[range]:
        """The numbers of the trials of each batch."""
        return (range(i, min(i + self.batch, self.trials)) for i in range(0, self.trials, self.batch))


def check_optimization(
    given: Mapping[str, Any], objectives: tuple[Objective, ...], constraints: tuple[Constraint, ...]
) -> Optimization:
    """The checked settings of the sweeper `optuna`.

    Raises InvalidInputError for a value that is not valid, and for a sampler whose package is not installed.
    """
    if given["sampler"] not in list(Method):
        raise InvalidInputError(f"hydra.sweeper.sampler must be one of {', '.join(Method)}, got {given['sampler']!r}")
    options = given["options"] or {}
    if not isinstance(options, Mapping):
        raise InvalidInputError(f"hydra.sweeper.options must be arguments of Optuna's sampler, got {options!r}")
    settings = Optimization(
        Method(given["sampler"]),
        _check_count("trials", given["trials"]),
        _check_count("batch", given["batch"]),
        check_seed("hydra.sweeper.sampler_seed", given["sampler_seed"]),
        objectives,
        constraints,
        {str(name): value for name, value in options.items()},
    )
    if settings.method is not Method.QMC:
        _check_installed(settings)
        with quieten():
            _make_sampler(settings, 0)
    if settings.method is Method.CMAES and settings.batch < LEAST_POPULATION:
        raise InvalidInputError(
            f"hydra.sweeper.batch must be at least {LEAST_POPULATION} for cmaes, whose population it is, got "
            f"{settings.batch}"
        )
    if settings.method is Method.CMAES and (len(objectives) > 1 or constraints):
        raise InvalidInputError("hydra.sweeper.sampler=cmaes has one objective and no constraints; tpe and nsga2 have")
    return settings


def check_space(settings: Optimization, space: Space) -> None:
    """Raises InvalidInputError for a space that the sampler cannot search."""
    texts = [dimension.key for dimension in space.dimensions if isinstance(dimension, Choice)]
    if settings.method is Method.CMAES and texts:
        raise InvalidInputError(
            f"hydra.sweeper.sampler=cmaes searches numbers, not choices such as {texts[0]}; tpe, gp and nsga2 do"
        )


def _check_count(name: str, value: Any) -> int:
    count = as_integer(value)
    if count is None or not 1 <= count <= MOST_VALUES:
        raise InvalidInputError(f"hydra.sweeper.{name} must be an integer from 1 to {MOST_VALUES:,}, got {value!r}")
    return count


def _check_installed(settings: Optimization) -> None:
    if not has_optuna():
        raise InvalidInputError("hydra/sweeper=optuna needs Optuna: pip install 'seedbed[optuna]'")
    version = metadata.version("optuna")
    if int(version.split(".")[0]) < OLDEST_OPTUNA:
        raise InvalidInputError(f"hydra/sweeper=optuna needs Optuna {OLDEST_OPTUNA} or later; {version} is installed")
    package = PACKAGES.get(settings.method)
    if package and util.find_spec(package) is None:
        raise InvalidInputError(f"hydra.sweeper.sampler={settings.method} needs {package}: pip install {package}")


def optimize(space: Space, settings: Optimization) -> Proposals:
    """Proposes batch after batch of points of a space, by what earlier ones have led to."""
    return (_draw if settings.method is Method.QMC else _ask)(space, settings)


def _draw(space: Space, settings: Optimization) -> Proposals:
    trials: tuple[Trial, ...] = ()
    worst: tuple[float, ...] = ()
    unit = draw_unit(Sampling(Sampler.SOBOL, settings.trials, settings.seed), len(space.dimensions))
    for number, places in enumerate(settings.cut_batches()):
        points = [space.pick(unit[place]) for place in places]
        judged = judge((yield points), settings.objectives, settings.constraints, worst)
        worst = judged.worst
        trials += list_trials(points, judged, number)
    return trials


def _ask(space: Space, settings: Optimization) -> Proposals:
    import optuna  # half a second, which only a search has to spend

    trials: tuple[Trial, ...] = ()
    worst: tuple[float, ...] = ()
    with quieten():
        study = optuna.create_study(directions=[objective.direction.value for objective in settings.objectives])
    for number, places in enumerate(settings.cut_batches()):
        with quieten():
            study.sampler = _make_sampler(settings, number)
            asked = [study.ask() for _ in places]
            points = [_suggest(trial, space) for trial in asked]
        judged = judge((yield points), settings.objectives, settings.constraints, worst)
        worst = judged.worst
        told = list_trials(points, judged, number)
        with quieten():
            for trial, one, violations in zip(asked, told, judged.violations, strict=True):
                for constraint, violation in zip(settings.constraints, violations, strict=True):
                    trial.set_constraint(str(constraint), float(violation))
                state = optuna.trial.TrialState.FAIL if one.values is None else None
                study.tell(trial, one.values, state)
        trials += told
    return trials


def list_trials(points: Sequence[Point], judged: Judged, batch: int, budget: int | None = None) -> tuple[Trial, ...]:
    """The points of a batch with what they have led to."""
    feasible = np.all(judged.violations <= 0, axis=1).tolist()
    values = [tuple(map(float, row)) if np.isfinite(row).all() else None for row in judged.values]
    return tuple(
        Trial(point, own, own is not None and is_feasible, batch, budget)
        for point, own, is_feasible in zip(points, values, feasible, strict=True)
    )


def _suggest(trial: Any, space: Space) -> Point:
    options = {group.key: _suggest_value(trial, group) for group in space.groups}
    branch = space.branches[tuple(options.values())]
    return options | {dimension.key: _suggest_value(trial, dimension) for dimension in branch}


def _suggest_value(trial: Any, dimension: Dimension) -> Any:
    if isinstance(dimension, Choice):
        named = dict(zip(_name_values(dimension), dimension.values, strict=True))
        return named[trial.suggest_categorical(dimension.key, list(named))]
    if isinstance(dimension, Interval):
        if dimension.is_integer:
            return trial.suggest_int(dimension.key, int(dimension.low), int(dimension.high), log=dimension.is_log)
        return trial.suggest_float(dimension.key, dimension.low, dimension.high, log=dimension.is_log)
    return trial.suggest_int(dimension.key, dimension.low, dimension.high, step=dimension.step)


def _name_values(choice: Choice) -> list[str]:
    """A text for each value, since Optuna's categories are no lists or mappings."""
    names = list(map(str, choice.values))
    return names if len(set(names)) == len(names) else [f"{i}: {name}" for i, name in enumerate(names)]


def _make_sampler(settings: Optimization, batch: int) -> Any:
    """Optuna's sampler for a batch. Raises InvalidInputError for options that it does not have."""
    from optuna import samplers

    seed = int(np.random.SeedSequence([settings.seed, batch]).generate_state(1)[0] % 2**31)
    classes: Mapping[Method, Callable[..., Any]] = {
        Method.TPE: samplers.TPESampler,
        Method.CMAES: samplers.CmaEsSampler,
        Method.GP: samplers.GPSampler,
        Method.NSGA2: samplers.NSGAIISampler,
        Method.NSGA3: samplers.NSGAIIISampler,
        Method.RANDOM: samplers.RandomSampler,
    }
    arguments: dict[Method, dict[str, Any]] = {
        Method.TPE: {"group": True},  # finds what conditional dimensions have in common
        Method.CMAES: {"popsize": max(LEAST_POPULATION, settings.batch), "warn_independent_sampling": False},
        Method.GP: {"warn_independent_sampling": False},
        Method.NSGA2: {"population_size": max(2, settings.batch)},
        Method.NSGA3: {"population_size": max(2, settings.batch)},
    }
    try:
        return classes[settings.method](seed=seed, **{**arguments.get(settings.method, {}), **settings.options})
    except (TypeError, ValueError) as error:
        name = classes[settings.method].__name__
        raise InvalidInputError(f"hydra.sweeper.options: {name} refuses {dict(settings.options)}: {error}") from error


def has_optuna() -> bool:
    """Whether Optuna is installed."""
    return util.find_spec("optuna") is not None


@contextmanager
def quieten() -> Iterator[None]:
    """Without Optuna's lines about each trial, and its warnings about interfaces that may change."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)

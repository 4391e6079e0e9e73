"""The search that a call asks for, if it does: its space, its settings, and how its points become plans."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from runner.config.bind import read_sweep
from runner.config.compose import Base, combine_values, compose_base
from runner.config.overrides import SweptKey, Zip, parse_sweep
from runner.config.points import Binder
from runner.config.scalars import find_scalar
from runner.config.settings import Settings
from runner.contract.task import Kind, Output
from runner.errors import InvalidInputError
from runner.plan.segments import Plan
from runner.plan.size import PlanSize, check_size
from runner.plan.values import as_integer, freeze
from runner.search.given import pass_on
from runner.search.halving import Halving, check_halving, halve
from runner.search.intervals import Interval, list_logarithmic
from runner.search.objectives import Constraint, Objective, check_outputs, make_objectives, parse_constraint
from runner.search.optimization import check_optimization, check_space, optimize
from runner.search.points import Point, Proposals, Trial
from runner.search.space import Choice, Dimension, Space, Steps, scale
from runner.storage.columns import format_cell
from runner.storage.rows import SavedRun
from runner.storage.run_index import SegmentKey

SEED = "seed"
"""The key whose values are replicates of a point, and no dimension."""


@dataclass(frozen=True)
class SearchCall:
    """A search: what proposes its points, how they become plans, and what it is for.

    `runs` is the most runs that it has. `title` says what it is.
    """

    propose: Callable[[], Proposals]
    binder: Binder
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    runs: int
    title: str
    example: Plan
    """The plan of some point of each combination of options."""
    is_part: bool = False
    """Whether somebody else searches, and this is one of its batches."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs that it looks at."""
        named = [*(o.output for o in self.objectives), *(c.output for c in self.constraints)]
        return tuple(dict.fromkeys(named))

    def complete(self, trial: Trial) -> Point:
        """The point of a trial with its budget."""
        pinned = self.binder.pinned
        return trial.point if pinned is None else {**trial.point, pinned: trial.budget}

    def plan_runs(self, runs: Iterable[SavedRun]) -> Plan:
        """A plan whose segments have the static values of some runs that the search has proposed, without axes."""
        distinct = {run.key: run for run in runs}
        return _join(self.binder, [_recall_point(self.binder, run) for run in distinct.values()])

    def check_outputs(self, outputs: Sequence[Output]) -> None:
        """Raises InvalidInputError for an objective or constraint that is none of these outputs, or no number."""
        check_outputs(self.outputs, outputs)


def read_search(config: DictConfig, settings: Settings) -> SearchCall | None:
    """The search of a composed config, None for a study whose points are all known.

    Raises InvalidInputError for settings that are not valid, and for a space with nothing in it.
    """
    if not config.sweep.search:
        return None
    given = json.loads(config.sweep.search)
    if "given" in given:
        return _read_given(config, settings, given)
    return (_read_halving if "halving" in given else _read_optimization)(config, settings, given)


def read_points(config: DictConfig, settings: Settings) -> Plan | None:
    """The plan of the points that a shard was given, None for a call whose plan is that of its sweep."""
    if not config.sweep.points:
        return None
    search = read_search(config, settings)
    assert search is not None
    bound = search.binder.bind(json.loads(config.sweep.points))
    return bound[0].plan


def _read_optimization(config: DictConfig, settings: Settings, given: Mapping[str, Any]) -> SearchCall:
    zips = parse_sweep(GlobalHydra.instance().config_loader(), config.sweep.axes, is_open=True)
    keys = {key.key: key for keys in zips for key in keys}
    crossed = tuple(keys for keys in zips if keys[0].key == SEED)
    if crossed and isinstance(crossed[0][0].values, tuple) and isinstance(crossed[0][0].values[0], Interval):
        raise InvalidInputError(
            "seed=interval(…): seeds are replicates of each point; give a list, or range(start,stop)"
        )
    space, first = _build_space(config, [key for name, key in keys.items() if name != SEED])
    objectives, constraints = _read_objectives(given, first)
    optimization = check_optimization(given, objectives, constraints)
    check_space(optimization, space)
    facts = {
        **optimization.facts,
        "space": str(space),
        "logarithmic": list_logarithmic(space.dimensions),
        "seeds": _describe_seeds(crossed),
    }
    binder = Binder(config, settings, keys, crossed, search=facts)
    runs = optimization.trials * _count(crossed)
    _check_runs(runs, settings)
    title = f"{optimization.method} by {', '.join(map(str, objectives))}"
    points = [_exemplify(space, options) for options in space.branches]
    return SearchCall(
        partial(optimize, space, optimization), binder, objectives, constraints, runs, title, _join(binder, points)
    )


def _read_halving(config: DictConfig, settings: Settings, given: Mapping[str, Any]) -> SearchCall:
    checked = check_halving(given["halving"])
    zips = read_sweep(config)
    if any(len(keys) > 1 and SEED in [key.key for key in keys] for keys in zips):
        raise InvalidInputError(
            "halving needs seeds that are crossed with the points; leave seed out of hydra.sweeper.zip"
        )
    crossed = tuple(keys for keys in zips if keys[0].key == SEED)
    swept = [keys for keys in zips if keys[0].key != SEED]
    if not swept:
        raise InvalidInputError("halving has no points to choose from; sweep some key besides seed")
    keys = {key.key: key for zipped in zips for key in zipped}
    budget = checked["budget"]
    if budget in keys:
        raise InvalidInputError(
            f"{budget} is the budget of hydra.sweeper.halving, and cannot be swept; give its largest value"
        )
    keys[budget] = SweptKey(budget, "", False, ())
    points: list[Point] = [{key.key: value for key, value in row} for row in combine_values(swept)]
    groups = [keys for keys in swept if any(key.is_group for key in keys)]
    base = compose_base(config, next(combine_values(groups)))
    objectives, _ = _read_objectives({**given, "constraints": []}, base)
    if len(objectives) > 1:
        raise InvalidInputError("halving has one objective")
    halving = Halving(
        budget, _read_budget(budget, base), checked["eta"], checked["least"], checked["method"], objectives[0]
    )
    facts = {**halving.facts, **_describe_points(swept), "seeds": _describe_seeds(crossed)}
    binder = Binder(config, settings, keys, crossed, budget, facts)
    runs = 2 * len(points) * _count(crossed)  # each rung has at most 1 / eta of the one before
    _check_runs(runs, settings)
    example = _join(binder, [{**points[0], budget: halving.most}])
    return SearchCall(partial(halve, points, halving), binder, objectives, (), runs, halving.facts["halving"], example)


def _read_given(config: DictConfig, settings: Settings, given: Mapping[str, Any]) -> SearchCall:
    """A batch of points that somebody else has proposed, each with its seed."""
    keys = {name: SweptKey(name, prefix, is_group, ()) for name, (prefix, is_group) in given["given"]["keys"].items()}
    points = given["given"]["points"]
    binder = Binder(config, settings, keys, ())
    metrics = dict(binder.compose(points[0]).task.metrics)
    names = given["objective"] or list(metrics)[:1]
    # which values are better is the business of whoever proposes them
    directions = metrics | dict.fromkeys([names] if isinstance(names, str) else names, "minimize")
    objectives = make_objectives(given["objective"], None, "mean", directions)
    example = _join(binder, points)
    propose = partial(pass_on, points, objectives)
    return SearchCall(propose, binder, objectives, (), len(points), "points of another sweeper", example, True)


def _build_space(config: DictConfig, keys: Sequence[SweptKey]) -> tuple[Space, Base]:
    """The space of some swept keys, and the config with the first options.

    A key belongs to the combinations of options whose composed config has it.
    """
    groups = [key for key in keys if key.is_group]
    others = {key.key: (key, _make_dimension(key)) for key in keys if not key.is_group}
    bases = [compose_base(config, assignments) for assignments in combine_values([(key,) for key in groups])]
    branches: dict[tuple[str, ...], tuple[Dimension, ...]] = {}
    for base in bases:
        options = tuple(str(value) for _, value in base.assignments)
        branches[options] = tuple(d for key, d in others.values() if key.prefix or _has_key(base.raw, key.key))
    for name, (key, _) in others.items():
        if not any(name in [d.key for d in branch] for branch in branches.values()):
            compose_base(config, (*bases[0].assignments, (key, _example(others[name][1]))))  # says what there is
            raise InvalidInputError(f"{name} is in none of the combinations of options; +{name}=… adds it to all")
    empty = [options for options, branch in branches.items() if not branch]
    if empty and (not groups or any(branches.values())):
        where = " ".join(f"{g.key}={o}" for g, o in zip(groups, empty[0], strict=True))
        raise InvalidInputError(
            f"the space of the search has nothing in it{f' for {where}' if where else ''}; sweep some key besides seed"
        )
    return Space(tuple(Choice(g.key, tuple(map(str, g.values))) for g in groups), branches), bases[0]


def _recall_point(binder: Binder, run: SavedRun) -> Point:
    """The point of a run as far as its row tells it: its traced values, and static ones by the texts of their cells."""
    cells = SegmentKey(run.key, {}).cells
    point: dict[str, Any] = {}
    for name, key in binder.keys.items():
        if name == SEED:
            continue
        if name in run.traced:
            point[name] = run.scalars[name]
        elif name in cells:
            point[name] = _parse_value(key, cells[name])
        elif isinstance(key.values, tuple) and None in key.values:
            point[name] = None
    return point


def _parse_value(key: SweptKey, text: str) -> Any:
    """The value of a key that has this cell in the table: one of those that were listed, or else a number."""
    if isinstance(key.values, tuple):
        for value in key.values:
            if not isinstance(value, Interval) and format_cell(freeze(value)) == text:
                return value
    return text if key.is_group else yaml.safe_load(text)


def _has_key(values: Any, key: str) -> bool:
    for name in key.split("."):
        if not isinstance(values, Mapping) or name not in values:
            return False
        values = values[name]
    return True


def _make_dimension(key: SweptKey) -> Dimension:
    if isinstance(key.values, range):
        return Steps(key.key, min(key.values), max(key.values), abs(key.values.step))
    values = tuple(key.values)
    return values[0] if isinstance(values[0], Interval) else Choice(key.key, values)


def _example(dimension: Dimension) -> Any:
    return scale(dimension, 0.0)


def _exemplify(space: Space, options: tuple[str, ...]) -> Point:
    point = {group.key: option for group, option in zip(space.groups, options, strict=True)}
    return point | {dimension.key: _example(dimension) for dimension in space.branches[options]}


def _join(binder: Binder, points: Sequence[Point]) -> Plan:
    """A plan of the segments of some points with their values, without axes."""
    plans = [bound.plan for bound in binder.bind(points)]
    first = plans[0]
    return Plan(
        tuple(plan.segments[0] for plan in plans),
        (),
        first.lanes,
        first.block,
        first.threads,
        first.cores_per_run,
        devices=first.devices,
        search=first.search,
    )


def _read_objectives(given: Mapping[str, Any], base: Base) -> tuple[tuple[Objective, ...], tuple[Constraint, ...]]:
    texts = given["constraints"]
    constraints = [texts] if isinstance(texts, str) else texts or []
    objectives = make_objectives(given["objective"], given["direction"], given["reduce"], dict(base.task.metrics))
    return objectives, tuple(map(parse_constraint, constraints))


def _read_budget(key: str, base: Base) -> int:
    """The largest budget. Raises InvalidInputError for a key that is no traced integer of the task."""
    parameter = find_scalar(key, base)
    if parameter is None or parameter.kind is Kind.SEED:
        traced = [p.name for p in base.task.parameters if p.name != SEED and find_scalar(p.name, base)]
        has = f"; traced are: {', '.join(traced)}" if traced else ""
        raise InvalidInputError(
            f"task {base.task.name!r}: {key} cannot be a budget, because it is no traced number of the task{has}"
        )
    value = as_integer(base.values[key])
    if value is None or value < 1:
        raise InvalidInputError(
            f"task {base.task.name!r}: the budget {key} must be a positive integer, got {base.values[key]!r}"
        )
    return value


def _describe_points(swept: Sequence[Zip]) -> dict[str, Any]:
    from runner.search.samplers import DrawnValues

    draws = [key.values.draw for keys in swept for key in keys if isinstance(key.values, DrawnValues)]
    listed = {
        key.key: ",".join(map(str, key.values))
        for keys in swept
        for key in keys
        if not isinstance(key.values, DrawnValues)
    }
    facts = {**draws[0].facts, "samples": draws[0].sampling.samples} if draws else {}
    return {**facts, "points": " ".join(f"{key}={value}" for key, value in sorted(listed.items()))}


def _describe_seeds(crossed: Sequence[Zip]) -> str:
    values = crossed[0][0].values if crossed else ()
    return str(values) if isinstance(values, range) else ",".join(map(str, values))


def _count(crossed: Sequence[Zip]) -> int:
    return crossed[0][0].count if crossed else 1


def _check_runs(runs: int, settings: Settings) -> None:
    check_size(PlanSize(runs, 1, 1, 1, 10), large=settings.large)

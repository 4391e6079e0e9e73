"""Hydra's config into a study; what comes after sees values, and no config."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from runner.config import overrides as sweep
from runner.config.overrides import Bundle, Swept
from runner.errors import InvalidInputError
from runner.plan import contract as tasks
from runner.plan import inputs
from runner.plan.contract import Built, Kind, Parameter, Task
from runner.plan.study import Axis, Segment, Study, scalar_dtype
from runner.storage import run_index as extent

SETTINGS = ("task", "sweep", "study", "lanes", "block", "threads", "dry_run", "on_mismatch", "overwrite", "report")
"""Top-level keys that belong to the runner; every other one is a parameter of the task."""

Picks = tuple[tuple[Swept, Any], ...]
"""One value for each of some swept keys."""


def read(config: DictConfig) -> Study:
    """The study that a composed config describes, its sweep multiplied out as far as configs differ.

    Keys that reach the program as traced scalars become axes, whatever their number of values; each
    combination of the others is composed, read and checked on its own. Raises InvalidInputError for what the task
    cannot take; errors of Hydra and OmegaConf pass.
    """
    keys = sweep.bundles(GlobalHydra.instance().config_loader(), config.sweep.axes, config.sweep.zip)
    chosen = [bundle for bundle in keys if any(key.group for key in bundle)]
    bases = [_base(config, picks) for picks in _combinations(chosen)]

    traced = [b for b in keys if b not in chosen and all(_is_traced(key, base) for key in b for base in bases)]
    valued = [b for b in keys if b not in chosen and b not in traced]
    every = [_segment(base, picks) for base in bases for picks in _combinations(valued)]
    segments = tuple({repr(segment): segment for segment in every}.values())
    axes = tuple(_axis(bases[0].task, bundle) for bundle in traced)
    asked = len(every) * math.prod(len(bundle[0].values) for bundle in traced)
    limits = {name: _limit(config, name) for name in ("lanes", "block", "threads")}
    return Study(segments, axes, **limits, left_out=asked - len(segments) * math.prod(map(len, axes)))


@dataclass(frozen=True)
class Policy:
    """What to do with a study that is there already, or to do nothing at all."""

    dry_run: bool
    overwrite: bool
    on_mismatch: str
    report: bool


def policy(config: DictConfig) -> Policy:
    """The policy of a call. Raises InvalidInputError for what is none."""
    for name in ("dry_run", "overwrite", "report"):
        if not isinstance(config[name], bool):
            raise InvalidInputError(f"{name} must be true or false, got {config[name]!r}")
    if config.on_mismatch not in ("refuse", "fork", "accept"):
        raise InvalidInputError(f"on_mismatch must be refuse, fork or accept, got {config.on_mismatch!r}")
    return Policy(config.dry_run, config.overwrite, config.on_mismatch, config.report)


def written(config: DictConfig) -> dict[str, str]:
    """The files of `.hydra/`, as Hydra writes them for a job."""
    whole = HydraConfig.instance().cfg
    overrides = HydraConfig.get().overrides.task
    texts = {"config": config, "hydra": OmegaConf.masked_copy(whole, ["hydra"]), "overrides": overrides}
    return {f"{name}.yaml": OmegaConf.to_yaml(value) for name, value in texts.items()}


def _combinations(bundles: Sequence[Bundle]) -> Iterator[Picks]:
    """Every combination of the bundles' values, the last bundle fastest."""
    for indices in product(*(range(len(bundle[0].values)) for bundle in bundles)):
        yield tuple((key, key.values[i]) for bundle, i in zip(bundles, indices, strict=True) for key in bundle)


@dataclass(frozen=True)
class Base:
    """A composed config and its task; `plain` are its values if no interpolation is among them."""

    picks: Picks
    config: DictConfig
    task: Task
    plain: Mapping[str, Any] | None


def _base(config: DictConfig, picks: Picks) -> Base:
    zipped = [(key, value) for key, value in picks if not key.group]
    composed = _updated(_compose(config, picks), zipped)
    values = {key: value for key, value in _container(composed, resolve=False).items() if key not in SETTINGS}
    plain = None if "${" in json.dumps(values, default=str) else values
    return Base(picks, composed, _task(composed), plain)


def _container(config: DictConfig, *, resolve: bool) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(config, resolve=resolve)
    return {str(key): value for key, value in values.items()}


def _compose(config: DictConfig, picks: Picks) -> DictConfig:
    """The config with these options of its groups; the one at hand if none is swept."""
    options = {f"{key.prefix}{key.key}=": str(value) for key, value in picks if key.group}
    if not options:
        return config
    hydra = HydraConfig.get()
    fixed = [o for o in [*hydra.overrides.hydra, *hydra.overrides.task] if not o.startswith(tuple(options))]
    lines = [name + value for name, value in options.items()]
    composed = compose(hydra.job.config_name, [*fixed, *lines], return_hydra_config=True)
    known = {line.split("=")[0].lstrip("+") for line in [*fixed, *lines, *config.sweep.axes]}
    own = [key for key in composed.hydra.sweeper.get("params") or () if key.lstrip("+") not in known]
    if own:
        raise InvalidInputError(
            f"{' '.join(lines)} brings a sweep of its own, over {', '.join(own)}; run it as a study of its own"
        )
    return composed


def _task(config: DictConfig) -> Task:
    declared = OmegaConf.to_container(config.task, resolve=True)
    if not isinstance(declared, dict) or not declared.get("_target_"):
        raise InvalidInputError("task has no _target_, the dotted path of its function")
    name = str(declared.get("name") or declared["_target_"])
    outputs = declared.get("outputs") or ()
    outputs = (outputs,) if isinstance(outputs, str) else tuple(map(str, outputs))
    metrics = _pairs(name, declared, "metrics", "{loss: minimize}")
    eager = tuple((key, tasks.frozen(value)) for key, value in _pairs(name, declared, "eager", "{mode: eager}"))
    directions = tuple((key, str(value)) for key, value in metrics)
    task = tasks.load(name, str(declared["_target_"]), outputs, directions, eager)
    _check_names(task, config)
    return task


def _pairs(task: str, declared: Mapping[Any, Any], name: str, example: str) -> tuple[tuple[str, Any], ...]:
    given = declared.get(name) or {}
    if not isinstance(given, Mapping):
        raise InvalidInputError(f"task {task!r}: {name} must be a mapping such as {example}, got {given!r}")
    return tuple((str(key), value) for key, value in given.items())


def _check_names(task: Task, config: DictConfig) -> None:
    """Refuses a key that the task does not know, and a parameter that has no value."""
    has = ", ".join(task.names) or "none"
    for name in config:
        if name not in (*SETTINGS, "hydra", *task.names):
            raise InvalidInputError(f"task {task.name!r} has no parameter {name!r}; it has: {has}")
    for parameter in task.parameters:
        if parameter.name in SETTINGS:
            raise InvalidInputError(
                f"task {task.name!r}: {parameter.name!r} is a setting of the runner; rename the parameter"
            )
        if OmegaConf.is_missing(config, parameter.name) or (
            parameter.name not in config and parameter.default is tasks.MISSING
        ):
            raise InvalidInputError(f"task {task.name!r}: {parameter.name} has no value; the task has: {has}")


def _is_traced(key: Swept, base: Base) -> bool:
    """Whether the values of a swept key reach the program of this task as a traced scalar, and nothing else."""
    parameter = base.task.parameter(key.key)
    if parameter is None or key.key not in base.config or any(value is None for value in _peek(key.values)):
        return False
    kind = tasks.infer(parameter, base.config[key.key]).kind
    return kind in (Kind.SEED, Kind.FLOAT) and not _is_read_elsewhere(key.key, base.config)


def _peek(values: Sequence[Any]) -> Sequence[Any]:
    return () if isinstance(values, range) else values


def _is_read_elsewhere(key: str, config: DictConfig) -> bool:
    """Whether an interpolation anywhere in the config may read this key."""
    text = json.dumps(OmegaConf.to_container(config, resolve=False), default=str)
    return any(re.search(rf"\b{re.escape(key)}\b", found) for found in re.findall(r"\$\{.*?\}", text))


def _segment(base: Base, picks: Picks) -> Segment:
    task, values = _applied(base, picks)
    static: dict[str, Any] = {}
    traced: dict[str, int | float] = {}
    arrays: dict[str, inputs.Input] = {}
    for declared in task.parameters:
        if declared.name not in values and declared.kind in (Kind.STATIC, Kind.ARRAY):
            continue  # the function's own default
        value = values.get(declared.name, declared.default)
        parameter = tasks.infer(declared, value)
        if parameter.kind is Kind.ARRAY:
            arrays[parameter.name] = inputs.describe(task, parameter.name, value)
        elif (converted := _convert(task, parameter, value)) is None or parameter.kind is Kind.STATIC:
            static[parameter.name] = converted
        else:
            traced[parameter.name] = converted
    swept = {key.key: tasks.frozen(value) for key, value in base.picks + picks}
    return Segment(task, static, traced, arrays, swept)


def _applied(base: Base, picks: Picks) -> tuple[Task, Mapping[str, Any]]:
    """The task and the plain values of a base with these values set.

    Copying a config costs milliseconds, so a value that takes the place of another is set without one.
    """
    if base.plain is not None and all(_is_leaf(base.plain, key.key.split("."), value) for key, value in picks):
        values = base.plain
        for key, value in picks:
            values = _with(values, key.key.split("."), value)
        return base.task, values
    config = _updated(base.config, picks)
    return _task(config), _container(config, resolve=True)


def _is_leaf(values: Any, path: Sequence[str], value: Any) -> bool:
    """Whether a path of a parameter, not of the task, ends at a value that another one can replace."""
    if path[0] == "task" or isinstance(value, Mapping) or (isinstance(value, str) and "${" in value):
        return False
    for part in path:
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return not isinstance(values, Mapping)


def _with(values: Mapping[str, Any], path: Sequence[str], value: Any) -> Mapping[str, Any]:
    head, *rest = path
    return {**values, head: _with(values[head], rest, value) if rest else value}


def _updated(config: DictConfig, picks: Sequence[tuple[Swept, Any]]) -> DictConfig:
    """A copy of the config with values set as Hydra sets an override."""
    if not picks:
        return config
    copy = OmegaConf.masked_copy(config, list(config))
    OmegaConf.set_struct(copy, True)
    for key, value in picks:
        try:
            OmegaConf.update(copy, key.key, value, merge=True, force_add=bool(key.prefix))
        except OmegaConfBaseException as error:
            raise InvalidInputError(f"{key.key}={value}: {str(error).splitlines()[0]}") from error
    return copy


def _convert(task: Task, parameter: Parameter, value: Any) -> Any:
    if isinstance(value, Mapping) and "_target_" in value:
        value = _build(json.dumps(value, sort_keys=True))
    return tasks.convert(task, parameter, value)


@cache
def _build(text: str) -> Built:
    """What a `_target_` builds, once for equal descriptions: two optimizers of equal values are unequal."""
    return Built(text, instantiate(json.loads(text), _convert_="all"))


def _axis(task: Task, bundle: Bundle) -> Axis:
    """The axis of some keys, each combination of their values once; a range repeats nothing."""
    columns = {key.key: _column(task, key) for key in bundle}
    distinct = any(isinstance(key.values, range) for key in bundle)
    return Axis(columns if distinct else extent.unique(columns))


def _column(task: Task, key: Swept) -> np.ndarray:
    """The values of a traced scalar, uint32 or float32 `(values,)`."""
    parameter = task.parameter(key.key)
    assert parameter is not None
    if isinstance(key.values, range):
        for bound in (key.values[0], key.values[-1]):
            tasks.convert(task, parameter, bound)
        return np.fromiter(key.values, dtype=scalar_dtype(task, key.key), count=len(key.values))
    converted = [tasks.convert(task, parameter, value) for value in key.values]
    return np.array(converted, dtype=scalar_dtype(task, key.key))


def _limit(config: DictConfig, name: str) -> int | None:
    """A positive setting of the runner, or None where it is `auto`."""
    value = config[name]
    if value == "auto":
        return None
    number = tasks.whole(value)
    if number is None or number < 1:
        raise InvalidInputError(f"{name} must be auto or a positive integer, got {value!r}")
    return number


def explained(error: Exception) -> str:
    """An error in one line where it can be said better than by Hydra: an unknown key, and what there is."""
    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and isinstance(cause.parent_node, DictConfig):
        return _unknown_key(str(cause.full_key), cause.parent_node)
    if isinstance(error, OSError) and error.filename:
        return f"cannot write {error.filename}: {error.strerror}"
    if isinstance(error, HydraException) and isinstance(cause, OmegaConfBaseException):
        return f"{error}\n{str(cause).splitlines()[0]}".strip()
    return str(error)


def _unknown_key(key: str, parent: DictConfig) -> str:
    has = ", ".join(str(name) for name in parent if name not in (*SETTINGS, "hydra"))
    above, _, name = key.rpartition(".")
    if above:
        return f"{above} has no {name!r}; it has: {has}"
    settings = ", ".join(name for name in SETTINGS if name not in ("task", "sweep"))
    task = OmegaConf.select(parent, "task.name", default="?")
    return f"task {task!r} has no parameter {name!r}; it has: {has} (settings of the runner: {settings})"

"""Composed configurations and their tasks: one for each combination of swept config groups."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner.config.overrides import SweptKey, Zip
from runner.config.settings import RESERVED, check_target
from runner.contract.task import MISSING, Task, load_task
from runner.errors import InvalidInputError
from runner.plan.values import freeze

Assignments = tuple[tuple[SweptKey, Any], ...]
"""One value for each of some swept keys."""


@dataclass(frozen=True)
class Base:
    """A composed config with its task, and the assignments that it was composed for.

    `raw` are its values with interpolations, `values` without; Hydra's own node is in neither.
    """

    assignments: Assignments
    config: DictConfig
    task: Task
    raw: Mapping[str, Any]
    values: Mapping[str, Any]

    @cached_property
    def is_plain(self) -> bool:
        """Whether there is no interpolation among the values of parameters."""
        parameters = {key: value for key, value in self.raw.items() if key not in RESERVED}
        return "${" not in json.dumps(parameters, default=str)


def combine_values(zips: Sequence[Zip]) -> Iterator[Assignments]:
    """Every combination of the values of several keys, the last varying fastest."""
    rows = [
        [tuple(zip(keys, row, strict=True)) for row in zip(*(key.values for key in keys), strict=True)] for keys in zips
    ]
    for combination in product(*rows):
        yield tuple(pair for pairs in combination for pair in pairs)


def compose_base(config: DictConfig, assignments: Assignments) -> Base:
    """Composes the config with these options of its groups, and loads its task.

    Raises InvalidInputError for a task that cannot be loaded, or does not match the config's keys.
    """
    values = [(key, value) for key, value in assignments if not key.is_group]
    composed = update_config(_compose_options(config, assignments), values)
    task = load_declared_task(composed)
    return Base(assignments, composed, task, to_values(composed, resolve=False), to_values(composed, resolve=True))


def to_values(config: DictConfig, *, resolve: bool) -> dict[str, Any]:
    """The config as plain Python values, with or without its interpolations resolved.

    Hydra's own node, which is there if a group was composed, is left out: it is full of interpolations.
    """
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]) if "hydra" in config else config
    values: Any = OmegaConf.to_container(own, resolve=resolve)
    return {str(key): value for key, value in values.items()}


def update_config(config: DictConfig, assignments: Assignments | Sequence[tuple[SweptKey, Any]]) -> DictConfig:
    """A copy of the config with values set as Hydra sets an override. Raises InvalidInputError for an unknown key."""
    if not assignments:
        return config
    copy = OmegaConf.masked_copy(config, list(config))
    OmegaConf.set_struct(copy, True)
    for key, value in assignments:
        try:
            OmegaConf.update(copy, key.key, value, merge=True, force_add=bool(key.prefix))
        except ValueError as error:  # what OmegaConf makes of the name of a member of a list
            raise InvalidInputError(f"{key.key}={value}: {key.key.rpartition('.')[0]} is a list here") from error
        except OmegaConfBaseException as error:
            raise InvalidInputError(f"{key.key}={value}: {str(error).splitlines()[0]}") from error
    return copy


def load_declared_task(config: DictConfig) -> Task:
    """The task that the config's key `task` declares.

    Raises InvalidInputError if it cannot be loaded, if the config has a key that it does not know, or if one of its
    parameters has no value.
    """
    check_target(config)
    declared: Any = OmegaConf.to_container(config.task, resolve=True)
    name = str(declared.get("name") or declared["_target_"])
    outputs = _read_names(name, declared, "outputs")
    metrics = _read_mapping(name, declared, "metrics", "{loss: minimize}")
    eager = tuple((key, freeze(value)) for key, value in _read_mapping(name, declared, "eager", "{mode: eager}"))
    directions = tuple((key, str(value)) for key, value in metrics)
    traced = _read_names(name, declared, "traced")
    check = None if declared.get("check") is None else str(declared["check"])
    named = {key: _read_names(name, declared, key) for key in ("shared", "files", "primary")}
    task = load_task(name, str(declared["_target_"]), outputs, directions, eager, traced, check, **named)
    _check_parameters(task, config)
    return task


def _compose_options(config: DictConfig, assignments: Assignments) -> DictConfig:
    """The config composed with these options of its groups; `config` itself if no group is swept."""
    options = {f"{key.prefix}{key.key}=": str(value) for key, value in assignments if key.is_group}
    if not options:
        return config
    hydra = HydraConfig.get()
    fixed = [o for o in [*hydra.overrides.hydra, *hydra.overrides.task] if not o.startswith(tuple(options))]
    lines = [name + value for name, value in options.items()]
    composed = compose(hydra.job.config_name, [*fixed, *lines], return_hydra_config=True)
    known = {line.split("=")[0].lstrip("+") for line in [*fixed, *lines, *config.sweep.axes]}
    nested = [key for key in composed.hydra.sweeper.get("params") or () if key.lstrip("+") not in known]
    if nested:
        option = " ".join(lines)
        raise InvalidInputError(f"{option} has a sweep itself, over {', '.join(nested)}; run it as a separate study")
    return composed


def _read_names(task: str, declared: Mapping[Any, Any], key: str) -> tuple[str, ...]:
    given = declared.get(key)
    names = [given] if isinstance(given, str) else [] if given is None else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidInputError(f"task {task!r}: {key} must be a name, or a list of names, got {given!r}")
    return tuple(names)


def _read_mapping(task: str, declared: Mapping[Any, Any], name: str, example: str) -> tuple[tuple[str, Any], ...]:
    given = declared.get(name) or {}
    if not isinstance(given, Mapping) or any(_has_mapping(value) for value in given.values()):
        raise InvalidInputError(f"task {task!r}: {name} must be a mapping such as {example}, got {given!r}")
    return tuple((str(key), value) for key, value in given.items())


def _has_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and any(map(_has_mapping, value)))


def _check_parameters(task: Task, config: DictConfig) -> None:
    has = ", ".join(task.names) or "none"
    unknown = [str(name) for name in config if name not in (*RESERVED, "hydra", *task.names, *task.shared)]
    text = json.dumps(to_values(config, resolve=False), default=str) if unknown else ""
    for name in unknown:
        if f"${{{name}}}" not in text:  # parameters may refer to it
            raise InvalidInputError(f"task {task.name!r} has no parameter {name!r}; it has: {has}")
    for parameter in task.parameters:
        if parameter.name in RESERVED:
            raise InvalidInputError(
                f"task {task.name!r}: {parameter.name!r} is a setting of the runner; rename the parameter"
            )
        if OmegaConf.is_missing(config, parameter.name) or (
            parameter.name not in config and parameter.default is MISSING
        ):
            raise InvalidInputError(f"task {task.name!r}: {parameter.name} has no value; the task has: {has}")

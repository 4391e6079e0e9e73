"""The plan of a composed config: values are bound to the parameters of the task, swept ones to segments and axes."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from runner.config.compose import (
    Assignments,
    Base,
    combine_values,
    compose_base,
    load_declared_task,
    to_values,
    update_config,
)
from runner.config.overrides import SweptKey, Zip, parse_sweep
from runner.config.scalars import bind_built, check_effect, find_scalar
from runner.config.settings import RESERVED, Settings
from runner.contract.building import build_object, check_description
from runner.contract.task import Built, Kind, Parameter, Task, check_values, infer_kind
from runner.plan.datasets import Dataset, describe_dataset
from runner.plan.even_values import Column, EvenValues
from runner.plan.inputs import Input, describe_input
from runner.plan.segments import Axis, Plan, Segment, drop_duplicates
from runner.plan.size import PlanSize, check_size
from runner.plan.values import convert_value, freeze
from runner.search.samplers import DrawnValues, check_sampling

EXACT_INTEGERS = 2**24
"""Integers up to here are exact in float32."""
DTYPES = {Kind.SEED: np.uint32, Kind.INTEGER: np.int32, Kind.FLOAT: np.float32}
"""The dtypes of traced scalars."""


def read_plan(config: DictConfig, settings: Settings) -> Plan:
    """The plan that a composed config describes.

    Keys whose values reach the programs as traced scalars become axes, whatever their number of values. Each
    combination of the other keys is composed, read and checked. Raises InvalidInputError for what the task does not
    accept, and for a plan that is too large; errors of Hydra and OmegaConf are not caught.
    """
    zips = read_sweep(config)
    groups = [keys for keys in zips if any(key.is_group for key in keys)]
    bases = _compose_bases(config, zips, groups, large=settings.large)
    axes, static = _divide_keys(zips, groups, bases)
    for key, base in ((key.key, base) for keys in zips for key in keys for base in bases):
        check_effect(key, base)
    names = {key.key for keys in axes for key in keys}
    segments = [bind_segment(base, assignments, names) for base in bases for assignments in combine_values(static)]
    distinct = tuple({repr(segment): segment for segment in segments}.values())
    columns = tuple(build_axis(bases[0], keys) for keys in axes)
    for segment in distinct:
        check_segment(segment, columns)
    duplicates = _count_runs(zips) - len(distinct) * math.prod(map(len, columns))
    return Plan(
        distinct,
        columns,
        settings.lanes,
        settings.block,
        settings.threads,
        settings.cores_per_run,
        duplicates,
        settings.devices,
        _describe_draw(zips),
    )


def read_sweep(config: DictConfig) -> list[Zip]:
    """The keys that a composed config sweeps, with their values. Raises InvalidInputError for what is not valid."""
    sweep = config.sweep
    sampling = check_sampling(*sweep.sampling) if sweep.sampling else None
    return parse_sweep(GlobalHydra.instance().config_loader(), sweep.axes, sweep.zip, sampling)


def _describe_draw(zips: Sequence[Zip]) -> Mapping[str, Any]:
    """What drawn values depend on; nothing where none are drawn."""
    draws = [key.values.draw for keys in zips for key in keys if isinstance(key.values, DrawnValues)]
    return draws[0].facts if draws else {}


def check_segment(segment: Segment, axes: Sequence[Axis]) -> None:
    """Calls the task's check of values, if it has one, once for the runs of a segment."""
    if segment.task.check:
        traced = {name: np.array([value], segment.scalar_dtype(name)) for name, value in segment.traced.items()}
        varying = {name: np.asarray(values) for axis in axes for name, values in axis.columns.items() if name != "seed"}
        check_values(segment.task, {**segment.static, **traced, **varying})


def _compose_bases(config: DictConfig, zips: Sequence[Zip], groups: Sequence[Zip], *, large: bool) -> list[Base]:
    """A base for each combination of options.

    The size of the plan is checked before a task is imported, before more than one config is composed, and when the
    kinds of all keys are known. Raises InvalidInputError for a plan that is too large.
    """
    combinations = combine_values(groups)
    check_size(_measure_plan(config, zips, groups, ()), large=large)
    first = compose_base(config, next(combinations))
    check_size(_measure_plan(config, zips, groups, [first]), large=large)
    bases = [first, *(compose_base(config, assignments) for assignments in combinations)]
    check_size(_measure_plan(config, zips, groups, bases), large=large)
    return bases


def _measure_plan(config: DictConfig, zips: Sequence[Zip], groups: Sequence[Zip], bases: Sequence[Base]) -> PlanSize:
    """The size of a plan by these bases; without any base, what is known before a task is imported."""
    axes, static = _divide_keys(zips, groups, bases) if bases else ([], [])
    compiled = [z for z in static if any(_is_compiled(key, base) for key in z for base in bases)]
    expanded = [key for z in axes for key in z if not _is_seed_range(key)]
    return PlanSize(
        _count_runs(zips),
        _count_runs([*groups, *compiled]),
        _count_runs([*groups, *static]),
        max((key.count for key in expanded), default=0),
        _count_cells(config, [key.key for keys in zips for key in keys]),
    )


def _count_cells(config: DictConfig, swept: Sequence[str]) -> int:
    """The cells of a row: the parameters that are no arrays, the swept keys, the declared outputs and four more."""
    values = to_values(config, resolve=False)
    task = values["task"] if isinstance(values["task"], Mapping) else {}
    outputs = task.get("outputs") or "output"
    shown = {key for key, v in values.items() if key not in (*RESERVED, "hydra") and not isinstance(v, Mapping)}
    count = len(outputs) if isinstance(outputs, list) else 1  # anything else is refused with the task
    return len({"run", "task", "status", "reason", *shown, *swept}) + count


def _count_runs(zips: Sequence[Zip]) -> int:
    return math.prod(keys[0].count for keys in zips)


def _divide_keys(zips: Sequence[Zip], groups: Sequence[Zip], bases: Sequence[Base]) -> tuple[list[Zip], list[Zip]]:
    """The keys that become axes, and those that are composed into segments."""
    others = [keys for keys in zips if keys not in groups]
    axes = [keys for keys in others if all(_is_axis(key, base) for key in keys for base in bases)]
    return axes, [keys for keys in others if keys not in axes]


def _is_compiled(key: SweptKey, base: Base) -> bool:
    """Whether each value of a key that is no axis may need a program of its own."""
    name, _, part = key.key.partition(".")
    parameter = base.task.parameter(name)
    if parameter is None or name not in base.config:
        return True
    kind = infer_kind(parameter, base.config[name]).kind
    return part in ("shape", "dtype") if kind is Kind.ARRAY else kind is Kind.STATIC


def _is_axis(key: SweptKey, base: Base) -> bool:
    """Whether the values of a swept key reach the program of this task as a traced scalar, and nothing else."""
    values = key.values if isinstance(key.values, tuple) else ()
    return not any(value is None for value in values) and find_scalar(key.key, base) is not None


def bind_segment(base: Base, assignments: Assignments, axes: Collection[str]) -> Segment:
    """The segment of a base with these values; `axes` names the traced scalars that vary within it."""
    task, raw, values = _apply_values(base, assignments)
    static: dict[str, Any] = {}
    traced: dict[str, int | float] = {}
    inputs: dict[str, Input | Dataset] = {}
    for declared in task.parameters:
        if declared.name not in values and declared.kind in (Kind.STATIC, Kind.ARRAY, Kind.TREE, Kind.BUILT):
            continue  # the function's own default
        value = values.get(declared.name, declared.default)
        parameter = infer_kind(declared, value)
        if parameter.kind is Kind.ARRAY:
            inputs[parameter.name] = describe_input(task, parameter.name, value)
        elif parameter.kind is Kind.TREE:
            inputs[parameter.name] = describe_dataset(f"task {task.name!r}: {parameter.name}", value)
        elif parameter.kind is Kind.BUILT and isinstance(value, Mapping | list):
            given = raw.get(parameter.name)
            static[parameter.name], scalars = bind_built(task, parameter.name, given, value, axes)
            traced |= {name: number for name, number in scalars.items() if name not in task.names}
        elif value is None and parameter.name in axes:
            traced[parameter.name] = 0 if parameter.kind is Kind.INTEGER else 0.0  # each run has a value of the axis
        elif (converted := _convert(task, parameter, value)) is None or parameter.kind in (Kind.STATIC, Kind.BUILT):
            static[parameter.name] = converted
        else:
            traced[parameter.name] = converted
    swept = {key.key: freeze(value) for key, value in base.assignments + assignments}
    return Segment(task, static, traced, inputs, swept)


def _apply_values(base: Base, assignments: Assignments) -> tuple[Task, Mapping[str, Any], Mapping[str, Any]]:
    """The task and the values of a base with these values set, with interpolations and without.

    Copying a config takes milliseconds, so a value that replaces another one is set without a copy.
    """
    if base.is_plain and all(_is_leaf(base.values, key.key.split("."), v) for key, v in assignments):
        values = base.values
        for key, value in assignments:
            values = _replace_leaf(values, key.key.split("."), value)
        return base.task, values, values
    config = update_config(base.config, assignments)
    return load_declared_task(config), to_values(config, resolve=False), to_values(config, resolve=True)


def _is_leaf(values: Any, path: Sequence[str], value: Any) -> bool:
    """Whether a path of a parameter, not of the task, ends at a value that another one can replace."""
    if path[0] == "task" or isinstance(value, Mapping) or (isinstance(value, str) and "${" in value):
        return False
    for name in path:
        if not isinstance(values, Mapping) or name not in values:
            return False
        values = values[name]
    return not isinstance(values, Mapping)


def _replace_leaf(values: Mapping[str, Any], path: Sequence[str], value: Any) -> Mapping[str, Any]:
    head, *rest = path
    return {**values, head: _replace_leaf(values[head], rest, value) if rest else value}


def _convert(task: Task, parameter: Parameter, value: Any) -> Any:
    if isinstance(value, Mapping) and "_target_" in value:
        value = _build_object(f"task {task.name!r}: {parameter.name}", json.dumps(value, sort_keys=True))
    return convert_value(task, parameter, value)


@cache
def _build_object(owner: str, text: str) -> Built:
    """What a `_target_` builds, once for equal descriptions, because two equal optimizers do not compare equal.

    Raises InvalidInputError for a path that is not allowed or cannot be imported, and for whatever the target raises.
    """
    check_description(owner, json.loads(text))
    return Built(text, build_object(owner, json.loads(text)))


def forget_objects() -> None:
    """Lets the objects of `_target_` be built again, because what builds them may have changed."""
    _build_object.cache_clear()


def build_axis(base: Base, keys: Zip) -> Axis:
    """The axis of some keys with each combination of their values once."""
    columns = {key.key: _build_column(base, key) for key in keys}
    return Axis(columns if any(map(_is_distinct, keys)) else drop_duplicates(columns))


def _is_seed_range(key: SweptKey) -> bool:
    return isinstance(key.values, range) and key.key == "seed"


def _is_distinct(key: SweptKey) -> bool:
    """Whether a key is sure to have no value twice: a range of integers that are exact as float32 or uint32."""
    if not isinstance(key.values, range):
        return False
    return _is_seed_range(key) or max(abs(key.values[0]), abs(key.values[-1])) <= EXACT_INTEGERS


def _build_column(base: Base, key: SweptKey) -> Column:
    """The values of a traced scalar, uint32, int32 or float32 `(values,)`."""
    parameter, task = find_scalar(key.key, base), base.task
    assert parameter is not None
    dtype = DTYPES[parameter.kind]
    if isinstance(key.values, range):
        for bound in (key.values[0], key.values[-1]):
            convert_value(task, parameter, bound)
        if _is_seed_range(key):
            return EvenValues(key.values[0], key.values.step, key.count)
    if isinstance(key.values, DrawnValues) and parameter.kind is Kind.FLOAT:
        return key.values.column.astype(dtype)
    if isinstance(key.values, tuple) or parameter.kind is not Kind.FLOAT:
        return np.array([convert_value(task, parameter, value) for value in key.values], dtype=dtype)
    return np.fromiter(key.values, dtype=dtype, count=key.count)

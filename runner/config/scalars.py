"""Traced scalars: parameters that are numbers, numbers within built objects, and values that those refer to."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runner.config.compose import Base
from runner.contract.building import check_description, takes_float
from runner.contract.task import Kind, Parameter, Task, infer_kind
from runner.errors import InvalidInputError
from runner.plan.templates import Template, make_template, mark
from runner.plan.values import invalid_value

REFERENCE = re.compile(r"\$\{(\w+)\}")
"""A value that is nothing but a reference to a top-level key, as in `learning_rate: ${lr}`."""
SCALARS = (Kind.SEED, Kind.FLOAT, Kind.INTEGER)


def find_scalar(key: str, base: Base) -> Parameter | None:
    """The traced scalar that a swept key sets, and nothing else, as a parameter of that name; None if there is none."""
    if _is_mentioned(key, base):
        return None
    name, _, path = key.partition(".")
    parameter = base.task.parameter(name)
    if parameter is None:
        return _find_referred(name, base) if not path and name in base.raw else None
    if name not in base.raw:
        return None
    if path:
        return _find_number(key, base) if parameter.kind is Kind.BUILT else None
    inferred = infer_kind(parameter, base.raw[name])
    return inferred if inferred.kind in SCALARS else None


def check_effect(key: str, base: Base) -> None:
    """Raises InvalidInputError for a swept key that is there for others to refer to, if nothing refers to it."""
    if key in base.task.shared and f"${{{key}}}" not in json.dumps(base.raw, default=str):
        raise InvalidInputError(f"task {base.task.name!r}: {key} has no effect, because nothing refers to it")


def list_referring(key: str, base: Base) -> set[str]:
    """The paths of the numbers within built objects that refer to a top-level key."""
    return {leaf.path for leaf in _list_leaves(base) if leaf.reference == key}


def bind_built(
    task: Task, name: str, raw: Any, resolved: Any, axes: Collection[str]
) -> tuple[Template, dict[str, int | float]]:
    """The template of a parameter that is built within the program, and the base values of its scalars.

    `raw` is its value with interpolations, `resolved` without. A float is traced under its path, and under the name of
    the key that it refers to. So is an integer where its target takes a float, and where an axis of `axes` varies it.
    Raises InvalidInputError for targets that are not allowed, and for text where a target takes a float.
    """
    owner = f"task {task.name!r}: {name}"
    check_description(owner, resolved)
    scalars: dict[str, int | float] = {}
    description: dict[str, Any] = {}
    for leaf in list(_walk(name, raw, resolved, None)):
        if isinstance(leaf.value, str) and _is_float(owner, leaf):
            raise invalid_value(task, leaf.reference or leaf.path, "a float", leaf.value)
        if leaf.is_number and (number := _find_traced(owner, task, leaf, axes)):
            scalars.update([number])
            description[leaf.path] = mark(number[0])
        else:
            description[leaf.path] = leaf.value
    return make_template(_rebuild(name, resolved, description)), scalars


@dataclass(frozen=True)
class _Leaf:
    """A value within a description: its path, the key that it refers to, and the target whose argument it is."""

    path: str
    value: Any
    reference: str | None
    target: str | None

    @property
    def is_number(self) -> bool:
        return isinstance(self.value, int | float) and not isinstance(self.value, bool)


def _find_traced(owner: str, task: Task, leaf: _Leaf, axes: Collection[str]) -> tuple[str, int | float] | None:
    """The name of the scalar that a leaf is, with its value; None for a constant."""
    name = leaf.reference if leaf.reference and leaf.path not in axes else leaf.path
    parameter = task.parameter(name)
    if parameter is not None and parameter.kind in SCALARS:
        return name, leaf.value
    if parameter is not None and leaf.reference == name:
        return None  # a static parameter
    if _is_float(owner, leaf):
        return name, float(leaf.value)
    return (name, leaf.value) if leaf.reference == name else None


def _is_float(owner: str, leaf: _Leaf) -> bool:
    if isinstance(leaf.value, float):
        return True
    argument = leaf.path.rpartition(".")[2]
    return leaf.target is not None and takes_float(owner, leaf.target, argument)


def _walk(path: str, raw: Any, resolved: Any, target: str | None) -> Iterator[_Leaf]:
    if isinstance(resolved, Mapping):
        own = resolved.get("_target_") if isinstance(resolved.get("_target_"), str) else None
        for key, value in resolved.items():
            yield from _walk(f"{path}.{key}", _get(raw, key), value, own)
    elif isinstance(resolved, list):
        for i, value in enumerate(resolved):
            yield from _walk(f"{path}.{i}", _get(raw, i), value, None)
    else:
        found = REFERENCE.fullmatch(raw) if isinstance(raw, str) else None
        yield _Leaf(path, resolved, found[1] if found else None, target)


def _get(raw: Any, key: Any) -> Any:
    """The member of a value with interpolations; None where the whole is one."""
    is_there = (isinstance(raw, Mapping) and key in raw) or (isinstance(raw, list) and key < len(raw))
    return raw[key] if is_there else None


def _rebuild(path: str, resolved: Any, leaves: Mapping[str, Any]) -> Any:
    if isinstance(resolved, Mapping):
        return {key: _rebuild(f"{path}.{key}", value, leaves) for key, value in resolved.items()}
    if isinstance(resolved, list):
        return [_rebuild(f"{path}.{i}", value, leaves) for i, value in enumerate(resolved)]
    return leaves[path]


def _find_referred(name: str, base: Base) -> Parameter | None:
    """The scalar of a top-level key that is no parameter, if numbers within built objects refer to it."""
    referring = [leaf for leaf in _list_leaves(base) if leaf.reference == name]
    if not referring or not all(leaf.is_number for leaf in referring):
        return None
    is_float = any(_is_float(f"task {base.task.name!r}: {name}", leaf) for leaf in referring)
    return Parameter(name, *((Kind.FLOAT, (float,)) if is_float else (Kind.INTEGER, (int,))))


def _find_number(key: str, base: Base) -> Parameter | None:
    """The scalar of a float within a built object."""
    leaf = next((leaf for leaf in _list_leaves(base) if leaf.path == key), None)
    if leaf is None or not leaf.is_number or not _is_float(f"task {base.task.name!r}: {key}", leaf):
        return None
    return Parameter(key, Kind.FLOAT, (float,))


def _list_leaves(base: Base) -> Iterator[_Leaf]:
    for parameter in base.task.parameters:
        if parameter.kind is Kind.BUILT and parameter.name in base.raw:
            yield from _walk(parameter.name, base.raw[parameter.name], base.values[parameter.name], None)


def _is_mentioned(key: str, base: Base) -> bool:
    """Whether an interpolation other than that of a number within a built object may refer to this key.

    One that refers to a built object, or to a part of it, may refer to whatever this refers to.
    """
    leaves = list(_list_leaves(base))
    harmless = {leaf.path for leaf in leaves if leaf.reference and leaf.is_number}
    names = {key, *(leaf.path.partition(".")[0] for leaf in leaves if key in (leaf.reference, leaf.path))}
    pattern = re.compile(rf"\$\{{[^}}]*\b({'|'.join(map(re.escape, names))})\b")
    return any(pattern.search(text) for path, text in _list_texts(base.raw, "") if path not in harmless)


def _list_texts(raw: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every text within a value, with its path."""
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            yield from _list_texts(value, f"{path}.{key}".lstrip("."))
    elif isinstance(raw, list):
        for i, value in enumerate(raw):
            yield from _list_texts(value, f"{path}.{i}")
    elif isinstance(raw, str):
        yield path, raw

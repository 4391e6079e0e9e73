"""The contract with a task: a plain function whose signature says what is static and what is traced."""

import inspect
import math
import pkgutil
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Any

import numpy as np

from runner.errors import InvalidInputError

SEED_STOP = 2**32
MISSING = inspect.Parameter.empty


class Kind(Enum):
    """What the compiled program sees of a parameter."""

    SEED = "seed"
    """Traced, an unsigned 32-bit integer."""
    FLOAT = "float"
    """Traced, a float32."""
    ARRAY = "array"
    """Traced, an input."""
    STATIC = "static"
    """Fixed when the program is compiled."""


@dataclass(frozen=True)
class Parameter:
    """A named argument of a task; `types` are the Python types that a static value may have, none for any."""

    name: str
    kind: Kind
    types: tuple[type, ...]
    default: Any = MISSING


@dataclass(frozen=True)
class Built:
    """A static value that a `_target_` in the YAML built; equal descriptions are equal values."""

    text: str
    value: Any = field(compare=False)

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Task:
    """A function, the name that the user calls it by, and the names of what it returns (may be empty).

    `metrics` tells of some outputs whether to `minimize` or to `maximize` them. A run that has one of the static
    values in `eager` is not compiled: JAX runs its operations one after the other.
    """

    name: str
    target: str
    function: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    outputs: tuple[str, ...]
    metrics: tuple[tuple[str, str], ...] = ()
    eager: tuple[tuple[str, Any], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    def parameter(self, name: str) -> Parameter | None:
        return next((parameter for parameter in self.parameters if parameter.name == name), None)


@dataclass(frozen=True)
class Output:
    """One named result of a task: the shape and the dtype of a run's value.

    The dtype `str` is that of a word. A group's program has it as the place in the group's `words`; another group
    may have others, and it is the same column.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    categories: tuple[str, ...] = field(default=(), compare=False)

    @property
    def is_categorical(self) -> bool:
        return self.dtype.kind == "U"

    @property
    def compiled(self) -> np.dtype[Any]:
        """The dtype within a program."""
        return np.dtype(np.int32) if self.is_categorical else self.dtype

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.compiled.itemsize


@cache
def load(
    name: str,
    target: str,
    outputs: tuple[str, ...],
    metrics: tuple[tuple[str, str], ...] = (),
    eager: tuple[tuple[str, Any], ...] = (),
) -> Task:
    """The task behind a dotted path. Raises InvalidInputError if it cannot be imported or called by names."""
    for metric, direction in metrics:
        if direction not in ("minimize", "maximize") or (outputs and metric not in outputs):
            has = f"; the outputs are: {', '.join(outputs)}" if outputs else ""
            raise InvalidInputError(
                f"task {name!r}: metrics say of outputs to minimize or maximize them, got {metric}: {direction}{has}"
            )
    try:
        function = pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInputError(f"task {name!r}: cannot import {target!r}: {error}") from error
    if not callable(function):
        raise InvalidInputError(f"task {name!r}: {target!r} is no function but a {type(function).__name__}")
    signature = inspect.signature(function)
    hints = _hints(function)
    parameters = tuple(_parameter(name, p, hints.get(p.name, MISSING)) for p in signature.parameters.values())
    static = [parameter.name for parameter in parameters if parameter.kind is Kind.STATIC]
    for key, _ in eager:
        if key not in static:
            has = ", ".join(static) or "none"
            raise InvalidInputError(
                f"task {name!r}: eager names values of static parameters, got {key!r}; they are: {has}"
            )
    return Task(name, target, function, parameters, outputs, metrics, eager)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except NameError:  # an annotation that exists for the type checker only
        return {}


def _parameter(task: str, parameter: inspect.Parameter, hint: Any) -> Parameter:
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise InvalidInputError(f"task {task!r}: every parameter must have a name of its own, not {str(parameter)!r}")
    if parameter.name == "seed":
        return Parameter("seed", Kind.SEED, (int,), parameter.default)
    if hint is MISSING and parameter.default not in (MISSING, None):
        hint = type(parameter.default)
    types = _types(hint)
    return Parameter(parameter.name, _kind(types), types, parameter.default)


def _types(hint: Any) -> tuple[type, ...]:
    """The plain types of an annotation, a union's members apart; none where it does not name any."""
    if hint is MISSING or hint is Any:
        return ()
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return tuple(member for arm in typing.get_args(hint) for member in _types(arm))
    plain = typing.get_origin(hint) or hint
    return (plain,) if isinstance(plain, type) else ()


def _kind(types: tuple[type, ...]) -> Kind:
    if any(_is_array(member) for member in types):
        return Kind.ARRAY
    return Kind.FLOAT if float in types else Kind.STATIC


def _is_array(member: type) -> bool:
    # by name: this module answers without JAX until a task imports it
    package, name = member.__module__.split(".")[0], member.__name__.split(".")[-1]
    return member is np.ndarray or (package in ("jax", "jaxlib") and name == "Array")


def infer(parameter: Parameter, value: Any) -> Parameter:
    """A parameter without annotation and default takes its kind from the value that its YAML gives."""
    if parameter.types or parameter.kind is not Kind.STATIC:
        return parameter
    if isinstance(value, float):
        return Parameter(parameter.name, Kind.FLOAT, (float,), parameter.default)
    if isinstance(value, Mapping) and {"shape", "values", "file"} & set(value):
        return Parameter(parameter.name, Kind.ARRAY, (), parameter.default)
    return parameter


def convert(task: Task, parameter: Parameter, value: Any) -> Any:
    """`value` as the parameter's type. Raises InvalidInputError that says the rule and what was given."""
    if parameter.kind is Kind.SEED:
        return _seed(task, value)
    if parameter.kind is Kind.FLOAT and not (value is None and type(None) in parameter.types):
        return _float(task, parameter, value)
    return value if isinstance(value, Built) else _static(task, parameter, value)


def refuse(task: Task, name: str, rule: str, value: Any) -> InvalidInputError:
    """The error for a value that breaks the rule of its parameter."""
    return InvalidInputError(f"task {task.name!r}: {name} must be {rule}, got {_thawed(value)!r}")


def _thawed(value: Any) -> Any:
    return [_thawed(member) for member in value] if isinstance(value, tuple) else value


def _seed(task: Task, value: Any) -> int:
    number = whole(value)
    if number is None or not 0 <= number < SEED_STOP:
        raise refuse(task, "seed", f"an integer from 0 to {SEED_STOP - 1}", value)
    return number


def _float(task: Task, parameter: Parameter, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse(task, parameter.name, "a float", value)
    return float(value)


def whole(value: Any) -> int | None:
    """The integer that a number stands for (`3.0` is 3), or None."""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _static(task: Task, parameter: Parameter, value: Any) -> Any:
    value = frozen(value)
    if not parameter.types:
        return value
    for member in parameter.types:
        if member is int and (number := whole(value)) is not None:
            return number
        if member is not int and isinstance(value, tuple if member is list else member):
            return value
    names = " or ".join(_article(member) for member in parameter.types)
    raise refuse(task, parameter.name, names, value)


def _article(member: type) -> str:
    name = {"int": "integer", "str": "string", "NoneType": "null"}.get(member.__name__, member.__name__)
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def frozen(value: Any) -> Any:
    """Lists of a YAML as tuples, which a signature can hold."""
    if isinstance(value, list | tuple):
        return tuple(frozen(member) for member in value)
    return value

"""The contract with a task: a plain function whose signature tells static parameters from traced ones.

`float` and array parameters and the one named `seed` are traced: they are arguments of the compiled program. All
others are static: another value is another program.
"""

import inspect
import math
import pkgutil
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache
from typing import Any

import numpy as np

from runner.errors import InvalidInputError

MISSING = inspect.Parameter.empty


class Kind(Enum):
    """How a parameter reaches the compiled program."""

    SEED = "seed"
    """Traced, uint32 of shape `()`."""
    FLOAT = "float"
    """Traced, float32 of shape `()`."""
    ARRAY = "array"
    """Traced, an array input."""
    STATIC = "static"
    """A constant of the compiled program."""


@dataclass(frozen=True)
class Parameter:
    """A named argument of a task; `types` are the Python types that a static value may have, empty for any type."""

    name: str
    kind: Kind
    types: tuple[type, ...]
    default: Any = MISSING


@dataclass(frozen=True)
class Built:
    """A static value that a `_target_` in the YAML has built; equal descriptions compare equal."""

    text: str
    value: Any = field(compare=False)

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Task:
    """A function with the name that the user selects it by.

    `outputs` names what the function returns; it is empty if the function returns a dict or a single array.
    `metrics` maps some outputs to `minimize` or `maximize`. A run that has one of the static values in `eager` is
    not compiled: JAX executes its operations one by one.
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

    def scalar_dtype(self, name: str) -> type[np.generic]:
        """The dtype of a traced scalar within a program: uint32 for the seed, float32 for all others."""
        parameter = self.parameter(name)
        return np.uint32 if parameter and parameter.kind is Kind.SEED else np.float32


@dataclass(frozen=True)
class Output:
    """One named result of a task: the shape and the dtype of one run's value.

    The dtype `str` marks a categorical output: the program returns an int32 code that indexes `categories`. Groups
    may have different categories in the same column.
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
def load_task(
    name: str,
    target: str,
    outputs: tuple[str, ...],
    metrics: tuple[tuple[str, str], ...] = (),
    eager: tuple[tuple[str, Any], ...] = (),
) -> Task:
    """Imports the function at a dotted path and reads its signature.

    Raises InvalidInputError if it cannot be imported or called with keyword arguments, and for `metrics` or `eager`
    that name no output or no static parameter.
    """
    for metric, direction in metrics:
        if direction not in ("minimize", "maximize") or (outputs and metric not in outputs):
            has = f"; the outputs are: {', '.join(outputs)}" if outputs else ""
            raise InvalidInputError(
                f"task {name!r}: metrics must map outputs to minimize or maximize, got {metric}: {direction}{has}"
            )
    function = _import_function(name, target)
    parameters = _read_signature(name, function)
    static = [parameter.name for parameter in parameters if parameter.kind is Kind.STATIC]
    for key, _ in eager:
        if key not in static:
            has = ", ".join(static) or "none"
            raise InvalidInputError(f"task {name!r}: eager must name static parameters, got {key!r}; they are: {has}")
    return Task(name, target, function, parameters, outputs, metrics, eager)


def infer_kind(parameter: Parameter, value: Any) -> Parameter:
    """The parameter, with the kind of its YAML value if it has neither an annotation nor a default."""
    if parameter.types or parameter.kind is not Kind.STATIC:
        return parameter
    if isinstance(value, float):
        return replace(parameter, kind=Kind.FLOAT, types=(float,))
    if isinstance(value, Mapping) and {"shape", "values", "file"} & set(value):
        return replace(parameter, kind=Kind.ARRAY)
    return parameter


def _import_function(name: str, target: str) -> Callable[..., Any]:
    try:
        function = pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInputError(f"task {name!r}: cannot import {target!r}: {error}") from error
    if not callable(function):
        raise InvalidInputError(f"task {name!r}: {target!r} is not a function but a {type(function).__name__}")
    return function


def _read_signature(name: str, function: Callable[..., Any]) -> tuple[Parameter, ...]:
    try:
        hints = typing.get_type_hints(function)
    except NameError:  # an annotation that only a type checker can resolve
        hints = {}
    signature = inspect.signature(function)
    return tuple(_read_parameter(name, p, hints.get(p.name, MISSING)) for p in signature.parameters.values())


def _read_parameter(task: str, parameter: inspect.Parameter, hint: Any) -> Parameter:
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise InvalidInputError(
            f"task {task!r}: every parameter must be usable as a keyword argument, {str(parameter)!r} is not"
        )
    if parameter.name == "seed":
        return Parameter("seed", Kind.SEED, (int,), parameter.default)
    if hint is MISSING and parameter.default not in (MISSING, None):
        hint = type(parameter.default)
    plain = _plain_types(hint)
    scalar = Kind.FLOAT if float in plain else Kind.STATIC
    kind = Kind.ARRAY if any(_is_array(member) for member in plain) else scalar
    return Parameter(parameter.name, kind, plain, parameter.default)


def _plain_types(hint: Any) -> tuple[type, ...]:
    """The plain types of an annotation, those of a union separately; none if it names none."""
    if hint is MISSING or hint is Any:
        return ()
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return tuple(member for arm in typing.get_args(hint) for member in _plain_types(arm))
    plain = typing.get_origin(hint) or hint
    return (plain,) if isinstance(plain, type) else ()


def _is_array(member: type) -> bool:
    # compared by name, so that this module needs no JAX until a task imports it
    package, name = member.__module__.split(".")[0], member.__name__.split(".")[-1]
    return member is np.ndarray or (package in ("jax", "jaxlib") and name == "Array")

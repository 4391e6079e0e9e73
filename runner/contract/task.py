"""The contract with a task: a plain function whose signature tells static parameters from traced ones.

`float` and array parameters, trees of arrays, and the parameter named `seed` are traced: they are arguments of the
compiled program. So are integers, and the numbers within objects that a `_target_` builds, where the YAML's
`task.traced` names their parameter. All others are static: another value is another program.
"""

import inspect
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from runner.contract.held import find_home, is_held
from runner.contract.imports import import_object
from runner.contract.signature import MISSING, Declared, plain_types, read_declaration
from runner.contract.source import find_definition
from runner.contract.targets import check_object, check_target
from runner.errors import InvalidInputError, describe_error

NAME_RULE = "the name of an output is printable text that does not begin with =, +, - or @"
"""A spreadsheet would execute a header that begins so."""


class Kind(Enum):
    """How a parameter reaches the compiled program."""

    SEED = "seed"
    """Traced, uint32 of shape `()`."""
    FLOAT = "float"
    """Traced, float32 of shape `()`."""
    INTEGER = "integer"
    """Traced, int32 of shape `()`."""
    ARRAY = "array"
    """Traced, an array input."""
    TREE = "tree"
    """Traced, a named tuple or dataclass of arrays."""
    BUILT = "built"
    """Built within the program from a description whose floats are traced."""
    STATIC = "static"
    """A constant of the compiled program."""


@dataclass(frozen=True)
class Parameter:
    """A named argument of a task.

    `types` are the Python types that a static or a built value or a number may have, empty for any type, for an array
    and for a tree of arrays.
    """

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
    """A function, by its dotted path `target`, with the name that the user selects it by.

    `outputs` names what the function returns; it is empty if the function returns a dict or a single array.
    `metrics` maps some outputs to `minimize` or `maximize`. A run that has one of the static values in `eager` is
    not compiled: JAX executes its operations one by one. The numbers of the parameters in `traced` are traced.
    `check` is the dotted path of a function that is called with the values of runs before anything is compiled.
    `shared` are keys beside the parameters, whose values those of parameters may refer to. The values of the static
    parameters in `files` are paths, whose content belongs to a study as the values do. `primary` are the metrics that a
    comparison makes its claims of; without some they are all metrics.
    """

    name: str
    target: str
    parameters: tuple[Parameter, ...]
    outputs: tuple[str, ...]
    metrics: tuple[tuple[str, str], ...] = ()
    eager: tuple[tuple[str, Any], ...] = ()
    traced: tuple[str, ...] = ()
    check: str | None = None
    shared: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    primary: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    def parameter(self, name: str) -> Parameter | None:
        return next((parameter for parameter in self.parameters if parameter.name == name), None)


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
    traced: tuple[str, ...] = (),
    check: str | None = None,
    shared: tuple[str, ...] = (),
    files: tuple[str, ...] = (),
    primary: tuple[str, ...] = (),
) -> Task:
    """Reads the signature of the function at a dotted path, without importing it if its source is enough.

    Raises InvalidInputError for a path that is not allowed, for a function that cannot be imported or called with
    keyword arguments, and for `outputs`, `metrics`, `primary`, `eager`, `traced` or `files` that break a rule or name
    no output or parameter of theirs.
    """
    owner = f"task {name!r}"
    _check_outputs(owner, outputs)
    for metric, direction in metrics:
        if direction not in ("minimize", "maximize") or (outputs and metric not in outputs):
            has = f"; the outputs are: {', '.join(outputs)}" if outputs else ""
            raise InvalidInputError(
                f"{owner}: metrics must map outputs to minimize or maximize, got {metric}: {direction}{has}"
            )
    for name in primary:
        if name not in dict(metrics):
            has = ", ".join(dict(metrics)) or "none"
            raise InvalidInputError(f"{owner}: primary must name some of the metrics, got {name!r}; they are: {has}")
    for path in (target, check) if check else (target,):
        check_target(owner, path, is_task=True)
    declared = read_declaration(target)
    if declared is None:
        declared = _read_signature(owner, target, _import_function(owner, target))
    _check_traced(owner, traced, [each.name for each in declared])
    parameters = tuple(_make_parameter(each, each.name in traced) for each in declared)
    static = [parameter.name for parameter in parameters if parameter.kind is Kind.STATIC]
    for label, names in (("eager", [key for key, _ in eager]), ("files", files)):
        for key in names:
            if key not in static:
                has = ", ".join(static) or "none"
                raise InvalidInputError(f"{owner}: {label} must name static parameters, got {key!r}; they are: {has}")
    return Task(name, target, parameters, outputs, metrics, eager, traced, check, shared, files, primary)


def load_function(task: Task) -> Callable[..., Any]:
    """Imports the function of a task.

    Raises InvalidInputError if it cannot be imported, is no function or one that is not allowed, or if its parameters
    are not those that were read from its source.
    """
    owner = f"task {task.name!r}"
    function = _import_function(owner, task.target)
    declared = _read_signature(owner, task.target, function)
    parameters = tuple(_make_parameter(each, each.name in task.traced) for each in declared)
    if parameters != task.parameters:
        raise InvalidInputError(
            f"{owner}: {task.target!r} has other parameters than its source declares; "
            "the module must not replace the function, or change its signature"
        )
    return function


def find_file(task: Task) -> Path | None:
    """The file that a task's function is defined in; None if there is none, as for a function of a notebook."""
    definition = None if is_held(task.target) else find_definition(task.target)
    if definition is not None:
        return definition.source.path
    function = load_function(task)
    if is_held(task.target):
        return find_home(function)
    file = getattr(inspect.getmodule(function), "__file__", None)
    return Path(file) if file else None


def check_values(task: Task, values: Mapping[str, Any]) -> None:
    """Calls the task's own check of values, by name; traced numbers are arrays `(values,)` of all that a study has.

    Raises InvalidInputError for what it raises, and if it cannot be imported.
    """
    if task.check is None:
        return
    owner = f"task {task.name!r}"
    check = _import_function(owner, task.check)
    try:
        check(values)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{owner}: {error}") from error


def is_output_name(name: Any) -> bool:
    """Whether an output may have this name, by `NAME_RULE`."""
    return isinstance(name, str) and name != "" and name.isprintable() and name[0] not in "=+-@"


def infer_kind(parameter: Parameter, value: Any) -> Parameter:
    """The parameter, with the kind of its YAML value if it has neither an annotation nor a default."""
    if parameter.kind is Kind.BUILT and not parameter.types and isinstance(value, int | float):
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        return replace(parameter, kind=Kind.INTEGER if is_integer else Kind.FLOAT, types=(type(value),))
    if parameter.types or parameter.kind is not Kind.STATIC:
        return parameter
    if isinstance(value, float):
        return replace(parameter, kind=Kind.FLOAT, types=(float,))
    if isinstance(value, Mapping) and {"shape", "values", "file"} & set(value):
        return replace(parameter, kind=Kind.ARRAY)
    return parameter


def _check_outputs(owner: str, outputs: tuple[str, ...]) -> None:
    for name in outputs:
        if not is_output_name(name):
            raise InvalidInputError(f"{owner}: {NAME_RULE}, got {name!r} in outputs")
        if outputs.count(name) > 1:
            raise InvalidInputError(f"{owner}: outputs has {name!r} more than once")


def _check_traced(owner: str, traced: tuple[str, ...], names: list[str]) -> None:
    for name in traced:
        if name not in names or name == "seed":
            has = ", ".join(other for other in names if other != "seed") or "none"
            raise InvalidInputError(f"{owner}: traced must name parameters, got {name!r}; it has: {has}")


def _import_function(owner: str, target: str) -> Callable[..., Any]:
    function = import_object(owner, target)
    if not callable(function) or isinstance(function, type | ModuleType):
        kind = "class" if isinstance(function, type) else type(function).__name__
        raise InvalidInputError(f"{owner}: {target!r} is not a function but a {kind}")
    if not is_held(target):  # one that was handed over as an object has no path to be suspicious of
        check_object(owner, target, function, is_task=True)
    return function


def _read_signature(owner: str, target: str, function: Callable[..., Any]) -> tuple[Declared, ...]:
    try:
        signature, hints = inspect.signature(function), _read_hints(function)
    except Exception as error:  # of annotations, which are expressions, or because there is no signature
        raise InvalidInputError(f"{owner}: {target!r} has no readable signature: {describe_error(error)}") from error
    for parameter in signature.parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise InvalidInputError(
                f"{owner}: every parameter must be usable as a keyword argument, {str(parameter)!r} is not"
            )
    return tuple(
        Declared(name, plain_types(hints[name]) if name in hints else None, parameter.default)
        for name, parameter in signature.parameters.items()
    )


def _read_hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    while isinstance(function, partial):
        function = function.func
    annotated = function if hasattr(function, "__annotations__") else type(function).__call__
    try:
        return typing.get_type_hints(annotated)
    except NameError:  # an annotation that only a type checker can resolve
        return {}


def _make_parameter(declared: Declared, is_traced: bool) -> Parameter:
    if declared.name == "seed":
        return Parameter("seed", Kind.SEED, (int,), declared.default)
    is_plain = declared.default is not MISSING and declared.default is not None
    plain = declared.types if declared.types is not None else (type(declared.default),) if is_plain else ()
    if any(_is_array(member) for member in plain):
        return Parameter(declared.name, Kind.ARRAY, (), declared.default)
    if any(_is_tree(member) for member in plain):
        return Parameter(declared.name, Kind.TREE, (), declared.default)
    if is_traced and float not in plain:
        return Parameter(declared.name, Kind.INTEGER if int in plain else Kind.BUILT, plain, declared.default)
    return Parameter(declared.name, Kind.FLOAT if float in plain else Kind.STATIC, plain, declared.default)


def _is_tree(member: type) -> bool:
    """Whether a type is a named tuple or a dataclass all of whose fields are arrays, or such trees."""
    if not hasattr(member, "_fields") and not hasattr(member, "__dataclass_fields__"):
        return False
    try:
        hints = typing.get_type_hints(member)
    except NameError:
        return False
    plain = [plain_types(hint) for hint in hints.values()]
    return bool(plain) and all(any(_is_array(each) or _is_tree(each) for each in types) for types in plain)


def _is_array(member: type) -> bool:
    # compared by name, so that this module needs no JAX until a task imports it
    package, name = member.__module__.split(".")[0], member.__name__.split(".")[-1]
    return member is np.ndarray or (package in ("jax", "jaxlib") and name == "Array")

"""Values of a YAML as the types that a task's parameters declare."""

import math
from typing import Any

from runner.contract.task import Built, Kind, Parameter, Task
from runner.errors import InvalidInputError

SEED_STOP = 2**32
"""Seeds are unsigned 32-bit integers."""
INTEGER_STOP = 2**31
"""Traced integers are signed 32-bit integers."""


def convert_value(task: Task, parameter: Parameter, value: Any) -> Any:
    """`value` as the type of its parameter.

    Raises InvalidInputError with the rule and the value given. Integral floats count as integers (`3.0` is 3), and
    integers as floats.
    """
    if parameter.kind is Kind.SEED:
        return _convert_seed(task, value)
    if parameter.kind is Kind.FLOAT and not (value is None and type(None) in parameter.types):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise invalid_value(task, parameter.name, "a float", value)
        return float(value)
    if parameter.kind is Kind.INTEGER and not (value is None and type(None) in parameter.types):
        number = as_integer(value)
        if number is None or not -INTEGER_STOP <= number < INTEGER_STOP:
            raise invalid_value(task, parameter.name, f"an integer from {-INTEGER_STOP} to {INTEGER_STOP - 1}", value)
        return number
    return value if isinstance(value, Built) else _convert_static(task, parameter, value)


def invalid_value(task: Task, name: str, rule: str, value: Any) -> InvalidInputError:
    """The error for a value that breaks the rule of its parameter."""
    return InvalidInputError(f"task {task.name!r}: {name} must be {rule}, got {_thaw(value)!r}")


def as_integer(value: Any) -> int | None:
    """The integer that a number represents (`3.0` is 3), or None."""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def freeze(value: Any) -> Any:
    """Lists of a YAML as tuples, which are hashable and can be part of a signature."""
    if isinstance(value, list | tuple):
        return tuple(freeze(member) for member in value)
    return value


def _thaw(value: Any) -> Any:
    return [_thaw(member) for member in value] if isinstance(value, tuple) else value


def _convert_seed(task: Task, value: Any) -> int:
    number = as_integer(value)
    if number is None or not 0 <= number < SEED_STOP:
        raise invalid_value(task, "seed", f"an integer from 0 to {SEED_STOP - 1}", value)
    return number


def _convert_static(task: Task, parameter: Parameter, value: Any) -> Any:
    value = freeze(value)
    if not parameter.types:
        return value
    for member in parameter.types:
        if member is int and (number := as_integer(value)) is not None:
            return number
        if member is not int and isinstance(value, tuple if member is list else member):
            return value
    names = " or ".join(_with_article(member) for member in parameter.types)
    raise invalid_value(task, parameter.name, names, value)


def _with_article(member: type) -> str:
    name = {"int": "integer", "str": "string", "NoneType": "null"}.get(member.__name__, member.__name__)
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"

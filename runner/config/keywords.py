"""Values of Python as override strings in Hydra's grammar."""

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np

from runner.config.overrides import quote
from runner.config.settings import NAMES
from runner.errors import InvalidInputError

WORD = re.compile(r"[A-Za-z_][\w/.-]*", re.ASCII)
"""A text that needs no quotes, unless it is a value of another type."""
OTHER_TYPES = frozenset({"null", "true", "false", "inf", "nan", "none"})
LEAST_RANGE = 8
"""Evenly spaced integers from which on a range stands for them."""


def is_swept(name: str, value: Any) -> bool:
    """Whether a keyword's value is several values, one for each run: a list, a range or an array with an axis.

    A setting, and an option of Hydra's own, has one value for the whole study.
    """
    if name in NAMES or name.partition(".")[0].partition("/")[0] == "hydra":
        return False
    return isinstance(value, list | range) or (_is_array(value) and value.ndim > 0)


def format_override(name: str, value: Any, prefix: str = "") -> str:
    """`name=value`; several values make it a sweep. `prefix` is `+` or `++` for a key that the config does not have.

    Raises InvalidInputError for a value that a YAML cannot have, and for an empty list.
    """
    text = _format_values(name, value) if is_swept(name, value) else format_value(name, value)
    return f"{prefix}{name}={text}"


def format_value(name: str, value: Any) -> str:
    """One value as a YAML would have it. Raises InvalidInputError if it cannot."""
    match value:
        case None:
            return "null"
        case bool() | np.bool_():
            return str(bool(value)).lower()
        case Enum():
            return format_value(name, value.value)
        case int() | float() | np.integer() | np.floating():
            return str(value)  # of a NumPy scalar the shortest digits that give it back
        case str() | PurePath():
            return _format_text(str(value))
        case Mapping():
            pairs = ",".join(f"{_format_key(name, key)}:{format_value(name, each)}" for key, each in value.items())
            return f"{{{pairs}}}"
        case list() | tuple() | range():
            return f"[{','.join(format_value(name, each) for each in value)}]"
    if _is_array(value):
        return format_value(name, value.tolist())
    kind = type(value).__name__
    raise InvalidInputError(f"{name} takes numbers, texts, None, and tuples or mappings of them, got {kind} {value!r}")


def _format_values(name: str, value: Any) -> str:
    spaced = value if isinstance(value, range) else _find_range(list(value))
    if spaced is not None:
        step = f",{spaced.step}" if spaced.step != 1 else ""
        return f"range({spaced.start},{spaced.stop}{step})"
    texts = [format_value(name, each) for each in value]
    if not texts:
        raise InvalidInputError(f"{name} has no values, got {value!r}")
    return ",".join(texts)


def _find_range(values: Sequence[Any]) -> range | None:
    """The same integers as a range, if they are many and evenly spaced: Hydra would parse each of them."""
    if len(values) < LEAST_RANGE or not all(isinstance(each, int | np.integer) for each in values):
        return None
    if any(isinstance(each, bool) for each in values):
        return None
    first, step = int(values[0]), int(values[1]) - int(values[0])
    spaced = range(first, first + step * len(values), step) if step else None
    return spaced if spaced is not None and all(map(_is_equal, spaced, values)) else None


def _is_equal(one: int, other: Any) -> bool:
    return one == int(other)


def _format_text(text: str) -> str:
    return text if WORD.fullmatch(text) and text.lower() not in OTHER_TYPES else quote(text)


def _format_key(name: str, key: Any) -> str:
    if not isinstance(key, str) or not WORD.fullmatch(key):
        raise InvalidInputError(f"{name}: the keys of a mapping must be names, got {key!r}")
    return key


def _is_array(value: Any) -> bool:
    """Whether a value is an array of NumPy or JAX, or a column of pandas."""
    return hasattr(value, "tolist") and hasattr(value, "ndim")

"""Descriptions of objects and datasets, as the JSON that a `_target_` and its arguments are kept in."""

import json
from collections.abc import Container, Mapping
from typing import Any


def select_value(text: str, path: str) -> Any:
    """The value at a dotted path of a description; None if there is none."""
    found: Any = json.loads(text)
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return tuple(found) if isinstance(found, list) else found


def leave_out(text: str, name: str, columns: Container[str]) -> Any:
    """The description of a parameter without the values that are in a column of their own."""
    return _leave_out(json.loads(text), name, columns)


def _leave_out(value: Any, path: str, columns: Container[str]) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {
        key: _leave_out(member, f"{path}.{key}", columns)
        for key, member in value.items()
        if f"{path}.{key}" not in columns
    }

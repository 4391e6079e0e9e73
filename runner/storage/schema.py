"""The types of the JSON values in a study's files, which anyone may have edited or cut."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ListOf:
    """A list whose members have a type, at least `least` of them."""

    member: Any
    least: int = 0


@dataclass(frozen=True)
class MappingOf:
    """A mapping from names to values of a type."""

    value: Any


@dataclass(frozen=True)
class Record:
    """A mapping that has certain names, and may have others."""

    required: Mapping[str, Any]
    optional: Mapping[str, Any] = field(default_factory=dict)


def check_types(value: Any, schema: Any, place: str = "it") -> None:
    """Raises TypeError if a JSON value has not the types of a schema: a class, several in a tuple, or one of the above.

    The message says where, in the form `columns.outputs.0.shape must be a list`.
    """
    if isinstance(schema, type | tuple):
        kinds = schema if isinstance(schema, tuple) else (schema,)
        if type(value) not in kinds:
            raise TypeError(f"{place} must be {' or '.join(kind.__name__ for kind in kinds)}")
    elif isinstance(schema, ListOf):
        if not (isinstance(value, list) and len(value) >= schema.least):
            raise TypeError(f"{place} must be a list{' with members' * schema.least}")
        for i, member in enumerate(value):
            check_types(member, schema.member, f"{place}.{i}")
    elif not isinstance(value, dict):
        raise TypeError(f"{place} must be a mapping")
    elif isinstance(schema, MappingOf):
        for name, member in value.items():
            check_types(member, schema.value, f"{place}.{name}")
    else:
        for name in schema.required:
            if name not in value:
                raise TypeError(f"{place} must be a mapping with {name!r}")
        for name, inner in (*schema.required.items(), *schema.optional.items()):
            if name in value:
                check_types(value[name], inner, name if place == "it" else f"{place}.{name}")

"""Templates: descriptions of what is built within a program, whose numbers are arguments of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TRACED = "_traced_"
"""The key of a mapping that stands for a traced scalar of that name."""


@dataclass(frozen=True)
class Template:
    """The description of an object, as JSON; equal descriptions compare equal.

    Where a number is traced, it has `{"_traced_": name}`, the name being that of a scalar of the segment. Other values
    are constants of the program.
    """

    text: str

    def __repr__(self) -> str:
        return self.text

    def fill(self, scalars: Mapping[str, Any]) -> Any:
        """The description with these scalars in it, which may be tracers."""
        return _fill(json.loads(self.text), scalars)


def make_template(description: Any) -> Template:
    """The template of a description in which traced numbers are marked by `mark`."""
    return Template(json.dumps(description))


def mark(name: str) -> dict[str, str]:
    """What stands in a description for the traced scalar of that name."""
    return {TRACED: name}


def is_mark(value: Any) -> bool:
    """Whether a part of a description stands for a traced scalar."""
    return isinstance(value, Mapping) and TRACED in value


def _fill(value: Any, scalars: Mapping[str, Any]) -> Any:
    if is_mark(value):
        return scalars[value[TRACED]]
    if isinstance(value, Mapping):
        return {key: _fill(member, scalars) for key, member in value.items()}
    return [_fill(member, scalars) for member in value] if isinstance(value, list) else value

"""Objects built from their description: a mapping with a `_target_` and its arguments, as Hydra instantiates them.

Hydra's own `instantiate` takes no tracers, and what a program builds has them among its arguments.
"""

import inspect
import typing
from collections.abc import Mapping
from functools import partial
from typing import Any

from runner.contract.frames import list_own_frames
from runner.contract.imports import find_attribute, import_object
from runner.contract.signature import plain_types
from runner.contract.targets import check_object, check_target, list_targets
from runner.errors import InvalidInputError, describe_error


class ConstructionError(Exception):
    """A target raised an error, the cause of this one, when it was called to build an object."""

    def __init__(self, target: str, error: Exception) -> None:
        super().__init__(f"{target}: {describe_error(error)}")
        self.target = target


KEYS = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")
"""The keys that Hydra gives a meaning; arguments are always converted to plain values here."""


def check_description(owner: str, description: Any) -> None:
    """Checks the targets of a description, before anything is imported; `owner` begins the message.

    Raises InvalidInputError for a path that is not allowed, a key that has no meaning, and a value that is missing.
    """
    for target in list_targets(owner, description):
        check_target(owner, target)
    _check_keys(owner, description)


def build(owner: str, description: Any) -> Any:
    """What a description stands for: nested descriptions are built first, other values stay what they are.

    Raises InvalidInputError for a target that cannot be imported or is not allowed, and ConstructionError for whatever
    a target raises.
    """
    for target in list_targets(owner, description):
        import_target(owner, target)
    return _construct(owner, description)


def build_object(owner: str, description: Any) -> Any:
    """What `build` returns, for values that the user has given: whatever a target raises is an InvalidInputError."""
    try:
        return build(owner, description)
    except ConstructionError as error:
        cause = error.__cause__ or error
        refusal = InvalidInputError(f"{owner}: {describe_error(cause)}")
        for line in list_own_frames(cause)[-1:]:
            refusal.add_note(f"  {line}")
        raise refusal from error


def _construct(owner: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_construct(owner, member) for member in value]
    if not isinstance(value, Mapping):
        return value
    is_nested = value.get("_recursive_", True)
    values = {key: _construct(owner, member) if is_nested else member for key, member in value.items()}
    if "_target_" not in value:
        return values
    target, positional = import_target(owner, value["_target_"]), values.get("_args_", ())
    arguments = {key: member for key, member in values.items() if key not in KEYS}
    if value.get("_partial_"):
        return partial(target, *positional, **arguments)
    try:
        return target(*positional, **arguments)
    except (InvalidInputError, ConstructionError):
        raise
    except Exception as error:  # of the user's own values, or code
        raise ConstructionError(value["_target_"], error) from error


def import_target(owner: str, target: str) -> Any:
    """The object at a dotted path. Raises InvalidInputError if it cannot be imported or is not allowed."""
    found = import_object(owner, target, find_attribute)
    check_object(owner, target, found)
    return found


def takes_float(owner: str, target: str, argument: str) -> bool:
    """Whether a target declares that an argument may be a float, by its annotation or by its default."""
    found = import_target(owner, target)
    try:
        parameter = inspect.signature(found).parameters[argument]
        hints = typing.get_type_hints(vars(found)["__init__"] if isinstance(found, type) else found)
    except (TypeError, ValueError, KeyError, NameError):
        return False
    return isinstance(parameter.default, float) or float in plain_types(hints.get(argument, int))


def _check_keys(owner: str, description: Any) -> None:
    if isinstance(description, Mapping):
        for key, value in description.items():
            if value == "???":  # how a YAML marks what must be given
                raise InvalidInputError(f"{owner}.{key} has no value")
            if str(key).startswith("_") and str(key).endswith("_") and key not in KEYS:
                raise InvalidInputError(f"{owner} has no {key!r}; a description has: {', '.join(KEYS)}")
            _check_keys(f"{owner}.{key}", value)
    elif isinstance(description, list | tuple):
        for value in description:
            _check_keys(owner, value)

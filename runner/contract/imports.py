"""Imports of what dotted paths name; what goes wrong in the user's own modules becomes one line."""

import importlib
import pkgutil
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

from runner.contract.frames import list_own_frames
from runner.contract.source import split_target
from runner.errors import InvalidInputError, describe_error


def import_object(owner: str, target: str, find: Callable[[str], Any] = pkgutil.resolve_name) -> Any:
    """The object at a dotted path, by `find`; `owner` begins the message of an error.

    Raises InvalidInputError if there is none, and, with the user's own frames as notes, if a module raises anything
    while it is imported; Ctrl-C is passed on.
    """
    module, _ = split_target(target)
    try:
        if module:
            importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() included: the module of a task does not end the command
        raise _explain(owner, module, error) from error
    try:
        return find(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInputError(f"{owner}: cannot import {target!r}: {error}") from error
    except Exception as error:  # of a module's __getattr__, or of a module that no file on the path has
        raise _explain(owner, target, error) from error


def find_attribute(target: str) -> Any:
    """The object at a dotted path as Hydra finds it: an attribute of a package comes before its submodule."""
    path, *parts = target.split(".")
    found: Any = importlib.import_module(path)
    for part in parts:
        path = f"{path}.{part}"
        if isinstance(found, ModuleType) and not hasattr(found, part):
            with suppress(ModuleNotFoundError):  # then it has no such attribute either
                importlib.import_module(path)
        found = getattr(found, part)
    return found


def _explain(owner: str, module: str, error: BaseException) -> InvalidInputError:
    explained = InvalidInputError(f"{owner}: importing {module!r} raised {describe_error(error)}")
    for line in list_own_frames(error):
        explained.add_note(f"  {line}")
    return explained

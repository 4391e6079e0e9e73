"""Functions that are handed over as objects, as from a notebook: held by this process under a dotted path."""

import inspect
import sys
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from runner.contract.source import find_definition, find_module

HOLDER = "seedbed_functions"
"""The module, made in memory, whose attributes are the functions that are held."""


def locate_function(function: Callable[..., Any]) -> str:
    """The dotted path by which a task can name a function: its own if a module of a file has it, else one made here."""
    target = f"{getattr(function, '__module__', None)}.{getattr(function, '__qualname__', '')}"
    if _is_importable(function, target):
        return target
    name = name_function(function)
    setattr(_open_holder(), name, function)
    return f"{HOLDER}.{name}"


def name_function(function: Callable[..., Any]) -> str:
    """The name of a function as that of a task: `task` for a lambda, and the class's name for a callable object."""
    while isinstance(function, partial):
        function = function.func
    name = getattr(function, "__name__", type(function).__name__)
    return name if name.isidentifier() else "task"


def is_held(target: str) -> bool:
    """Whether a dotted path names a function that was handed over as an object."""
    return target.partition(".")[0] == HOLDER


def _open_holder() -> types.ModuleType:
    return sys.modules.setdefault(HOLDER, types.ModuleType(HOLDER))


def _is_importable(function: Callable[..., Any], target: str) -> bool:
    """Whether the source of a module on the path defines the function under this name."""
    module, _, name = target.rpartition(".")
    if module in ("", "__main__") or not isinstance(function, types.FunctionType) or find_module(module) is None:
        return False
    return getattr(sys.modules.get(module), name, None) is function and find_definition(target) is not None


def find_home(function: Callable[..., Any]) -> Path | None:
    """The file that a held function was written in, None if there is none, as for a notebook."""
    while isinstance(function, partial):
        function = function.func
    file = getattr(getattr(inspect.unwrap(function), "__code__", None), "co_filename", "")
    return Path(file) if Path(file).is_file() and "ipykernel" not in file else None

"""What a `_target_` may name: the rule for tasks and for the objects that are built as their arguments.

A YAML is data, and one that somebody else wrote should not run a command of the operating system when it is only
looked at. The rule is the same for every version of Hydra. It is no sandbox: a module that is named is executed when it
is imported, and what an installed library does is up to that library.
"""

import sys
from collections.abc import Iterator, Mapping
from functools import partial
from types import ModuleType
from typing import Any

from runner.errors import InvalidInputError

DISCOVERY = tuple(f"hydra.utils.get_{kind}" for kind in ("method", "class", "object", "static_method"))
"""Functions of Hydra that return what their argument `path` names, which the same rule must allow."""

DENIED = ("cloudpickle", "dill", "hydra", "hydra_plugins", "omegaconf", "pip", "runner", "yaml")
"""Packages that execute what their arguments describe."""

STANDARD = sys.stdlib_module_names | {"annotationlib", "distutils"}
"""The standard library, with modules that it has or had in other versions of Python."""

_VALUES = {
    "builtins": "bool bytes complex dict float frozenset int list range set slice str tuple",
    "collections": "ChainMap Counter OrderedDict defaultdict deque",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "functools": "partial",
    "operator": "abs add and_ eq floordiv ge gt invert le lt matmul mod mul ne neg not_ or_ pos pow sub truediv xor",
    "pathlib": "Path PurePath",
    "types": "SimpleNamespace",
}
HARMLESS = frozenset(f"{module}.{name}" for module, names in _VALUES.items() for name in names.split())
"""What arguments may name of the standard library, beside all of `math` and `cmath`: plain values and arithmetic."""


def check_target(owner: str, target: str, *, is_task: bool = False) -> None:
    """Checks what a dotted path says, before anything is imported; `owner` begins the message.

    Raises InvalidInputError for what the rule excludes, of the standard library everything in the case of a task.
    """
    if not is_task and target in DISCOVERY:
        return
    if rule := _find_rule(target.replace(":", "."), is_task):
        raise InvalidInputError(f"{owner}: _target_ {target!r} is not allowed: {rule}")


def check_object(owner: str, target: str, value: Any, *, is_task: bool = False) -> None:
    """Checks the object that a dotted path has led to by its own name: `my_lab.os.system` is `posix.system`.

    Raises InvalidInputError as `check_target`; a value that is neither callable nor a module is harmless.
    """
    if not (callable(value) or isinstance(value, ModuleType)) or (not is_task and target in DISCOVERY):
        return
    name = _name_object(value)
    if rule := _find_rule(name, is_task):
        raise InvalidInputError(f"{owner}: _target_ {target!r}, which is {name!r}, is not allowed: {rule}")


def list_targets(owner: str, description: Any) -> Iterator[str]:
    """Every dotted path that building a description would import, those in arguments included.

    Raises InvalidInputError for one that is no text, and for a discovery function whose path is not written out.
    """
    if isinstance(description, Mapping):
        if "_target_" in description:
            yield from _list_paths(owner, description)
        for value in description.values():
            yield from list_targets(owner, value)
    elif isinstance(description, list | tuple):
        for value in description:
            yield from list_targets(owner, value)


def _list_paths(owner: str, description: Mapping[Any, Any]) -> list[str]:
    target = description["_target_"]
    if not isinstance(target, str) or not target:
        raise InvalidInputError(f"{owner}: _target_ must be a dotted path, got {target!r}")
    if target not in DISCOVERY:
        return [target]
    positional = description.get("_args_") or []
    paths = [*([description["path"]] if "path" in description else []), *positional]
    if not paths or not all(isinstance(path, str) for path in paths):
        raise InvalidInputError(f"{owner}: {target} needs its path as text, got {paths or 'none'}")
    return [target, *paths]


def _find_rule(path: str, is_task: bool) -> str | None:
    """The rule that excludes a dotted path, None if there is none."""
    parts = path.split(".")
    module = parts[0]
    if any(part.startswith("__") for part in parts):
        return "names that begin with __ are Python's own"
    if module.lstrip("_") in DENIED:
        return f"{module} executes what its arguments describe"
    if module not in STANDARD or (not is_task and _is_harmless(path)):
        return None
    if is_task:
        return f"{module} is of Python's standard library, which has no tasks; a module of your own needs another name"
    return f"{module} is of Python's standard library, of which only plain values and arithmetic can be built"


def _is_harmless(path: str) -> bool:
    public = path.lstrip("_")  # operator.add is _operator.add
    return public in HARMLESS or (public.startswith(("math.", "cmath.")) and path.count(".") == 1)


def _name_object(value: Any) -> str:
    """The dotted path under which an object was defined."""
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, partial):
        return _name_object(value.func)
    owner = getattr(value, "__objclass__", None) or getattr(value, "__self__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if owner is not None and not isinstance(owner, ModuleType):
        method = str(getattr(value, "__name__", name)).replace("__call__", "call")
        return f"{_name_object(owner if isinstance(owner, type) else type(owner))}.{method}"
    module = getattr(value, "__module__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        module, name = (module if isinstance(module, str) else type(value).__module__), type(value).__qualname__
    return f"{module}.{name}"

"""The code of a function that is handed over as an object: its source, and that of all that it uses.

These are the functions, classes and values of the same notebook or script to which its global and nonlocal names refer,
and modules of the user's own. Libraries count by their names: their versions are recorded elsewhere.
"""

import dis
import hashlib
import inspect
import pickle
import types
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from runner.contract.code import collect_sources
from runner.contract.source import find_module, is_library, read_source

Seen = dict[int, Any]
"""What was described already, by its `id`; it is kept, so that no other object gets that `id`."""

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def read_code(function: Callable[..., Any]) -> bytes:
    """The code of a held function and of all that it uses, the same for the same source."""
    return b"\0".join(_describe_object(function, {}))


def _describe_object(value: Any, seen: Seen) -> Iterator[bytes]:
    if not isinstance(value, (*_PLAIN, tuple, frozenset)):  # Python may share equal ones, or may not
        if id(value) in seen:
            return
        seen[id(value)] = value
    if isinstance(value, partial):
        yield from _describe_object(value.func, seen)
        yield from _describe_value((value.args, sorted(value.keywords.items())), seen)
    elif isinstance(value, types.FunctionType):
        yield from _describe_function(value, seen)
    elif isinstance(value, types.MethodType):
        yield from _describe_object(value.__func__, seen)
        yield from _describe_object(value.__self__, seen)
    elif isinstance(value, type):
        yield from _describe_class(value, seen)
    elif isinstance(value, types.ModuleType):
        yield from _describe_module(value.__name__)
    else:
        yield from _describe_value(value, seen)


def _describe_function(function: types.FunctionType, seen: Seen) -> Iterator[bytes]:
    """The source of a function with what its names refer to; of one that a module of a file defines, that module."""
    is_local = "<locals>" in function.__qualname__ or function.__module__ in (None, "__main__", "builtins")
    if not is_local and find_module(function.__module__):
        yield function.__qualname__.encode()
        yield from _describe_module(function.__module__)
        return
    yield _read_source(function)
    yield from _describe_object(function.__defaults__, seen)
    yield from _describe_object(tuple(sorted((function.__kwdefaults__ or {}).items())), seen)
    for name, value in sorted(_list_references(function).items()):
        yield name.encode()
        yield from _describe_object(value, seen)
    if wrapped := getattr(function, "__wrapped__", None):
        yield from _describe_object(wrapped, seen)


def _describe_class(owner: type, seen: Seen) -> Iterator[bytes]:
    """A class of a notebook by its bases, its methods and its attributes; any other by its module.

    Python does not find the source of a class that no file has.
    """
    if owner.__module__ != "__main__":
        yield from _describe_module(owner.__module__)
        return
    yield owner.__qualname__.encode()
    for base in owner.__bases__:
        yield from _describe_object(base, seen)
    for name, member in sorted(vars(owner).items()):
        plain = getattr(member, "__func__", getattr(member, "fget", member))
        if isinstance(plain, types.FunctionType) or not name.startswith("__"):
            yield name.encode()
            yield from _describe_object(plain, seen)


def _describe_module(name: str) -> Iterator[bytes]:
    """The sources of a module of the user's own and of those that it uses; a library counts by its version alone."""
    source = read_source(name)
    if source is None or is_library(source.path):
        yield name.encode()
        return
    sources = collect_sources(source)
    yield from (sources[each].content for each in sorted(sources))


def _describe_value(value: Any, seen: Seen) -> Iterator[bytes]:
    """A plain value by its representation, an array or a table by its bytes, others by their type and attributes."""
    if isinstance(value, _PLAIN):
        yield repr(value).encode()
    elif isinstance(value, list | tuple | set | frozenset):
        yield type(value).__name__.encode()
        for member in value if isinstance(value, list | tuple) else sorted(value, key=repr):
            yield from _describe_object(member, seen)
    elif isinstance(value, Mapping):
        yield from _describe_value([list(map(repr, value)), list(value.values())], seen)
    elif isinstance(value, np.ndarray | np.generic) or _is_array(value):
        yield from _describe_array(value)
    elif hasattr(value, "__wrapped__"):  # such as what jax.jit returns
        yield from _describe_object(value.__wrapped__, seen)
    else:
        yield from _describe_class(type(value), seen)
        attributes = dict(sorted(getattr(value, "__dict__", {}).items()))
        yield from _describe_object(attributes, seen) if attributes else [_pickle(value)]


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") and not isinstance(value, type)


def _describe_array(value: Any) -> Iterator[bytes]:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):  # such as a key of JAX
        yield repr(value).encode()
        return
    yield repr([str(name) for name in getattr(value, "columns", ())]).encode()
    content = repr(array.tolist()).encode() if array.dtype.hasobject else np.ascontiguousarray(array).tobytes()
    yield f"{array.dtype} {array.shape} {hashlib.sha256(content).hexdigest()}".encode()


def _pickle(value: Any) -> bytes:
    """What an object without attributes holds, if it says so to `pickle`."""
    try:
        return pickle.dumps(value, protocol=4)
    except Exception:  # of whatever type; its type is known at least
        return b""


def _list_references(function: types.FunctionType) -> dict[str, Any]:
    """The values that the global and the nonlocal names of a function have, those within its inner functions too."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    nonlocal_values = {name: cell.cell_contents for name, cell in cells.items() if _is_filled(cell)}
    instructions = (each for code in walk_code(function.__code__) for each in dis.get_instructions(code))
    names = {each.argval for each in instructions if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return {name: function.__globals__[name] for name in names if name in function.__globals__} | nonlocal_values


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # assigned after the function, or never
        return False


def walk_code(code: types.CodeType) -> Iterator[types.CodeType]:
    """A compiled function or module, and all functions and classes within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from walk_code(constant)


def _read_source(value: Any) -> bytes:
    """The source of a function or a class; its compiled code where there is none, as in an interactive session."""
    try:
        return inspect.getsource(value).encode()
    except (OSError, TypeError):
        code = getattr(value, "__code__", None)
        return repr([list_parts(each) for each in walk_code(code)] if code else value).encode()


def list_parts(code: types.CodeType) -> tuple[Any, ...]:
    """What a compiled function does, without its place in a file."""
    constants = [constant for constant in code.co_consts if not isinstance(constant, types.CodeType)]
    return code.co_code, code.co_names, code.co_varnames, constants

"""The settings of Linen layers: whether two layers have the same, and what holds only within one call."""

import dataclasses
import functools
import types
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

FLAGS = ("deterministic", "use_running_average", "parent", "name")
"""Fields of layers that may differ between calls, because an NNX layer takes them with the call."""
DTYPES = ("dtype", "param_dtype")
ARRAYS = (jax.Array, np.ndarray)
FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)


def has_same_settings(linen: nn.Module, known: nn.Module) -> bool:
    """Whether two Linen layers compute the same from the same variables, apart from their flags.

    Dtypes are compared as dtypes, arrays by content, functions by their code and all that they hold. What cannot be
    compared differs.
    """
    return type(linen) is type(known) and not find_changed(linen, known)


def find_changed(linen: nn.Module, known: nn.Module) -> str | None:
    """The name of the first setting in which two layers of one class differ, if there is one."""
    return next((name for name in _list_settings(known) if not _is_same_field(name, linen, known)), None)


def find_dynamic(linen: nn.Module) -> str | None:
    """The name of the first setting that holds an array or a module of the running call, if there is one."""
    return next((name for name in _list_settings(linen) if _is_dynamic(getattr(linen, name, None))), None)


def has_plain_settings(linen: nn.Module) -> bool:
    """Whether each setting is its default or plain data, not a function or an object that a call may make anew."""
    defaults = {field.name: field.default for field in dataclasses.fields(linen)}
    values = {name: getattr(linen, name, None) for name in _list_settings(linen)}
    return all(value is defaults[name] or _is_plain(value) for name, value in values.items())


def _list_settings(linen: nn.Module) -> list[str]:
    """The names of the fields that matter after initialization."""
    names = [field.name for field in dataclasses.fields(linen) if is_argument(field)]
    return [name for name in names if name not in FLAGS and not name.endswith("_init")]


def is_argument(field: Any) -> bool:
    """Whether a field of a module is an argument of its constructor; others may not be set before `setup`."""
    return bool(field.init) and field.name not in ("parent", "name")


def _is_same_field(name: str, linen: nn.Module, known: nn.Module) -> bool:
    a, b = getattr(linen, name, None), getattr(known, name, None)
    if name in DTYPES:
        return (a is None) == (b is None) and (a is None or jnp.dtype(a) == jnp.dtype(b))
    return _is_same(a, b)


def _is_same(a: Any, b: Any, begun: frozenset[tuple[int, int]] = frozenset()) -> bool:
    """Whether two values are the same; `begun` are the pairs around them, because a function may hold itself."""
    if a is b or (id(a), id(b)) in begun:
        return True
    if isinstance(a, ARRAYS) or isinstance(b, ARRAYS):
        return _is_same_array(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, nn.Module):
        return a.name == b.name and has_same_settings(a, b)
    if isinstance(a, FUNCTIONS):
        a, b, begun = _take_apart(a), _take_apart(b), begun | {(id(a), id(b))}
    elif isinstance(a, Mapping):
        a, b = list(a.items()), list(b.items())
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(_is_same(x, y, begun) for x, y in zip(a, b, strict=True))
    return _is_equal(a, b)


def _is_same_array(a: Any, b: Any) -> bool:
    """Whether two arrays have the same dtype, shape and bits; one of a running call is the same as itself only."""
    if not (isinstance(a, ARRAYS) and isinstance(b, ARRAYS)) or isinstance(a, jax.core.Tracer):
        return False
    if isinstance(b, jax.core.Tracer) or a.dtype != b.dtype or a.shape != b.shape:
        return False
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()


def _is_equal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except (TypeError, ValueError):  # such as an object that holds arrays
        return False


def _take_apart(function: Any) -> tuple[Any, ...]:
    """What a function computes with: its code, its defaults, and the values that it closes over."""
    if isinstance(function, functools.partial):
        return (function.func, function.args, function.keywords)
    if isinstance(function, types.MethodType):
        return (function.__func__, function.__self__)
    cells = tuple(_read_cell(cell) for cell in function.__closure__ or ())
    return (function.__code__, function.__defaults__, function.__kwdefaults__, id(function.__globals__), cells)


def _read_cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a cell that is still empty
        return None


def _list_parts(value: Any) -> list[Any]:
    """The values within a container or a function."""
    if isinstance(value, FUNCTIONS):
        return list(_take_apart(value))
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, tuple | list | set | frozenset) else []


def _walk(value: Any, seen: dict[int, Any]) -> Iterator[Any]:
    """A value and all that it holds; a function may hold itself."""
    if id(value) not in seen:
        seen[id(value)] = value  # kept, so that no other value gets its id
        yield value
        for part in _list_parts(value):
            yield from _walk(part, seen)


def _is_dynamic(value: Any) -> bool:
    """Whether a value holds a traced array, or a module with variables other than the value itself."""
    held = [part for part in _walk(value, {}) if part is not value]
    return any(isinstance(leaf, jax.core.Tracer) for part in [value, *held] for leaf in _list_leaves(part)) or any(
        isinstance(part, nn.Module) and part.scope is not None for part in held
    )


def _list_leaves(value: Any) -> list[Any]:
    return [value] if isinstance(value, nn.Module) else jax.tree.leaves(value)


def _is_plain(value: Any) -> bool:
    parts = [part for part in _walk(value, {}) if part is not None and not isinstance(part, type | Enum)]
    return not any(isinstance(part, FUNCTIONS) or _is_told_by_identity(part) for part in parts)


def _is_told_by_identity(value: Any) -> bool:
    return not any("__eq__" in vars(kind) for kind in type(value).__mro__[:-1])

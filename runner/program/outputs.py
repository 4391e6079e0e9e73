"""What a task returns, checked and named: arrays and categories."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from runner.contract.task import NAME_RULE, Output, Task, is_output_name


@partial(jax.tree_util.register_dataclass, data_fields=["code"], meta_fields=["categories"])
@dataclass(frozen=True)
class CategoryCode:
    """A category within a program: its index in `categories`, int32 `()`."""

    code: Any
    categories: tuple[str, ...]


NO_PROGRAMS = ("float6_e2m3fn", "float6_e3m2fn", "int1", "uint1")
"""Dtypes of ml_dtypes that JAX traces and XLA (of jaxlib 0.10) does not compile; for some it ends the process."""

Returned = dict[str, jax.Array | CategoryCode]


def name_outputs(task: Task, returned: Any) -> Returned:
    """What a task returned, by name: a dict has its own names, arrays take those of the YAML.

    Raises TypeError for values that are no arrays of numbers or booleans and no categories, and if the number or the
    names of the values differ from those that the YAML declares.
    """
    names = task.outputs
    if isinstance(returned, Mapping):
        if names and set(names) != set(returned):
            raise TypeError(f"returns {sorted(returned)}, but task.outputs names {list(names)}")
        if wrong := [name for name in returned if not is_output_name(name)]:
            raise TypeError(f"returns an output named {wrong[0]!r}; {NAME_RULE}")
        named = dict(returned)
    elif isinstance(returned, tuple | list) and not _is_category(returned):
        if len(returned) != len(names):
            raise TypeError(f"returns {len(returned)} values, but task.outputs names {list(names)}")
        named = dict(zip(names, returned, strict=True))
    elif len(names) > 1:
        if _is_category(returned):
            raise TypeError(f"returns a category, but task.outputs names {list(names)}")
        if jnp.shape(returned)[:1] != (len(names),):
            raise TypeError(f"returns an array of shape {jnp.shape(returned)}, but task.outputs names {list(names)}")
        named = {name: returned[i] for i, name in enumerate(names)}
    else:
        named = {(names or ("output",))[0]: returned}
    return {
        name: _check_category(name, value) if _is_category(value) else _check_array(name, value)
        for name, value in named.items()
    }


def list_outputs(task: Task, info: Mapping[str, Any]) -> tuple[Output, ...]:
    """The outputs in the order of the YAML, or else the metrics first and the other keys of the returned dict.

    `info` is abstract.
    """
    names = task.outputs or dict.fromkeys([*(name for name, _ in task.metrics if name in info), *info])
    return tuple(_describe_output(name, info[name]) for name in names)


def _describe_output(name: str, info: Any) -> Output:
    if isinstance(info, CategoryCode):
        return Output(name, (), np.dtype(str), info.categories)
    return Output(name, info.shape, np.dtype(info.dtype))


def _is_category(value: Any) -> bool:
    """Recognized by its attributes, because a task imports nothing from the runner."""
    return hasattr(value, "categories") and hasattr(value, "code")


def _check_category(name: str, value: Any) -> CategoryCode:
    categories, code = value.categories, _check_array(name, value.code)
    if (
        not isinstance(categories, tuple)
        or not categories
        or not all(isinstance(w, str) and w.isprintable() for w in categories)
    ):
        raise TypeError(
            f"returns as {name!r} one of {categories!r}; categories are a tuple of one or more printable strings"
        )
    if code.shape or not jnp.issubdtype(code.dtype, jnp.integer) or code.dtype.itemsize > 4:  # 8 bytes would wrap
        raise TypeError(f"returns {code.dtype}{list(code.shape)} as the code of {name!r}; it is one int32 for each run")
    return CategoryCode(code.astype(jnp.int32), categories)


def _check_array(name: str, value: Any) -> jax.Array:
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError):
        raise TypeError(f"returns a {type(value).__name__} as {name!r}, no array") from None
    if array.dtype.name in NO_PROGRAMS:
        raise TypeError(f"returns {array.dtype} as {name!r}; a table holds no such numbers, since XLA compiles none")
    if array.dtype == bool or jnp.issubdtype(array.dtype, jnp.integer) or jnp.issubdtype(array.dtype, jnp.floating):
        return array
    raise TypeError(f"returns {array.dtype} as {name!r}; a table holds floats, integers and booleans")

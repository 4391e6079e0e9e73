"""Arguments as a person or a tracer hands them to a task."""

import operator
from typing import Any

import jax
import jax.numpy as jnp


def integer(name: str, value: Any) -> Any:
    """The integer that `value` stands for; an integer tracer passes through.

    A whole number that arrives as a float (`3.0`) or as an array of one element is taken as the integer.
    Raises ValueError for `3.5`, TypeError for what is no number, and both for tracers of another dtype.
    """
    if isinstance(value, jax.core.Tracer):
        if not jnp.issubdtype(value.dtype, jnp.integer):
            raise TypeError(f"{name} must be traced as an integer, got {value.dtype}")
        return value
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, float):
        if not number.is_integer():
            raise ValueError(f"{name} must be a whole number, got {number!r}")
        return int(number)
    try:
        return operator.index(number)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {number!r}") from None


def count(name: str, value: Any) -> int:
    """A positive integer that fixes a shape; it cannot be a tracer."""
    number = integer(name, value)
    if isinstance(number, jax.core.Tracer):
        raise TypeError(f"{name} fixes a shape and cannot be traced")
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return number


def floating(name: str, value: jax.typing.ArrayLike) -> jax.Array:
    """`value` as an array of floats with at least one axis; integers become float32."""
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(jnp.float32)
    if array.ndim == 0:
        raise ValueError(f"{name} must have at least one axis, got a scalar")
    return array

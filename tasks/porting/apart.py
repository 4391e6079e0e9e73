"""A function as it runs outside of jit, within a compiled program: each operation compiled for itself."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal


def apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with a barrier behind each of its operations, so that the compiler can fuse none with another.

    What JAX itself compiles as one when it runs eagerly, such as `jnp.where` or a `lax.scan`, stays one.
    """

    def call(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        out = _evaluated(closed, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return call


def _evaluated(closed: ClosedJaxpr, args: list[Any]) -> list[Any]:
    jaxpr: Jaxpr = closed.jaxpr
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *args), strict=True))

    def value(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else known[variable]

    for equation in jaxpr.eqns:
        params = equation.primitive.get_bind_params(equation.params)
        made = equation.primitive.bind(*map(value, equation.invars), **params)
        made = made if equation.primitive.multiple_results else [made]
        if made and not any(jax.dtypes.issubdtype(each.dtype, jax.dtypes.extended) for each in made):
            made = lax.optimization_barrier(tuple(made))
        known.update(zip(equation.outvars, made, strict=True))
    return [value(variable) for variable in jaxpr.outvars]

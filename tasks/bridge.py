"""NNX inside Linen, Linen inside NNX, and both around one another, through `flax.nnx.bridge`."""

import flax.linen as nn
import jax
from flax import nnx
from flax.nnx import bridge as flax_bridge

from tasks.arguments import count, floating, integer
from tasks.porting.bridges import linen_variables, to_linen, to_nnx


def nnx_inside_linen(seed: int, x: jax.Array, features: int) -> jax.Array:
    """The output of an `nnx.Linear` that is initialised and applied as a Linen module.

    `x` has shape `(in,)` or `(batch, in)`, the output `(features,)` or `(batch, features)`. Linen derives
    the NNX module's key from `PRNGKey(seed)`, so its weights differ from those of `nnx.Rngs(seed)`. `seed`
    may be a tracer. Raises ValueError or TypeError for a seed or a count that is no integer.
    """
    x, seed, features = floating("x", x), integer("seed", seed), count("features", features)

    class Inner(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.linear = nnx.Linear(x.shape[-1], features, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.linear(x)

    wrapped = flax_bridge.to_linen(Inner)
    variables = wrapped.init(jax.random.PRNGKey(seed), x)
    return wrapped.apply(variables, x)


def linen_inside_nnx(seed: int, x: jax.Array, features: int) -> jax.Array:
    """The output of an `nn.Dense` that is called as an NNX module, which holds its weights.

    They are those of `nn.Dense(features).init(PRNGKey(seed), x)`. Shapes and errors are those of `nnx_inside_linen`.
    """
    x, seed, features = floating("x", x), integer("seed", seed), count("features", features)
    return to_nnx(nn.Dense(features), None, x, key=jax.random.PRNGKey(seed))(x)


def round_trip(seed: int, x: jax.Array, features: int) -> jax.Array:
    """The output of an `nnx.Linear` of `nnx.Rngs(seed)` inside a Linen module inside an NNX module.

    Both take over the weights of the first, so it is that one's output, to the bit. Shapes and errors are those of
    `nnx_inside_linen`.
    """
    x, seed, features = floating("x", x), integer("seed", seed), count("features", features)
    linear = nnx.Linear(x.shape[-1], features, rngs=nnx.Rngs(jax.random.key(seed)))
    linen = to_linen(nnx.Linear, x.shape[-1], features)
    return to_nnx(linen, linen_variables(linear), x)(x)


WAYS = {way.__name__: way for way in (nnx_inside_linen, linen_inside_nnx, round_trip)}


def bridge(seed: int, x: jax.Array, features: int, way: str = "nnx_inside_linen") -> jax.Array:
    """The output of the function of this module that `way` names. Raises ValueError for another name."""
    if way not in WAYS:
        raise ValueError(f"way must be one of {', '.join(WAYS)}, got {way!r}")
    return WAYS[way](seed, x, features)

"""An NNX module inside Linen, through `flax.nnx.bridge.to_linen`."""

import jax
from flax import nnx
from flax.nnx import bridge

from tasks.arguments import count, floating, integer


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

    wrapped = bridge.to_linen(Inner)
    variables = wrapped.init(jax.random.PRNGKey(seed), x)
    return wrapped.apply(variables, x)

"""Dense from scratch: an NNX layer written by hand, and its forward pass."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from tasks.arguments import count, floating, integer


class MyDense(nnx.Module):
    """An affine layer `x @ kernel + bias`.

    `kernel` `(in_features, out_features)` is drawn from a normal distribution of standard deviation
    `1 / sqrt(in_features)` with the key `rngs.params()`; `bias` `(out_features,)` is zero. This is the
    plain normal: the default of `nnx.Linear` is the truncated one of `jax.nn.initializers.lecun_normal`.
    """

    def __init__(self, in_features: int, out_features: int, rngs: nnx.Rngs) -> None:
        scale = 1.0 / math.sqrt(in_features)
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (in_features, out_features)) * scale)
        self.bias = nnx.Param(jnp.zeros((out_features,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ self.kernel[...] + self.bias[...]


def dense_forward(seed: int, x: jax.Array, features: int) -> jax.Array:
    """The output of a fresh `MyDense`, `(features,)` for `x` `(in,)`, `(batch, features)` for `(batch, in)`.

    `seed` may be a tracer. Raises ValueError or TypeError for a seed or a count that is no integer.
    """
    x = floating("x", x)
    key = jax.random.key(integer("seed", seed))
    model = MyDense(x.shape[-1], count("features", features), nnx.Rngs(key))
    return model(x)

"""Dropout whose rate may be traced, with the masks of flax's own for the same key and rate."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx


def drop(x: jax.Array, rate: Any, key: jax.Array) -> jax.Array:
    """Returns `x` with each element zero with the probability `rate`, the others divided by `1 - rate`.

    `rate` is a float or a scalar tracer. A rate of 1 gives zeros, and gradients of zero.
    """
    keep = 1.0 - jnp.asarray(rate, jnp.float32)
    mask = jax.random.bernoulli(key, keep, x.shape)
    return jnp.where(mask, x / jnp.where(keep > 0, keep, 1.0).astype(x.dtype), jnp.zeros_like(x))


class Dropout(nn.Module):
    """Linen's dropout with a rate that may be traced; the class has Linen's name, which decides on its keys."""

    rate: Any
    deterministic: bool | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, deterministic: bool | None = None) -> jax.Array:
        """Returns the inputs with some elements zero, or unchanged where `deterministic`."""
        quiet = nn.merge_param("deterministic", self.deterministic, deterministic)
        return inputs if quiet else drop(inputs, self.rate, self.make_rng("dropout"))


class NnxDropout(nnx.Module):
    """NNX's dropout with a rate that may be traced."""

    def __init__(self, rate: Any, *, rngs: nnx.Rngs, deterministic: bool = False) -> None:
        self.rate = nnx.data(rate)
        self.deterministic = deterministic
        self.rngs = rngs["dropout"].fork()

    def __call__(self, inputs: jax.Array, *, deterministic: bool | None = None) -> jax.Array:
        quiet = self.deterministic if deterministic is None else deterministic
        return inputs if quiet else drop(inputs, self.rate, self.rngs())

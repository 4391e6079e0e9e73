"""Linen Dense to NNX Linear: the weights are carried over, and the two layers agree to the bit."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from tasks.arguments import count, floating, integer


def assign(slot: str, param: nnx.Param, array: jax.Array) -> None:
    """Overwrites `param` in place with `array`.

    `param[...] = array` would broadcast and cast without a word, and `set_value` checks nothing, so shape
    and dtype are compared here. Raises ValueError that names the slot and both sides.
    """
    if param.shape != array.shape:
        raise ValueError(f"{slot}: the NNX parameter has shape {param.shape}, the Linen array {array.shape}")
    if param.dtype != array.dtype:
        raise ValueError(f"{slot}: the NNX parameter has dtype {param.dtype}, the Linen array {array.dtype}")
    param.set_value(array)


def port_dense(seed: int, x: jax.Array, features: int) -> jax.Array:
    """The sums `[nnx, linen]` of the outputs of a Linen Dense and of the NNX Linear that took its weights.

    `nn.Dense(features)` is initialised with `PRNGKey(seed)` on `x`, of shape `(in,)` or `(batch, in)`. The
    NNX layer starts from `seed + 1`, to show that its own initialisation does not matter. The two sums are
    the same bits. `seed` may be a tracer. Raises ValueError or TypeError for a seed or a count that is no
    integer.
    """
    x, seed, features = floating("x", x), integer("seed", seed), count("features", features)
    linen = nn.Dense(features)
    variables = linen.init(jax.random.PRNGKey(seed), x)

    ported = nnx.Linear(x.shape[-1], features, rngs=nnx.Rngs(jax.random.key(seed + 1)))
    assign("kernel", ported.kernel, variables["params"]["kernel"])
    assign("bias", ported.bias, variables["params"]["bias"])
    return jnp.stack([ported(x).sum(), linen.apply(variables, x).sum()])

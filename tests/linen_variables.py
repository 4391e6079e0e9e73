"""Variables of Linen modules as tests of ported models need them."""

import flax.linen as nn
import jax
import jax.numpy as jnp

KEY = jax.random.key(0)


def variables_of(linen, *inputs, **given):
    """Random variables, none of them zero or one; variances stay positive."""

    @jax.jit
    def make():
        made = nn.meta.unbox(linen.init({"params": KEY, "dropout": KEY}, *inputs, **given))
        return jax.tree.map(lambda leaf: leaf + 0.1 * jnp.abs(jax.random.normal(KEY, leaf.shape, leaf.dtype)), made)

    return make()

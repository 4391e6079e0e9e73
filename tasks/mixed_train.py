"""One SGD step through an NNX layer and a Linen layer at once."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from tasks.arguments import count, floating, integer

Params = dict[str, Any]


def mixed_train_step(seed: int, x: jax.Array, y: jax.Array, lr: float, hidden: int = 4) -> jax.Array:
    """The losses `[before, after]` of one joint step of gradient descent.

    The model is `relu(x @ kernel + bias)` with the parameters of an `nnx.Linear` (`Rngs(seed)`), followed by
    a Linen `Dense` (`PRNGKey(seed + 1)`) of `y.shape[-1]` features. The loss is the mean squared error to
    `y`; the step is `p - lr * gradient` on both parameter trees. `x` has shape `(in,)` or `(batch, in)`,
    `y` `(out,)` or `(batch, out)`. The loss need not fall: that depends on `lr`. `seed`, `lr` and the
    arrays may be tracers. Raises ValueError or TypeError for a seed or a count that is no integer, and for
    leading axes of `x` and `y` that differ.
    """
    x, y, seed, hidden = floating("x", x), floating("y", y), integer("seed", seed), count("hidden", hidden)
    if x.shape[:-1] != y.shape[:-1]:
        raise ValueError(f"x and y must agree in all axes but the last, got {x.shape} and {y.shape}")

    linear = nnx.Linear(x.shape[-1], hidden, rngs=nnx.Rngs(jax.random.key(seed)))
    nnx_params = {"kernel": linear.kernel[...], "bias": linear.bias[...]}
    dense = nn.Dense(y.shape[-1])
    linen_params = dense.init(jax.random.PRNGKey(seed + 1), jnp.zeros((hidden,)))

    def loss(nnx_params: Params, linen_params: Params) -> jax.Array:
        h = jax.nn.relu(x @ nnx_params["kernel"] + nnx_params["bias"])
        return jnp.mean((dense.apply(linen_params, h) - y) ** 2)

    gradients = jax.grad(loss, argnums=(0, 1))(nnx_params, linen_params)
    stepped = jax.tree.map(lambda p, g: p - lr * g, (nnx_params, linen_params), gradients)
    return jnp.stack([loss(nnx_params, linen_params), loss(*stepped)])

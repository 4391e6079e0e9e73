"""Losses and metrics: functions of outputs and labels with one value for each example."""

import jax
import jax.numpy as jnp


def cross_entropy(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Minus the log-probability of the label: logits (examples, k), labels (examples,) → (examples,)."""
    return -jnp.take_along_axis(jax.nn.log_softmax(outputs), y[:, None], axis=-1)[:, 0]


def squared_error(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """The mean over the outputs of the squared difference: (examples, outputs) twice → (examples,)."""
    return jnp.mean((outputs - y) ** 2, axis=-1)


def accuracy(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """1 where the largest logit is the label's, else 0: → (examples,) float32."""
    return (jnp.argmax(outputs, axis=-1) == y).astype(jnp.float32)

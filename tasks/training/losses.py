"""Losses and metrics by name: functions of outputs and labels with one value for each example."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

Function = Callable[[jax.Array, jax.Array], jax.Array]


class Measure(NamedTuple):
    """A loss or a metric: its name, and what it computes for each example, or as one scalar for all of them."""

    name: str
    function: Function
    direction: str | None = None


def cross_entropy(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Minus the log-probability of the label: logits (examples, k), labels (examples,) → (examples,)."""
    return -jnp.take_along_axis(jax.nn.log_softmax(outputs), y[..., None], axis=-1)[..., 0]


def squared_error(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """The mean over the outputs of the squared difference: (examples, outputs) twice → (examples,)."""
    return jnp.mean((outputs - y) ** 2, axis=-1)


def accuracy(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """1 where the largest logit is the label's, else 0: → (examples,) float32."""
    return (jnp.argmax(outputs, axis=-1) == y).astype(jnp.float32)


LOSSES = {f.__name__: Measure(f.__name__, f) for f in (cross_entropy, squared_error)}
METRICS = {**LOSSES, "accuracy": Measure("accuracy", accuracy)}


def find_loss(loss: str | Function | Measure) -> Measure:
    """The loss of that name, or made of a function. Raises ValueError for an unknown name."""
    return _find("loss", loss, LOSSES)


def find_metric(metric: str | Function | Measure) -> Measure:
    """The metric of that name, or made of a function. Raises ValueError for an unknown name."""
    return _find("metric", metric, METRICS)


def _find(kind: str, given: str | Function | Measure, known: dict[str, Measure]) -> Measure:
    if isinstance(given, Measure):
        return given
    if not isinstance(given, str):
        return Measure(getattr(given.func if isinstance(given, partial) else given, "__name__", kind), given)
    if given not in known:
        raise ValueError(f"there is no {kind} {given!r}; there are: {', '.join(known)}")
    return known[given]


def check_outputs(measure: Measure, outputs: tuple[int, ...], classes: int) -> None:
    """Raises ValueError unless a model whose outputs have this shape has one for each class of the data."""
    if outputs and outputs[-1] < classes:
        raise ValueError(f"the model must have an output for each class, got {outputs[-1]} for {classes} classes")

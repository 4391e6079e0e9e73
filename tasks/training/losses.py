"""Losses and metrics, by name or by a function of one's own.

A function takes `outputs` and `y` of the same examples and returns a float32 value for each example, of which the
mean is taken, or one scalar for all of them (R², which is no mean over examples and means something over a whole part
of the data only). Everything is computed in float32, whatever the dtype of the outputs.

Functions of classes take outputs of shape `(…, classes)` and integer labels `(…)`; those of a regression take outputs
and targets of the same shape, the targets float32.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

Function = Callable[[jax.Array, jax.Array], jax.Array]
Direction = Literal["minimize", "maximize"]


class Measure(NamedTuple):
    """A loss or a metric: what it is called, what it computes, and which direction is better, None if nobody said."""

    name: str
    function: Function
    direction: Direction | None = None

    def __call__(self, outputs: jax.Array, y: jax.Array) -> jax.Array:
        """The mean over examples, a float32 scalar.

        Raises ValueError where labels and outputs do not fit the function.
        """
        return jnp.mean(jnp.asarray(self.function(outputs, y), jnp.float32))


def cross_entropy(outputs: jax.Array, y: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Minus the logarithm of the label's softmax; with `smoothing`, that part of the target is spread evenly."""
    _check_labels("cross_entropy", outputs, y)
    logarithms = jax.nn.log_softmax(outputs.astype(jnp.float32), axis=-1)
    own = -_pick(logarithms, y)
    even = -jnp.mean(logarithms, axis=-1)
    return own if _is_zero(smoothing) else (1 - smoothing) * own + smoothing * even


def binary_cross_entropy(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Cross-entropy of two classes with one output, the logit of class 1; outputs `(…, 1)` or `(…)`."""
    logits = _binary_logits("binary_cross_entropy", outputs, y)
    return jax.nn.softplus(logits) - logits * y.astype(jnp.float32)


def squared_error(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """The squared difference, averaged over an example's outputs."""
    return _average(jnp.square(_residuals("squared_error", outputs, y)))


def absolute_error(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """The absolute difference, averaged over an example's outputs."""
    return _average(jnp.abs(_residuals("absolute_error", outputs, y)))


def huber(outputs: jax.Array, y: jax.Array, delta: float = 1.0) -> jax.Array:
    """Half the squared difference up to `delta`, and a line beyond, averaged over an example's outputs."""
    size = jnp.abs(_residuals("huber", outputs, y))
    inner = jnp.minimum(size, delta)
    return _average(0.5 * jnp.square(inner) + delta * (size - inner))


def accuracy(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """1 where the largest output is the label's, 0 elsewhere.

    One output is the logit of class 1, whose sign decides.
    """
    if outputs.shape[-1:] == (1,) or outputs.shape == y.shape:
        logits = _binary_logits("accuracy", outputs, y)
        return ((logits > 0) == (y == 1)).astype(jnp.float32)
    _check_labels("accuracy", outputs, y)
    return (jnp.argmax(outputs, axis=-1) == y).astype(jnp.float32)


def top_k(outputs: jax.Array, y: jax.Array, k: int) -> jax.Array:
    """1 where the label is among those of the `k` largest outputs, 0 elsewhere.

    Raises ValueError for a `k` beyond the outputs.
    """
    _check_labels(f"top_{k}", outputs, y)
    if not 1 <= k <= outputs.shape[-1]:
        raise ValueError(f"top_{k} must be at most the number of outputs, {outputs.shape[-1]}")
    _, best = jax.lax.top_k(outputs.astype(jnp.float32), k)
    return jnp.any(best == y[..., None], axis=-1).astype(jnp.float32)


def r2(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """The part of the targets' variance that is explained, averaged over outputs: a scalar of all examples.

    NaN where the targets of an output are all the same.
    """
    unexplained = jnp.sum(jnp.square(_residuals("r2", outputs, y)), axis=0)
    variation = jnp.sum(jnp.square(y - jnp.mean(y, axis=0, keepdims=True)), axis=0)
    # the mean of equal floats may differ from them
    varies = jnp.max(y, axis=0) > jnp.min(y, axis=0)
    return jnp.mean(jnp.where(varies, 1 - unexplained / variation, jnp.nan))


LOSSES: dict[str, Measure] = {
    f.__name__: Measure(f.__name__, f, "minimize")
    for f in (cross_entropy, binary_cross_entropy, squared_error, absolute_error, huber)
}
METRICS: dict[str, Measure] = {
    **LOSSES,
    "accuracy": Measure("accuracy", accuracy, "maximize"),
    "r2": Measure("r2", r2, "maximize"),
}


def find_loss(loss: str | Function | Measure) -> Measure:
    """The loss of that name, or made of a function. Raises ValueError for an unknown name, with what there is."""
    if not isinstance(loss, str):
        return _name_function("loss", loss, "minimize")
    if loss not in LOSSES:
        raise ValueError(f"there is no loss {loss!r}; there are: {', '.join(LOSSES)}")
    return LOSSES[loss]


def find_metric(metric: str | Function | Measure) -> Measure:
    """The metric of that name (`top_5` for any number), or made of a function.

    Raises ValueError for an unknown name, with what there is, and for a function whose name cannot be a column's.
    """
    if not isinstance(metric, str):
        measure = _name_function("metric", metric, None)
        if not measure.name.isidentifier():
            raise ValueError(f"a metric names a column, got {measure.name!r}; Measure(name, function) gives a name")
        return measure
    if metric in METRICS:
        return METRICS[metric]
    kind, _, number = metric.rpartition("_")
    if kind == "top" and number.isdecimal():
        return Measure(metric, partial(top_k, k=int(number)), "maximize")
    raise ValueError(f"there is no metric {metric!r}; there are: {', '.join(METRICS)}, top_2, top_3, …")


def check_outputs(measure: Measure, outputs: tuple[int, ...], classes: int) -> None:
    """Checks that a model whose outputs have this shape has one for each class of the data; 0 classes is a regression.

    Raises ValueError otherwise, because a label beyond the outputs would be read as another one.
    """
    one = measure.name == "binary_cross_entropy" or (outputs[-1:] == (1,) and measure.name == "accuracy")
    if one and classes and classes != 2:
        raise ValueError(f"{measure.name} of one output needs data of 2 classes, got {classes}")
    if not one and outputs and outputs[-1] < classes:
        raise ValueError(f"the model must have an output for each class, got {outputs[-1]} for {classes} classes")


def _name_function(kind: str, function: Function | Measure, direction: Direction | None) -> Measure:
    if isinstance(function, Measure):
        return function
    if not callable(function):
        raise TypeError(f"a {kind} is a name or a function of outputs and labels, got {function!r}")
    inner = function.func if isinstance(function, partial) else function
    name = getattr(inner, "__name__", type(inner).__name__)
    return Measure(name, function, METRICS[name].direction if name in METRICS else direction)


def _check_labels(name: str, outputs: jax.Array, y: jax.Array) -> None:
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise ValueError(f"{name} takes labels that are integers, got {y.dtype} of shape {y.shape}; {_advise(True)}")
    if outputs.shape[:-1] != y.shape or outputs.ndim == 0:
        raise ValueError(f"{name} takes outputs of shape {y.shape} and an axis of classes, got {outputs.shape}")


def _binary_logits(name: str, outputs: jax.Array, y: jax.Array) -> jax.Array:
    logits = outputs if outputs.shape == y.shape else outputs[..., 0]
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise ValueError(f"{name} takes labels that are integers, got {y.dtype} of shape {y.shape}; {_advise(True)}")
    if logits.shape != y.shape or (outputs.ndim > y.ndim and outputs.shape[-1] != 1):
        raise ValueError(f"{name} takes one output for each label of shape {y.shape}, got outputs {outputs.shape}")
    return logits.astype(jnp.float32)


def _residuals(name: str, outputs: jax.Array, y: jax.Array) -> jax.Array:
    if not jnp.issubdtype(y.dtype, jnp.floating):
        raise ValueError(f"{name} takes targets that are floats, got {y.dtype} of shape {y.shape}; {_advise(False)}")
    if outputs.shape != y.shape:
        raise ValueError(f"{name} takes outputs of the targets' shape {y.shape}, got {outputs.shape}")
    return outputs.astype(jnp.float32) - y.astype(jnp.float32)


def _advise(regression: bool) -> str:
    names = "squared_error, absolute_error, huber" if regression else "cross_entropy, binary_cross_entropy"
    return f"such data have the losses {names}"


def _average(values: jax.Array) -> jax.Array:
    """The mean over all axes but the first."""
    return jnp.mean(values.reshape(values.shape[0], math.prod(values.shape[1:])), axis=1)


def _pick(values: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.take_along_axis(values, y[..., None], axis=-1)[..., 0]


def _is_zero(value: float) -> bool:
    return isinstance(value, int | float) and value == 0

"""The mean loss and metrics over a whole part of the data, in bounded memory."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tasks.training.data import Part
from tasks.training.losses import Measure

Predict = Callable[[jax.Array], jax.Array]


def evaluate(predict: Predict, measures: Sequence[Measure], part: Part, size: int) -> dict[str, jax.Array]:
    """Returns each measure's mean over all examples of a part, float32 scalars by name.

    At most `size` examples are predicted at once. Values for each example are added up slice by slice; a measure
    that has one scalar for all of them gets the outputs of the whole part.
    """
    size = min(size, part.x.shape[0])
    shapes = [jax.eval_shape(lambda x, y, m=m: m.function(predict(x), y), *part) for m in measures]
    single = [measure for measure, shape in zip(measures, shapes, strict=True) if shape.ndim == 0]
    counts = {m.name: shape.size for m, shape in zip(measures, shapes, strict=True) if shape.ndim > 0}
    summed = [measure for measure in measures if measure not in single]

    def measure_slice(part: Part) -> tuple[dict[str, jax.Array], Any]:
        x, y = map(jnp.asarray, part)
        outputs = predict(x)
        sums = {m.name: jnp.sum(m.function(outputs, y), dtype=jnp.float32) for m in summed}
        return sums, outputs if single else ()

    sums, outputs = _map_slices(measure_slice, part, size)
    whole = {m.name: jnp.asarray(m.function(outputs, jnp.asarray(part.y)), jnp.float32) for m in single}
    means = {name: sums[name] / count for name, count in counts.items()}
    return {measure.name: (means | whole)[measure.name] for measure in measures}


def _map_slices(measure: Callable[[Part], Any], part: Part, size: int) -> tuple[dict[str, jax.Array], Any]:
    """The sums over all slices, and their outputs one after another; the last slice may be shorter."""
    count, rest = divmod(part.x.shape[0], size)
    if count == 1 and not rest:
        return measure(part)

    def add(sums: Any, start: jax.Array) -> tuple[Any, Any]:
        some = jax.tree.map(lambda array: lax.dynamic_slice_in_dim(array, start, size), part)
        values, outputs = measure(some)
        return jax.tree.map(jnp.add, sums, values), outputs

    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(lambda: measure(_cut(part, 0, size))[0]))
    sums, outputs = lax.scan(add, zeros, jnp.arange(count) * size)
    outputs = jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), outputs)
    if not rest:
        return sums, outputs
    last, ends = measure(_cut(part, count * size, rest))
    return jax.tree.map(jnp.add, sums, last), jax.tree.map(lambda *pair: jnp.concatenate(pair), outputs, ends)


def _cut(part: Part, start: int, size: int) -> Part:
    return jax.tree.map(lambda array: array[start : start + size], part)

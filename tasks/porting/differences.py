"""The difference of two trees of arrays: absolute, relative, in bits, and as a verdict."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

VERDICTS = ("identical", "close", "different")
CLOSE_BY = {1: 0.25, 2: 2e-2, 4: 1e-5, 8: 1e-13}
"""The largest relative difference that counts as close, by the bytes of a float."""


def find_tolerance(tree: Any) -> float:
    """The tolerance of the shortest float dtype in a tree, which limits how close results can be."""
    sizes = [leaf.dtype.itemsize for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return max((CLOSE_BY[size] for size in sizes), default=0.0)


class Difference(NamedTuple):
    """The difference of two trees: float32 scalars, and the number of differing bits as int32."""

    absolute: jax.Array
    relative: jax.Array
    """The maximum over all arrays of the largest absolute difference divided by the largest absolute value."""
    bits: jax.Array
    verdict: jax.Array
    """The index in `VERDICTS`, int32."""


def measure_difference(a: Any, b: Any, within: float | None = None) -> Difference:
    """Compares two trees with the same leaves in the same order; NaN differs from numbers, not from the same NaN.

    `within` is the relative difference that is called close, by default that of each array's own type. Arrays of
    other shapes, and others in number, raise ValueError; another dtype makes all bits differ.
    """
    made = [_of(x, y, within) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]
    nothing = Difference(jnp.float32(0), jnp.float32(0), jnp.int32(0), jnp.int32(0))
    return find_worst(nothing, *made)


def find_worst(*found: Difference) -> Difference:
    """The maximum of each entry, and the sum of the bits."""
    columns = [jnp.stack(column) for column in zip(*found, strict=True)]
    return Difference(columns[0].max(), columns[1].max(), columns[2].sum(), columns[3].max())


def _of(x: jax.Array, y: jax.Array, within: float | None) -> Difference:
    if x.shape != y.shape:
        raise ValueError(f"arrays of shapes {x.shape} and {y.shape} cannot be compared")
    x, y = (_expose_key(value) for value in (x, y))
    bits = _bits(x, y)
    wide = [value.astype(jnp.float32) for value in (x, y)]
    apart = jnp.where(wide[0] == wide[1], 0.0, jnp.abs(wide[0] - wide[1]))  # infinite ones are equal, too
    gap = jnp.where(bits == 0, 0.0, jnp.nan_to_num(apart, nan=jnp.inf, posinf=jnp.inf).max(initial=0.0))
    relative = gap / jnp.maximum(jnp.abs(wide[0]).max(initial=0.0), 1e-30)
    close = relative <= (find_tolerance(x) if within is None else within)
    verdict = jnp.where(bits == 0, 0, jnp.where(close, 1, 2)).astype(jnp.int32)
    return Difference(gap.astype(jnp.float32), relative.astype(jnp.float32), bits, verdict)


def _expose_key(x: jax.Array) -> jax.Array:
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def _bits(x: jax.Array, y: jax.Array) -> jax.Array:
    """How many bits differ, int32 `()`; all of them if the dtypes differ."""
    if x.dtype != y.dtype:
        return jnp.int32(8 * x.dtype.itemsize * x.size)
    if x.dtype == bool:
        return (x != y).astype(jnp.int32).sum()
    kind = jnp.dtype(f"uint{8 * x.dtype.itemsize}")
    one, other = (value if value.dtype == kind else jax.lax.bitcast_convert_type(value, kind) for value in (x, y))
    return jax.lax.population_count(one ^ other).astype(jnp.int32).sum()

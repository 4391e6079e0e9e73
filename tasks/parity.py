"""Whether a layer of NNX computes what the one of Linen does, to the bit."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tasks import porting
from tasks.arguments import integer
from tasks.porting.zoo import ZOO, drawn, variables

IDENTICAL, CLOSE, DIFFERENT = 0, 1, 2
CLOSE_BY = {"float32": 1e-5, "bfloat16": 2e-2}
"""The largest relative difference that is called close: some units in the last place, summed."""


def layer_parity(seed: int, layer: str, dtype: str = "float32", exact: bool = True) -> dict[str, jax.Array]:
    """What differs between a Linen layer of the zoo and the NNX layer that took its variables.

    Random variables and inputs from `key(seed)`; both sides run in the same program, kept apart by barriers. Of the
    outputs, the gradients of the parameters and those of the inputs (of half the sum of the outputs' squares) it
    gives the largest absolute and relative difference, float32, and the number of differing bits, int32; `verdict`
    is 0 for identical, 1 for close and 2 for different. With `exact=False` it is NNX's own layer, with its
    defaults. `seed` may be a tracer. Raises ValueError for what is not in the zoo, and LookupError where NNX has no
    layer of its own.
    """
    if layer not in ZOO:
        raise ValueError(f"layer must be one of {', '.join(ZOO)}, got {layer!r}")
    if dtype not in CLOSE_BY:
        raise ValueError(f"dtype must be one of {', '.join(CLOSE_BY)}, got {dtype!r}")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as Linen's own norms need it
        sides = _sides(integer("seed", seed), layer, dtype, exact)
    made = {f"{name}_{what}": value for name, a, b in sides for what, value in _differences(a, b).items()}
    bits = sum(made[f"{name}_bits"] for name in ("outputs", "params", "inputs"))
    relative = jnp.stack([made[f"{name}_relative"] for name in ("outputs", "params", "inputs")]).max()
    verdict = jnp.where(bits == 0, IDENTICAL, jnp.where(relative <= CLOSE_BY[dtype], CLOSE, DIFFERENT))
    return {"verdict": verdict.astype(jnp.int32), **made}


def _sides(seed: jax.Array, name: str, dtype: str, exact: bool) -> list[tuple[str, Any, Any]]:
    """The outputs and gradients of both sides, each with its name; the parameters' as Linen has them."""
    make, shapes = ZOO[name]
    linen = make(None if dtype == "float32" else jnp.dtype(dtype))
    key = jax.random.key(seed)
    inputs = drawn(jax.random.fold_in(key, 0), shapes)
    given = variables(jax.random.fold_in(key, 1), linen, inputs)
    graph, params, rest = nnx.split(porting.port_layer(linen, given, *inputs, exact=exact).module, nnx.Param, ...)

    def old(params: Any, inputs: Any) -> Any:
        return linen.apply({**given, "params": params}, *inputs)

    def new(params: Any, inputs: Any) -> Any:
        return nnx.merge(graph, params, rest)(*inputs)

    expected = _there_and_back(old, *jax.lax.optimization_barrier((given["params"], inputs)))
    out, gradients, own = _there_and_back(new, *jax.lax.optimization_barrier((params, inputs)))
    as_linen = porting.dump(nnx.merge(graph, gradients, rest), like=given)["params"]
    return list(zip(("outputs", "params", "inputs"), expected, (out, as_linen, own), strict=True))


def _there_and_back(call: Any, params: Any, inputs: Any) -> tuple[Any, Any, Any]:
    out, pull = jax.vjp(call, params, inputs)
    return out, *pull(out)


def _differences(a: Any, b: Any) -> dict[str, jax.Array]:
    """The largest absolute and relative difference of two trees, the latter to the largest value of each array."""
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    wide = [(x.astype(jnp.float32), y.astype(jnp.float32)) for x, y in pairs]
    absolute = [jnp.abs(x - y).max(initial=0.0) for x, y in wide]
    relative = [
        gap / jnp.maximum(jnp.abs(x).max(initial=0.0), 1e-30) for gap, (x, _) in zip(absolute, wide, strict=True)
    ]
    bits = [_bits(x, y) for x, y in pairs]
    largest = partial(jnp.max, initial=0.0)
    return {
        "absolute": largest(jnp.stack(absolute)),
        "relative": largest(jnp.stack(relative)),
        "bits": jnp.stack(bits).sum(),
    }


def _bits(x: jax.Array, y: jax.Array) -> jax.Array:
    """How many bits differ; all of them where the types do."""
    if x.dtype != y.dtype:
        return jnp.int32(8 * x.dtype.itemsize * x.size)
    kind = jnp.uint32 if x.dtype.itemsize == 4 else jnp.uint16
    one, other = (jax.lax.bitcast_convert_type(value, kind) for value in (x, y))
    return jax.lax.population_count(one ^ other).astype(jnp.int32).sum()

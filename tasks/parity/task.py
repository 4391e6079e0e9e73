"""Whether an NNX module computes what a Linen one does, to the bit: outputs, gradients, state, and training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import nnx as flax_nnx
from flax.core import tracers
from jax import lax

from tasks import porting
from tasks.arguments import count, integer
from tasks.categories import Category
from tasks.parity.cases import CASES, Case, Tokens, draw_inputs, draw_variables
from tasks.porting import (
    COMPUTING_METHODS,
    LEAF_LAYERS,
    VERDICTS,
    Difference,
    call_layer,
    find_tolerance,
    find_worst,
    flatten_variables,
    measure_difference,
    name_modules,
)

DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}
MODES = ("jit", "eager")
OPTIMIZER = optax.adamw(1e-2)


def parity(
    seed: int,
    layer: str = "Dense",
    dtype: str = "float32",
    mode: str = "jit",
    exact: bool = True,
    steps: int = 2,
    linen: Any = None,
    nnx: Any = None,
    inputs: tuple[Any, ...] | None = None,
    tokens: int = 0,
    call: Any = None,
) -> dict[str, Any]:
    """What differs between a Linen module and the NNX one that took its variables.

    `layer` is the name of a case, in `dtype`; or else `linen` is a module, called with arrays of the shapes `inputs`,
    integers below `tokens` if that is not 0, and the keywords `call`. `nnx` makes its counterpart when it is called
    with `rngs`; without it the module is ported, `exact` or with NNX's own layers and their defaults. Random
    variables, none of them zero or one, and inputs come from `key(seed)`, which may be traced. `mode` is `jit`, each
    side compiled as one, or `eager`, each operation for itself, unless the call itself is within a jit.

    Of the outputs, the gradients of the parameters and of the inputs (of half the sum of the outputs' squares), the
    mutable state after the call, and parameters, state and losses after so many `steps` of adamw it gives the largest
    absolute and relative difference, float32, and the number of differing bits, int32. `verdict` is the worst of
    them, `first` the first leaf layer that gives other outputs than Linen's for Linen's own inputs, the losses have
    the shape `(steps,)`. Raises ValueError for what there is not, and LookupError where NNX has no layer of its own.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    case = _case(layer, linen, inputs, tokens, call)
    steps, key = count("steps", steps), jax.random.key(integer("seed", seed))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as Linen's own norms need it
        pair = _pair(case, case.make(DTYPES[dtype]), nnx, key, exact)
        return _compared(pair, steps, mode == "jit")


def _case(layer: str, linen: Any, inputs: Any, tokens: int, call: Any) -> Case:
    if linen is not None:
        if not inputs:
            raise ValueError("a Linen module of one's own needs inputs, the shapes that it is called with")
        shapes = tuple(Tokens(shape, tokens) if tokens else shape for shape in inputs)
        return Case(lambda _: linen, shapes, dict(call or {}))
    if layer not in CASES:
        raise ValueError(f"layer must be one of {', '.join(CASES)}, got {layer!r}")
    return CASES[layer]


@dataclass(frozen=True)
class _Pair:
    """A Linen module with variables and inputs, and the NNX module that took the variables over."""

    case: Case
    linen: nn.Module
    variables: Mapping[str, Any]
    module: flax_nnx.Module
    inputs: tuple[Any, ...]
    key: jax.Array

    @property
    def mutable(self) -> list[str]:
        return sorted({*self.variables} - {"params"})

    def old(self, variables: Any, inputs: Any, key: jax.Array) -> tuple[Any, Any]:
        """Linen's outputs and its state after the call."""
        given = {**self.case.given, **({self.case.keys[0]: key} if self.case.keys else {})}
        rngs = None if self.case.keys else {"dropout": key}
        return self.linen.apply(variables, *inputs, rngs=rngs, mutable=self.mutable, **given)

    def new(self, module: Any, inputs: Any, key: jax.Array) -> Any:
        """NNX's outputs; its state changes in place."""
        given = {**self.case.given, **({self.case.keys[1]: key} if self.case.keys else {})}
        if isinstance(module, porting.Model):
            given["rngs"] = {"dropout": key}
        return module(*inputs, **given)


def _pair(case: Case, linen: nn.Module, nnx: Any, key: jax.Array, exact: bool) -> _Pair:
    drawn = draw_inputs(jax.random.fold_in(key, 0), case.inputs)
    begin = drawn if case.begin is None else draw_inputs(key, case.begin)
    given = dict(draw_variables(jax.random.fold_in(key, 1), linen, begin, case.given))
    if nnx is not None:
        module = porting.make_abstract(lambda: nnx(rngs=flax_nnx.Rngs(0)))
        porting.load(module, given)
    elif type(linen) in porting.PORTS:
        module = porting.port_layer(linen, given, *drawn, exact=exact).module
    else:
        module = porting.port_model(linen, given, *drawn, exact=exact, **case.given).module
    return _Pair(case, linen, given, module, drawn, jax.random.fold_in(key, 2))


def _compared(pair: _Pair, steps: int, jit: bool) -> dict[str, Any]:
    graph, state = flax_nnx.split(pair.module)
    given, own = lax.optimization_barrier(((pair.variables, pair.inputs), (state, pair.inputs)))  # nothing is shared
    run, loop = (jax.jit, lax.scan) if jit else (lambda function: function, _one_by_one)
    linen = run(lambda variables, inputs: _linen_side(pair, variables, inputs, steps, loop))(*given)
    native = run(lambda state, inputs: _nnx_side(pair, graph, state, inputs, steps, loop))(*own)
    within = find_tolerance(linen["outputs"])
    found = {name: measure_difference(linen[name], native[name], within) for name in linen}
    made = {f"{name}_{what}": getattr(each, what) for name, each in found.items() for what in Difference._fields[:3]}
    verdict = Category(find_worst(*found.values()).verdict, VERDICTS)
    losses = {"linen_losses": linen["steps"][-1], "nnx_losses": native["steps"][-1]}
    return {"verdict": verdict, "first": _first(pair), **made, **losses}


def _one_by_one(step: Callable[[Any, Any], tuple[Any, jax.Array]], carry: Any, keys: jax.Array) -> Any:
    """`lax.scan` without a program around it."""
    losses = []
    for key in keys:
        carry, loss = step(carry, key)
        losses.append(loss)
    return carry, jnp.stack(losses)


def _floats(inputs: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The arrays that have gradients, and the inputs again from such arrays."""
    leaves, tree = jax.tree.flatten(inputs)
    places = [place for place, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def again(floats: list[Any]) -> Any:
        new = dict(zip(places, floats, strict=True))
        return jax.tree.unflatten(tree, [new.get(place, leaf) for place, leaf in enumerate(leaves)])

    return [leaves[place] for place in places], again


def _loss(out: Any) -> jax.Array:
    squares = [jnp.square(leaf.astype(jnp.float32)).sum() for leaf in jax.tree.leaves(out)]
    return jnp.stack(squares).sum() / 2


def _linen_side(pair: _Pair, variables: Any, inputs: Any, steps: int, loop: Any) -> dict[str, Any]:
    floats, again = _floats(inputs)
    rest = {name: tree for name, tree in variables.items() if name != "params"}

    def there(params: Any, floats: Any) -> tuple[Any, Any]:
        return pair.old({**rest, "params": params}, again(floats), pair.key)

    params = variables.get("params", {})
    out, pull, changed = jax.vjp(there, params, floats, has_aux=True)
    gradients, own = pull(out)

    def step(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        params, rest, opt_state = carry

        def loss(params: Any) -> tuple[jax.Array, Any]:
            out, changed = pair.old({**rest, "params": params}, inputs, key)
            return _loss(out), changed

        (value, changed), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = OPTIMIZER.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), {**rest, **changed}, opt_state), value

    (trained, after, _), losses = loop(step, (params, rest, OPTIMIZER.init(params)), _keys(pair, steps))
    state = {**rest, **changed}
    return {"outputs": out, "params": gradients, "inputs": own, "state": state, "steps": (trained, after, losses)}


def _nnx_side(pair: _Pair, graph: Any, state: Any, inputs: Any, steps: int, loop: Any) -> dict[str, Any]:
    floats, again = _floats(inputs)
    params, rest = flax_nnx.split_state(state, flax_nnx.Param, ...)

    def as_linen(module: Any) -> tuple[Any, Any]:
        made = porting.dump(module, like=pair.variables)
        return made.pop("params", {}), made

    def there(params: Any, floats: Any) -> tuple[Any, Any]:
        module = flax_nnx.merge(graph, params, rest, copy=True)
        return pair.new(module, again(floats), pair.key), as_linen(module)[1]

    out, pull, changed = jax.vjp(there, params, floats, has_aux=True)
    gradients, own = pull(out)
    gradients, _ = as_linen(flax_nnx.merge(graph, gradients, rest, copy=True))

    def begin() -> Any:
        module = flax_nnx.merge(graph, params, rest, copy=True)
        return flax_nnx.split((module, flax_nnx.Optimizer(module, OPTIMIZER, wrt=flax_nnx.Param)))

    both, carry = begin()

    def step(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        module, optimizer = flax_nnx.merge(both, carry)
        value, gradients = flax_nnx.value_and_grad(lambda module: _loss(pair.new(module, inputs, key)))(module)
        optimizer.update(module, gradients)
        return flax_nnx.split((module, optimizer))[1], value

    carry, losses = loop(step, carry, _keys(pair, steps))
    trained, after = as_linen(flax_nnx.merge(both, carry)[0])
    return {"outputs": out, "params": gradients, "inputs": own, "state": changed, "steps": (trained, after, losses)}


def _keys(pair: _Pair, steps: int) -> jax.Array:
    return jax.random.split(jax.random.fold_in(pair.key, 1), steps)


def _first(pair: _Pair) -> Category:
    """The first leaf layer that gives other outputs than Linen's for Linen's own inputs, without dropout.

    Layers within Linen's transforms are not looked into.
    """
    layers, whole = name_modules(flax_nnx.clone(pair.module)), flatten_variables(pair.variables)
    found, here = dict[str, Difference](), tracers.current_trace()

    def watch(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        linen, method = context.module, context.method_name
        known = type(linen) in (LEAF_LAYERS if linen.path else porting.PORTS) and linen.path in layers
        if not known or isinstance(linen, nn.Dropout) or method not in COMPUTING_METHODS:
            return call(*args, **kwargs)
        own = {(path[0], *linen.path, *path[1:]): leaf for path, leaf in flatten_variables(linen.variables).items()}
        if tracers.current_trace() != here or any(leaf is not whole.get(path) for path, leaf in own.items()):
            return call(*args, **kwargs)
        if getattr(linen, "dropout_rate", 0.0):
            kwargs = {"dropout_rng": pair.key, **kwargs}  # which would be another one at the second call
        expected = call(*args, **kwargs)
        name = "/".join(linen.path) or type(linen).__name__
        if name not in found:
            found[name] = measure_difference(expected, call_layer(layers[linen.path], context, call, args, kwargs))
        return expected

    with nn.intercept_methods(watch):
        pair.old(pair.variables, pair.inputs, pair.key)
    differ = [jnp.int32(0), *(jnp.where(each.bits > 0, place, 0) for place, each in enumerate(found.values(), 1))]
    codes = jnp.stack(differ).astype(jnp.int32)
    return Category(codes[jnp.argmax(codes > 0)], ("", *found))

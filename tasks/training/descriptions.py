"""Descriptions of models, as a YAML gives them, and the models that they describe."""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from tasks import porting
from tasks.training.blocks import name_block
from tasks.training.bridged import bridge_into_linen, bridge_into_nnx, name_layer
from tasks.training.models import Model, Tree, call_ported, set_flags, wrap_linen, wrap_nnx

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "flatten": lambda x: jnp.reshape(x, (x.shape[0], -1)),
    "mean": lambda x: jnp.mean(x, axis=tuple(range(1, x.ndim - 1))),  # over places or times, not over features
    **{name: getattr(jax.nn, name) for name in ("relu", "gelu", "silu", "elu", "softplus", "sigmoid", "tanh")},
}
"""What a chain may have by name between its layers."""
OUTPUTS = ("outputs", "features", "out_features")
INPUTS = ("inputs", "in_features", "num_features")
WAYS = {"dicts": None, "linen": bridge_into_linen, "nnx": bridge_into_nnx}


@dataclass(frozen=True)
class Ported:
    """A Linen module that is ported by `tasks.porting.port_model` and trained as an NNX module."""

    linen: Any


@dataclass(frozen=True)
class Chain:
    """Layers one after another: Linen modules, NNX modules, functions of arrays, and names of `FUNCTIONS`.

    `way` decides what holds them, with the same parameters for the same seed: `dicts`, a dict for each layer;
    `linen`, one Linen module around all, by flax's bridge; `nnx`, one NNX module around all, by flax's bridge.
    """

    layers: Sequence[Any]
    way: str = "dicts"


def build_model(description: Any, x: Any, outputs: int) -> Model:
    """Makes the model that a description stands for: a Linen module, a partial of either's class, or one of ours.

    `x` is a batch of inputs or its shape. A partial gets what its signature requires and it does not have: `rngs`,
    the size of the inputs' last axis (`inputs`, `in_features`, `num_features`) and the number of outputs
    (`outputs`, `features`, `out_features`). Raises TypeError for what is no model.
    """
    if isinstance(description, Model):
        return description
    if isinstance(description, Chain):
        return _build_chain(description, x, outputs)
    if isinstance(description, Ported):
        return _port(_complete(description.linen, x, outputs), x)
    layer = _complete(description, x, outputs)
    if isinstance(layer, nn.Module):
        return wrap_linen(layer)
    if _builds_nnx(layer):
        return wrap_nnx(lambda key, x: layer(rngs=nnx.Rngs(key)), x)
    raise TypeError(f"model must be a Linen module, a partial of an NNX module or a chain, got {description!r}")


def _complete(description: Any, x: Any, outputs: int) -> Any:
    """A Linen module, what builds an NNX module from `rngs`, or a function of arrays."""
    if isinstance(description, str):
        if description not in FUNCTIONS:
            raise ValueError(f"a chain has no layer {description!r}; by name it has: {', '.join(FUNCTIONS)}")
        return FUNCTIONS[description]
    if isinstance(description, nnx.Module):
        name = type(description).__name__
        raise TypeError(f"the weights of {name} are drawn already; add _partial_: true to draw them from a run's seed")
    if not (_is_class(description, nn.Module) or _builds_nnx(description)):
        return description
    known = dict.fromkeys(OUTPUTS, outputs) | dict.fromkeys(INPUTS, x.shape[-1])
    needed = [n for n, each in _list_parameters(description).items() if each.default is inspect.Parameter.empty]
    made = functools.partial(description, **{name: known[name] for name in needed if name in known})
    return made() if _is_class(description, nn.Module) else made


def _list_parameters(call: Callable[..., Any]) -> Any:
    """The parameters of a call; of an NNX class those of its constructor, which its metaclass hides."""
    whole = functools.partial(call)
    try:
        if _is_class(call, nnx.Module):
            made: Any = whole.func
            whole = functools.partial(made.__init__, None, *whole.args, **whole.keywords)
        return inspect.signature(whole).parameters
    except ValueError:  # of a function in C
        return {}


def _is_class(description: Any, kind: type) -> bool:
    """Whether it is a class, or a partial of one."""
    made = description.func if isinstance(description, functools.partial) else description
    return isinstance(made, type) and issubclass(made, kind)


def _builds_nnx(description: Any) -> bool:
    return callable(description) and not isinstance(description, nn.Module) and "rngs" in _list_parameters(description)


def _port(linen: nn.Module, x: Any) -> Model:
    def make(key: jax.Array, x: Any) -> nnx.Module:
        flags = set_flags(type(linen).__call__, train=False)
        return porting.port_model(linen, linen.init(key, x, **flags), x, **flags).module

    if not isinstance(linen, nn.Module):
        raise TypeError(f"Ported takes a Linen module, got {linen!r}")
    return wrap_nnx(make, x, call_ported)


def _build_chain(chain: Chain, x: Any, outputs: int) -> Model:
    if chain.way not in WAYS:
        raise ValueError(f"way must be one of {', '.join(WAYS)}, got {chain.way!r}")
    layers, models, inputs = [], [], []
    for number, description in enumerate(chain.layers):
        layer = _complete(description, x, outputs)
        model = build_model(layer, x, outputs) if _has_variables(layer) else _wrap_function(layer)
        layers.append(layer)
        models.append(model)
        inputs.append(x)
        with name_block(name_layer(number)):
            x = jax.eval_shape(functools.partial(_run_once, model), x)
    bridge = WAYS[chain.way]
    if bridge is None:
        return _join(models)
    if nested := [layer for layer in layers if isinstance(layer, Model | Chain | Ported)]:
        raise TypeError(f"way={chain.way!r} takes Linen and NNX modules and functions, got {type(nested[0]).__name__}")
    return bridge(layers, [_builds_nnx(layer) for layer in layers], inputs)


def _has_variables(layer: Any) -> bool:
    return isinstance(layer, nn.Module | Model | Chain | Ported) or _builds_nnx(layer)


def _wrap_function(function: Callable[[Any], Any]) -> Model:
    if not callable(function):
        raise TypeError(f"a layer of a chain must be a module, a function or a name, got {function!r}")
    return Model(lambda key, x: ({}, {}), lambda params, state, x, *, train, key: (function(x), state))


def _run_once(model: Model, x: Any) -> Any:
    params, state = model.init(jax.random.key(0), x)
    return model.apply(params, state, x, train=True, key=jax.random.key(0))[0]


def _join(models: Sequence[Model]) -> Model:
    """Models one after another, each with a dict of its own and keys of its own."""
    names = [name_layer(number) for number in range(len(models))]

    def init(key: jax.Array, x: Any) -> tuple[Tree, Tree]:
        params: Tree = {}
        states: Tree = {}
        for number, (name, model) in enumerate(zip(names, models, strict=True)):
            own, state = model.init(jax.random.fold_in(key, number), x)
            params |= {name: own} if own else {}
            states |= {name: state} if state else {}
            x, _ = model.apply(own, state, x, train=False, key=None)
        return params, states

    def apply(params: Tree, state: Tree, x: Any, *, train: bool, key: jax.Array | None) -> tuple[Any, Tree]:
        changed: Tree = {}
        for number, (name, model) in enumerate(zip(names, models, strict=True)):
            own = None if key is None else jax.random.fold_in(key, number)
            x, new = model.apply(params.get(name, {}), state.get(name, {}), x, train=train, key=own)
            changed |= {name: new} if new else {}
        return x, changed

    return Model(init, apply)

"""Chains of Linen and NNX layers as one module, by flax's bridges."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from tasks.porting import linen_variables, to_linen, to_nnx
from tasks.training.checkpoints import LINEN
from tasks.training.models import Model, Tree, set_flags, wrap_linen, wrap_nnx

Layers = Sequence[Any]
"""Linen modules, what builds an NNX module from `rngs`, and functions of arrays."""


def name_layer(number: int) -> str:
    """Returns the name of a layer of a chain."""
    return f"layers_{number}"


class LinenStack(nn.Module):
    """One Linen module around the layers of a chain."""

    layers: tuple[Any, ...]

    def __call__(self, x: Any, train: bool = False) -> Any:
        """Returns what the last layer returns."""
        for layer in self.layers:
            flags = set_flags(type(layer).__call__, train) if isinstance(layer, nn.Module) else {}
            x = layer(x, **flags)
        return x


class NnxStack(nnx.Module):
    """One NNX module around the layers of a chain."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self.count = len(layers)
        for number, layer in enumerate(layers):
            setattr(self, name_layer(number), layer)

    def __call__(self, x: Any, train: bool = False) -> Any:
        for number in range(self.count):
            layer = getattr(self, name_layer(number))
            x = _call(layer, x, train)
        return x


def _call(layer: Any, x: Any, train: bool) -> Any:
    if isinstance(layer, nnx.bridge.ToNNX):
        flags = set_flags(type(layer.to_nnx__module).__call__, train)
        return layer(x, **flags) if train else layer(x, mutable=(), **flags)
    return layer(x, **set_flags(type(layer).__call__, train)) if isinstance(layer, nnx.Module) else layer(x)


def bridge_into_linen(layers: Layers, builds: Sequence[bool], inputs: Sequence[Any]) -> Model:
    """Returns the chain as a Linen module, with the variables that each layer has by itself.

    `builds` tells which layers build an NNX module, `inputs` are the shapes that each is called with. Keys of
    random streams are Linen's, so that dropout within an NNX layer draws other masks than by itself.
    """

    def stack(train: bool) -> LinenStack:
        made = (to_linen(_in_mode(layer, train)) if nnx else layer for layer, nnx in zip(layers, builds, strict=True))
        return LinenStack(tuple(made))

    def init(key: jax.Array, x: Any) -> tuple[Tree, Tree]:
        del x
        collections: Tree = {"params": {}}
        for number, (layer, nnx_layer, shape) in enumerate(zip(layers, builds, inputs, strict=True)):
            own = _draw_variables(layer, nnx_layer, jax.random.fold_in(key, number), shape)
            for collection, tree in own.items():
                collections.setdefault(collection, {})[name_layer(number)] = tree
        return collections.pop("params"), collections

    modes = {train: wrap_linen(stack(train)) for train in (True, False)}
    return Model(init, lambda *trees, train, key: modes[train].apply(*trees, train=train, key=key), LINEN)


def _in_mode(build: Callable[..., nnx.Module], train: bool) -> Callable[..., nnx.Module]:
    def build_in_mode(rngs: nnx.Rngs) -> nnx.Module:
        module = build(rngs=rngs)
        (module.train if train else module.eval)()
        return module

    return build_in_mode


def _draw_variables(layer: Any, builds: bool, key: jax.Array, shape: Any) -> Tree:
    if builds:
        return nn.meta.unbox(linen_variables(layer(rngs=nnx.Rngs(key))))
    if isinstance(layer, nn.Module):
        flags = set_flags(type(layer).__call__, train=False)
        return nn.meta.unbox(layer.init(key, jnp.zeros(shape.shape, shape.dtype), **flags))
    return {}


def bridge_into_nnx(layers: Layers, builds: Sequence[bool], inputs: Sequence[Any]) -> Model:
    """Returns the chain as an NNX module, with the variables that each layer has by itself.

    The arguments are those of `bridge_into_linen`. The keys of Linen's layers come from streams of the NNX module.
    """

    def make(key: jax.Array, x: Any) -> nnx.Module:
        del x
        made = []
        for number, (layer, nnx_layer, shape) in enumerate(zip(layers, builds, inputs, strict=True)):
            own = jax.random.fold_in(key, number)
            made.append(_draw_nnx(layer, nnx_layer, own, shape))
        return NnxStack(made)

    return wrap_nnx(make, inputs[0])


def _draw_nnx(layer: Any, builds: bool, key: jax.Array, shape: Any) -> Any:
    if builds:
        return layer(rngs=nnx.Rngs(key))
    if not isinstance(layer, nn.Module):
        return layer
    x, flags = jnp.zeros(shape.shape, shape.dtype), set_flags(type(layer).__call__, train=False)
    rngs = nnx.Rngs(params=jax.random.fold_in(key, 0), dropout=jax.random.fold_in(key, 1))
    return to_nnx(layer, nn.meta.unbox(layer.init(key, x, **flags)), x, rngs=rngs, **flags)

"""Models as pairs of pure functions: Linen modules, NNX modules, and chains of both."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

Tree = Any
FLAGS = {
    "train": True, "training": True, "is_training": True,
    "deterministic": False, "use_running_average": False, "inference": False,
}  # fmt: skip
"""Arguments by which models are told whether they are trained, with their value then."""


class Apply(Protocol):
    """`(params, state, x, *, train, key) -> (outputs, state)`; `key` is None outside of training."""

    def __call__(
        self, params: Tree, state: Tree, x: jax.Array, *, train: bool, key: jax.Array | None
    ) -> tuple[Any, Tree]: ...


class Model(NamedTuple):
    """A model as pure functions over nested dicts of arrays.

    `init(key, x)` returns the parameters, which are trained, and the state, which the model itself changes:
    statistics, counters, keys and any other variables.
    """

    init: Callable[[jax.Array, jax.Array], tuple[Tree, Tree]]
    apply: Apply


def build_model(description: Any, outputs: int) -> Model:
    """Makes a model of a Linen module, or of a partial of its class whose number of outputs is still open.

    What a partial's signature requires and was not given comes from here: `outputs`, also called `features` and
    `out_features`. Raises TypeError for anything else.
    """
    if isinstance(description, functools.partial):
        description = description(**_complete(description, outputs))
    if isinstance(description, nn.Module):
        return _wrap_linen(description)
    raise TypeError(f"model must be a Linen module, got {description!r}")


def _complete(partial: Callable[..., Any], outputs: int) -> dict[str, Any]:
    known = dict.fromkeys(("outputs", "features", "out_features"), outputs)
    needed = [name for name, each in _list_names(partial).items() if each.default is inspect.Parameter.empty]
    return {name: known[name] for name in needed if name in known}


def _list_names(call: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(call).parameters


def _set_flags(call: Callable[..., Any], train: bool) -> dict[str, bool]:
    """The arguments that tell a call whether it trains, those of `FLAGS` that it has."""
    return {name: value == train for name, value in FLAGS.items() if name in _list_names(call)}


def _wrap_linen(module: nn.Module) -> Model:
    call = type(module).__call__

    def init(key: jax.Array, x: jax.Array) -> tuple[Tree, Tree]:
        variables = dict(nn.meta.unbox(module.init(key, x, **_set_flags(call, train=False))))
        return variables.pop("params", {}), variables

    def apply(params: Tree, state: Tree, x: jax.Array, *, train: bool, key: jax.Array | None) -> tuple[Any, Tree]:
        variables, flags = {"params": params, **state}, _set_flags(call, train)
        if not train:
            return module.apply(variables, x, **flags), state
        assert key is not None
        rngs = {"dropout": key, "params": jax.random.fold_in(key, 1)}
        outputs, changed = module.apply(variables, x, **flags, rngs=rngs, mutable=list(state))
        return outputs, {**state, **nn.meta.unbox(changed)}

    return Model(init, apply)


class Mlp(nn.Module):
    """Dense layers with ReLU between them, of inputs that are flattened to (examples, features)."""

    hidden: tuple[int, ...]
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = jnp.reshape(x, (x.shape[0], -1))
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.outputs)(x)

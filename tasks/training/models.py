"""Models as pairs of pure functions over nested dicts of arrays, made of Linen and NNX modules."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from tasks import porting
from tasks.porting import checkpoints
from tasks.training.checkpoints import LINEN, PLAIN, Files, restore_key

Tree = Any
FLAGS = {
    "train": True, "training": True, "is_training": True,
    "deterministic": False, "use_running_average": False, "inference": False,
}  # fmt: skip
"""Arguments by which a call is told whether it trains, with their value if it does."""


class Apply(Protocol):
    """`(params, state, x, *, train, key) -> (outputs, state)`; without `train` the key is None, the state the same."""

    def __call__(
        self, params: Tree, state: Tree, x: Any, *, train: bool, key: jax.Array | None
    ) -> tuple[Any, Tree]: ...


class Model(NamedTuple):
    """A model as pure functions.

    `init(key, x)` returns the parameters, which an optimizer changes, and the state, which the model changes:
    statistics, counters, keys, and any other variables. Both are nested dicts of arrays. `files` is the form of its
    checkpoints.
    """

    init: Callable[[jax.Array, Any], tuple[Tree, Tree]]
    apply: Apply
    files: Files = PLAIN


def set_flags(call: Callable[..., Any], train: bool) -> dict[str, Any]:
    """Returns the arguments that tell a call whether it trains, those of `FLAGS` that it names."""
    names = inspect.signature(call).parameters
    return {name: value == train for name, value in FLAGS.items() if name in names}


def make_keys(key: jax.Array) -> dict[str, jax.Array]:
    """Returns Linen's keys for one call: `dropout`, and `params`, which every other stream falls back to."""
    return {"dropout": key, "params": jax.random.fold_in(key, 1)}


def wrap_linen(module: nn.Module) -> Model:
    """Returns a Linen module as pure functions: collections other than `params` are its state.

    A sown collection is no state, unless `init` makes it.
    """
    call = type(module).__call__

    def init(key: jax.Array, x: Any) -> tuple[Tree, Tree]:
        variables = dict(nn.meta.unbox(module.init(key, x, **set_flags(call, train=False))))
        return variables.pop("params", {}), variables

    def apply(params: Tree, state: Tree, x: Any, *, train: bool, key: jax.Array | None) -> tuple[Any, Tree]:
        variables, flags = {"params": params, **state}, set_flags(call, train)
        if not train or key is None:
            return module.apply(variables, x, **flags), state
        outputs, changed = module.apply(variables, x, **flags, rngs=make_keys(key), mutable=list(state))
        return outputs, {**state, **nn.meta.unbox(changed)}

    return Model(init, apply, LINEN)


MakeNNX = Callable[[jax.Array, Any], nnx.Module]
CallNNX = Callable[[Any, Any, bool, jax.Array | None], Any]


def call_nnx(module: nnx.Module, x: Any, train: bool, key: jax.Array | None) -> Any:
    """Calls an NNX module with the flags that it names; its own streams give it keys."""
    del key
    return module(x, **set_flags(type(module).__call__, train))


def call_ported(module: porting.Model, x: Any, train: bool, key: jax.Array | None) -> Any:
    """Calls a ported Linen module with the flags that its code names, and with Linen's keys."""
    flags = set_flags(type(module._linen.module).__call__, train)
    return module(x, **flags, rngs=make_keys(key) if train and key is not None else None)


def wrap_nnx(make: MakeNNX, x: Any, call: CallNNX = call_nnx) -> Model:
    """Returns what `make(key, x)` builds as pure functions: variables that are no `nnx.Param` are its state.

    The module is told by its methods `train` and `eval` and by the flags that its call names whether it trains.
    Streams of random numbers are state, so that each step draws anew; evaluations leave all state as it is.
    """
    graph, own, other = _trace_graph(make, x)

    def init(key: jax.Array, x: Any) -> tuple[Tree, Tree]:
        _, *parts = nnx.split(_build(make, key, x), nnx.Param, ...)
        first, second = (_to_tree(nnx.to_flat_state(part)) for part in parts)
        return first, second

    def apply(params: Tree, state: Tree, x: Any, *, train: bool, key: jax.Array | None) -> tuple[Any, Tree]:
        module = nnx.merge(graph, _to_state(own, params), _to_state(other, state))
        (module.train if train else module.eval)()
        outputs = call(module, x, train, key)
        if not train:
            return outputs, state
        changed = dict(nnx.to_flat_state(nnx.state(module)))
        return outputs, _to_tree([(path, changed[path]) for path, _ in other])

    return Model(init, apply, _make_nnx_files(graph, own, other))


Flat = Sequence[tuple[tuple[Any, ...], Any]]


def _make_nnx_files(graph: Any, own: Flat, other: Flat) -> Files:
    """Checkpoints of an NNX module, as flax's guide has them."""

    def write(path: Path, params: Tree, state: Tree) -> None:
        module = nnx.merge(graph, _to_state(own, params, restore_key), _to_state(other, state, restore_key))
        checkpoints.save_nnx(path, module)

    def read(path: Path, params: Tree, state: Tree) -> tuple[Tree, Tree]:
        shapes = [_to_state(*each, lambda _, abstract: abstract) for each in ((own, params), (other, state))]
        module = nnx.merge(graph, *shapes)
        checkpoints.load_nnx(path, module)
        _, *parts = nnx.split(module, nnx.Param, ...)
        first, second = (nnx.to_flat_state(part) for part in parts)
        read = [(path, leaf) for path, leaf in second if not isinstance(leaf, nnx.RngState)]
        streams = [(path, _get_leaf(state, path)) for path, leaf in second if isinstance(leaf, nnx.RngState)]
        return _to_tree(first), _to_tree([*read, *streams])

    return Files(write, read)


def _trace_graph(make: MakeNNX, x: Any) -> tuple[Any, Flat, Flat]:
    """The graph of the module that `make` builds, and its parameters and state without values."""
    found: list[Any] = []

    def build(key: jax.Array, x: Any) -> Tree:
        graph, params, state = nnx.split(_build(make, key, x), nnx.Param, ...)
        found.append(graph)
        return nnx.to_flat_state(params), nnx.to_flat_state(state)

    params, state = jax.eval_shape(build, jax.random.key(0), x)
    return found[0], list(params), list(state)


def _build(make: MakeNNX, key: jax.Array, x: Any) -> nnx.Module:
    """The module, with arrays that it holds outside of variables declared as data.

    NNX itself takes arrays for data, but tracers for part of the graph, which must not hold any.
    """
    module = make(key, x)
    for _, node in nnx.iter_graph(module):
        for name, value in list(vars(node).items()) if isinstance(node, nnx.Module) else ():
            if isinstance(value, jax.core.Tracer):
                setattr(node, name, nnx.data(value))
    return module


def _to_tree(flat: Any) -> Tree:
    """Nested dicts with texts for keys, because a dict of integers does not survive most files."""
    tree: Tree = {}
    for path, leaf in flat:
        *above, last = map(str, path)
        inner = tree
        for name in above:
            inner = inner.setdefault(name, {})
        inner[last] = jnp.asarray(leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf)
    return tree


def _to_state(flat: Flat, tree: Tree, restore: Callable[[Any, Any], Any] = lambda value, _: value) -> Any:
    """The NNX state of a tree, whose values `restore(value, abstract)` may change."""
    made = []
    for path, leaf in flat:
        value = restore(_get_leaf(tree, path), leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf)
        made.append((path, leaf.replace(value) if isinstance(leaf, nnx.Variable) else value))
    return nnx.from_flat_state(made)


def _get_leaf(tree: Tree, path: tuple[Any, ...]) -> Any:
    for name in path:
        tree = tree[str(name)]
    return tree


def cast_model(model: Model, dtype: Any) -> Model:
    """Returns a model that computes in another dtype; its parameters, state and outputs keep theirs.

    The floats among parameters and inputs are cast for each call, so that gradients arrive in the parameters' dtype.
    """

    def apply(params: Tree, state: Tree, x: Any, *, train: bool, key: jax.Array | None) -> tuple[Any, Tree]:
        own, inputs = cast_floats(params, dtype), cast_floats(x, dtype)
        outputs, changed = model.apply(own, state, inputs, train=train, key=key)
        kept = jax.tree.map(lambda new, old: new.astype(old.dtype), changed, state)
        return cast_floats(outputs, jnp.float32), kept

    return Model(model.init, apply, model.files)


def cast_floats(tree: Tree, dtype: Any) -> Tree:
    """Returns a tree with its arrays of floats in another dtype."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)

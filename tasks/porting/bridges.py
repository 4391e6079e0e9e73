"""NNX modules inside Linen, and Linen modules inside NNX, by flax's own bridge.

What the bridge lets pass is an error here: variables that are missing, left over, or of another shape or dtype.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from flax.core import FrozenDict, unfreeze
from flax.nnx import bridge
from flax.nnx.bridge.variables import linen_vars_to_nnx_attrs, to_linen_var
from flax.nnx.bridge.wrappers import current_linen_module
from flax.traverse_util import flatten_dict, unflatten_dict

from tasks.porting.variables import Mismatch, MismatchKind, describe_shape, raise_mismatches

Variables = Mapping[str, Any]
"""Linen variables, collections by name: `{"params": …, "batch_stats": …}`, frozen or not."""
KeyPath = tuple[Any, ...]


class ToLinen(bridge.ToLinen):
    """A `bridge.ToLinen` whose `apply` raises VariableMismatchError unless it gets exactly its module's variables.

    Upstream's draws anew what is missing, and warns at most about the rest. Arrays of the module that are in no
    `nnx.Variable` are the constructor's, and not among the variables, of which upstream's has them unless jitted.
    """

    @nn.compact
    def __call__(self, *inputs: Any, **given: Any) -> Any:
        if not self.is_initializing():
            _fit(lambda: linen_variables(_constructed(self)), self.variables)
        upstream = inspect.unwrap(bridge.ToLinen.__call__)  # as it is, Linen would see two calls
        return upstream(self, *inputs, **given)

    def _update_variables(self, module: nnx.Module) -> None:
        super()._update_variables(nnx.state(module, nnx.Variable))


def _constructed(linen: ToLinen) -> nnx.Module:
    """The NNX module with arbitrary keys, so that the counters of Linen's streams do not advance."""
    streams = dict.fromkeys(("default", *linen.scope.rngs), 0)
    rngs = {} if linen.skip_rng else {"rngs": nnx.Rngs(**streams)}
    return linen.nnx_class(*linen.args, **linen.kwargs, **rngs)


def to_linen(
    module_class: Callable[..., nnx.Module], *args: Any, skip_rng: bool = False, name: str | None = None, **kwargs: Any
) -> ToLinen:
    """A Linen module around `module_class(*args, **kwargs, rngs=…)`, or without `rngs` by `skip_rng`.

    Its variables have the paths of the NNX module, in a collection for each type of variable: `params` for Param,
    `batch_stats` for BatchStat, the name of the class for one's own types. Linen's streams of keys are those of
    `rngs`, by name. Lists among the arguments become tuples and dicts become frozen, that the module can be hashed.
    `apply` raises VariableMismatchError that lists every missing and unexpected variable, and those of a wrong
    shape or dtype; run it under jit, because it calls the constructor each time.
    """
    return ToLinen(module_class, args=_hashable(args), kwargs=_hashable(kwargs), skip_rng=skip_rng, name=name)


def _hashable(value: Any) -> Any:
    if isinstance(value, dict | FrozenDict):
        return FrozenDict({name: _hashable(child) for name, child in value.items()})
    if type(value) in (list, tuple):
        return tuple(map(_hashable, value))
    return frozenset(value) if isinstance(value, set) else value


class ToNNX(bridge.ToNNX):
    """A `bridge.ToNNX` with a default for `mutable`, the collections that a call updates.

    Within a Linen module or a `bridge.Module` it is what that one's own call may update, as it is upstream.
    """

    def __init__(self, module: nn.Module, rngs: nnx.Rngs | jax.Array | None = None, mutable: Any = False) -> None:
        super().__init__(module, rngs)
        self.to_nnx__mutable = mutable

    def __call__(self, *inputs: Any, mutable: Any = None, **given: Any) -> Any:
        if mutable is None and current_linen_module() is None and bridge.current_module() is None:
            mutable = self.to_nnx__mutable
        return super().__call__(*inputs, mutable=mutable, **given)


def to_nnx(
    module: nn.Module,
    variables: Variables | None = None,
    *inputs: Any,
    key: jax.Array | Mapping[str, jax.Array] | None = None,
    rngs: nnx.Rngs | None = None,
    **given: Any,
) -> ToNNX:
    """An NNX module around a Linen module, which holds `variables`, or else those of `module.init(key, …)`.

    `inputs` and `given` are what the Linen module is called with; `variables` must be of the shapes and dtypes that
    it makes of them. `rngs` are the streams for dropout and the like. A call updates all collections but params;
    give it `mutable=` for others. Raises VariableMismatchError that lists every missing and unexpected
    variable and those of a wrong shape or dtype, or those whose names an NNX module cannot have, and ValueError
    unless there is either `variables` or `key`.
    """
    if (variables is None) == (key is None):
        raise ValueError(f"to_nnx takes either variables or a key, got {'neither' if key is None else 'both'}")
    if variables is None:
        variables = module.init(key, *inputs, **given)
    else:
        keys = dict.fromkeys(("params", *(rngs or ())), jax.random.key(0))
        _fit(lambda: module.init(keys, *inputs, **given), variables)
    held = jax.tree.map(jnp.asarray, unfreeze(variables))
    raise_mismatches(_find_clashes(held))
    made = ToNNX(module, rngs, mutable=tuple(sorted({*held} - {"params"})))
    with nnx.use_eager_sharding(False):  # the arrays stay where they are; a partitioned one would need a mesh
        attributes = linen_vars_to_nnx_attrs(held)
    for name, value in attributes.items():
        setattr(made, name, nnx.data(value))
    return made


def _find_clashes(variables: dict[str, Any]) -> list[Mismatch]:
    """The variables whose names an NNX module cannot have."""
    homes: dict[KeyPath, list[str]] = {}
    for collection, *names in flatten_dict(variables):
        homes.setdefault(tuple(names), []).append(collection)
    taken = sorted({str(names[0]) for names in homes if hasattr(ToNNX, str(names[0]))})
    messages = [
        *(f"{'/'.join(map(str, n))} is in {' and in '.join(c)}, NNX has one" for n, c in homes.items() if len(c) > 1),
        *(f"{name} is an attribute that every ToNNX has" for name in taken),
    ]
    return [Mismatch(MismatchKind.NAME, message) for message in messages]


def linen_variables(module: nnx.Module) -> dict[str, Any]:
    """The variables of an NNX module in the form that the bridge has in Linen, a dict of collections.

    Of what `to_nnx` made they are those of the Linen module, of any other those of `to_linen` of its class; with
    boxes, where variables have metadata, and without the state of random numbers.
    """
    state = nnx.to_flat_state(nnx.state(module, nnx.All(nnx.Variable, nnx.Not(nnx.RngState))))
    return unflatten_dict(
        {
            (nnx.variable_name_from_type(type(variable), allow_register=True), *path): to_linen_var(variable)
            for path, variable in state
        }
    )


def _fit(make: Callable[[], Variables], given: Variables) -> None:
    """Raises VariableMismatchError unless `given` has the leaves of what `make` would return, which is only traced."""
    needed, found = _leaves(make), _leaves(lambda: given)
    mismatches = [each for path, leaf in needed.items() for each in _compare_leaf(path, leaf, found.pop(path, None))]
    for path, leaf in found.items():
        mismatches.append(Mismatch(MismatchKind.UNEXPECTED, f"unexpected {_format_path(path)}, of shape {leaf.shape}"))
    raise_mismatches(mismatches)


def _leaves(make: Callable[[], Variables]) -> dict[KeyPath, jax.ShapeDtypeStruct]:
    return dict(jax.tree.leaves_with_path(jax.eval_shape(lambda: unfreeze(nn.meta.unbox(make())))))


def _compare_leaf(path: KeyPath, needed: jax.ShapeDtypeStruct, found: jax.ShapeDtypeStruct | None) -> list[Mismatch]:
    name, of = _format_path(path), _format_path(path[1:])
    if found is None:
        return [Mismatch(MismatchKind.MISSING, f"missing {name}, of shape {needed.shape} for {of}")]
    if found.shape != needed.shape:
        return [describe_shape(name, found.shape, f"{of} needs {needed.shape}")]
    if found.dtype != needed.dtype:
        return [Mismatch(MismatchKind.DTYPE, f"{name} is {found.dtype}, {of} is {needed.dtype}")]
    return []


def _format_path(path: KeyPath) -> str:
    """The names with slashes; the text '0', as checkpoints have it, differs from the index 0 of a list."""
    names = [getattr(entry, "key", entry) for entry in path]
    return "/".join(repr(n) if isinstance(n, str) and n.isdigit() else str(n).strip("[].") for n in names)

"""NNX modules inside Linen, and Linen modules inside NNX, by flax's own bridge.

Unlike flax's, these bridges raise an error for variables that are missing, unexpected, or of another shape or dtype.
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
    """A `bridge.ToLinen` whose `apply` raises VariableMismatchError unless it gets exactly the module's variables.

    Flax's own initializes missing variables at random, and at most warns about others. Arrays of the module that
    are not in an `nnx.Variable` come from the constructor and are not among the variables; flax's own includes them
    unless it is jitted.
    """

    @nn.compact
    def __call__(self, *inputs: Any, **given: Any) -> Any:
        if not self.is_initializing():
            _check_fit(lambda: linen_variables(_construct(self)), self.variables)
        upstream = inspect.unwrap(bridge.ToLinen.__call__)  # otherwise Linen would see two calls
        return upstream(self, *inputs, **given)

    def _update_variables(self, module: nnx.Module) -> None:
        super()._update_variables(nnx.state(module, nnx.Variable))


def _construct(linen: ToLinen) -> nnx.Module:
    """The NNX module with arbitrary keys, so that the counters of Linen's streams do not advance."""
    streams = dict.fromkeys(("default", *linen.scope.rngs), 0)
    rngs = {} if linen.skip_rng else {"rngs": nnx.Rngs(**streams)}
    return linen.nnx_class(*linen.args, **linen.kwargs, **rngs)


def to_linen(
    module_class: Callable[..., nnx.Module], *args: Any, skip_rng: bool = False, name: str | None = None, **kwargs: Any
) -> ToLinen:
    """Returns a Linen module that wraps `module_class(*args, **kwargs, rngs=…)`; `skip_rng` leaves `rngs` out.

    Its variables have the paths of the NNX module, in one collection per variable type: `params` for `nnx.Param`,
    `batch_stats` for `nnx.BatchStat`, the class's name for other types. Linen's keys become the streams of `rngs`
    with the same names. Lists among the arguments become tuples, and dicts frozen dicts, so that the module can be
    hashed. `apply` raises VariableMismatchError with every missing and unexpected variable, and every one of a
    wrong shape or dtype. It calls the constructor each time, so it should be jitted.
    """
    return ToLinen(module_class, args=_make_hashable(args), kwargs=_make_hashable(kwargs), skip_rng=skip_rng, name=name)


def _make_hashable(value: Any) -> Any:
    if isinstance(value, dict | FrozenDict):
        return FrozenDict({name: _make_hashable(child) for name, child in value.items()})
    if type(value) in (list, tuple):
        return tuple(map(_make_hashable, value))
    return frozenset(value) if isinstance(value, set) else value


class ToNNX(bridge.ToNNX):
    """A `bridge.ToNNX` with a default for `mutable`, the collections that a call updates.

    Within a Linen module or a `bridge.Module` the default is the outer module's, as in flax's own class.
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
    """Returns an NNX module that wraps a Linen module, with `variables` or with those of `module.init(key, …)`.

    `inputs` and `given` are the arguments of a call, from which the shapes and dtypes of the variables are derived.
    `rngs` are the streams for dropout and the like. A call updates all collections except `params`, unless
    `mutable=` names others. Raises ValueError unless exactly one of `variables` and `key` is given, and
    VariableMismatchError with every variable that is missing, unexpected, of a wrong shape or dtype, or whose
    name an NNX module cannot have.
    """
    if (variables is None) == (key is None):
        raise ValueError(f"to_nnx takes either variables or a key, got {'neither' if key is None else 'both'}")
    if variables is None:
        variables = module.init(key, *inputs, **given)
    else:
        keys = dict.fromkeys(("params", *(rngs or ())), jax.random.key(0))
        _check_fit(lambda: module.init(keys, *inputs, **given), variables)
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
        *(
            f"{'/'.join(map(str, n))} is in {' and in '.join(c)}, NNX has one name space"
            for n, c in homes.items()
            if len(c) > 1
        ),
        *(f"{name} is an attribute that every ToNNX has" for name in taken),
    ]
    return [Mismatch(MismatchKind.NAME, message) for message in messages]


def linen_variables(module: nnx.Module) -> dict[str, Any]:
    """Returns the variables of an NNX module in the form of the bridge, a dict of collections.

    For the result of `to_nnx` they are the variables of the wrapped Linen module, for any other module those that
    `to_linen` of its class has. Variables with metadata are boxed; states of random numbers are left out.
    """
    state = nnx.to_flat_state(nnx.state(module, nnx.All(nnx.Variable, nnx.Not(nnx.RngState))))
    return unflatten_dict(
        {
            (nnx.variable_name_from_type(type(variable), allow_register=True), *path): to_linen_var(variable)
            for path, variable in state
        }
    )


def _check_fit(make: Callable[[], Variables], given: Variables) -> None:
    """Raises VariableMismatchError unless `given` has the leaves of what `make` would return, which is only traced."""
    needed, found = _trace_leaves(make), _trace_leaves(lambda: given)
    mismatches = [each for path, leaf in needed.items() for each in _compare_leaf(path, leaf, found.pop(path, None))]
    for path, leaf in found.items():
        mismatches.append(Mismatch(MismatchKind.UNEXPECTED, f"unexpected {_format_path(path)}, of shape {leaf.shape}"))
    raise_mismatches(mismatches)


def _trace_leaves(make: Callable[[], Variables]) -> dict[KeyPath, jax.ShapeDtypeStruct]:
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

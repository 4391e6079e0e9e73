"""A Linen model traced once on shapes: its layers, its modules, and the variables that its call needs."""

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import errors
from flax.core import freeze, tracers

from tasks.porting.layers import ATTENTIONS, LEAF_LAYERS, WRAPPERS
from tasks.porting.settings import find_changed, find_dynamic, has_plain_settings, is_argument
from tasks.porting.variables import (
    Mismatch,
    MismatchKind,
    Path,
    describe_missing,
    describe_shape,
    describe_unexpected,
    flatten_variables,
    format_path,
    raise_mismatches,
)

COMPUTING_METHODS = ("__call__", "attend")
"""The methods of layers that compute outputs."""
FLAG = "ported"
"""The flag of scopes that belong to a call; those of an `apply` within a model do not have it."""
_numbers = itertools.count()


@dataclass(frozen=True)
class Call:
    """The arguments of a model's call: positional ones, keywords, random streams, and the mapped axes around it.

    Arrays may be `jax.ShapeDtypeStruct`; all else is passed as it is.
    """

    inputs: tuple[Any, ...]
    given: Mapping[str, Any] = field(default_factory=dict)
    rngs: Mapping[str, jax.Array] = field(default_factory=dict)
    axis_names: tuple[str, ...] = ()

    @property
    def arrays(self) -> list[Any]:
        return [leaf for leaf in jax.tree.leaves((self.inputs, dict(self.given))) if is_array(leaf)]

    def fill(self, arrays: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with other arrays."""
        leaves, tree = jax.tree.flatten((self.inputs, dict(self.given)))
        new = iter(arrays)
        return jax.tree.unflatten(tree, [next(new) if is_array(leaf) else leaf for leaf in leaves])

    def trace(self, run: Callable[..., Any], variables: Any) -> Any:
        """The shapes of what `run(variables, arrays)` returns, within the mapped axes, each of size one."""
        for name in self.axis_names:
            run = jax.vmap(run, in_axes=None, out_axes=None, axis_size=1, axis_name=name)
        return jax.eval_shape(run, variables, self.arrays)


@dataclass(frozen=True)
class Seen:
    """A traced layer: its configuration, the shapes of its inputs and variables, and why it cannot be ported.

    `inner` is the path of the layer that a `WeightNorm` or a `SpectralNorm` wraps.
    """

    layer: nn.Module
    inputs: tuple[Any, ...]
    variables: Mapping[str, Any]
    lifted: bool
    refusal: str = ""
    inner: Path | None = None


@dataclass(frozen=True)
class Met:
    """Any other traced module: its class, and itself if it can be called alone."""

    kind: type
    alone: nn.Module | None


@dataclass(frozen=True)
class Trace:
    """What a trace has found, by path; `shapes` are those of the variables after the call.

    `mismatches` are variables that the model accepts, but would not have made.
    """

    layers: dict[Path, Seen] = field(default_factory=dict)
    modules: dict[Path, Met] = field(default_factory=dict)
    shapes: dict[Path, Any] = field(default_factory=dict)
    mismatches: tuple[Mismatch, ...] = ()


def is_array(leaf: Any) -> bool:
    """Whether an argument of a call is an array or the shape of one, not a flag or a number."""
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype") and not isinstance(leaf, np.generic)


def make_mark() -> str:
    """A mark that no other call has, so that `nn.jit` does not take what it has traced for another one."""
    return f"{FLAG} {next(_numbers)}"


def apply_marked(
    linen: nn.Module, variables: Any, *inputs: Any, mark: str, method: Any = None, mutable: Any = False,
    rngs: Any = None, capture_intermediates: Any = False, **given: Any,
) -> Any:  # fmt: skip
    """Returns what `linen.apply` returns; the scopes of its modules have the mark, see `is_marked`."""

    def run(module: nn.Module, *inputs: Any, **given: Any) -> Any:
        assert module.scope is not None
        module.scope.flags = freeze({**module.scope.flags, FLAG: mark})
        call = getattr(type(module), method or "__call__") if isinstance(method, str | None) else method
        return call(module, *inputs, **given)

    apply = nn.apply(run, linen, mutable=mutable, capture_intermediates=capture_intermediates)
    return apply(variables, *inputs, rngs=rngs, **given)


def is_marked(module: nn.Module, mark: str) -> bool:
    """Whether a module belongs to the call with this mark, not to an `apply` or `init` within it."""
    return module.scope is not None and module.scope.flags.get(FLAG) == mark


def is_transformed(module: nn.Module, here: Any, whole: Mapping[Path, Any]) -> bool:
    """Whether a module runs within a transform, or with variables that are not the stored ones in `whole`."""
    own = flatten_variables(module.variables)
    return tracers.current_trace() != here or any(
        leaf is not whole.get((path[0], *module.path, *path[1:])) for path, leaf in own.items()
    )


def bind_arguments(linen: nn.Module, args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments of a layer's call, by name."""
    given = dict(inspect.signature(type(linen).__call__).bind(linen, *args, **kwargs).arguments)
    return {name: value for name, value in given.items() if name != "self"}


def make_abstract_leaf(leaf: Any) -> Any:
    """The shape and dtype of an array; texts are left as they are."""
    return leaf if isinstance(leaf, str) else jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))


def trace(linen: nn.Module, variables: Mapping[str, Any], call: Call) -> Trace:
    """Traces a call of a model. Raises VariableMismatchError for variables that do not fit it, each with its path."""
    try:
        found = _trace_once(linen, variables, call)
    except (
        errors.ScopeParamNotFoundError,
        errors.ScopeParamShapeError,
        errors.ScopeCollectionNotFound,
        errors.InvalidRngError,
    ) as error:
        raise_mismatches([each for each in find_mismatches(linen, variables, call) if is_fatal(each)])
        if isinstance(error, errors.InvalidRngError):
            reason = str(error).splitlines()[0]
            raise ValueError(f"the call needs a random stream that rngs= does not have: {reason}") from error
        raise
    mismatches = find_mismatches(linen, variables, call, found.shapes)
    raise_mismatches([each for each in mismatches if is_fatal(each)])
    plain = all(has_plain_settings(seen.layer) for seen in found.layers.values())
    layers = found.layers if plain else _refuse_changing(found.layers, _trace_once(linen, variables, call).layers)
    return replace(found, layers=layers, mismatches=tuple(mismatches))


def _refuse_changing(first: Mapping[Path, Seen], again: Mapping[Path, Seen]) -> dict[Path, Seen]:
    """The layers of a trace, of which those with settings that are made anew in each call are refused."""
    layers = {}
    for path, seen in first.items():
        name = find_changed(again[path].layer, seen.layer)
        layers[path] = replace(seen, refusal=seen.refusal or (f"its {name} is made anew in each call" if name else ""))
    return layers


def _trace_once(linen: nn.Module, variables: Mapping[str, Any], call: Call) -> Trace:
    found, mark = Trace(), make_mark()

    def run(variables: Any, arrays: Any) -> None:
        inputs, given = call.fill(arrays)
        here, whole = tracers.current_trace(), flatten_variables(variables)

        def watch(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            module = context.module
            if is_marked(module, mark):
                transformed = is_transformed(module, here, whole)
                if not _is_layer(module, found):
                    _record_module(found, module, transformed)
                elif context.method_name in COMPUTING_METHODS:
                    _record_layer(found, module, context.method_name, args, kwargs, transformed)
            return call(*args, **kwargs)

        with nn.intercept_methods(watch):
            _, changed = apply_marked(linen, variables, *inputs, mark=mark, rngs=dict(call.rngs), mutable=True, **given)
        found.shapes.update({path: leaf for path, leaf in flatten_variables(changed).items() if is_array(leaf)})

    call.trace(run, nn.meta.unbox(variables))
    shapes = {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in found.shapes.items()}
    return replace(found, shapes=shapes)


def _is_layer(module: nn.Module, found: Trace) -> bool:
    """Whether a module is a known layer with a scope of its own; `nn.share_scope` gives it that of another module."""
    return (type(module) in LEAF_LAYERS or type(module) in WRAPPERS) and module.path not in found.modules


def _record_module(found: Trace, module: nn.Module, transformed: bool) -> None:
    if module.path in found.modules or module.path in found.layers:
        return
    arguments = [getattr(module, field.name) for field in dataclasses.fields(module) if is_argument(field)]
    nested = any(isinstance(leaf, nn.Module) for leaf in jax.tree.leaves(arguments))
    dependent = transformed or nested or find_dynamic(module)
    found.modules[module.path] = Met(type(module), None if dependent else module.clone(parent=None))


def _record_layer(found: Trace, module: nn.Module, method: str, args: Any, kwargs: Any, transformed: bool) -> None:
    known = found.layers.get(module.path)
    if known is not None and (known.lifted or not transformed):
        return
    arrays = args if method == "attend" else _select_arrays(module, args, kwargs)
    inputs, variables = jax.tree.map(make_abstract_leaf, (arrays, dict(module.variables)))
    dynamic = find_dynamic(module)
    refusal = f"its {dynamic} is computed in the call" if dynamic else ""
    inner = module.layer_instance.path if type(module) in WRAPPERS else None
    layer = module.clone(parent=None, _deep_clone=type(module) in WRAPPERS)
    found.layers[module.path] = Seen(layer, inputs, variables, transformed, refusal, inner)


def _select_arrays(linen: nn.Module, args: Any, kwargs: Any) -> tuple[Any, ...]:
    """The arrays that a layer is called with; of attention the queries, and the keys and values if they are given."""
    if type(linen) in WRAPPERS:
        return tuple(arg for arg in args if is_array(arg))
    given = bind_arguments(linen, args, kwargs)
    if isinstance(linen, ATTENTIONS):
        keys = given.get("inputs_k") if given.get("inputs_kv") is None else given["inputs_kv"]
        values = given.get("inputs_v") if given.get("inputs_kv") is None else given["inputs_kv"]
        return (given["inputs_q"], *(each for each in (keys, values) if each is not None))
    if isinstance(linen, nn.Einsum):
        return tuple(given.values())
    return tuple(value for value in given.values() if all(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(value)))


def is_fatal(mismatch: Mismatch) -> bool:
    """Whether a model cannot be called with a variable that does not fit."""
    return mismatch.kind in (MismatchKind.MISSING, MismatchKind.SHAPE)


def find_mismatches(
    linen: nn.Module, variables: Mapping[str, Any], call: Call, after: Mapping[Path, Any] | None = None
) -> list[Mismatch]:
    """Compares variables with those that `linen.init` would make in this call, which is only traced.

    `after` are the variables after a traced call: what is missing there is not needed. Beyond `params`, shapes may
    differ, as those of caches do. Nothing is compared if `init` fails with these arguments.
    """
    needed, given = _trace_init(linen, call), flatten_variables(variables)
    if not needed:
        return []
    found = [each for path, leaf in needed.items() if path in given for each in _compare(path, leaf, given[path])]
    for path, leaf in needed.items():
        known = path[0] in ("params", "batch_stats") or any(path[0] == other[0] for other in given)
        if path not in given and known and (after is None or path in after):
            found.append(describe_missing(path, leaf.shape))
    return found + [describe_unexpected(path, jnp.shape(leaf)) for path, leaf in given.items() if path not in needed]


def _trace_init(linen: nn.Module, call: Call) -> dict[Path, Any]:
    """The shapes of the variables that `init` makes with the arguments of a call, by path."""
    found: dict[Path, Any] = {}

    def run(_: Any, arrays: Any) -> None:
        inputs, given = call.fill(arrays)
        keys = {"params": jax.random.key(0), **call.rngs}
        made = flatten_variables(linen.init(keys, *inputs, **given))
        found.update({p: jax.ShapeDtypeStruct(a.shape, a.dtype) for p, a in made.items() if is_array(a)})

    try:
        call.trace(run, {})
    except Exception:  # the model's own code, which may not be made to be initialized with the arguments of a call
        return {}
    return found


def _compare(path: Path, needed: Any, given: Any) -> list[Mismatch]:
    name = format_path(path)
    if path[0] == "params" and jnp.shape(given) != needed.shape:
        return [describe_shape(name, jnp.shape(given), f"the model needs {needed.shape}")]
    if jnp.result_type(given) != needed.dtype:
        return [Mismatch(MismatchKind.DTYPE, f"{name} is {jnp.result_type(given)}, the model's is {needed.dtype}")]
    return []

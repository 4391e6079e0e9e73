"""Whole Linen models as NNX modules: their unchanged code over NNX layers."""

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import errors, nnx
from flax.core import tracers

from tasks.porting.layers import ATTENTIONS, LEAF_LAYERS, PortKind, build_layer
from tasks.porting.variables import (
    Mismatch,
    MismatchKind,
    Path,
    Slot,
    VariableMismatchError,
    assign,
    dump,
    flatten_variables,
    format_path,
    list_slots,
    load,
    match_paths,
    put,
)

OWN = "it runs Linen's code on NNX variables"
UNMET = "it is not called with these arguments; port the model with arguments that call it"
COMPUTING_METHODS = ("__call__", "attend")
"""The methods of layers that compute outputs."""
FLAGS = ("deterministic", "use_running_average", "parent", "name")
"""Fields of layers that may differ between a call and the traced one."""


@dataclass(frozen=True)
class Entry:
    """One layer of a ported model, with `kind` and `why` as in `Ported`."""

    path: str
    layer: str
    kind: PortKind
    why: str = ""


@dataclass(frozen=True)
class PortedModel:
    """An NNX module that computes what a Linen model does, and a report on each of its layers."""

    module: "Model"
    report: tuple[Entry, ...]


class Scope(nnx.Module):
    """The layers, variables and inner scopes that a Linen model has below one name, by Linen's names.

    A name that every NNX module has, such as `train`, is followed by an underscore.
    """

    linen_names: tuple[tuple[str, str], ...] = ()
    """Attributes whose name differs from Linen's, with Linen's name."""


class _Code:
    """A Linen module compared by identity, because modules that hold arrays cannot be compared by value."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Code) and self.module is other.module

    def __hash__(self) -> int:
        return id(self.module)


class Model(Scope):
    """A Linen module over NNX layers, which have the same paths as in Linen.

    A call runs the Linen code, in which each ported layer is replaced by an NNX layer with its own variables. Code
    that was not ported is unchanged, and its variables are NNX variables too. The module is therefore trained,
    split, merged, jitted and saved as any other NNX module. Statistics and caches are updated in place.

    A layer that Linen calls within `nn.scan`, `nn.vmap`, `nn.jit`, `nn.remat` or `nn.map_variables` computes on
    the slices that the transform passes to it; its stored variables are the whole arrays, as in Linen.
    """

    def __init__(self, linen: nn.Module) -> None:
        self._linen = _Code(linen)
        self._seen: tuple[tuple[Path, _Code], ...] = ()
        self._lifted: tuple[Path, ...] = ()

    def variables(self) -> dict[str, Any]:
        """The variables in the form of the Linen model, a dict of collections."""
        return dump(self)

    def __call__(
        self,
        *inputs: Any,
        rngs: nnx.Rngs | Mapping[str, jax.Array] | None = None,
        mutable: Sequence[str] = (),
        **given: Any,
    ) -> Any:
        """Returns what `linen.apply(variables, *inputs, rngs=…, **given)` returns.

        `rngs` are keys by name, as in Linen, or `nnx.Rngs`. The collections of the model except `params` are updated
        in place. `mutable` names further collections, such as sown ones; then the result is `(out, changed)`.
        """
        variables, here, layers = self.variables(), tracers.current_trace(), dict(self._seen)
        done = set[Path]()

        def redirect(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            linen = context.module
            if context.method_name not in COMPUTING_METHODS or linen.path not in layers:
                return call(*args, **kwargs)
            if not _has_same_settings(linen, layers[linen.path].module):
                return call(*args, **kwargs)
            if linen.path in self._lifted:
                return _call_within_transform(_get_layer(self, linen.path), context, call, args, kwargs)
            if tracers.current_trace() != here:
                return call(*args, **kwargs)
            done.add(linen.path)
            return call_layer(_get_layer(self, linen.path), context, call, args, kwargs)

        own = {collection for collection in variables if collection != "params"}
        asked = [mutable] if isinstance(mutable, str) else list(mutable)
        with nn.intercept_methods(redirect):
            out, changed = self._linen.module.apply(
                variables, *inputs, rngs=_make_keys(rngs), mutable=sorted({*own, *asked}), **given
            )
        # layers that were called above have updated their own variables
        assign(
            list_slots(self),
            {path: leaf for path, leaf in flatten_variables(changed).items() if not _is_below(done, path[1:])},
        )
        return (out, {name: changed[name] for name in asked if name in changed}) if asked else out


def _make_keys(rngs: nnx.Rngs | Mapping[str, jax.Array] | None) -> Mapping[str, jax.Array] | None:
    if not isinstance(rngs, nnx.Rngs):
        return rngs
    names = {name for name in rngs if name not in ("params", "default")} | ({"dropout"} if "default" in rngs else set())
    return {name: rngs[name]() for name in sorted(names)}


def _has_same_settings(linen: nn.Module, known: nn.Module) -> bool:
    """Whether a layer has the configuration that was ported, apart from flags, which may differ between calls."""
    names = [field.name for field in dataclasses.fields(known) if field.name not in FLAGS]
    pairs = [(getattr(linen, name, None), getattr(known, name)) for name in names]
    plain = [(a, b) for a, b in pairs if not (callable(a) or callable(b) or hasattr(a, "shape") or hasattr(b, "shape"))]
    return type(linen) is type(known) and all(a == b for a, b in plain)


def _get_layer(module: Any, path: Path) -> Any:
    for name in path:
        module = getattr(module, _find_attribute(module, name))
    return module


def _find_attribute(scope: Any, name: str) -> str:
    return next((own for own, linens in scope.linen_names if linens == name), name)


def _is_below(above: Any, path: Path) -> bool:
    """Whether a path is one of the given ones, or below one."""
    return any(path[: len(each)] == each for each in above)


def _bind_arguments(linen: nn.Module, args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments of a layer's call, by name."""
    given = dict(inspect.signature(type(linen).__call__).bind(linen, *args, **kwargs).arguments)
    return {name: value for name, value in given.items() if name != "self"}


def call_layer(layer: Any, context: nn.module.InterceptorContext, call: Any, args: Any, kwargs: Any) -> Any:
    """Calls the NNX layer in place of Linen's, and returns its outputs."""
    linen = context.module
    if context.method_name == "attend":
        return layer.attend(*args, **kwargs)
    given = _bind_arguments(linen, args, kwargs)
    if isinstance(linen, nn.Dropout):
        return _call_dropout(layer, linen, **given)
    if isinstance(linen, nn.BatchNorm):
        average = nn.merge_param(
            "use_running_average", linen.use_running_average, given.pop("use_running_average", None)
        )
        return layer(given.pop("x"), use_running_average=average, **given)
    if isinstance(linen, ATTENTIONS):
        return call(*args, **kwargs) if given.get("sow_weights") else _call_attention(layer, linen, **given)
    return layer(*args, **kwargs)


def _call_dropout(layer: Any, linen: nn.Dropout, inputs: Any, deterministic: Any = None, rng: Any = None) -> Any:
    """Dropout with Linen's mask, by the key that Linen derives from the layer's path."""
    if nn.merge_param("deterministic", linen.deterministic, deterministic) or linen.rate == 0.0:
        return inputs
    return layer(inputs, deterministic=False, rngs=linen.make_rng(linen.rng_collection) if rng is None else rng)


def _call_attention(
    layer: Any, linen: Any, inputs_q: Any, inputs_k: Any = None, inputs_v: Any = None, *, inputs_kv: Any = None,
    deterministic: Any = None, dropout_rng: Any = None, **given: Any,
) -> Any:  # fmt: skip
    """Attention with Linen's arguments and dropout keys."""
    if inputs_kv is not None:
        inputs_k = inputs_v = inputs_kv
    quiet = linen.dropout_rate == 0.0 or nn.merge_param("deterministic", linen.deterministic, deterministic)
    if not quiet and dropout_rng is None:
        dropout_rng = linen.make_rng("dropout")
    return layer(inputs_q, inputs_k, inputs_v, deterministic=quiet, rngs=lambda: dropout_rng, **given)


def _call_within_transform(layer: Any, context: nn.module.InterceptorContext, call: Any, args: Any, kwargs: Any) -> Any:
    """Calls the NNX layer on the variables that Linen's layer has within a transform, such as a slice."""
    linen, (graph, state) = context.module, nnx.split(layer)
    for collection in linen.variables:
        if linen.is_mutable_collection(collection):
            linen.scope._mutable_collection(collection)
    inner = nnx.merge(graph, jax.tree.map(_abstract, state))  # without values: Linen may keep what is traced here
    wanted, given = list_slots(inner), flatten_variables(linen.variables)
    assign(wanted, {first: given[path] for first, path in match_paths(wanted, given, None).items()})
    out = call_layer(inner, context, call, args, kwargs)
    for (collection, *names), leaf in flatten_variables(dump(inner)).items():
        if collection != "params" and linen.is_mutable_collection(collection):
            linen.put_variable(collection, "/".join(names), leaf)
    return out


def _select_variables(variables: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The variables of the module at a path."""
    found: dict[str, Any] = {}
    for (collection, *names), leaf in flatten_variables(variables).items():
        if tuple(names[: len(path)]) == path:
            put(found, (collection, *names[len(path) :]), leaf)
    return found


@dataclass(frozen=True)
class _Seen:
    """A traced layer: its configuration, and the shapes of its inputs and variables."""

    layer: nn.Module
    inputs: tuple[Any, ...]
    variables: Mapping[str, Any]
    lifted: bool


def _trace(
    linen: nn.Module, variables: Any, inputs: Any, rngs: Any, given: Any
) -> tuple[dict[Path, _Seen], dict[Path, str]]:
    """Traces a model once: its leaf layers by path, and the classes of all modules."""
    seen, kinds = dict[Path, _Seen](), dict[Path, str]()

    def run(variables: Any, arrays: Any) -> Any:
        inputs = iter(arrays)
        here, whole = tracers.current_trace(), flatten_variables(variables)
        inputs = jax.tree.unflatten(tree, [next(inputs) if is_array(leaf) else leaf for leaf in flat])

        def watch(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            module = context.module
            kinds.setdefault(module.path, type(module).__name__)
            if type(module) not in LEAF_LAYERS or context.method_name not in COMPUTING_METHODS:
                return call(*args, **kwargs)
            own = flatten_variables(module.variables)
            lifted = tracers.current_trace() != here or any(
                leaf is not whole.get((path[0], *module.path, *path[1:])) for path, leaf in own.items()
            )
            known = seen.get(module.path)
            if known is None or (lifted and not known.lifted):
                arrays = args if context.method_name == "attend" else _select_arrays(module, args, kwargs)
                shapes = jax.tree.map(_abstract, (arrays, dict(module.variables)))
                seen[module.path] = _Seen(module.clone(parent=None), shapes[0], shapes[1], lifted)
            return call(*args, **kwargs)

        with nn.intercept_methods(watch):
            return linen.apply(variables, *inputs, rngs=rngs, mutable=True, **given)

    flat, tree = jax.tree.flatten(inputs)
    try:
        jax.eval_shape(run, nn.meta.unbox(variables), [leaf for leaf in flat if is_array(leaf)])
    except (errors.ScopeParamNotFoundError, errors.ScopeParamShapeError, errors.InvalidRngError) as error:
        raise VariableMismatchError(
            f"the variables are not those of the model: {str(error).splitlines()[0]}"
        ) from error
    return seen, kinds


def is_array(leaf: Any) -> bool:
    """Whether an argument of a call is an array or the shape of one, not a flag or a number."""
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def _select_arrays(linen: nn.Module, args: Any, kwargs: Any) -> tuple[Any, ...]:
    """The arrays that a layer is called with; of attention the queries, and the keys and values if they are given."""
    given = _bind_arguments(linen, args, kwargs)
    if isinstance(linen, ATTENTIONS):
        keys = given.get("inputs_k") if given.get("inputs_kv") is None else given["inputs_kv"]
        values = given.get("inputs_v") if given.get("inputs_kv") is None else given["inputs_kv"]
        return (given["inputs_q"], *(each for each in (keys, values) if each is not None))
    if isinstance(linen, nn.Einsum):
        return tuple(given.values())
    return tuple(value for value in given.values() if all(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(value)))


def _abstract(leaf: Any) -> Any:
    return leaf if isinstance(leaf, str) else jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))


def port_model(
    linen: nn.Module,
    variables: Mapping[str, Any],
    *inputs: Any,
    rngs: Mapping[str, jax.Array] | None = None,
    exact: bool = True,
    **given: Any,
) -> PortedModel:
    """Ports a Linen model to an NNX module that has its code, its variables, and the same bits in its outputs.

    `variables` are those of `linen.init`, a dict of collections. The model is traced once on the shapes of
    `inputs`, arrays or `jax.ShapeDtypeStruct`, with the keyword arguments `given`, which finds its layers; the
    arguments should be such that every layer is called. A layer that cannot be ported keeps Linen's code, and the
    report gives the reason. Without `exact` the layers are NNX's own classes with their defaults, where there are.

    Raises VariableMismatchError for variables that the model does not have or need, ValueError for a sown
    collection and for a single layer (see `port_layer`), and whatever the model itself raises.
    """
    keys = {"dropout": jax.random.key(0)} if rngs is None else rngs
    model, report, layers = Model(linen), [], dict[Path, _Code]()
    whole = flatten_variables(variables)
    for path, leaf in whole.items():
        if isinstance(leaf, tuple):
            raise ValueError(f"{format_path(path)} is a tuple, as nn.Module.sow stores it; leave this collection out")
    seen, kinds = _trace(linen, variables, inputs, keys, given)
    for path, met in seen.items():
        if path == ():
            raise ValueError(f"{type(linen).__name__} is a single layer; use port_layer")
        if _is_below(layers, path):
            continue  # a layer of a layer: attention has layers of its own
        kind, why = PortKind.LINEN, ""
        try:
            ported = build_layer(met.layer, met.variables, *met.inputs, exact=exact)
            kind, why = ported.kind, ported.why
            _load_layer(ported.module, _select_variables(variables, path), met)
        except (NotImplementedError, LookupError) as error:
            kind, why = PortKind.LINEN, str(error)
        except VariableMismatchError as error:
            if not {mismatch.kind for mismatch in error.mismatches} <= {MismatchKind.SHAPE, MismatchKind.DTYPE}:
                raise
            kind, why = PortKind.LINEN, f"the NNX layer has other variables: {error.mismatches[0].message}"
        else:
            _add_child(model, path, ported.module)
            layers[path] = _Code(met.layer)
            model._lifted += (path,) if met.lifted else ()
            whole = {name: leaf for name, leaf in whole.items() if not _is_below([path], name[1:])}
        report.append(Entry("/".join(path), type(met.layer).__name__, kind, why))
    model._seen = tuple(layers.items())
    kept = [tuple(entry.path.split("/")) for entry in report if entry.kind is PortKind.LINEN]
    for (collection, *names), leaf in whole.items():
        kind_of = nnx.variable_type_from_name(collection, allow_register=True)
        _add_child(model, tuple(names), kind_of(jnp.asarray(leaf)))
    free = dict.fromkeys(path[1:-1] for path in whole if not _is_below(kept, path[1:]))
    report += [
        Entry("/".join(path), kinds.get(path, "unknown"), PortKind.LINEN, OWN if path in kinds else UNMET)
        for path in free
    ]
    return PortedModel(model, tuple(report))


def _load_layer(module: nnx.Module, variables: Mapping[str, Any], met: _Seen) -> None:
    """Assigns variables to an abstract layer; a lifted layer takes the whole arrays, whatever their shape."""
    if not met.lifted:
        load(module, variables)
        return
    wanted, given = list_slots(module), flatten_variables(variables)
    found = match_paths(wanted, given, None)
    for slot in wanted:
        _check_parts(slot, [given[found[first]] for first, *_ in slot.parts if first in found])
    assign(wanted, {first: given[path] for first, path in found.items()})


def _check_parts(slot: Slot, arrays: list[Any]) -> None:
    if len(arrays) != len(slot.parts):
        message = f"missing variables of {format_path(slot.path)}"
        raise VariableMismatchError(message, [Mismatch(MismatchKind.MISSING, message)])
    if len(arrays) > 1 and jnp.shape(arrays[0]) != slot.part_shape:
        raise NotImplementedError("NNX stores its gates in one array, but these variables are stacked")


def _add_child(model: Scope, path: Path, child: Any) -> None:
    """Stores a layer or a variable at its path in Linen."""
    for name in path[:-1]:
        if _find_attribute(model, name) not in vars(model):
            _set_child(model, name, Scope())
        model = getattr(model, _find_attribute(model, name))
    if _find_attribute(model, path[-1]) in vars(model):
        raise NotImplementedError(f"{format_path(path)} is in two collections, NNX has one name space")
    _set_child(model, path[-1], child)


def _set_child(scope: Scope, name: str, child: Any) -> None:
    own = name
    while hasattr(Model, own) or own in vars(scope) or own.startswith("_"):
        own = own.lstrip("_") + "_"
    if own != name:
        scope.linen_names = (*scope.linen_names, (own, name))
    setattr(scope, own, child)

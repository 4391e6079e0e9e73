"""Whole Linen models as NNX modules: their unchanged code over NNX layers."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from flax.core import tracers

from tasks.porting.layers import ATTENTIONS, WRAPPERS, Ported, PortKind, build_layer, build_wrapper
from tasks.porting.settings import has_same_settings
from tasks.porting.sharding import annotate, split_names
from tasks.porting.traces import (
    COMPUTING_METHODS,
    Call,
    Met,
    Seen,
    Trace,
    apply_marked,
    bind_arguments,
    is_marked,
    is_transformed,
    make_abstract_leaf,
    make_mark,
    trace,
)
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

OWN = "it runs its own code on NNX variables"
LINENS = "it runs Linen's code on NNX variables"
ATTENTION_PARTS = frozenset(
    ("query", "key", "value", "out", "query_ln", "key_ln", "cached_key", "cached_value", "cache_index")
)
"""The layers and variables of an attention; others at its path are those of modules that its function makes."""
UNMET = "it is not called with these arguments; port the model with arguments that call it"


@dataclass(frozen=True)
class Entry:
    """One layer of a ported model, with `kind` and `why` as in `Ported`."""

    path: str
    layer: str
    kind: PortKind
    why: str = ""


@dataclass(frozen=True)
class PortedModel:
    """An NNX module that computes what a Linen model does, a report on each of its layers, and what did not fit.

    `mismatches` are variables that the model accepts, but would not have made: of another dtype, or not used.
    """

    module: "Model"
    report: tuple[Entry, ...]
    mismatches: tuple[Mismatch, ...] = ()


class Scope(nnx.Module):
    """The layers, variables and inner scopes that a Linen model has below one name, by Linen's names.

    A name that every NNX module has, such as `train`, is followed by an underscore.
    """

    linen_names: tuple[tuple[str, str], ...] = ()
    """Attributes whose name differs from Linen's, with Linen's name."""


class _Code:
    """A Linen module told by its mark, because modules that hold arrays cannot be compared by value."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.mark = module, make_mark()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Code) and self.mark == other.mark

    def __hash__(self) -> int:
        return hash(self.mark)


class Model(Scope):
    """A Linen module over NNX layers, which have the same paths as in Linen.

    A call runs the Linen code, in which each ported layer is replaced by an NNX layer with its own variables. Code
    that was not ported is unchanged, and its variables are NNX variables too. The module is therefore trained,
    split, merged, jitted and saved as any other NNX module. Statistics and caches are updated in place. The modules
    within a model are such modules too, and can be called alone.

    A layer that Linen calls within `nn.scan`, `nn.vmap`, `nn.jit`, `nn.remat` or `nn.map_variables` computes on
    the slices that the transform passes to it; its stored variables are the whole arrays, as in Linen.
    """

    def __init__(self, linen: nn.Module, streams: Sequence[str] = ()) -> None:
        self._linen = _Code(linen)
        self._layers: tuple[tuple[Path, _Code], ...] = ()
        self._streams = tuple(streams)

    def variables(self) -> dict[str, Any]:
        """The variables in the form of the Linen model, a dict of collections."""
        return dump(self)

    def with_settings(self, **settings: Any) -> "Model":
        """The same variables and layers with other arguments of the Linen module: `with_settings(train=False)`."""
        other = Model(self._linen.module.clone(**settings), self._streams)
        own = {name: value for name, value in vars(self).items() if not name.startswith("_pytree__")}
        for name, value in own.items():
            if name not in ("_linen", "_streams"):
                setattr(other, name, value)
        return other

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
        variables = self.variables()
        own = {collection for collection in variables if collection != "params"}
        asked = [mutable] if isinstance(mutable, str) else list(mutable)
        with nn.intercept_methods(_Redirection(self, variables)):
            out, changed = apply_marked(
                self._linen.module, variables, *inputs, mark=self._linen.mark, rngs=_make_keys(rngs, self._streams),
                mutable=sorted({*own, *asked}), **given,
            )  # fmt: skip
        assign(list_slots(self), flatten_variables(changed))
        return (out, {name: changed[name] for name in asked if name in changed}) if asked else out


class _Redirection:
    """The interceptor of one call: it replaces each ported layer by its NNX layer, unless its settings differ."""

    def __init__(self, model: Model, variables: Mapping[str, Any]) -> None:
        self.model, self.mark, self.layers = model, model._linen.mark, dict(model._layers)
        self.whole, self.here = flatten_variables(variables), tracers.current_trace()
        self.stateful = {path[1:-1] for path in self.whole if path[0] != "params"}

    def __call__(self, call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        linen = context.module
        if context.method_name not in COMPUTING_METHODS or not is_marked(linen, self.mark):
            return call(*args, **kwargs)
        known = self.layers.get(linen.path)
        if known is None or not has_same_settings(linen, known.module):
            return call(*args, **kwargs)
        layer = _get_layer(self.model, linen.path)
        if self._is_transformed(linen):
            return _call_on_variables(layer, context, call, args, kwargs)
        out = call_layer(layer, context, call, args, kwargs)
        self._store_state(linen, layer)
        return out

    def _is_transformed(self, linen: nn.Module) -> bool:
        inner = linen.layer_instance if type(linen) in WRAPPERS else linen
        return any(each.scope is None or is_transformed(each, self.here, self.whole) for each in (linen, inner))

    def _store_state(self, linen: nn.Module, layer: Any) -> None:
        """Stores what a layer has changed where Linen's code finds it, which may run next on the same variables."""
        if not any(path[: len(linen.path)] == linen.path for path in self.stateful):
            return
        for (collection, *names), leaf in flatten_variables(dump(layer)).items():
            path = (collection, *linen.path, *names)
            if collection != "params" and leaf is not self.whole.get(path) and linen.is_mutable_collection(collection):
                linen.put_variable(collection, "/".join(names), leaf)
                self.whole[path] = leaf


def _make_keys(rngs: Any, streams: Sequence[str]) -> Any:
    """Linen's keys from `nnx.Rngs`, whose default stream feeds all streams that it does not name."""
    if not isinstance(rngs, nnx.Rngs):
        return rngs
    named = {name for name in rngs if name not in ("params", "default")}
    keys = {name: rngs[name]() for name in sorted(named | ({"dropout"} if "default" in rngs else set()))}
    if "default" in rngs:  # Linen takes the stream `params` for those that are not given
        others = {"params", *streams} - set(keys)
        keys |= {name: jax.random.fold_in(keys["dropout"], zlib.crc32(name.encode())) for name in others}
    return keys


def _get_layer(module: Any, path: Path) -> Any:
    for name in path:
        module = getattr(module, _find_attribute(module, name))
    return module


def _find_attribute(scope: Any, name: str) -> str:
    return next((own for own, linens in getattr(scope, "linen_names", ()) if linens == name), name)


def call_layer(layer: Any, context: nn.module.InterceptorContext, call: Any, args: Any, kwargs: Any) -> Any:
    """Calls the NNX layer in place of Linen's, and returns its outputs."""
    linen = context.module
    if context.method_name == "attend":
        return layer.attend(*args, **kwargs)
    if type(linen) in WRAPPERS:
        return layer(*args, **kwargs)
    given = bind_arguments(linen, args, kwargs)
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


def _call_on_variables(layer: Any, context: nn.module.InterceptorContext, call: Any, args: Any, kwargs: Any) -> Any:
    """Calls the NNX layer on the variables that Linen's layer has at this place, such as a slice."""
    linen, (graph, state) = context.module, nnx.split(layer)
    for collection in linen.variables:
        if linen.is_mutable_collection(collection):
            linen.scope._mutable_collection(collection)
    inner = nnx.merge(graph, jax.tree.map(make_abstract_leaf, state))  # no values: Linen may keep what is traced here
    _assign_found(inner, linen.variables)
    if type(linen) in WRAPPERS and inner.elsewhere:
        _assign_found(inner.layer_instance, linen.layer_instance.variables)
    out = call_layer(inner, context, call, args, kwargs)
    for (collection, *names), leaf in flatten_variables(dump(inner)).items():
        if collection != "params" and linen.is_mutable_collection(collection):
            linen.put_variable(collection, "/".join(names), leaf)
    return out


def _assign_found(module: nnx.Module, variables: Mapping[str, Any]) -> None:
    """Assigns variables to an abstract module, whatever their shape; what they do not have stays abstract."""
    wanted, given = list_slots(module), flatten_variables(variables)
    assign(wanted, {first: given[path] for first, path in match_paths(wanted, given, None).items()})


def _select_variables(variables: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The variables of the module at a path."""
    found: dict[str, Any] = {}
    for (collection, *names), leaf in flatten_variables(variables).items():
        if tuple(names[: len(path)]) == path:
            put(found, (collection, *names[len(path) :]), leaf)
    return found


def port_model(
    linen: nn.Module,
    variables: Mapping[str, Any],
    *inputs: Any,
    rngs: Mapping[str, jax.Array] | None = None,
    exact: bool = True,
    axis_names: Sequence[str] = (),
    **given: Any,
) -> PortedModel:
    """Ports a Linen model to an NNX module that has its code, its variables, and the same bits in its outputs.

    `variables` are those of `linen.init`, a dict of collections; sharding names of `nn.Partitioned` and of
    `params_axes` become `out_sharding`. The model is traced once on the shapes of `inputs` and of the keyword
    arguments `given`, arrays or `jax.ShapeDtypeStruct`, which finds its layers; the arguments should be such that
    every layer is called. `rngs` has a key for each random stream of the call, by default for `dropout`.
    `axis_names` are mapped axes that the call needs, as that of a `BatchNorm`; for the trace they have size one.

    A layer that cannot be ported keeps Linen's code, a module of one's own its own code, and the report gives the
    reason. Without `exact` the layers are NNX's own classes with their defaults, where there are.

    Raises VariableMismatchError for variables that the model does not have or need, ValueError for a sown
    collection, a random stream without a key, and a single layer (see `port_layer`), and whatever the model raises.
    """
    call = Call(inputs, given, {"dropout": jax.random.key(0)} if rngs is None else rngs, tuple(axis_names))
    variables, names = split_names(variables)
    for path, leaf in flatten_variables(variables).items():
        if isinstance(leaf, tuple):
            raise ValueError(f"{format_path(path)} is a tuple, as nn.Module.sow stores it; leave this collection out")
    traced = trace(linen, variables, call)
    if () in traced.layers:
        raise ValueError(f"{type(linen).__name__} is a single layer; use port_layer")
    ported = _port_layers(traced, variables, exact)
    model = _assemble(linen, call, variables, traced, ported)
    annotate(model, names)
    return PortedModel(model, tuple(_report(traced, variables, ported)), traced.mismatches)


def _port_layers(traced: Trace, variables: Mapping[str, Any], exact: bool) -> dict[Path, Ported | Entry]:
    """The ported layers by path, and an entry for each that cannot be ported."""
    made: dict[Path, Ported | Entry] = {}
    for path, seen in sorted(traced.layers.items(), key=lambda item: _is_around_another(*item)):
        if any(_is_part(made.get(path[:end]), path[end]) for end in range(len(path))):
            continue  # a layer of a layer: attention has layers of its own
        try:
            made[path] = _port_seen(path, traced.layers, variables, made, exact)
        except (NotImplementedError, LookupError) as error:
            made[path] = Entry("/".join(path), type(seen.layer).__name__, PortKind.LINEN, str(error))
        except VariableMismatchError as error:
            if not {mismatch.kind for mismatch in error.mismatches} <= {MismatchKind.SHAPE, MismatchKind.DTYPE}:
                raise
            why = f"the NNX layer has other variables: {error.mismatches[0].message}"
            made[path] = Entry("/".join(path), type(seen.layer).__name__, PortKind.LINEN, why)
    return made


def _is_part(ported: Ported | Entry | None, name: str) -> bool:
    """Whether a name below a ported layer is its own, not that of a module that an attention function makes."""
    attention = isinstance(ported, Ported) and isinstance(ported.module, nnx.MultiHeadAttention)
    return isinstance(ported, Ported) and (not attention or name in ATTENTION_PARTS)


def _belongs(path: Path, ported: Mapping[Path, Ported | Entry]) -> bool:
    """Whether a variable at a path is one of a ported layer."""
    return any(_is_part(ported.get(path[:end]), path[end]) for end in range(len(path)))


def _is_around_another(path: Path, seen: Seen) -> bool:
    """Whether a layer wraps one that is stored elsewhere, and therefore comes after it."""
    return seen.inner is not None and seen.inner[: len(path)] != path


def _port_seen(
    path: Path, layers: Mapping[Path, Seen], variables: Mapping[str, Any], made: Mapping[Path, Any], exact: bool
) -> Ported:
    seen = layers[path]
    if seen.refusal:
        raise NotImplementedError(seen.refusal)
    ported = _port_around(seen, layers, made) if _is_around_another(path, seen) else _port_alone(seen, exact)
    own = _select_variables(variables, path)
    for collection, tree in own.items():
        own[collection] = {name: child for name, child in tree.items() if _is_part(ported, name)}
    _load_layer(ported.module, own, seen)
    return ported


def _port_alone(seen: Seen, exact: bool) -> Ported:
    return build_layer(seen.layer, seen.variables, *seen.inputs, exact=exact)


def _port_around(seen: Seen, layers: Mapping[Path, Seen], made: Mapping[Path, Any]) -> Ported:
    """A wrapper around a layer that is stored elsewhere; within a transform it is built on a slice of that layer."""
    inner = made.get(seen.inner or ())
    if not isinstance(inner, Ported):
        raise NotImplementedError("it normalizes what is not a single layer")
    name, around = seen.layer.layer_instance.name, layers[seen.inner or ()]
    ported = build_wrapper(seen.layer, _port_alone(around, exact=True).module if seen.lifted else inner.module, name)
    ported.module.layer_instance = inner.module
    return ported


def _assemble(
    linen: nn.Module, call: Call, variables: Mapping[str, Any], traced: Trace, ported: Mapping[Path, Ported | Entry]
) -> Model:
    """The model with its layers at their paths, and NNX variables for all that is not in a ported layer."""
    model = Model(linen, tuple(call.rngs))
    layers = {path: each.module for path, each in ported.items() if isinstance(each, Ported)}
    for path, layer in layers.items():
        _add_child(model, path, layer, traced.modules)
    for (collection, *names), leaf in flatten_variables(variables).items():
        if not _belongs(tuple(names), ported):
            kind = nnx.variable_type_from_name(collection, allow_register=True)
            _add_child(model, tuple(names), kind(jnp.asarray(leaf)), traced.modules)
    _tell_layers(model, (), {path: _Code(traced.layers[path].layer) for path in layers})
    return model


def _tell_layers(scope: Scope, path: Path, layers: Mapping[Path, _Code]) -> None:
    """Tells each model within a model which of its layers are ported."""
    below = {known: code for known, code in layers.items() if known[: len(path)] == path}
    if isinstance(scope, Model):
        scope._layers = tuple((known[len(path) :], code) for known, code in below.items())
    for name, child in vars(scope).items():
        if isinstance(child, Scope):
            _tell_layers(child, (*path, dict(scope.linen_names).get(name, name)), below)


def _report(traced: Trace, variables: Mapping[str, Any], ported: Mapping[Path, Ported | Entry]) -> list[Entry]:
    """An entry for each layer, in the order of their calls, and for each other module with variables of its own."""
    made = []
    for path, seen in traced.layers.items():
        each = ported.get(path)
        if isinstance(each, Ported):
            made.append(Entry("/".join(path), type(seen.layer).__name__, each.kind, each.why))
        elif each is not None:
            made.append(each)
    free = dict.fromkeys(path[1:-1] for path in flatten_variables(variables) if not _is_reported(path[1:], ported))
    return made + [_describe_module(path, traced.modules.get(path)) for path in free]


def _is_reported(path: Path, ported: Mapping[Path, Ported | Entry]) -> bool:
    """Whether a variable at a path belongs to a layer that has an entry."""
    return _belongs(path, ported) or any(isinstance(ported.get(path[:end]), Entry) for end in range(len(path)))


def _describe_module(path: Path, met: Met | None) -> Entry:
    if met is None:
        return Entry("/".join(path), "unknown", PortKind.LINEN, UNMET)
    linens = met.kind.__module__.split(".")[0] == "flax"
    kind, why = (PortKind.LINEN, LINENS) if linens else (PortKind.OWN, OWN)
    return Entry("/".join(path), met.kind.__name__, kind, why)


def _load_layer(module: nnx.Module, variables: Mapping[str, Any], seen: Seen) -> None:
    """Assigns variables to an abstract layer; a lifted layer takes the whole arrays, whatever their shape."""
    if not seen.lifted:
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


def _add_child(model: Scope, path: Path, child: Any, modules: Mapping[Path, Met]) -> None:
    """Stores a layer or a variable at its path in Linen."""
    scope = model
    for end, name in enumerate(path[:-1], 1):
        if _find_attribute(scope, name) not in vars(scope):
            met = modules.get(path[:end])
            _set_child(scope, name, Model(met.alone) if met is not None and met.alone is not None else Scope())
        scope = getattr(scope, _find_attribute(scope, name))
    if _find_attribute(scope, path[-1]) in vars(scope):
        raise NotImplementedError(f"{format_path(path)} is in two collections, NNX has one name space")
    _set_child(scope, path[-1], child)


def _set_child(scope: Scope, name: str, child: Any) -> None:
    own = name
    while hasattr(Model, own) or own in vars(scope) or own.startswith("_"):
        own = own.lstrip("_") + "_"
    if own != name:
        scope.linen_names = (*getattr(scope, "linen_names", ()), (own, name))
    setattr(scope, own, child)

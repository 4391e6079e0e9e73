"""A whole Linen model as an NNX module: its own code, unchanged, over layers of NNX."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from flax.core import tracers

from tasks.porting.layers import PORTS, port_layer
from tasks.porting.variables import Path, dump, leaves

REPARAMETRIZED = (nn.WeightNorm, nn.SpectralNorm)
"""Layers that give another layer's call other parameters than it has."""


@dataclass(frozen=True)
class Entry:
    """What became of one layer of a model: `kind` and `why` as of `Ported`, or `linen` where it keeps its code."""

    path: str
    layer: str
    kind: str
    why: str = ""


@dataclass(frozen=True)
class PortedModel:
    """An NNX module that computes what a Linen model does, and what became of each of its layers."""

    module: "Model"
    report: tuple[Entry, ...]


class Model(nnx.Module):
    """A Linen module whose layers are those of NNX.

    Calling it runs the Linen code, in which each layer that was ported is one of NNX with variables of its own;
    what was not ported runs as it is, on variables that are NNX's as well. So it trains, and is split, merged,
    jitted and saved as any other. Statistics are updated in place.
    """

    def __init__(
        self, linen: nn.Module, layers: Mapping[Path, nnx.Module], rest: Mapping[Path, nnx.Variable[Any]]
    ) -> None:
        self.linen = linen
        self.paths = tuple(layers)  # as tuples, for Linen has names with a slash in them
        self.rest_paths = tuple(rest)
        self.layers = nnx.Dict({"/".join(path): layer for path, layer in layers.items()})
        self.rest = nnx.Dict({"/".join(path): variable for path, variable in rest.items()})

    def variables(self) -> dict[str, Any]:
        """The variables as the Linen model has them."""
        made: dict[str, Any] = {}
        for above in self.paths:
            for (collection, *names), leaf in leaves(dump(self.layers["/".join(above)])).items():
                _put(made, (collection, *above, *names), leaf)
        for path in self.rest_paths:
            _put(made, path, self.rest["/".join(path)][...])
        return made

    def __call__(self, *inputs: Any, rngs: nnx.Rngs | Mapping[str, jax.Array] | None = None, **given: Any) -> Any:
        """What `linen.apply(variables, *inputs, rngs=…, **given)` returns.

        `rngs` are Linen's, by name, or NNX's, of which the stream `dropout` is taken.
        """
        variables, here = self.variables(), tracers.current_trace()
        keys = {"dropout": rngs.dropout()} if isinstance(rngs, nnx.Rngs) else rngs

        def redirect(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            path = context.module.path
            if path not in self.paths or type(context.module) not in PORTS or tracers.current_trace() != here:
                return call(*args, **kwargs)
            return _called(self.layers["/".join(path)], context, call, args, kwargs)

        mutable = sorted({collection for collection in variables if collection != "params"})
        with nn.intercept_methods(redirect):
            out, changed = self.linen.apply(variables, *inputs, rngs=keys, mutable=mutable, **given)
        for path, leaf in leaves(changed).items():
            if path in self.rest_paths:
                self.rest["/".join(path)].set_value(leaf)
        return out


def _called(layer: Any, context: nn.module.InterceptorContext, call: Any, args: Any, kwargs: Any) -> Any:
    linen = context.module
    if context.method_name == "attend":
        return layer.attend(*args, **kwargs)
    if context.method_name != "__call__":
        return call(*args, **kwargs)
    if isinstance(linen, nn.Dropout):
        deterministic = kwargs.get("deterministic", args[1] if len(args) > 1 else None)
        deterministic = nn.merge_param("deterministic", linen.deterministic, deterministic)
        if deterministic or linen.rate == 0.0:
            return args[0]
        key = kwargs.get("rng")
        return layer(args[0], deterministic=False, rngs=linen.make_rng(linen.rng_collection) if key is None else key)
    if isinstance(linen, nn.BatchNorm):
        average = kwargs.pop("use_running_average", args[1] if len(args) > 1 else None)
        average = nn.merge_param("use_running_average", linen.use_running_average, average)
        return layer(args[0], use_running_average=average, **kwargs)
    return layer(*args, **kwargs)


def _put(tree: dict[str, Any], path: Path, leaf: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = leaf


def _within(variables: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The variables of the module at a path."""
    found: dict[str, Any] = {}
    for (collection, *names), leaf in leaves(variables).items():
        if tuple(names[: len(path)]) == path:
            _put(found, (collection, *names[len(path) :]), leaf)
    return found


@dataclass
class _Seen:
    """A layer as the trace met it: its configuration, the shapes of its first inputs, and what keeps it Linen's."""

    layer: nn.Module
    inputs: tuple[Any, ...]
    why: str = ""


def _traced(linen: nn.Module, variables: Any, inputs: Any, rngs: Any, given: Any) -> dict[Path, _Seen]:
    """The leaf layers of a model by their paths, from one run on shapes."""
    seen: dict[Path, _Seen] = {}

    def run(variables: Any, inputs: Any) -> Any:
        here, around = tracers.current_trace(), list[str]()

        def watch(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            module = context.module
            if type(module) in PORTS and context.method_name in ("__call__", "attend"):
                shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), args)
                met = seen.setdefault(module.path, _Seen(module.clone(parent=None), shapes))
                if tracers.current_trace() != here:
                    met.why = "it is called within nn.scan, nn.vmap, nn.jit or nn.remat"
                elif around:
                    met.why = f"{around[-1]} gives it other parameters than it has"
                elif getattr(module, "decode", False):
                    met.why = "it decodes with a cache"
                elif getattr(module, "dropout_rate", 0.0):
                    met.why = "it drops out attention weights by Linen's keys"
            if not isinstance(module, REPARAMETRIZED):
                return call(*args, **kwargs)
            around.append(type(module).__name__)
            try:
                return call(*args, **kwargs)
            finally:
                around.pop()

        with nn.intercept_methods(watch):
            return linen.apply(variables, *inputs, rngs=rngs, mutable=True, **given)

    jax.eval_shape(run, variables, inputs)
    return seen


def port_model(
    linen: nn.Module,
    variables: Mapping[str, Any],
    *inputs: Any,
    rngs: Mapping[str, jax.Array] | None = None,
    **given: Any,
) -> PortedModel:
    """An NNX module with the code and the variables of a Linen one, which gives the same bits.

    The model is run once on the shapes of `inputs`, arrays or `jax.ShapeDtypeStruct`, with the keyword arguments
    `given`, to see which layers it has: call it so that it meets all of them. Layers that are not ported keep
    Linen's code and are named in the report with the reason. Raises Misfit for variables that a layer does not
    have, and what the model raises.
    """
    keys = {"dropout": jax.random.key(0)} if rngs is None else rngs
    layers: dict[Path, nnx.Module] = {}
    report, kept = [], list[Path]()
    for path, met in _traced(linen, variables, inputs, keys, given).items():
        if any(path[: len(above)] == above for above in layers):
            continue  # a layer of a layer: attention has layers of its own
        kind, why = "linen", met.why
        if why and any(path[: len(above)] == above for above in kept):
            continue
        if not why:
            try:
                made = port_layer(met.layer, _within(variables, path), *met.inputs)
                layers[path], kind, why = made.module, made.kind, made.why
            except NotImplementedError as refusal:
                why = str(refusal)
        kept += [path] if kind == "linen" else []
        report.append(Entry("/".join(path), type(met.layer).__name__, kind, why))
    rest = {}
    for (collection, *names), leaf in leaves(variables).items():
        if not any(tuple(names[: len(path)]) == path for path in layers):
            kind_of = nnx.variable_type_from_name(collection, allow_register=True)
            rest[(collection, *names)] = kind_of(jnp.asarray(leaf))
    free = dict.fromkeys(path[1:-1] for path in rest if not any(path[1 : 1 + len(above)] == above for above in kept))
    report += [Entry("/".join(path), "variables of its own", "linen") for path in free]
    return PortedModel(Model(linen, layers, rest), tuple(report))

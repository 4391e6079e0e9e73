"""Linen layers as NNX layers: NNX's own with translated arguments, or an exact layer of this library."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from tasks.porting import exact_layers
from tasks.porting.variables import flatten_variables, list_slots, load, make_abstract

Builder = Callable[[Any, Any, nnx.Rngs], nnx.Module]
"""Builds an NNX layer from a Linen layer and the inputs of its call."""


class PortKind(StrEnum):
    """What a Linen layer was ported to."""

    NATIVE = "native"
    """NNX's own layer with its defaults."""
    ADJUSTED = "adjusted"
    """NNX's own layer with an argument that is not its default."""
    EXACT = "exact"
    """A layer of `exact_layers`, because NNX has none or computes something else."""
    OWN = "own"
    """The code of a module of one's own, over an NNX module with its variables."""
    LINEN = "linen"
    """Linen's code on NNX variables, for a layer of Linen with a setting that cannot be ported."""


@dataclass(frozen=True)
class Ported:
    """An NNX layer with the variables of a Linen layer; `why` explains a kind other than native."""

    module: nnx.Module
    kind: PortKind
    why: str = ""


@dataclass(frozen=True)
class Port:
    """The builders of a layer: the exact one, and that of NNX's own class if there is one."""

    exact: Builder
    native: Builder | None
    kind: PortKind = PortKind.NATIVE
    why: str = ""


def _get_size(inputs: Any, axis: int = -1) -> int:
    return int(inputs[0].shape[axis])


def _get_dtypes(layer: Any) -> dict[str, Any]:
    return {"dtype": layer.dtype, "param_dtype": layer.param_dtype}


def _build_dense(layer: nn.Dense, inputs: Any, rngs: nnx.Rngs) -> nnx.Module:
    more = {"dot_general": _adapt_dot_general(layer.dot_general)} if layer.dot_general is not None else {}
    return nnx.Linear(
        _get_size(inputs), layer.features, use_bias=layer.use_bias, precision=layer.precision, rngs=rngs,
        **_get_dtypes(layer), **more,
    )  # fmt: skip


def _adapt_dot_general(general: Any) -> Any:
    """A function with Linen's signature, which has no sharding."""
    return lambda *args, out_sharding=None, **given: general(*args, **given)


def _list_axes(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def _build_dense_general(layer: nn.DenseGeneral, inputs: Any, rngs: nnx.Rngs) -> nnx.Module:
    ndim = len(inputs[0].shape)
    axes = sorted(_list_axes(layer.axis), key=lambda axis: axis % ndim)  # counted as in Linen, if the rank changes
    batch = sorted(axis % ndim for axis in _list_axes(layer.batch_dims))
    more = {"dot_general": _adapt_dot_general(layer.dot_general)} if layer.dot_general is not None else {}
    return nnx.LinearGeneral(
        tuple(_get_size(inputs, axis) for axis in axes), layer.features, axis=tuple(axes),
        batch_axis={axis: _get_size(inputs, axis) for axis in batch}, use_bias=layer.use_bias,
        precision=layer.precision, rngs=rngs, **_get_dtypes(layer), **more,
    )  # fmt: skip


def _build_einsum(layer: nn.Einsum, inputs: Any, rngs: nnx.Rngs) -> nnx.Module:
    text = layer.einsum_str if layer.einsum_str is not None else inputs[1]
    bias = None
    if layer.use_bias:
        given = jax.eval_shape(lambda x: layer.init(jax.random.key(0), x, *inputs[1:]), inputs[0])
        bias = given["params"]["bias"].shape
    return nnx.Einsum(text, layer.shape, bias, precision=layer.precision, rngs=rngs, **_get_dtypes(layer))


def _get_conv_arguments(layer: Any) -> dict[str, Any]:
    names = ("kernel_size", "strides", "padding", "kernel_dilation", "use_bias", "mask", "precision")
    return {name: getattr(layer, name) for name in names} | _get_dtypes(layer)


def _build_conv(layer: nn.Conv, inputs: Any, rngs: nnx.Rngs) -> nnx.Module:
    groups = {"input_dilation": layer.input_dilation, "feature_group_count": layer.feature_group_count}
    return nnx.Conv(_get_size(inputs), layer.features, rngs=rngs, **groups, **_get_conv_arguments(layer))


def _build_conv_transpose(layer: nn.ConvTranspose, inputs: Any, rngs: nnx.Rngs) -> nnx.Module:
    more = {"transpose_kernel": layer.transpose_kernel}
    return nnx.ConvTranspose(_get_size(inputs), layer.features, rngs=rngs, **more, **_get_conv_arguments(layer))


def _build_conv_local(layer: nn.ConvLocal, inputs: Any, rngs: nnx.Rngs) -> nnx.Module:
    size = _list_axes(layer.kernel_size)

    def each(value: Any) -> tuple[int, ...]:
        return (value or 1,) * len(size) if value is None or isinstance(value, int) else tuple(value)

    return exact_layers.ConvLocal(
        inputs[0].shape, layer.features, kernel_size=size, strides=each(layer.strides), padding=layer.padding,
        input_dilation=each(layer.input_dilation), kernel_dilation=each(layer.kernel_dilation),
        use_bias=layer.use_bias, mask=layer.mask, precision=layer.precision, rngs=rngs, **_get_dtypes(layer),
    )  # fmt: skip


def _build_embed(layer: nn.Embed, inputs: Any, rngs: nnx.Rngs) -> nnx.Module:
    return nnx.Embed(layer.num_embeddings, layer.features, rngs=rngs, **_get_dtypes(layer))


def _keep_dtype(arrays: Any, **_: Any) -> Any:
    """Replaces `promote_dtype`, because NNX casts before it computes the statistics, Linen afterwards."""
    return arrays


def _make_norm_builder(kind: Any, *names: str, exact: bool) -> Builder:
    """A norm of NNX; `exact` computes its statistics in the dtype of the inputs, as Linen does."""

    def build(layer: Any, inputs: Any, rngs: nnx.Rngs) -> nnx.Module:
        if not layer.force_float32_reductions:
            raise NotImplementedError("norms are ported with force_float32_reductions only, which NNX always does")
        given = {
            name: getattr(layer, name) for name in ("epsilon", "use_scale", "axis_name", "axis_index_groups", *names)
        }
        given |= {"use_fast_variance": layer.use_fast_variance, **_get_dtypes(layer)}
        sizes = [_get_size(inputs, axis) for axis in _list_feature_axes(layer, len(inputs[0].shape))]
        more = {"promote_dtype": _keep_dtype} if exact else {}
        made = kind(sizes[0] if len(sizes) == 1 else 1, rngs=rngs, **given, **more)
        return made if len(sizes) == 1 else _reshape_parameters(made, tuple(sizes))

    return build


def _list_feature_axes(layer: Any, ndim: int) -> list[int]:
    """The axes of a norm's parameters, in the order of their own axes."""
    axes = getattr(layer, "axis", getattr(layer, "feature_axes", -1))
    return sorted({axis % ndim for axis in _list_axes(axes)})


def _reshape_parameters(norm: Any, shape: tuple[int, ...]) -> nnx.Module:
    """A norm of NNX with parameters over several axes, which its constructor cannot make, but its call can use."""
    for name in ("scale", "bias"):
        if (known := getattr(norm, name, None)) is not None:
            setattr(norm, name, nnx.Param(jnp.zeros(shape, known.dtype)))
    return norm


def _make_norm_port(kind: Any, *names: str) -> Port:
    why = "NNX casts to dtype before it takes the statistics, Linen after: they differ in bfloat16"
    return Port(
        _make_norm_builder(kind, *names, exact=True),
        _make_norm_builder(kind, *names, exact=False),
        PortKind.ADJUSTED,
        why,
    )


def _make_cell_builder(kind: Any, *names: str) -> Builder:
    def build(layer: Any, inputs: Any, rngs: nnx.Rngs) -> nnx.Module:
        given = {name: getattr(layer, name) for name in names} | _get_dtypes(layer)
        return kind(int(inputs[1].shape[-1]), layer.features, rngs=rngs, **given)

    return build


def _adapt_attention_fn(layer: Any) -> Callable[..., jax.Array]:
    """Linen's attention function with the arguments that NNX passes, of which it gets those in its signature."""
    function, fp32 = layer.attention_fn, layer.force_fp32_for_softmax
    names = set(inspect.signature(function).parameters) - {"module"}

    def attend(*qkv: jax.Array, is_causal: bool = False, **given: Any) -> jax.Array:
        if is_causal:
            raise NotImplementedError("Linen's attention knows no is_causal; give a causal mask")
        given["force_fp32_for_softmax"] = fp32
        return function(*qkv, **{name: value for name, value in given.items() if name in names})

    return attend


def _make_attention_builder(*, exact: bool) -> Builder:
    def build(layer: Any, inputs: Any, rngs: nnx.Rngs) -> nnx.Module:
        kv = inputs[1] if len(inputs) > 1 and inputs[1] is not None else inputs[0]
        if len(inputs) > 2 and inputs[2] is not None and inputs[2].shape[-1] != kv.shape[-1]:
            raise NotImplementedError("its keys and values have different widths")
        fp32 = layer.force_fp32_for_softmax
        if fp32 and not exact:
            raise NotImplementedError("NNX has no force_fp32_for_softmax")
        attention = _adapt_attention_fn(layer) if exact or layer.attention_fn is not nn.dot_product_attention else None
        names = (
            "num_heads",
            "qkv_features",
            "out_features",
            "broadcast_dropout",
            "dropout_rate",
            "precision",
            "use_bias",
        )
        given = {name: getattr(layer, name) for name in (*names, "normalize_qk")} | _get_dtypes(layer)
        given |= {"attention_fn": attention} if attention is not None else {}
        given |= {"ln_promote_dtype": _keep_dtype} if exact else {}
        kind = exact_layers.MultiHeadAttention if exact else nnx.MultiHeadAttention
        return kind(
            in_features=_get_size(inputs), in_kv_features=int(kv.shape[-1]), decode=bool(layer.decode), keep_rngs=False,
            deterministic=layer.deterministic, rngs=rngs, **given,
        )  # fmt: skip

    return build


def _build_prelu(layer: nn.PReLU, inputs: Any, rngs: nnx.Rngs) -> nnx.Module:
    return nnx.PReLU(param_dtype=layer.param_dtype)


def _build_dropout(layer: nn.Dropout, inputs: Any, rngs: nnx.Rngs) -> nnx.Module:
    deterministic = bool(layer.deterministic)
    return nnx.Dropout(layer.rate, broadcast_dims=layer.broadcast_dims, deterministic=deterministic)


def _list_inner_layers(layer: nn.Module) -> list[nn.Module]:
    """The layers within a layer."""
    if isinstance(layer, nn.RNN):
        return [layer.cell]
    if isinstance(layer, nn.Bidirectional):
        return [part for rnn in (layer.forward_rnn, layer.backward_rnn) for part in (rnn, *_list_inner_layers(rnn))]
    if isinstance(layer, nn.Sequential):
        parts = [part for part in layer.layers if isinstance(part, nn.Module)]
        return [inner for part in parts for inner in (part, *_list_inner_layers(part))]
    if isinstance(layer, nn.WeightNorm | nn.SpectralNorm):
        return [layer.layer_instance, *_list_inner_layers(layer.layer_instance)]
    return []


def _build(layer: nn.Module, inputs: Any, rngs: nnx.Rngs, *, exact: bool) -> nnx.Module:
    """Builds a layer, and checks that its builder has read every setting."""
    port = _find_port(layer)
    build = port.exact if exact else port.native
    if build is None:
        raise LookupError(f"{type(layer).__name__}: {port.why}")
    read = _SettingsRecorder(layer)
    made = build(read, inputs, rngs)
    for field in dataclasses.fields(layer):
        initial = field.name.endswith("_init") or field.name in ("parent", "name", "rng_collection")
        if not initial and field.name not in read.names and not _is_default(field, getattr(layer, field.name)):
            raise NotImplementedError(f"its {field.name} is not translated")
    return made


class _SettingsRecorder:
    """A layer that records which of its settings are read."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer, self.names = layer, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.names.add(name)
        return getattr(self.layer, name)


def _is_default(field: Any, value: Any) -> bool:
    default = field.default
    if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    return value is default or (not hasattr(value, "shape") and bool(value == default))


def _make_rnn_builder(*, exact: bool) -> Builder:
    def build(layer: nn.RNN, inputs: Any, rngs: nnx.Rngs) -> nnx.Module:
        shape = list(inputs[0].shape)
        del shape[0 if layer.time_major else len(shape) - layer.cell.num_feature_axes - 1]
        carry = jax.eval_shape(lambda: layer.cell.initialize_carry(jax.random.key(0), tuple(shape)))
        if getattr(layer.cell, "carry_init", jax.nn.initializers.zeros) is not jax.nn.initializers.zeros:
            raise NotImplementedError("an RNN is ported with a carry that begins with zeros")
        if layer.variable_axes or layer.variable_carry or layer.variable_broadcast != "params":
            raise NotImplementedError("an RNN is ported with parameters that are the same at each step")
        cell = _build(layer.cell, (carry, jax.ShapeDtypeStruct(tuple(shape), inputs[0].dtype)), rngs, exact=exact)
        names = ("time_major", "return_carry", "reverse", "keep_order", "unroll")
        given = {name: getattr(layer, name) for name in names}
        return exact_layers.RNN(cell, rngs=False, **given) if exact else nnx.RNN(cell, **given)

    return build


def _make_bidirectional_builder(*, exact: bool) -> Builder:
    def build(layer: nn.Bidirectional, inputs: Any, rngs: nnx.Rngs) -> nnx.Module:
        both = (_build(rnn, inputs, rngs, exact=exact) for rnn in (layer.forward_rnn, layer.backward_rnn))
        given = {name: getattr(layer, name) for name in ("merge_fn", "time_major", "return_carry")}
        return nnx.Bidirectional(*both, rngs=not exact, **given)

    return build


def _make_sequential_builder(*, exact: bool) -> Builder:
    def build(layer: nn.Sequential, inputs: Any, rngs: nnx.Rngs) -> nnx.Module:
        made = []
        for part in layer.layers:
            if isinstance(part, nn.Module):
                made.append(_build(part, inputs, rngs, exact=exact))
                out, _ = jax.eval_shape(part.init_with_output, jax.random.key(0), *inputs)
            else:
                made.append(part)
                out = jax.eval_shape(part, *inputs)
            inputs = out if isinstance(out, tuple) else (out,)
        return nnx.Sequential(*made)

    return build


WRAPPER_SETTINGS = {
    nn.WeightNorm: ("epsilon", "use_scale", "feature_axes", "variable_filter"),
    nn.SpectralNorm: ("n_steps", "epsilon", "error_on_non_matrix", "collection_name"),
}


def _make_wrapper_builder(wrapper: type) -> Builder:
    def build(layer: Any, inputs: Any, rngs: nnx.Rngs) -> nnx.Module:
        return _wrap(wrapper, layer, _build(layer.layer_instance, inputs, rngs, exact=True))

    return build


def _wrap(wrapper: type, layer: Any, inner: nnx.Module, name: str | None = None) -> nnx.Module:
    given = {setting: getattr(layer, setting) for setting in WRAPPER_SETTINGS[wrapper]} | _get_dtypes(layer)
    return WRAPPERS[wrapper](inner, name=name, **given)


def build_wrapper(layer: nn.WeightNorm | nn.SpectralNorm, inner: nnx.Module, name: str) -> Ported:
    """Builds an exact wrapper around a ported layer that is stored elsewhere in its model, under a Linen name."""
    port = _find_port(layer)
    return Ported(_wrap(type(layer), layer, inner, name), port.kind, port.why)


def _make_native_port(build: Builder) -> Port:
    return Port(build, build)


_NONE = "NNX has no such layer"
_ATTENTION = Port(
    _make_attention_builder(exact=True),
    _make_attention_builder(exact=False),
    PortKind.ADJUSTED,
    "NNX takes jax.nn.dot_product_attention, which scales elsewhere and drops the precision: other bits",
)

LEAF_LAYERS: Mapping[type, Port] = {
    nn.Dense: _make_native_port(_build_dense),
    nn.DenseGeneral: _make_native_port(_build_dense_general),
    nn.Einsum: _make_native_port(_build_einsum),
    nn.Conv: _make_native_port(_build_conv),
    nn.ConvTranspose: _make_native_port(_build_conv_transpose),
    nn.ConvLocal: Port(_build_conv_local, None, PortKind.EXACT, _NONE),
    nn.Embed: _make_native_port(_build_embed),
    nn.LayerNorm: _make_norm_port(nnx.LayerNorm, "use_bias", "reduction_axes", "feature_axes"),
    nn.RMSNorm: _make_norm_port(nnx.RMSNorm, "reduction_axes", "feature_axes"),
    nn.BatchNorm: _make_norm_port(nnx.BatchNorm, "use_bias", "axis", "momentum", "use_running_average"),
    nn.GroupNorm: _make_norm_port(nnx.GroupNorm, "use_bias", "num_groups", "group_size", "reduction_axes"),
    nn.InstanceNorm: _make_norm_port(nnx.InstanceNorm, "use_bias", "feature_axes"),
    nn.LSTMCell: _make_native_port(_make_cell_builder(nnx.LSTMCell, "gate_fn", "activation_fn")),
    nn.OptimizedLSTMCell: Port(
        _make_cell_builder(exact_layers.OptimizedLSTMCell, "gate_fn", "activation_fn"),
        _make_cell_builder(nnx.OptimizedLSTMCell, "gate_fn", "activation_fn"),
        PortKind.EXACT,
        "nnx.OptimizedLSTMCell keeps its gates joined: gradients over a sequence are summed in another order",
    ),
    nn.SimpleCell: _make_native_port(_make_cell_builder(nnx.SimpleCell, "activation_fn", "residual")),
    nn.GRUCell: Port(
        _make_cell_builder(exact_layers.GRUCell, "gate_fn", "activation_fn"),
        None,
        PortKind.EXACT,
        "nnx.GRUCell has no bias at the recurrent candidate (google/flax issue 5594)",
    ),
    nn.MGUCell: Port(
        _make_cell_builder(exact_layers.MGUCell, "gate_fn", "activation_fn", "reset_gate"), None, PortKind.EXACT, _NONE
    ),
    nn.ConvLSTMCell: Port(
        _make_cell_builder(exact_layers.ConvLSTMCell, "kernel_size", "strides", "padding", "use_bias"),
        None,
        PortKind.EXACT,
        _NONE,
    ),
    nn.MultiHeadDotProductAttention: _ATTENTION,
    nn.MultiHeadAttention: _ATTENTION,
    nn.SelfAttention: _ATTENTION,
    nn.PReLU: _make_native_port(_build_prelu),
    nn.Dropout: _make_native_port(_build_dropout),
}
"""Linen layers that contain no others, with their ports."""
PORTS: Mapping[type, Port] = {
    **LEAF_LAYERS,
    nn.RNN: Port(
        _make_rnn_builder(exact=True),
        _make_rnn_builder(exact=False),
        PortKind.ADJUSTED,
        "nnx.RNN keeps random numbers to begin with zeros",
    ),
    nn.Bidirectional: Port(_make_bidirectional_builder(exact=True), _make_bidirectional_builder(exact=False)),
    nn.Sequential: Port(_make_sequential_builder(exact=True), _make_sequential_builder(exact=False)),
    nn.WeightNorm: Port(
        _make_wrapper_builder(nn.WeightNorm),
        None,
        PortKind.EXACT,
        "nnx.WeightNorm overwrites the kernel at each call (google/flax issue 5576)",
    ),
    nn.SpectralNorm: Port(
        _make_wrapper_builder(nn.SpectralNorm),
        None,
        PortKind.EXACT,
        "nnx.SpectralNorm overwrites the kernel at each call (google/flax issue 5576)",
    ),
}
"""All Linen layers that can be ported."""
WRAPPERS: Mapping[type, Any] = {nn.WeightNorm: exact_layers.WeightNorm, nn.SpectralNorm: exact_layers.SpectralNorm}
"""Linen layers that call another one with normalized parameters, with their exact layers."""
ATTENTIONS = (nn.MultiHeadDotProductAttention, nn.MultiHeadAttention, nn.SelfAttention)


def port_layer(layer: nn.Module, variables: Mapping[str, Any], *inputs: Any, exact: bool = True) -> Ported:
    """Returns an NNX layer with the configuration and the variables of a Linen layer.

    `variables` are those of `layer.init`. `inputs` are the arguments of a call, arrays or `jax.ShapeDtypeStruct`,
    because an NNX layer is constructed with its number of input features. With `exact` the outputs and gradients
    have the same bits as Linen's; without it the layer is NNX's own class with its defaults.

    Raises KeyError for a class that is not in `PORTS`, LookupError where NNX has no such class (without `exact`),
    NotImplementedError for a setting that cannot be ported, and VariableMismatchError for other variables.

    >>> layer = nn.Dense(3)
    >>> x = jnp.ones((2, 4))
    >>> variables = layer.init(jax.random.key(0), x)
    >>> ported = port_layer(layer, variables, x)
    >>> type(ported.module).__name__, str(ported.kind)
    ('Linear', 'native')
    >>> bool((ported.module(x) == layer.apply(variables, x)).all())
    True
    """
    ported = build_layer(layer, variables, *inputs, exact=exact)
    load(ported.module, variables)
    return ported


def build_layer(layer: nn.Module, variables: Mapping[str, Any], *inputs: Any, exact: bool = True) -> Ported:
    """Builds the ported layer with abstract variables of the shapes of `variables`."""
    port = _find_port(layer)
    mask = getattr(layer, "mask", None)

    def make() -> nnx.Module:
        return _as_initialized(_build(layer, inputs, nnx.Rngs(0), exact=exact), variables)

    module = nnx.eval_shape(make) if exact else make_abstract(make)  # NNX's own may hold a stream of random numbers
    if mask is not None:
        module.mask = jnp.asarray(mask)
    if not exact:
        return Ported(module, PortKind.NATIVE)
    others = [port, *(_find_port(part) for part in _list_inner_layers(layer))]
    port = next((other for other in others if other.kind is not PortKind.NATIVE), port)
    return Ported(module, port.kind, port.why)


def _find_port(layer: nn.Module) -> Port:
    port = PORTS.get(type(layer))
    if port is None:
        known = ", ".join(kind.__name__ for kind in PORTS)
        raise KeyError(f"{type(layer).__name__} is not a known layer; known are: {known}")
    return port


def _as_initialized(module: nnx.Module, variables: Mapping[str, Any]) -> nnx.Module:
    """Adds what only Linen's `init` determines: the cache of a decoding attention, the dtypes of wrapped parameters."""
    if isinstance(module, nnx.MultiHeadAttention) and (cache := variables.get("cache")):
        for name in ("cached_key", "cached_value", "cache_index"):
            setattr(module, name, nnx.Cache(jnp.zeros(cache[name].shape, cache[name].dtype)))
    if isinstance(module, exact_layers.Wrapper):
        given = flatten_variables(variables)
        for slot in list_slots(module.layer_instance):
            if (like := given.get(("params", "layer_instance", *slot.parts[0][0][1:]))) is not None:
                slot.variable.set_value(slot.variable[...].astype(like.dtype))
    return module

"""NNX layers with the bits of Linen's, for layers that NNX does not have or computes differently."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from tasks.porting.variables import format_path, list_slots

Shape = tuple[int, ...]
PADDING_MODES: Mapping[Any, Any] = {"CIRCULAR": "wrap", "REFLECT": "reflect", "CAUSAL": "constant"}
"""The paddings of convolutions that `jax.lax` does not know, with the modes of `jnp.pad` that make them."""


class _Cell(nnx.RNNCellBase):
    """A cell as `nnx.RNN` requires it, with a carry of zeros, `(..., features)`, in the dtype of the parameters."""

    features: int
    param_dtype: Any
    num_feature_axes = 1

    def initialize_carry(self, input_shape: Shape, rngs: Any = None, carry_init: Any = None) -> Any:
        return jnp.zeros((*input_shape[: -self.num_feature_axes], self.features), self.param_dtype)


class _GatedCell(_Cell):
    """A cell with a linear layer for each gate, as in Linen; `gates` maps their names to whether they have a bias.

    The layers of the inputs have names that begin with `i`, those of the carry with `h`.
    """

    gates: ClassVar[Mapping[str, bool]]

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        gate_fn: Callable[[jax.Array], jax.Array],
        activation_fn: Callable[[jax.Array], jax.Array],
        dtype: Any,
        param_dtype: Any,
        rngs: nnx.Rngs,
        biases: Mapping[str, bool] | None = None,
    ) -> None:
        for name, has_bias in {**self.gates, **(biases or {})}.items():
            size = in_features if name.startswith("i") else features
            layer = nnx.Linear(size, features, use_bias=has_bias, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
            setattr(self, name, layer)
        self.gate_fn, self.activation_fn, self.dtype = gate_fn, activation_fn, dtype
        self.features, self.param_dtype = features, param_dtype


class GRUCell(_GatedCell):
    """Linen's gated recurrent unit (Cho et al., 2014): six separate layers, `hn` with a bias.

    `nnx.GRUCell` has no bias at the recurrent candidate (google/flax issue 5594), so it cannot hold the same weights.
    The carry and the inputs have shapes `(..., features)` and `(..., in)`.
    """

    gates: ClassVar = {"ir": True, "iz": True, "in_": True, "hr": False, "hz": False, "hn": True}

    def __call__(self, carry: jax.Array, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        r = self.gate_fn(self.ir(inputs) + self.hr(carry))
        z = self.gate_fn(self.iz(inputs) + self.hz(carry))
        n = self.activation_fn(self.in_(inputs) + r * self.hn(carry))
        carry = (1.0 - z) * n + z * carry
        return carry, carry


class OptimizedLSTMCell(_GatedCell):
    """Linen's optimized LSTM (Hochreiter and Schmidhuber, 1997): separate gates, concatenated at each call.

    `nnx.OptimizedLSTMCell` stores them concatenated: over a sequence, sums in its gradients are rounded differently.
    """

    gates: ClassVar = dict.fromkeys(("ii", "if_", "ig", "io"), False) | dict.fromkeys(("hi", "hf", "hg", "ho"), True)

    def _apply_joined(self, x: jax.Array, layers: Sequence[nnx.Linear]) -> list[jax.Array]:
        kernel = jnp.concatenate([layer.kernel[...] for layer in layers], axis=-1)
        biases = [layer.bias[...] for layer in layers if layer.bias is not None]
        bias = jnp.concatenate(biases, axis=-1) if biases else None
        x, kernel, bias = nnx.nn.dtypes.promote_dtype((x, kernel, bias), dtype=self.dtype)
        y = jnp.dot(x, kernel)
        return jnp.split(y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + (-1,)), 4, axis=-1)

    def initialize_carry(self, input_shape: Shape, rngs: Any = None, carry_init: Any = None) -> Any:
        zeros = super().initialize_carry(input_shape)
        return zeros, zeros

    def __call__(
        self, carry: tuple[jax.Array, jax.Array], inputs: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        c, h = carry
        from_h = self._apply_joined(h, (self.hi, self.hf, self.hg, self.ho))
        from_x = self._apply_joined(inputs, (self.ii, self.if_, self.ig, self.io))
        i, f, g, o = (a + b for a, b in zip(from_h, from_x, strict=True))
        c = self.gate_fn(f) * c + self.gate_fn(i) * self.activation_fn(g)
        h = self.gate_fn(o) * self.activation_fn(c)
        return (c, h), h


class MGUCell(_GatedCell):
    """Linen's minimal gated unit (Zhou et al., 2016), which NNX does not have."""

    gates: ClassVar = {"if_": True, "in_": True, "hf": False, "hn": True}

    def __init__(self, in_features: int, features: int, *, reset_gate: bool, **settings: Any) -> None:
        super().__init__(in_features, features, biases={"hn": reset_gate}, **settings)
        self.reset_gate = reset_gate

    def __call__(self, carry: jax.Array, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        f = self.gate_fn(self.if_(inputs) + self.hf(carry))
        x = self.hn(carry)
        if self.reset_gate:
            x *= f
        n = self.activation_fn(self.in_(inputs) + x)
        carry = (1.0 - f) * n + f * carry
        return carry, carry


class ConvLSTMCell(_Cell):
    """Linen's convolutional LSTM (Shi et al., 2015), which NNX does not have.

    Carry and inputs have shapes `(batch, …, features)`.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        kernel_size: Sequence[int],
        strides: Any,
        padding: Any,
        use_bias: bool,
        dtype: Any,
        param_dtype: Any,
        rngs: nnx.Rngs,
    ) -> None:
        def layer(size: int) -> nnx.Conv:
            return nnx.Conv(
                size, 4 * features, kernel_size, strides=strides, padding=padding, use_bias=use_bias,
                dtype=dtype, param_dtype=param_dtype, rngs=rngs,
            )  # fmt: skip

        self.ih, self.hh = layer(in_features), layer(features)
        self.features, self.param_dtype = features, param_dtype
        self.num_feature_axes = len(kernel_size) + 1

    def initialize_carry(self, input_shape: Shape, rngs: Any = None, carry_init: Any = None) -> Any:
        zeros = jnp.zeros((*input_shape[:-1], self.features), self.param_dtype)
        return zeros, zeros

    def __call__(
        self, carry: tuple[jax.Array, jax.Array], inputs: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        c, h = carry
        i, g, f, o = jnp.split(self.ih(inputs) + self.hh(h), 4, axis=-1)
        c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (c, h), h


class ConvLocal(nnx.Module):
    """Linen's convolution with a separate kernel at each position, which NNX does not have.

    The kernel and its mask have shape `(*out_shape, prod(kernel_size) * in, features)`, the bias
    `(*out_shape, features)`.
    """

    def __init__(
        self,
        in_shape: Shape,
        features: int,
        *,
        kernel_size: Shape,
        strides: Shape,
        padding: Any,
        input_dilation: Shape,
        kernel_dilation: Shape,
        use_bias: bool,
        mask: Any,
        precision: Any,
        dtype: Any,
        param_dtype: Any,
        rngs: nnx.Rngs,
    ) -> None:
        self.kernel_size, self.strides, self.precision, self.mask = kernel_size, strides, precision, mask
        known = nnx.nn.linear.canonicalize_padding(padding, len(kernel_size))
        self.padding = known if isinstance(known, str) else tuple(known)
        self.input_dilation, self.kernel_dilation, self.dtype = input_dilation, kernel_dilation, dtype
        whole = jax.ShapeDtypeStruct((*kernel_size, in_shape[-1], features), param_dtype)
        inputs = jax.ShapeDtypeStruct((1, *in_shape[-len(kernel_size) - 1 :]), param_dtype)
        out = jax.eval_shape(
            lambda x, kernel: self._convolve(lax.conv_general_dilated, self._pad(x), kernel), inputs, whole
        )
        size = int(np.prod(kernel_size)) * in_shape[-1]
        shape = (*out.shape[1:-1], size, features)
        self.kernel = nnx.Param(jax.nn.initializers.lecun_normal()(rngs.params(), shape, param_dtype))
        self.bias = nnx.Param(jnp.zeros(out.shape[1:], param_dtype)) if use_bias else None

    def _pad(self, inputs: jax.Array) -> jax.Array:
        """Inputs with the padding that `lax` does not know."""
        if self.padding not in PADDING_MODES:
            return inputs
        dilated = [(size - 1) * dilation for size, dilation in zip(self.kernel_size, self.kernel_dilation, strict=True)]
        causal = self.padding == "CAUSAL"
        pads = [(size if causal else size // 2, 0 if causal else (size + 1) // 2) for size in dilated]
        return jnp.pad(inputs, [(0, 0), *pads, (0, 0)], mode=PADDING_MODES[self.padding])

    def _convolve(
        self, convolve: Callable[..., jax.Array], inputs: jax.Array, kernel: jax.Array, **more: Any
    ) -> jax.Array:
        spatial = tuple(range(1, inputs.ndim - 1))
        last = inputs.ndim - 1
        numbers = lax.ConvDimensionNumbers((0, last, *spatial), (last, last - 1, *range(last - 1)), (0, last, *spatial))
        return convolve(
            inputs, kernel, window_strides=self.strides, lhs_dilation=self.input_dilation,
            padding="VALID" if self.padding in PADDING_MODES else self.padding,
            rhs_dilation=self.kernel_dilation, dimension_numbers=numbers, precision=self.precision, **more,
        )  # fmt: skip

    def __call__(self, inputs: jax.Array) -> jax.Array:
        outer = inputs.shape[: inputs.ndim - len(self.kernel_size) - 1]
        flat = self._pad(inputs.reshape(-1, *inputs.shape[len(outer) :]))
        kernel = self.kernel[...] if self.mask is None else self.kernel[...] * self.mask
        bias = None if self.bias is None else self.bias[...]
        flat, kernel, bias = nnx.nn.dtypes.promote_dtype((flat, kernel, bias), dtype=self.dtype)
        y = self._convolve(lax.conv_general_dilated_local, flat, kernel, filter_shape=self.kernel_size)
        if bias is not None:
            y += bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)
        return y.reshape(*outer, *y.shape[1:])


class RNN(nnx.RNN):
    """`nnx.RNN` that starts from zeros, as Linen's cells do, and so needs no stream of random numbers."""

    def __call__(self, inputs: jax.Array, *, initial_carry: Any = None, **given: Any) -> Any:
        if initial_carry is None:
            major = given.get("time_major")
            time = 0 if (self.time_major if major is None else major) else -1 - self.cell.num_feature_axes
            shape = list(inputs.shape)
            del shape[time]
            initial_carry = self.cell.initialize_carry(tuple(shape), nnx.Rngs(0))
        return super().__call__(inputs, initial_carry=initial_carry, **given)


class MultiHeadAttention(nnx.MultiHeadAttention):
    """`nnx.MultiHeadAttention` whose `rngs` may also be the key of the dropout itself, as Linen's `dropout_rng` is.

    An attention function that makes Linen modules can be called within the Linen model only.
    """

    def __call__(self, *inputs: Any, rngs: Any = None, **given: Any) -> jax.Array:
        stream = rngs is None or isinstance(rngs, nnx.Rngs) or callable(rngs)
        return super().__call__(*inputs, rngs=rngs if stream else lambda: rngs, **given)


def _normalize(x: jax.Array, epsilon: float, axis: Any = None) -> jax.Array:
    return x * lax.rsqrt((x * x).sum(axis=axis, keepdims=True) + epsilon)


class Wrapper(nnx.Module):
    """Calls a layer with transformed parameters, without changing the stored ones.

    Variables of a parameter have the names that Linen gives them: `layer_instance/kernel/scale`, or with the `name`
    of a layer that is stored `elsewhere` in the model.
    """

    elsewhere: tuple[str, ...] = ()
    """Attributes whose variables have their Linen names elsewhere."""

    def __init__(self, layer: nnx.Module, name: str | None = None) -> None:
        self.layer_instance, self.layer_name = layer, name or "layer_instance"
        self.elsewhere = ("layer_instance",) if name else ()
        if any(len(slot.parts) > 1 for slot in list_slots(layer)):
            raise NotImplementedError(
                "NNX stores the gates of this cell in one array, so they cannot be normalized separately"
            )

    def _list_parameters(self) -> dict[str, nnx.Param[Any]]:
        made = {}
        for slot in list_slots(self.layer_instance):
            if isinstance(slot.variable, nnx.Param):
                made[f"{self.layer_name}/" + format_path(slot.parts[0][0][1:])] = slot.variable
        return made

    def _call_with(self, new: dict[str, jax.Array], args: Any, given: Any) -> Any:
        parameters = self._list_parameters()
        own = {name: parameters[name][...] for name in new}
        for name, value in new.items():
            parameters[name].set_value(value)
        try:
            return self.layer_instance(*args, **given)
        finally:
            for name, value in own.items():
                parameters[name].set_value(value)


class WeightNorm(Wrapper):
    """Linen's weight normalization (Salimans and Kingma, 2016), which does not change the layer's parameters.

    `nnx.WeightNorm` overwrites them at each call (google/flax issue 5576).
    """

    def __init__(
        self,
        layer: nnx.Module,
        *,
        epsilon: float,
        use_scale: bool,
        feature_axes: Any,
        variable_filter: Any,
        dtype: Any,
        param_dtype: Any,
        name: str | None = None,
    ) -> None:
        super().__init__(layer, name)
        self.epsilon, self.feature_axes, self.dtype = epsilon, feature_axes, dtype
        names = tuple(self._list_parameters())
        self.normalized = tuple(n for n in names if not variable_filter or any(part in n for part in variable_filter))
        self.use_scale = use_scale
        for name in self.normalized if use_scale else ():
            value = self._list_parameters()[name]
            shape = [value.shape[axis] for axis in self._list_feature_axes(value.ndim)]
            setattr(self, f"{name}/scale", nnx.Param(jnp.ones(shape, param_dtype)))

    def _list_feature_axes(self, ndim: int) -> tuple[int, ...]:
        axes = () if self.feature_axes is None else self.feature_axes
        return tuple(sorted(axis % ndim for axis in ((axes,) if isinstance(axes, int) else axes)))

    def _normalize_parameter(self, name: str, value: jax.Array) -> jax.Array:
        features = self._list_feature_axes(value.ndim)
        rest = tuple(axis for axis in range(value.ndim) if axis not in features)
        new, given = _normalize(value, self.epsilon, rest), [value]
        if self.use_scale:
            scale = getattr(self, f"{name}/scale")[...]
            scale = scale.reshape([size if axis in features else 1 for axis, size in enumerate(value.shape)])
            new, given = new * scale, [value, scale]
        return jnp.asarray(new, nnx.nn.dtypes.canonicalize_dtype(*given, dtype=self.dtype))

    def __call__(self, *args: Any, **given: Any) -> Any:
        parameters = self._list_parameters()
        return self._call_with(
            {name: self._normalize_parameter(name, parameters[name][...]) for name in self.normalized}, args, given
        )


class SpectralNorm(Wrapper):
    """Linen's spectral normalization (Miyato et al., 2018), which does not change the layer's parameters.

    `nnx.SpectralNorm` overwrites them at each call (google/flax issue 5576). `u`, `(1, out)`, and `sigma`, a
    scalar, are changed with `update_stats` only.
    """

    def __init__(
        self,
        layer: nnx.Module,
        *,
        n_steps: int,
        epsilon: float,
        error_on_non_matrix: bool,
        collection_name: str,
        dtype: Any,
        param_dtype: Any,
        name: str | None = None,
    ) -> None:
        super().__init__(layer, name)
        self.n_steps, self.epsilon, self.dtype = n_steps, epsilon, dtype
        parameters = {name: value for name, value in self._list_parameters().items() if value.ndim > 1 and n_steps > 0}
        if error_on_non_matrix and any(value.ndim > 2 for value in parameters.values()):
            raise ValueError("a parameter has more than two axes, and error_on_non_matrix is True")
        self.normalized = tuple(parameters)
        kind = nnx.variable_type_from_name(collection_name, allow_register=True)
        for name, value in parameters.items():
            setattr(self, f"{name}/u", kind(jnp.ones((1, value.shape[-1]), param_dtype)))
            setattr(self, f"{name}/sigma", kind(jnp.ones((), param_dtype)))

    def _normalize_parameter(self, name: str, own: jax.Array, update_stats: bool) -> jax.Array:
        value, u = own.reshape(-1, own.shape[-1]), getattr(self, f"{name}/u")[...]
        for _ in range(self.n_steps):
            v = _normalize(jnp.matmul(u, value.transpose([1, 0])), self.epsilon)
            u = _normalize(jnp.matmul(v, value), self.epsilon)
        u, v = lax.stop_gradient(u), lax.stop_gradient(v)
        sigma = jnp.matmul(jnp.matmul(v, value), jnp.transpose(u))[0, 0]
        new = (value / jnp.where(sigma != 0, sigma, 1)).reshape(own.shape)
        if update_stats:
            getattr(self, f"{name}/u").set_value(u)
            getattr(self, f"{name}/sigma").set_value(sigma)
        return jnp.asarray(new, nnx.nn.dtypes.canonicalize_dtype(own, u, v, sigma, dtype=self.dtype))

    def __call__(self, *args: Any, update_stats: bool, **given: Any) -> Any:
        parameters = self._list_parameters()
        new = {name: self._normalize_parameter(name, parameters[name][...], update_stats) for name in self.normalized}
        return self._call_with(new, args, given)

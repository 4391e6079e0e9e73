"""NNX layers that compute what Linen's do, to the bit, where NNX has none or another one."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

Shape = tuple[int, ...]


class GRUCell(nnx.Module):
    """Linen's gated recurrent unit (Cho et al., 2014): six layers apart, `hn` with a bias.

    `nnx.GRUCell` has no bias at the recurrent candidate (google/flax issue 5594), so it cannot take the weights.
    The carry and the inputs have shapes `(..., features)` and `(..., in)`.
    """

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
    ) -> None:
        def layer(size: int, *, bias: bool) -> nnx.Linear:
            return nnx.Linear(size, features, use_bias=bias, dtype=dtype, param_dtype=param_dtype, rngs=rngs)

        self.ir, self.iz, self.in_ = (layer(in_features, bias=True) for _ in range(3))
        self.hr, self.hz = (layer(features, bias=False) for _ in range(2))
        self.hn = layer(features, bias=True)
        self.gate_fn, self.activation_fn = gate_fn, activation_fn

    def __call__(self, carry: jax.Array, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        r = self.gate_fn(self.ir(inputs) + self.hr(carry))
        z = self.gate_fn(self.iz(inputs) + self.hz(carry))
        n = self.activation_fn(self.in_(inputs) + r * self.hn(carry))
        carry = (1.0 - z) * n + z * carry
        return carry, carry


class MGUCell(nnx.Module):
    """Linen's minimal gated unit (Zhou et al., 2016), which NNX does not have."""

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        gate_fn: Callable[[jax.Array], jax.Array],
        activation_fn: Callable[[jax.Array], jax.Array],
        reset_gate: bool,
        dtype: Any,
        param_dtype: Any,
        rngs: nnx.Rngs,
    ) -> None:
        def layer(size: int, *, bias: bool) -> nnx.Linear:
            return nnx.Linear(size, features, use_bias=bias, dtype=dtype, param_dtype=param_dtype, rngs=rngs)

        self.if_, self.in_ = layer(in_features, bias=True), layer(in_features, bias=True)
        self.hf, self.hn = layer(features, bias=False), layer(features, bias=reset_gate)
        self.gate_fn, self.activation_fn, self.reset_gate = gate_fn, activation_fn, reset_gate

    def __call__(self, carry: jax.Array, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        f = self.gate_fn(self.if_(inputs) + self.hf(carry))
        x = self.hn(carry)
        if self.reset_gate:
            x *= f
        n = self.activation_fn(self.in_(inputs) + x)
        carry = (1.0 - f) * n + f * carry
        return carry, carry


class ConvLSTMCell(nnx.Module):
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

    def __call__(
        self, carry: tuple[jax.Array, jax.Array], inputs: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        c, h = carry
        i, g, f, o = jnp.split(self.ih(inputs) + self.hh(h), 4, axis=-1)
        c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (c, h), h


class ConvLocal(nnx.Module):
    """Linen's convolution with a kernel of its own at each place, which NNX does not have.

    The kernel has shape `(*out_shape, prod(kernel_size) * in, features)`, the bias `(*out_shape, features)`.
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
        precision: Any,
        dtype: Any,
        param_dtype: Any,
        rngs: nnx.Rngs,
    ) -> None:
        self.kernel_size, self.strides, self.padding, self.precision = kernel_size, strides, padding, precision
        self.input_dilation, self.kernel_dilation, self.dtype = input_dilation, kernel_dilation, dtype
        whole = jax.ShapeDtypeStruct((*kernel_size, in_shape[-1], features), param_dtype)
        inputs = jax.ShapeDtypeStruct((1, *in_shape[-len(kernel_size) - 1 :]), param_dtype)
        out = jax.eval_shape(lambda x, kernel: self._convolve(lax.conv_general_dilated, x, kernel), inputs, whole)
        size = int(np.prod(kernel_size)) * in_shape[-1]
        shape = (*out.shape[1:-1], size, features)
        self.kernel = nnx.Param(jax.nn.initializers.lecun_normal()(rngs.params(), shape, param_dtype))
        self.bias = nnx.Param(jnp.zeros(out.shape[1:], param_dtype)) if use_bias else None

    def _convolve(
        self, convolve: Callable[..., jax.Array], inputs: jax.Array, kernel: jax.Array, **more: Any
    ) -> jax.Array:
        spatial = tuple(range(1, inputs.ndim - 1))
        last = inputs.ndim - 1
        numbers = lax.ConvDimensionNumbers((0, last, *spatial), (last, last - 1, *range(last - 1)), (0, last, *spatial))
        return convolve(
            inputs, kernel, window_strides=self.strides, padding=self.padding, lhs_dilation=self.input_dilation,
            rhs_dilation=self.kernel_dilation, dimension_numbers=numbers, precision=self.precision, **more,
        )  # fmt: skip

    def __call__(self, inputs: jax.Array) -> jax.Array:
        outer = inputs.shape[: inputs.ndim - len(self.kernel_size) - 1]
        flat = inputs.reshape(-1, *inputs.shape[len(outer) :])
        bias = None if self.bias is None else self.bias[...]
        flat, kernel, bias = nnx.nn.dtypes.promote_dtype((flat, self.kernel[...], bias), dtype=self.dtype)
        y = self._convolve(lax.conv_general_dilated_local, flat, kernel, filter_shape=self.kernel_size)
        if bias is not None:
            y += bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)
        return y.reshape(*outer, *y.shape[1:])

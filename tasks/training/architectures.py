"""Small models whose number of outputs comes from the data: see conf/model."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from tasks.training.convolutions import convolve, pool
from tasks.training.dropout import Dropout


def _drop(x: jax.Array, rate: Any, train: bool) -> jax.Array:
    """Dropout within a compact method; a static rate of 0 is no layer, and draws nothing."""
    return x if isinstance(rate, int | float) and rate == 0 else Dropout(rate, deterministic=not train)(x)


def _as_image(x: jax.Array) -> jax.Array:
    """(examples, height, width, channels): squares if the inputs are flat, one channel if they have none."""
    if x.ndim == 2:
        side = round(x.shape[1] ** 0.5)
        if side * side != x.shape[1]:
            raise ValueError(f"a model of images takes (height, width[, channels]) or a square, got {x.shape[1:]}")
        x = jnp.reshape(x, (-1, side, side))
    return x if x.ndim == 4 else x[..., None]


class Mlp(nn.Module):
    """Dense layers with ReLU and dropout between them; inputs are flattened to (examples, features)."""

    hidden: Sequence[int]
    outputs: int
    dropout: Any = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns (examples, outputs)."""
        x = jnp.reshape(x, (x.shape[0], -1))
        for width in self.hidden:
            x = _drop(nn.relu(nn.Dense(width)(x)), self.dropout, train)
        return nn.Dense(self.outputs)(x)


class MupMlp(nn.Module):
    """An MLP in the maximal update parametrisation for Adam (µP; Yang et al., 2022, arXiv:2203.03466, table 3).

    With m the width over `base`, hidden kernels have a variance of `1 / width` and rates divided by m, the last kernel
    has a variance of `base / width**2` and a rate divided by m. Both are multipliers here: an optimizer whose updates
    do not depend on the scale of gradients changes `x / m @ kernel` by 1/m of what it changes `x @ kernel`. Hence the
    same learning rate for all widths. An MLP with hidden layers of `base` units is `Mlp`, to the bit.
    """

    hidden: Sequence[int]
    outputs: int
    base: int = 32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns (examples, outputs)."""
        x, m = jnp.reshape(x, (x.shape[0], -1)), 1.0
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, kernel_init=_scale_normal(m**2))(x / m))
            m = width / self.base
        return nn.Dense(self.outputs, kernel_init=_scale_normal(m))(x / m)


def _scale_normal(variance: float) -> nn.initializers.Initializer:
    """Linen's own initializer of kernels, times the root of `variance`."""
    return nn.initializers.variance_scaling(variance, "fan_in", "truncated_normal")


class Cnn(nn.Module):
    """3×3 convolutions with ReLU and 2×2 max pooling, then a hidden dense layer."""

    channels: Sequence[int]
    outputs: int
    hidden: int = 64
    dropout: Any = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns (examples, outputs) of images (examples, height, width[, channels]), or of flat squares."""
        x = _as_image(x)
        if min(x.shape[1:3]) < 2 ** len(self.channels):
            raise ValueError(f"{len(self.channels)} poolings leave nothing of an image of shape {x.shape[1:]}")
        for channels in self.channels:
            x = pool(nn.relu(nn.Conv(channels, (3, 3), conv_general_dilated=convolve)(x)))
        x = nn.relu(nn.Dense(self.hidden)(jnp.reshape(x, (x.shape[0], -1))))
        return nn.Dense(self.outputs)(_drop(x, self.dropout, train))


Conv = functools.partial(nn.Conv, use_bias=False, conv_general_dilated=convolve)


class Resnet(nn.Module):
    """Residual blocks of two 3×3 convolutions with batch normalization; each but the first halves the image."""

    channels: Sequence[int]
    outputs: int
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns (examples, outputs) of images (examples, height, width[, channels]), or of flat squares."""
        x = Conv(self.channels[0], (3, 3))(_as_image(x))
        for number, channels in enumerate(self.channels):
            strides = (1, 1) if number == 0 else (2, 2)
            inner = nn.relu(self._normalize(Conv(channels, (3, 3), strides)(x), train))
            inner = self._normalize(Conv(channels, (3, 3))(inner), train)
            if x.shape != inner.shape:
                x = Conv(channels, (1, 1), strides)(x)
            x = nn.relu(x + inner)
        return nn.Dense(self.outputs)(jnp.mean(x, axis=(1, 2)))

    def _normalize(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.BatchNorm(use_running_average=not train, momentum=self.momentum)(x)


class Transformer(nn.Module):
    """Blocks of self-attention and a dense layer, normalized before each, and the mean over the sequence.

    Tokens (examples, time) of integers are embedded, if `vocabulary` is given; of floats (examples, time[, features])
    each time step is one.
    """

    outputs: int
    width: int = 32
    heads: int = 4
    blocks: int = 2
    vocabulary: int | None = None
    dropout: Any = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns (examples, outputs)."""
        x = self._embed(x)
        shape = (x.shape[1], self.width)
        x = x + self.param("position", nn.initializers.normal(0.02), shape).astype(x.dtype)[None]
        for _ in range(self.blocks):
            inner = nn.LayerNorm()(x)
            x = x + _drop(nn.MultiHeadDotProductAttention(self.heads)(inner), self.dropout, train)
            inner = nn.Dense(self.width)(nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x))))
            x = x + _drop(inner, self.dropout, train)
        return nn.Dense(self.outputs)(jnp.mean(nn.LayerNorm()(x), axis=1))

    def _embed(self, x: jax.Array) -> jax.Array:
        if jnp.issubdtype(x.dtype, jnp.integer):
            if self.vocabulary is None:
                raise ValueError("a transformer of integer tokens needs vocabulary, the number of different tokens")
            return nn.Embed(self.vocabulary, self.width)(x)
        return nn.Dense(self.width)(x[..., None] if x.ndim == 2 else jnp.reshape(x, (*x.shape[:2], -1)))


class Encoder(nnx.Module):
    """An NNX module: a dense layer with ReLU, of inputs that are flattened to (examples, features)."""

    def __init__(self, inputs: int, hidden: int, *, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Linear(inputs, hidden, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(self.linear(x))

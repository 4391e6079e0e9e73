"""The cases of the task `parity`: layers and models of Linen with the arguments of their calls."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

SEQUENCE, IMAGE, STATE, STEP = (2, 5, 8), (2, 6, 6, 4), (2, 6), (2, 8)


@dataclass(frozen=True)
class Tokens:
    """Integers of a shape, from 0 to below a number."""

    shape: tuple[int, ...]
    below: int


@dataclass(frozen=True)
class Case:
    """A Linen module of a dtype (None is float32), with the shapes of its inputs.

    `given` are keywords of the call on both sides, `begin` the shapes of `init` where they are others. `keys` names
    the argument that takes the key of dropout, in Linen and in NNX.
    """

    make: Callable[[Any], nn.Module]
    inputs: tuple[Any, ...]
    given: Mapping[str, Any] = field(default_factory=dict)
    begin: tuple[Any, ...] | None = None
    keys: tuple[str, str] | None = None


class Residual(nn.Module):
    """A convolution with batch normalization around which its input goes, too."""

    features: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = nn.Conv(self.features, (3, 3), use_bias=False, dtype=self.dtype)(x)
        return nn.relu(x + nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)(y))


class ResNet(nn.Module):
    """A small residual network for images, with a block used twice, dropout, and a layer in `nn.remat`."""

    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Conv(4, (3, 3), dtype=self.dtype)(x)
        shared = Residual(4, self.dtype, name="shared")
        x = Residual(4, self.dtype)(shared(shared(x, train), train), train).mean((1, 2))
        x = x * self.param("gain", nn.initializers.normal(), (4,))
        x = nn.Dropout(0.3)(x, deterministic=not train)
        x = nn.remat(nn.Dense)(6, dtype=self.dtype)(nn.LayerNorm(dtype=self.dtype)(x))
        return nn.Dense(3, dtype=self.dtype)(x)


class Layer(nn.Module):
    """A layer of a transformer, of the form that `nn.scan` takes."""

    train: bool
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        quiet = not self.train
        x = x + nn.MultiHeadDotProductAttention(2, dropout_rate=0.1, deterministic=quiet, dtype=self.dtype)(
            nn.LayerNorm(dtype=self.dtype)(x)
        )
        y = nn.Dense(8, dtype=self.dtype)(nn.gelu(nn.Dense(16, dtype=self.dtype)(x)))
        return x + nn.Dropout(0.2, deterministic=quiet)(y), None


class Transformer(nn.Module):
    """A small transformer over tokens: tied embeddings, one layer apart, two scanned ones, two kinds of dropout."""

    dtype: Any = None

    @nn.compact
    def __call__(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        embed = nn.Embed(11, 8, dtype=self.dtype)
        x, _ = Layer(train, self.dtype)(embed(tokens), None)
        split = {"params": True, "dropout": True}
        stack = nn.scan(Layer, variable_axes={"params": 0}, split_rngs=split, length=2)
        x, _ = stack(train, self.dtype, name="stack")(x, None)
        return embed.attend(nn.RMSNorm(dtype=self.dtype)(x))


class Within(nn.Module):
    """Two layers of Linen within one of its transforms."""

    lift: Callable[[Any], Any]
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.lift(nn.Dense)(8, dtype=self.dtype)(x)
        return self.lift(nn.LayerNorm)(dtype=self.dtype)(x)


class Steps(nn.Module):
    """Three scanned layers, each with parameters of its own."""

    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x if self.dtype is None else x.astype(self.dtype)
        split = {"params": True}
        stack = nn.scan(_Step, variable_axes={"params": 0}, split_rngs=split, length=3)
        return stack(self.dtype)(x, None)[0]


class _Step(nn.Module):
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return nn.LayerNorm(dtype=self.dtype)(nn.Dense(8, dtype=self.dtype)(x)), None


def _vmapped(kind: Any) -> Any:
    return nn.vmap(kind, variable_axes={"params": 0}, split_rngs={"params": True})


CASES: dict[str, Case] = {
    "Dense": Case(lambda d: nn.Dense(6, dtype=d), (SEQUENCE,)),
    "DenseGeneral": Case(lambda d: nn.DenseGeneral((3, 2), axis=(1, 2), dtype=d), (SEQUENCE,)),
    "Einsum": Case(lambda d: nn.Einsum((5, 8, 3), "bti,tio->bto", dtype=d), (SEQUENCE,)),
    "Conv": Case(lambda d: nn.Conv(8, (3, 3), strides=2, feature_group_count=2, dtype=d), (IMAGE,)),
    "ConvTranspose": Case(lambda d: nn.ConvTranspose(5, (3, 3), strides=(2, 2), dtype=d), (IMAGE,)),
    "ConvLocal": Case(lambda d: nn.ConvLocal(3, (3, 3), strides=2, dtype=d), (IMAGE,)),
    "Embed": Case(lambda d: nn.Embed(11, 6, dtype=d), (Tokens((2, 5), 11),)),
    "LayerNorm": Case(lambda d: nn.LayerNorm(dtype=d), (SEQUENCE,)),
    "RMSNorm": Case(lambda d: nn.RMSNorm(dtype=d), (SEQUENCE,)),
    "GroupNorm": Case(lambda d: nn.GroupNorm(num_groups=2, dtype=d), (IMAGE,)),
    "InstanceNorm": Case(lambda d: nn.InstanceNorm(dtype=d), (IMAGE,)),
    "BatchNorm": Case(lambda d: nn.BatchNorm(use_running_average=False, dtype=d), (SEQUENCE,)),
    "WeightNorm": Case(lambda d: nn.WeightNorm(nn.Dense(6, dtype=d), dtype=d), (SEQUENCE,)),
    "SpectralNorm": Case(lambda d: nn.SpectralNorm(nn.Dense(6, dtype=d), dtype=d), (SEQUENCE,), {"update_stats": True}),
    "MultiHeadDotProductAttention": Case(
        lambda d: nn.MultiHeadDotProductAttention(2, qkv_features=12, normalize_qk=True, dtype=d),
        (SEQUENCE, (2, 3, 8)),
        {"mask": jnp.tril(jnp.ones((5, 3), dtype=bool))[None, None]},
    ),
    "DecodingAttention": Case(
        lambda d: nn.MultiHeadDotProductAttention(2, qkv_features=12, decode=True, dtype=d),
        ((2, 1, 8),),
        {},
        (SEQUENCE,),
    ),
    "LSTMCell": Case(lambda d: nn.LSTMCell(6, dtype=d), ((STATE, STATE), STEP)),
    "OptimizedLSTMCell": Case(lambda d: nn.OptimizedLSTMCell(6, dtype=d), ((STATE, STATE), STEP)),
    "GRUCell": Case(lambda d: nn.GRUCell(6, dtype=d), (STATE, STEP)),
    "MGUCell": Case(lambda d: nn.MGUCell(6, dtype=d), (STATE, STEP)),
    "SimpleCell": Case(lambda d: nn.SimpleCell(6, dtype=d), (STATE, STEP)),
    "ConvLSTMCell": Case(lambda d: nn.ConvLSTMCell(3, (3, 3), dtype=d), (((2, 6, 6, 3), (2, 6, 6, 3)), IMAGE)),
    "RNN": Case(lambda d: nn.RNN(nn.OptimizedLSTMCell(6, dtype=d)), (SEQUENCE,)),
    "Bidirectional": Case(
        lambda d: nn.Bidirectional(nn.RNN(nn.LSTMCell(6, dtype=d)), nn.RNN(nn.LSTMCell(6, dtype=d))), (SEQUENCE,)
    ),
    "Dropout": Case(lambda d: nn.Dropout(0.5, deterministic=False), (SEQUENCE,), keys=("rng", "rngs")),
    "PReLU": Case(lambda d: nn.PReLU(), (SEQUENCE,)),
    "Sequential": Case(lambda d: nn.Sequential([nn.Dense(6, dtype=d), nn.gelu, nn.LayerNorm(dtype=d)]), (SEQUENCE,)),
    "nn.scan": Case(Steps, (SEQUENCE,)),
    "nn.remat": Case(lambda d: Within(nn.remat, d), (SEQUENCE,)),
    "nn.vmap": Case(lambda d: Within(_vmapped, d), (SEQUENCE,)),
    "nn.jit": Case(lambda d: Within(nn.jit, d), (SEQUENCE,)),
    "ResNet": Case(ResNet, ((4, 8, 8, 2),), {"train": True}),
    "Transformer": Case(Transformer, (Tokens((3, 5), 11),), {"train": True}),
}
"""The cases by name: every layer that can be ported, transforms around layers, and two models."""


def _is_shape(value: Any) -> bool:
    return isinstance(value, Tokens) or (isinstance(value, tuple) and all(isinstance(size, int) for size in value))


def draw_inputs(key: jax.Array, shapes: Any) -> Any:
    """Normal arrays of these shapes, tuples of integers in tuples; `Tokens` are uniform, int32."""
    leaves, tree = jax.tree.flatten(shapes, is_leaf=_is_shape)
    keys = jax.random.split(key, max(1, len(leaves)))
    made = [
        jax.random.randint(k, leaf.shape, 0, leaf.below) if isinstance(leaf, Tokens) else jax.random.normal(k, leaf)
        for k, leaf in zip(keys, leaves, strict=False)
    ]
    return jax.tree.unflatten(tree, made)


def draw_variables(key: jax.Array, layer: nn.Module, inputs: Any, given: Mapping[str, Any] | None = None) -> Any:
    """Random variables of a layer: no bias is zero and no scale is one; variances are positive, integers zero."""
    keys = {"params": key, "dropout": key}
    shapes = jax.eval_shape(lambda *arrays: layer.init(keys, *arrays, **(given or {})), *inputs)
    paths, tree = jax.tree.flatten_with_path(shapes)
    split = jax.random.split(key, max(1, len(paths)))
    made = []
    for k, (path, leaf) in zip(split, paths, strict=False):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            made.append(jnp.zeros(leaf.shape, leaf.dtype))
            continue
        values = 0.5 * jax.random.normal(k, leaf.shape, leaf.dtype)
        made.append(jnp.abs(values) + jnp.asarray(0.1, leaf.dtype) if path[0].key == "batch_stats" else values)
    return jax.tree.unflatten(tree, made)

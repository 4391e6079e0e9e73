"""Layers of Linen with inputs, one of each kind: what parity is tried on."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

SEQUENCE, IMAGE, STATE = (2, 5, 8), (2, 6, 6, 4), (2, 6)
Shapes = tuple[Any, ...]

ZOO: dict[str, tuple[Callable[[Any], nn.Module], Shapes]] = {
    "Dense": (lambda d: nn.Dense(6, dtype=d), (SEQUENCE,)),
    "DenseGeneral": (lambda d: nn.DenseGeneral((3, 2), axis=(1, 2), dtype=d), (SEQUENCE,)),
    "Einsum": (lambda d: nn.Einsum((5, 8, 3), "bti,tio->bto", dtype=d), (SEQUENCE,)),
    "Conv": (lambda d: nn.Conv(8, (3, 3), strides=2, feature_group_count=2, dtype=d), (IMAGE,)),
    "ConvTranspose": (lambda d: nn.ConvTranspose(5, (3, 3), strides=(2, 2), dtype=d), (IMAGE,)),
    "ConvLocal": (lambda d: nn.ConvLocal(3, (3, 3), strides=2, dtype=d), (IMAGE,)),
    "LayerNorm": (lambda d: nn.LayerNorm(dtype=d), (SEQUENCE,)),
    "RMSNorm": (lambda d: nn.RMSNorm(dtype=d), (SEQUENCE,)),
    "GroupNorm": (lambda d: nn.GroupNorm(num_groups=2, dtype=d), (IMAGE,)),
    "InstanceNorm": (lambda d: nn.InstanceNorm(dtype=d), (IMAGE,)),
    "BatchNorm": (lambda d: nn.BatchNorm(use_running_average=True, dtype=d), (SEQUENCE,)),
    "LSTMCell": (lambda d: nn.LSTMCell(6, dtype=d), ((STATE, STATE), (2, 8))),
    "OptimizedLSTMCell": (lambda d: nn.OptimizedLSTMCell(6, dtype=d), ((STATE, STATE), (2, 8))),
    "GRUCell": (lambda d: nn.GRUCell(6, dtype=d), (STATE, (2, 8))),
    "MGUCell": (lambda d: nn.MGUCell(6, dtype=d), (STATE, (2, 8))),
    "SimpleCell": (lambda d: nn.SimpleCell(6, dtype=d), (STATE, (2, 8))),
    "ConvLSTMCell": (lambda d: nn.ConvLSTMCell(3, (3, 3), dtype=d), (((2, 6, 6, 3), (2, 6, 6, 3)), IMAGE)),
    "MultiHeadDotProductAttention": (
        lambda d: nn.MultiHeadDotProductAttention(2, qkv_features=12, dtype=d),
        (SEQUENCE, (2, 3, 8)),
    ),
    "PReLU": (lambda d: nn.PReLU(), (SEQUENCE,)),
}
"""For each name the layer of a dtype, and the shapes of what it is called with."""


def drawn(key: jax.Array, shapes: Any) -> Any:
    """Normal arrays of these shapes, tuples of integers in tuples."""
    leaves, tree = jax.tree.flatten(
        shapes, is_leaf=lambda s: isinstance(s, tuple) and all(isinstance(n, int) for n in s)
    )
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(tree, [jax.random.normal(k, shape) for k, shape in zip(keys, leaves, strict=True)])


def variables(key: jax.Array, layer: nn.Module, inputs: Any) -> Any:
    """Random variables of a layer: no bias is zero and no scale is one; variances are positive."""
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), *inputs))
    paths, tree = jax.tree.flatten_with_path(shapes)
    keys = jax.random.split(key, len(paths))
    made = []
    for k, (path, leaf) in zip(keys, paths, strict=True):
        values = 0.5 * jax.random.normal(k, leaf.shape, leaf.dtype)
        made.append(jnp.abs(values) + 0.1 if path[0].key == "batch_stats" else values)
    return jax.tree.unflatten(tree, made)

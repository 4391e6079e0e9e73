"""Convolution and pooling of small images as products of matrices.

On CPU, XLA's convolution of 8 × 8 images takes ten times as long, and under `vmap`, where each lane has its own
kernel, it becomes a grouped one, which takes longer still.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def convolve(
    images: jax.Array, kernel: jax.Array, window_strides: Any, padding: Any, *, precision: Any = None, **given: Any
) -> jax.Array:
    """Returns the convolution of images (examples, height, width, channels) by a kernel (height, width, in, out).

    It stands for `lax.conv_general_dilated` in `nn.Conv(conv_general_dilated=…)`. Raises ValueError for dilations
    and groups.
    """
    dilations = (*(given.get("lhs_dilation") or ()), *(given.get("rhs_dilation") or ()))
    if images.ndim != 4 or any(size != 1 for size in (*dilations, given.get("feature_group_count", 1))):
        raise ValueError("convolve takes images (examples, height, width, channels), no dilations and no groups")
    size, strides = kernel.shape[:2], tuple(window_strides)
    pads = lax.padtype_to_pads(images.shape[1:3], size, strides, padding) if isinstance(padding, str) else padding
    wide = jnp.pad(images, ((0, 0), *pads, (0, 0)))
    ends = [whole - own + 1 for whole, own in zip(wide.shape[1:3], size, strict=True)]
    shifted = [
        wide[:, row : row + ends[0] : strides[0], column : column + ends[1] : strides[1]]
        for row in range(size[0])
        for column in range(size[1])
    ]
    patches = jnp.concatenate(shifted, axis=-1)
    return jnp.matmul(patches, jnp.reshape(kernel, (-1, kernel.shape[-1])), precision=precision)


def pool(images: jax.Array) -> jax.Array:
    """Returns the largest of each 2 × 2 places; the last row or column of an odd number is left out."""
    examples, height, width, channels = images.shape
    even = images[:, : height // 2 * 2, : width // 2 * 2]
    return jnp.max(jnp.reshape(even, (examples, height // 2, 2, width // 2, 2, channels)), axis=(2, 4))

"""What stands around an optimizer of optax."""

from collections.abc import Collection, Mapping

import optax


def compose(
    optimizer: optax.GradientTransformation,
    *,
    clip: optax.GradientTransformation | None = None,
    frozen: Collection[str] = (),
    parts: Mapping[str, optax.GradientTransformation] | None = None,
    accumulate: int = 1,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer of a whole model."""
    return optax.with_extra_args_support(optax.chain(clip, optimizer) if clip is not None else optimizer)

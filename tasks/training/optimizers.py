"""What stands around an optimizer of optax: clipping, frozen parts, parts with optimizers of their own, accumulation.

A part is named by the path of its parameters from the top, as in `encoder` or `encoder/dense_0/kernel`.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

PyTree = Any
NOT_DECAYED = ("bias", "scale")
"""How Linen and NNX call the parameters of a layer that are added, and of a norm that are multiplied with."""

REST = ""
"""The label of the parameters that belong to no named part; no path is empty."""


def compose(
    optimizer: optax.GradientTransformation,
    *,
    clip: optax.GradientTransformation | None = None,
    frozen: Collection[str] = (),
    parts: Mapping[str, optax.GradientTransformation] | None = None,
    accumulate: int = 1,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer of a whole model.

    Gradients of `frozen` parts are left out first: nothing sees them, no state is kept for them, and their parameters
    keep their bits. Then gradients are averaged over `accumulate` steps, which ends in one update that equals that of
    one batch of all their examples; the optimizer and its schedules count updates. Then `clip` sees all gradients that
    are left, and then each parameter's optimizer is that of the longest path in `parts` that it belongs to, and
    `optimizer` for the rest. `init` raises ValueError for a path that no parameter has.
    """
    parts = dict(parts or {})
    inner = optimizer
    if parts:
        inner = optax.partition({**parts, REST: optimizer}, lambda params: label_parts(params, tuple(parts)))
    if clip is not None:
        inner = optax.chain(clip, inner)
    if accumulate < 1:
        raise ValueError(f"accumulate must be at least 1, got {accumulate}")
    if accumulate > 1:
        inner = optax.MultiSteps(inner, accumulate).gradient_transformation()
    labels = {REST: inner, **dict.fromkeys(frozen, hold())}
    whole = optax.partition(labels, lambda params: label_parts(params, tuple(frozen))) if frozen else inner
    return _checked(optax.with_extra_args_support(whole), {"frozen": tuple(frozen), "parts": tuple(parts)})


def hold() -> optax.GradientTransformation:
    """Updates that leave a parameter as it is, to the bit: −0.0 is added, as 0.0 would turn −0.0 into 0.0."""

    def update(updates: PyTree, state: optax.OptState, params: PyTree = None) -> tuple[PyTree, optax.OptState]:
        return jax.tree.map(lambda u: jnp.full_like(u, -0.0), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def decay_mask(leave_out: Collection[str] = NOT_DECAYED) -> Callable[[PyTree], PyTree]:
    """Which parameters a weight decay acts on: all of at least two axes whose name is not to be left out.

    Names count beside axes because the bias of an attention has two.
    """
    return lambda params: jax.tree.map_with_path(
        lambda path, leaf: jnp.ndim(leaf) > 1 and _name_leaf(path) not in leave_out, params
    )


def clip_by_part_norm(max_norm: jax.typing.ArrayLike, depth: int = 1) -> optax.GradientTransformation:
    """Clips the norm of each part of the model by itself; a part is what shares the first `depth` names of a path."""
    clip = optax.clip_by_global_norm(max_norm)

    def update(updates: PyTree, state: optax.OptState, params: PyTree = None) -> tuple[PyTree, optax.OptState]:
        leaves, structure = jax.tree.flatten_with_path(updates)
        clipped: dict[str, jax.Array] = {}
        for part in {_write_path(path[:depth]): None for path, _ in leaves}:
            own = {_write_path(path): leaf for path, leaf in leaves if _write_path(path[:depth]) == part}
            clipped |= clip.update(own, optax.EmptyState())[0]
        return jax.tree.unflatten(structure, [clipped[_write_path(path)] for path, _ in leaves]), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def label_parts(params: PyTree, names: Collection[str]) -> PyTree:
    """For each parameter the longest of the names that its path begins with, `REST` if there is none."""

    def label(path: tuple[Any, ...], leaf: Any) -> str:
        return max((name for name in names if _belongs(_write_path(path), name)), key=len, default=REST)

    return jax.tree.map_with_path(label, params)


def list_paths(params: PyTree) -> list[str]:
    """The path of each parameter."""
    return [_write_path(path) for path, _ in jax.tree.leaves_with_path(params)]


def check_paths(keyword: str, names: Collection[str], params: PyTree) -> None:
    """Raises ValueError for a name that no parameter's path begins with, with the paths that there are."""
    paths = list_paths(params)
    for name in names:
        if not any(_belongs(path, name) for path in paths):
            raise ValueError(f"{keyword}: no parameter belongs to {name!r}; there are: {', '.join(paths)}")


def _checked(
    inner: optax.GradientTransformationExtraArgs, named: Mapping[str, Collection[str]]
) -> optax.GradientTransformationExtraArgs:
    def init(params: PyTree) -> optax.OptState:
        for keyword, names in named.items():
            check_paths(keyword, names, params)
        return inner.init(params)

    return optax.GradientTransformationExtraArgs(init, inner.update)


def _belongs(path: str, name: str) -> bool:
    return path == name or path.startswith(f"{name}/")


def _write_path(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _name_leaf(path: tuple[Any, ...]) -> str:
    names = [name for name in _write_path(path).split("/") if name != "value"]  # where NNX keeps a variable's array
    return names[-1] if names else ""

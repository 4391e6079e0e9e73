"""What stands around an optimizer of optax: clipping, frozen parts, parts with optimizers of their own, accumulation.

A part is named by the path of its parameters from the top, as in `encoder` or `encoder/dense_0/kernel`.
"""

import operator
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

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
    keep their bits. Then `accumulate` averages gradients over so many steps, the last of which makes one update, that
    of one batch of all their examples. `clip` sees all gradients that are left, after the average. Then each parameter
    goes to the optimizer of the longest path in `parts` that it belongs to, and to `optimizer` if there is none.

    Raises ValueError for an `accumulate` below 1. `init` raises it for a path that no parameter belongs to, where all
    are frozen, and for a line search together with any of `frozen`, `parts` and `accumulate`.
    """
    groups, held = dict(parts or {}), _list_names(frozen)
    inner = optimizer
    if groups:
        inner = optax.partition({**groups, REST: optimizer}, lambda params: label_parts(params, groups))
    if clip is not None:
        inner = optax.chain(clip, inner)
    if operator.index(accumulate) < 1:
        raise ValueError(f"accumulate must be at least 1, got {accumulate}")
    if accumulate > 1:
        inner = average_gradients(inner, accumulate)
    if held:
        inner = optax.partition({REST: inner, **dict.fromkeys(held, hold())}, lambda params: label_parts(params, held))
    whole = _check_init(optax.with_extra_args_support(inner), {"parts": list(groups), "frozen": held})
    return _refuse_line_search(whole) if groups or held or accumulate > 1 else whole


def average_gradients(optimizer: optax.GradientTransformation, steps: int) -> optax.GradientTransformationExtraArgs:
    """Averages gradients and losses over `steps` steps, the last of which makes one update (`optax.MultiSteps`).

    A schedule of the learning rate goes on by all of the steps at an update, so that its lengths are numbers of steps
    as those of a run are; `optax.MultiSteps` alone would count updates, and show an optimizer that needs the loss
    (`value`) the last one only.
    """
    inner = optax.with_extra_args_support(optimizer)

    def update(averages: Any, state: optax.OptState, params: Any = None) -> tuple[PyTree, PyTree]:
        gradients, value = averages
        updates, state = inner.update(gradients, state, params[0], value=value, grad=gradients)
        return (updates, value), jax.tree.map(skip, state, is_leaf=_is_scheduled)

    def skip(state: Any) -> Any:
        return state._replace(count=state.count + (steps - 1)) if _is_scheduled(state) else state

    both = optax.MultiSteps(optax.GradientTransformation(lambda params: inner.init(params[0]), update), steps)
    zero = jnp.float32(0)

    def update_both(
        updates: PyTree, state: optax.OptState, params: PyTree = None, *, value: Any = jnp.nan, **known: Any
    ) -> tuple[PyTree, PyTree]:
        losses = jnp.asarray(value, jnp.float32)
        (updates, _), state = both.update((updates, losses), state, (params, zero))
        return updates, state

    return optax.GradientTransformationExtraArgs(lambda params: both.init((params, zero)), update_both)


def find_evaluated(state: optax.OptState, params: PyTree) -> PyTree:
    """The parameters that are to be evaluated, where an optimizer takes gradients at others; otherwise `params`.

    Schedule-free optimizers evaluate an average of their steps (Defazio et al., 2024).
    """
    found = jax.tree.leaves(state, is_leaf=_is_schedule_free)
    for inner in filter(_is_schedule_free, found):
        params = jax.tree.map(partial(_average_of, inner.b1), inner.z, params, is_leaf=_is_left_out)
    return params


def _average_of(b1: jax.Array, z: Any, y: jax.Array) -> jax.Array:
    return y if _is_left_out(z) else (y - (1 - b1) * z) / b1


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


def _check_init(
    inner: optax.GradientTransformationExtraArgs, named: Mapping[str, Collection[str]]
) -> optax.GradientTransformationExtraArgs:
    def init(params: PyTree) -> optax.OptState:
        for keyword, names in named.items():
            check_paths(keyword, names, params)
        if all(any(_belongs(path, name) for name in named["frozen"]) for path in list_paths(params)):
            raise ValueError(f"frozen: nothing is left to train; parameters are: {', '.join(list_paths(params))}")
        return inner.init(params)

    return optax.GradientTransformationExtraArgs(init, inner.update)


def _refuse_line_search(inner: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    def init(params: PyTree) -> optax.OptState:
        state = inner.init(params)
        if any(map(_is_line_search, jax.tree.leaves(state, is_leaf=_is_line_search))):
            raise ValueError("a line search evaluates the whole model: it fits neither parts nor frozen nor accumulate")
        return state

    return optax.GradientTransformationExtraArgs(init, inner.update)


def _list_names(names: str | Collection[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _is_scheduled(state: Any) -> bool:
    return isinstance(state, optax.ScaleByScheduleState)


def _is_schedule_free(state: Any) -> bool:
    return isinstance(state, optax.contrib.ScheduleFreeState)


def _is_line_search(state: Any) -> bool:
    return isinstance(state, optax.ScaleByZoomLinesearchState | optax.ScaleByBacktrackingLinesearchState)


def _is_left_out(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


def _belongs(path: str, name: str) -> bool:
    return path == name or path.startswith(f"{name}/")


def _write_path(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _name_leaf(path: tuple[Any, ...]) -> str:
    names = [name for name in _write_path(path).split("/") if name != "value"]  # where NNX keeps a variable's array
    return names[-1] if names else ""

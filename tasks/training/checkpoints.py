"""Checkpoints of trained models: written in the form of the model's framework, and read to start from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tasks.porting import checkpoints
from tasks.porting.variables import (
    Mismatch,
    VariableMismatchError,
    describe_missing,
    describe_shape,
    describe_unexpected,
    flatten_variables,
    format_path,
)

Tree = Any
CHECKPOINT, BEST = "checkpoint", "best"
"""The folders of the last weights, and of those of the best evaluation, within that of a run."""


SHOWN = 8
"""Variables that the message about a checkpoint of another model names."""


class Files(NamedTuple):
    """How a model's variables are kept: `write(path, params, state)`, and what `read(path, params, state)` returns.

    `read` is given the model's own variables, which may be abstract, and returns those of the checkpoint in their
    place. It raises VariableMismatchError where a path or a shape differs. Written are NumPy arrays, keys as uint32.
    """

    write: Callable[[Path, Tree, Tree], None]
    read: Callable[[Path, Tree, Tree], tuple[Tree, Tree]]


def _write_linen(path: Path, params: Tree, state: Tree) -> None:
    checkpoints.write(path, {"params": params, **state})


def _read_linen(path: Path, params: Tree, state: Tree) -> tuple[Tree, Tree]:
    read = _read_like(path, {"params": params, **state})
    return read.pop("params", params), {**state, **read}


def _write_plain(path: Path, params: Tree, state: Tree) -> None:
    checkpoints.write(path, {"params": params, **({"state": state} if state else {})})


def _read_plain(path: Path, params: Tree, state: Tree) -> tuple[Tree, Tree]:
    read = _read_like(path, {"params": params, **({"state": state} if state else {})})
    return read["params"], read.get("state", state)


LINEN = Files(_write_linen, _read_linen)
"""A dict of collections, as Linen has it."""
PLAIN = Files(_write_plain, _read_plain)
"""A dict of parameters and state, for chains, and for models that nobody else reads."""


def start_from(init: Callable[..., tuple[Tree, Tree]], files: Files, path: str) -> Callable[..., tuple[Tree, Tree]]:
    """Returns an `init` whose variables are those of a checkpoint, or of the folder of a run that was saved.

    Streams of random numbers are still drawn from the seed. Raises ValueError, before anything is compiled, for a
    checkpoint of another model, with paths and shapes that differ, and FileNotFoundError for none at all.
    """
    place = Path(path) / CHECKPOINT if (Path(path) / CHECKPOINT).is_dir() else Path(path)

    def init_from(key: jax.Array, x: Any) -> tuple[Tree, Tree]:
        own = init(key, x)
        try:
            with jax.ensure_compile_time_eval():  # files are read once, outside of the program that is traced
                return files.read(place, *own)
        except VariableMismatchError as error:
            lines = [mismatch.message for mismatch in error.mismatches]
            more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
            shown = "; ".join(lines[:SHOWN])
            raise ValueError(f"init_from={path} is a checkpoint of another model: {shown}{more}") from error

    return init_from


def _read_like(path: Path, wanted: Tree) -> Tree:
    read, needs = flatten_variables(checkpoints.read(path)), flatten_variables(wanted)
    problems: list[Mismatch] = []
    for name, leaf in needs.items():
        shape = _stored_shape(leaf)
        if name not in read:
            problems.append(describe_missing(name, shape))
        elif read[name].shape != shape:
            problems.append(describe_shape(format_path(name), read[name].shape, f"and needs {shape}"))
    problems += [describe_unexpected(name, read[name].shape) for name in read if name not in needs]
    if problems:
        raise VariableMismatchError(f"{path} does not fit", problems)
    return jax.tree.map_with_path(lambda keys, leaf: restore_key(read[tuple(key.key for key in keys)], leaf), wanted)


def _stored_shape(leaf: Any) -> tuple[int, ...]:
    """The shape in a checkpoint: a typed key is kept as integers."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)).shape
    return tuple(leaf.shape)


def restore_key(stored: Any, leaf: Any) -> Any:
    """Returns a stored array in the dtype of `leaf`, which may be abstract, and that of typed keys."""
    if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jnp.asarray(stored, leaf.dtype)
    kinds: list[Any] = []
    jax.eval_shape(lambda key: kinds.append(jax.random.key_impl(key)), jax.ShapeDtypeStruct((), leaf.dtype))
    return jax.random.wrap_key_data(jnp.asarray(stored), impl=kinds[0])

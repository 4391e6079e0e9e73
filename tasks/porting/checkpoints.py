"""Linen checkpoints on disk, read and written: orbax, flax's msgpack, safetensors."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx, serialization

from tasks.porting.variables import (
    VariableMismatchError,
    describe_missing,
    describe_shape,
    describe_unexpected,
    flatten_variables,
    format_path,
    name_keys,
    raise_mismatches,
)

STATE = ("opt_state", "step", "tx", "apply_fn")
"""The entries of a train state that are not variables."""
METADATA = "_METADATA"
"""The file that each complete tree of orbax has."""
FLAX_STEP = re.compile(r"checkpoint_(\d+(?:\.\d+)?)")
"""The name of a step of `flax.training.checkpoints`, a folder of orbax or a file of msgpack."""


@dataclass(frozen=True)
class TrainState:
    """The state of training a Linen model: variables (a dict of collections), optax state, and step."""

    variables: dict[str, Any]
    opt_state: Any = None
    step: Any = None


def read(path: Path | str) -> dict[str, Any]:
    """Reads the variables of a Linen checkpoint in any supported format, a dict of collections.

    A folder is read by orbax: one of `StandardCheckpointer`, `PyTreeCheckpointer`, the latest step of a
    `CheckpointManager` with one item, or the latest `checkpoint_N` of `flax.training.checkpoints`, which may be a
    file of msgpack. A file ends in `.msgpack` or `.safetensors`; its names have slashes or dots. The optimizer of a
    train state is left out, and a tree without collections is taken for `params`. Raises FileNotFoundError, and
    ValueError for a format that is not supported or cannot be read, and for several items, which it lists.
    """
    return _sort_collections(_read_tree(path, STATE))


def read_train_state(path: Path | str) -> TrainState:
    """Reads variables and, if there is one, the optimizer's state, as optax has it or as nested dicts and lists."""
    tree = _read_tree(path, ())
    step = tree.get("step") if isinstance(tree, Mapping) else None
    state = tree.get("opt_state") if isinstance(tree, Mapping) else None
    return TrainState(_sort_collections(tree), state, step)


def _read_tree(path: Path | str, without: Sequence[str]) -> Any:
    path = Path(path).resolve()
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    path = _find_latest(path) if path.is_dir() else path
    with _decoding(path):
        return _decode(path, without)


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Raises ValueError where a library cannot read a checkpoint."""
    try:
        yield
    except (VariableMismatchError, _UnsupportedError):
        raise
    except Exception as error:  # each library has its own errors for data that are damaged
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path} cannot be read: {reason}") from error


class _UnsupportedError(ValueError):
    """What is no checkpoint of a supported format."""


def _decode(path: Path, without: Sequence[str]) -> Any:
    if path.is_dir():
        return _read_orbax(path, without)
    if path.suffix == ".msgpack" or FLAX_STEP.fullmatch(path.name):
        return serialization.msgpack_restore(path.read_bytes())
    if path.suffix == ".safetensors":
        return _nest(_import_safetensors().load_file(path))
    raise _UnsupportedError(f"{path} is neither an orbax folder nor a .msgpack or .safetensors file")


def write(path: Path | str, variables: Mapping[str, Any], opt_state: Any = None, step: Any = None) -> None:
    """Writes variables in Linen's form: as `.msgpack` or `.safetensors` by the suffix, else by orbax.

    With `opt_state` they have the layout of flax's `TrainState`. Raises FileExistsError if the path exists, and
    ValueError for an optimizer state in safetensors, which holds only named arrays.
    """
    path = _check_new(path)
    if opt_state is not None:
        if path.suffix == ".safetensors":
            raise ValueError("safetensors cannot hold an optimizer state; write a folder or .msgpack")
        variables = {**variables, "opt_state": opt_state, "step": 0 if step is None else step}
    if path.suffix == ".msgpack":
        path.write_bytes(serialization.to_bytes(jax.tree.map(np.asarray, dict(variables))))
    elif path.suffix == ".safetensors":
        flat = {"/".join(name): np.ascontiguousarray(leaf) for name, leaf in flatten_variables(variables).items()}
        _import_safetensors().save_file(flat, path)
    else:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, dict(variables))


def save_nnx(path: Path | str, module: nnx.Module, optimizer: nnx.Optimizer[Any] | None = None) -> None:
    """Writes the state of an NNX module as flax's guide does: `nnx.state(module)` by orbax's StandardCheckpointer.

    With an optimizer it is `{"model": …, "optimizer": …}`. Raises FileExistsError if the path exists.
    """
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(_check_new(path), _get_state(module, optimizer))


def load_nnx(path: Path | str, module: nnx.Module, optimizer: nnx.Optimizer[Any] | None = None) -> None:
    """Reads what `save_nnx` wrote into a module and an optimizer, which may be abstract.

    Without `optimizer`, the optimizer of the checkpoint is not read. Raises FileNotFoundError, and
    VariableMismatchError with every array that is missing, unexpected or of another shape.
    """
    path = Path(path).resolve()
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), _get_state(module, optimizer)
    )
    with _decoding(path), ocp.PyTreeCheckpointer() as checkpointer:
        known = _read_structure(checkpointer, path)
        both = isinstance(known, dict) and set(known) == {"model", "optimizer"} and optimizer is None
        _check_arrays(wanted, known["model"] if both else known)
        wanted = {"model": wanted} if both else wanted
        how = jax.tree.map(lambda leaf: ocp.ArrayRestoreArgs(sharding=place), wanted)
        made = checkpointer.restore(path, args=ocp.args.PyTreeRestore(wanted, restore_args=how, partial_restore=both))
    nnx.update(module, made["model"] if both or optimizer is not None else made)
    if optimizer is not None:
        nnx.update(optimizer, made["optimizer"])


def _check_arrays(wanted: Any, known: Any) -> None:
    """Raises VariableMismatchError unless a checkpoint has the wanted arrays; orbax checks their dtypes."""
    needs = {name_keys(keys): leaf.shape for keys, leaf in jax.tree.leaves_with_path(wanted)}
    has = {
        name_keys(keys): tuple(leaf.shape) for keys, leaf in jax.tree.leaves_with_path(known) if hasattr(leaf, "shape")
    }
    problems = []
    for path, shape in needs.items():
        name = format_path(path[:-1] if path[-1] == "value" else path)
        if path not in has:
            problems.append(describe_missing((name,), shape))
        elif has[path] not in (shape, (*shape, 2)):  # a typed key is kept as two integers
            problems.append(describe_shape(name, has[path], f"and needs {shape}"))
    raise_mismatches(problems + [describe_unexpected(path, has[path]) for path in has if path not in needs])


def _get_state(module: nnx.Module, optimizer: nnx.Optimizer[Any] | None) -> Any:
    state = nnx.state(module)
    return state if optimizer is None else {"model": state, "optimizer": nnx.state(optimizer)}


def _check_new(path: Path | str) -> Path:
    path = Path(path).resolve()
    if path.exists():
        raise FileExistsError(f"{path} exists already")
    return path


def _find_latest(path: Path) -> Path:
    """The folder or file of the checkpoint within a folder: itself, or its latest step, or the only item of that."""
    entries = sorted(entry.name for entry in path.iterdir())
    if METADATA in entries:
        return path
    steps = {float(name): name for name in entries if name.isdecimal() and (path / name).is_dir()}
    steps |= {float(step[1]): name for name in entries if (step := FLAX_STEP.fullmatch(name))}
    if steps:
        return _find_item(path / steps[max(steps)])
    has = f"it has {', '.join(entries)}" if entries else "it is empty"
    raise ValueError(f"{path} is not a complete orbax checkpoint: it has no {METADATA}; {has}")


def _find_item(step: Path) -> Path:
    """The item of a step of a `CheckpointManager`: the unnamed one, or the only one with a name."""
    if step.is_file() or (step / METADATA).exists():
        return step
    items = sorted(entry.name for entry in step.iterdir() if (entry / METADATA).exists())
    if "default" in items or len(items) == 1:
        return step / ("default" if "default" in items else items[0])
    if items:
        raise ValueError(f"{step} has several items; give the path of one: {', '.join(items)}")
    has = ", ".join(sorted(entry.name for entry in step.iterdir())) or "nothing"
    raise ValueError(f"{step} is not a complete orbax checkpoint: it has no {METADATA}, but {has}")


def _read_structure(checkpointer: ocp.Checkpointer, path: Path) -> Any:
    """The tree of a checkpoint with the metadata of its arrays. Raises ValueError where orbax finds none."""
    found = checkpointer.metadata(path).item_metadata
    if found is None:
        raise ValueError("its metadata are damaged")
    return found.tree


def _read_orbax(path: Path, without: Sequence[str]) -> Any:
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])  # not that of the machine that wrote it
    with ocp.PyTreeCheckpointer() as checkpointer:
        known = _read_structure(checkpointer, path)
        wanted = (
            {name: tree for name, tree in known.items() if name not in without} if isinstance(known, dict) else known
        )
        how = jax.tree.map(lambda _: ocp.ArrayRestoreArgs(sharding=place), wanted)
        return checkpointer.restore(path, args=ocp.args.PyTreeRestore(wanted, restore_args=how, partial_restore=True))


def _sort_collections(tree: Any) -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        raise ValueError(f"a checkpoint of variables must be a dict, got {type(tree).__name__}")
    kept = {str(name): value for name, value in tree.items() if name not in STATE}
    kept = {name: value for name, value in kept.items() if value is not None and not _is_empty(value)}
    inner = kept.get("params")
    if isinstance(inner, Mapping) and isinstance(inner.get("params"), Mapping):  # a whole tree under its first name
        kept = {**inner, **{name: value for name, value in kept.items() if name != "params"}}
    return kept if "params" in kept else {"params": kept}


def _is_empty(tree: Any) -> bool:
    return isinstance(tree, Mapping) and not tree


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """A tree from names with slashes, or with dots where no name has a slash."""
    tree: dict[str, Any] = {}
    separator = "/" if any("/" in name for name in flat) else "."
    for name, leaf in flat.items():
        *above, last = name.split(separator)
        place = tree
        for part in above:
            place = place.setdefault(part, {})
        place[last] = leaf
    return tree


def _import_safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise _UnsupportedError("safetensors is not installed: pip install safetensors") from error
    return safetensors.numpy

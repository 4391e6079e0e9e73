"""Linen checkpoints on disk, read and written: orbax, flax's msgpack, safetensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import serialization

from tasks.porting.variables import leaves

STATE = ("opt_state", "step", "tx", "apply_fn")
"""What a train state has beside variables."""


def read(path: Path | str) -> dict[str, Any]:
    """The variables of a Linen checkpoint, a dict of collections, whatever its format.

    A folder is orbax's: of `StandardCheckpointer`, of `PyTreeCheckpointer`, or of a `CheckpointManager`, whose
    latest step is read. A file ends in `.msgpack` or `.safetensors`. A train state's optimizer is left out; what
    is no collection is taken for `params`. Arrays are held once. Raises FileNotFoundError and ValueError that say
    what was looked for.
    """
    path = Path(path).resolve()
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    if path.is_dir():
        tree = _orbax(path)
    elif path.suffix == ".msgpack":
        tree = serialization.msgpack_restore(path.read_bytes())
    elif path.suffix == ".safetensors":
        tree = _nested(_safetensors().load_file(path))
    else:
        raise ValueError(f"{path} is no folder of orbax, and ends neither in .msgpack nor in .safetensors")
    return _collections(tree)


def write(path: Path | str, variables: Mapping[str, Any]) -> None:
    """Writes variables so that Linen code reads them: by the ending as `read`, else as orbax's StandardCheckpointer.

    Raises FileExistsError for what is there already.
    """
    path = Path(path).resolve()
    if path.exists():
        raise FileExistsError(f"{path} is there already")
    if path.suffix == ".msgpack":
        path.write_bytes(serialization.msgpack_serialize(jax.tree.map(np.asarray, dict(variables))))
    elif path.suffix == ".safetensors":
        flat = {"/".join(name): np.ascontiguousarray(leaf) for name, leaf in leaves(variables).items()}
        _safetensors().save_file(flat, path)
    else:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, dict(variables))


def _orbax(path: Path) -> Any:
    steps = [int(step.name) for step in path.iterdir() if step.is_dir() and step.name.isdigit()]
    if steps:
        step = path / str(max(steps))
        path = step / "default" if (step / "default").is_dir() else step
    if not (path / "_METADATA").exists():
        raise ValueError(f"{path} is no folder that orbax has finished: it has no _METADATA")
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])  # not that of the machine that wrote it
    with ocp.PyTreeCheckpointer() as checkpointer:
        known = checkpointer.metadata(path).item_metadata.tree
        wanted = {name: tree for name, tree in known.items() if name not in STATE} if isinstance(known, dict) else known
        how = jax.tree.map(lambda _: ocp.ArrayRestoreArgs(sharding=place), wanted)
        return checkpointer.restore(path, args=ocp.args.PyTreeRestore(wanted, restore_args=how, partial_restore=True))


def _collections(tree: Any) -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        raise ValueError(f"a checkpoint of variables is a dict, got {type(tree).__name__}")
    kept = {str(name): value for name, value in tree.items() if name not in STATE}
    kept = {name: value for name, value in kept.items() if value is not None and (value or not isinstance(value, dict))}
    inner = kept.get("params")
    if isinstance(inner, Mapping) and isinstance(inner.get("params"), Mapping):  # a whole tree under its first name
        kept = {**inner, **{name: value for name, value in kept.items() if name != "params"}}
    return kept if "params" in kept else {"params": kept}


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *above, last = name.split("/")
        place = tree
        for part in above:
            place = place.setdefault(part, {})
        place[last] = leaf
    return tree


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ValueError("safetensors is not installed: pip install safetensors") from error
    return safetensors.numpy

"""The sharding names of Linen variables, boxed or in a collection of their own, as `out_sharding` of NNX variables."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from flax import nnx
from flax.linen.partitioning import AxisMetadata

from tasks.porting.variables import Path, list_slots

Names = tuple[Any, ...]
"""The name of a mesh axis or a logical axis for each axis of a variable, or None."""


def split_names(variables: Mapping[str, Any]) -> tuple[dict[str, Any], dict[Path, Names]]:
    """Splits off the names: returns variables without boxes and without `params_axes`, and the names by path.

    The names are those of `nn.Partitioned` and its subclasses, and of `flax.linen.partitioning.param_with_axes`.
    """
    found: dict[Path, Names] = {}
    kept = {name: tree for name, tree in variables.items() if not _collect(tree, (str(name),), found)}
    return nn.meta.unbox(kept), found


def _collect(tree: Any, path: Path, found: dict[Path, Names]) -> bool:
    """Collects the names below a path; returns whether there is nothing else."""
    if isinstance(tree, Mapping):
        below = [_collect(child, (*path, str(name)), found) for name, child in tree.items()]  # all of them
        return bool(below) and all(below)
    if isinstance(tree, AxisMetadata):
        *above, last = path[1:]
        found[(path[0].removesuffix("_axes"), *above, last.removesuffix("_axes"))] = tuple(tree.names)
        return True
    if isinstance(tree, nn.Partitioned):
        found[path] = tuple(tree.names)
    return False


def annotate(module: nnx.Module, names: Mapping[Path, Names]) -> None:
    """Sets the names as `out_sharding` of the variables of a module; those of joined gates must be the same."""
    for slot in list_slots(module) if names else ():
        given = {next((names[path] for path in paths if path in names), None) for paths in slot.parts}
        if len(given) == 1 and (own := given.pop()) is not None:
            slot.variable.set_metadata(out_sharding=own)

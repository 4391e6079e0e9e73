"""Optimizer states of Linen parameters into `nnx.Optimizer`, and back."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from tasks.porting.variables import (
    Mismatch,
    MismatchKind,
    Path,
    Slot,
    VariableMismatchError,
    fit_variables,
    format_path,
    list_slots,
    match_paths,
    name_keys,
)


def load_optimizer(
    optimizer: nnx.Optimizer[Any],
    module: nnx.Module,
    opt_state: Any,
    *,
    step: Any = None,
    mapping: Mapping[str, str] | None = None,
    dtype: Literal["strict", "cast"] = "strict",
) -> None:
    """Assigns an optax state of Linen parameters to the optimizer of an NNX module, all of it or none.

    `opt_state` is the state that `tx.init(params)` and `tx.update` return, or the nested dicts and lists that a
    checkpoint makes of it. The optimizer has the same `tx` and may be abstract. `step`, if given, is assigned to
    `optimizer.step` (uint32). `mapping` and `dtype` are those of `load`. Raises VariableMismatchError with every
    array that does not fit.
    """
    wanted = _list_slots(optimizer, module)
    given = _flatten_state(opt_state, wanted)
    fit_variables(wanted, given, _extend_mapping(mapping, wanted, given), dtype)
    if step is not None:
        optimizer.step.set_value(jnp.asarray(step, optimizer.step.dtype))


def dump_optimizer(
    optimizer: nnx.Optimizer[Any], module: nnx.Module, like: Any, mapping: Mapping[str, str] | None = None
) -> Any:
    """Returns the state of an NNX optimizer as the optax state of Linen parameters; the inverse of `load_optimizer`.

    `like` is `tx.init(params)`, or its shapes, and gives the structure. Raises VariableMismatchError for an array
    of `like` that the optimizer does not have.
    """
    wanted = _list_slots(optimizer, module)
    whole = _flatten_state(like, wanted)
    found = match_paths(wanted, whole, _extend_mapping(mapping, wanted, whole))
    made: dict[Path, jax.Array] = {}
    for slot in wanted:
        pieces = slot.pieces(slot.variable[...])
        made |= {found[first]: piece for (first, *_), piece in zip(slot.parts, pieces, strict=True) if first in found}
    if missing := set(whole) - set(made):
        mismatches = [Mismatch(MismatchKind.UNEXPECTED, format_path(path)) for path in sorted(missing)]
        names = ", ".join(mismatch.message for mismatch in mismatches)
        raise VariableMismatchError(f"the optimizer has no {names}", mismatches)
    return jax.tree.unflatten(jax.tree.structure(like), [made[path] for path in whole])


def _list_slots(optimizer: nnx.Optimizer[Any], module: nnx.Module) -> list[Slot]:
    """The variables of an optimizer, with the paths that optax has for Linen parameters."""
    parameters = {tuple(map(str, slot.path)): slot for slot in list_slots(module)}
    made = []
    for path, variable in nnx.iter_graph(optimizer):
        masked = isinstance(variable, nnx.Variable) and isinstance(variable.get_value(), optax.MaskedNode)
        if isinstance(variable, nnx.Variable) and path[0] == "opt_state" and not masked:
            names = tuple(map(str, path))
            end = next((place for place in range(1, len(names)) if names[place:] in parameters), None)
            slot = parameters.get(names[end:]) if end is not None else None
            parts = slot.parts if slot else (((names),),)
            under = names[:end] if slot else ()
            own = tuple(tuple((*under, *(name[1:] if slot else name)) for name in part) for part in parts)
            made.append(Slot(path, variable, own))
    return made


def _list_prefixes(wanted: list[Slot]) -> set[Path]:
    """Where a tree with the structure of the parameters begins, such as `opt_state/0/mu`."""
    return {slot.parts[0][0][:end] for slot in wanted for end in range(1, len(slot.parts[0][0]))}


def _flatten_state(opt_state: Any, wanted: list[Slot]) -> dict[Path, Any]:
    """The leaves of an optax state by path, independent of its containers.

    Where the parameters were optimized as `{"params": …}` that name is left out.
    """
    made, begins = {}, _list_prefixes(wanted)
    for keys, leaf in jax.tree.leaves_with_path(opt_state):
        path = ("opt_state", *name_keys(keys))
        end = next((place for place in range(1, len(path)) if path[place] == "params" and path[:place] in begins), None)
        made[path if end is None else (*path[:end], *path[end + 1 :])] = leaf
    return made


def _extend_mapping(mapping: Mapping[str, str] | None, wanted: list[Slot], given: Iterable[Path]) -> dict[str, str]:
    """Extends a mapping of parameters to the trees of an optimizer's state that have their structure."""
    under = ["/".join(prefix[1:]) for prefix in _list_prefixes(wanted)]
    begins = {"/".join(path[1:end]) for path in given for end in range(2, len(path) + 1)}
    made = {f"{name}/{old}": f"{name}/{new}" for name in under for old, new in (mapping or {}).items()}
    return {old: new for old, new in made.items() if old in begins}

"""Linen variables into an NNX module, and the variables of an NNX module in Linen's form.

The NNX module says what it needs: each of its variables is a slot with the path that Linen gives it. Linen's
paths are brought to the same form, and the two are matched; nothing is assigned before all of it fits.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, NamedTuple, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

Path = tuple[str, ...]
"""The name of a collection, then the names within it: `("params", "Dense_0", "kernel")`."""

Module = TypeVar("Module", bound=nnx.Module)

LIFTED = re.compile(r"^(?:Checkpoint|Remat|Jit|Vmap|Scan|CheckpointRemat)+(?=[A-Z])")
"""Prefixes that `nn.remat`, `nn.jit`, `nn.vmap` and `nn.scan` add to the name of a class."""
FUSED: dict[type, dict[Path, tuple[Path, ...]]] = {
    nnx.OptimizedLSTMCell: {
        ("dense_i", "kernel"): (("ii", "kernel"), ("if", "kernel"), ("ig", "kernel"), ("io", "kernel")),
        ("dense_h", "kernel"): (("hi", "kernel"), ("hf", "kernel"), ("hg", "kernel"), ("ho", "kernel")),
        ("dense_h", "bias"): (("hi", "bias"), ("hf", "bias"), ("hg", "bias"), ("ho", "bias")),
    },
    nnx.GRUCell: {
        ("dense_i", "kernel"): (("ir", "kernel"), ("iz", "kernel"), ("in", "kernel")),
        ("dense_i", "bias"): (("ir", "bias"), ("iz", "bias"), ("in", "bias")),
        ("dense_h", "kernel"): (("hr", "kernel"), ("hz", "kernel"), ("hn", "kernel")),
    },
    nnx.SimpleCell: {
        ("dense_i", "kernel"): (("i", "kernel"),),
        ("dense_i", "bias"): (("i", "bias"),),
        ("dense_h", "kernel"): (("h", "kernel"),),
    },
}
"""NNX cells that store several of Linen's arrays in one, concatenated along the last axis in this order."""


class MismatchKind(Enum):
    """The ways in which a variable can fail to fit."""

    MISSING = "missing"
    UNEXPECTED = "unexpected"
    SHAPE = "shape"
    DTYPE = "dtype"
    NAME = "name"
    """A name that an NNX module cannot have, or one in the mapping that no variable has."""


class Mismatch(NamedTuple):
    """One variable that does not fit; `message` has its path, what was given and what is needed."""

    kind: MismatchKind
    message: str


class VariableMismatchError(ValueError):
    """Variables that do not fit a module; `mismatches` has each of them."""

    def __init__(self, message: str, mismatches: Sequence[Mismatch] = ()) -> None:
        super().__init__(message)
        self.mismatches = tuple(mismatches)


@dataclass(frozen=True)
class Slot:
    """A variable of an NNX module with its Linen paths, several if Linen stores it in several parts.

    Each element of `parts` has the possible paths of one part; the modules of a shared layer give several.
    """

    path: tuple[Any, ...]
    variable: nnx.Variable[Any]
    parts: tuple[tuple[Path, ...], ...]

    @property
    def part_shape(self) -> tuple[int, ...]:
        *outer, last = self.variable.shape if len(self.parts) > 1 else (*self.variable.shape, 1)
        return (*outer, last // len(self.parts)) if len(self.parts) > 1 else tuple(outer)

    def whole(self, parts: Sequence[Any]) -> jax.Array:
        """The parts as one array, in the dtype of the variable."""
        return jnp.asarray(jnp.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0], self.variable.dtype)

    def pieces(self, whole: jax.Array) -> list[jax.Array]:
        """An array split into the parts that Linen has."""
        return jnp.split(whole, len(self.parts), axis=-1) if len(self.parts) > 1 else [whole]


def list_slots(module: nnx.Module) -> list[Slot]:
    """The variables of a module that Linen would have, with their Linen paths, without states of random numbers."""
    found: dict[int, Slot] = {}
    for path, names, variable, fused in _walk(module, (), (), ()):
        if isinstance(variable, nnx.RngState):
            continue
        collection = nnx.variable_name_from_type(type(variable))
        own = tuple((((collection, *name)),) for name in (fused or (names,)))
        known = found.get(id(variable))
        parts = tuple((*a, *b) for a, b in zip(known.parts, own, strict=True)) if known else own
        found[id(variable)] = Slot(known.path if known else path, variable, parts)
    return list(found.values())


Walked = tuple[tuple[Any, ...], Path, nnx.Variable[Any], tuple[Path, ...]]


def _walk(node: Any, path: tuple[Any, ...], names: Path, above: tuple[int, ...]) -> Iterator[Walked]:
    """Each variable with its path, its Linen names, and the names of its parts if Linen has several."""
    if id(node) in above:
        return
    above = (*above, id(node))
    fused = next((table for kind, table in FUSED.items() if type(node) is kind), None)
    for name, child in _list_children(node):
        if name in getattr(node, "elsewhere", ()):
            continue
        inner = _extend_names(node, names, name)
        if isinstance(child, nnx.Variable):
            yield (*path, name), inner, child, ()
        elif fused is not None and isinstance(child, nnx.Module):
            for leaf, variable in _list_children(child):
                if isinstance(variable, nnx.Variable):
                    apart = tuple((*names, *part) for part in fused.get((name, leaf), ()))
                    yield (*path, name, leaf), (*inner, str(leaf)), variable, apart
        else:
            yield from _walk(child, (*path, name), inner, above)


def name_modules(module: nnx.Module) -> dict[Path, nnx.Module]:
    """The modules within a module, itself included, by their Linen names."""
    found: dict[Path, nnx.Module] = {}

    def collect(node: Any, names: Path, above: tuple[int, ...]) -> None:
        if id(node) in above:
            return
        if isinstance(node, nnx.Module):
            found.setdefault(names, node)
        for name, child in _list_children(node):
            if not isinstance(child, nnx.Variable):
                collect(child, _extend_names(node, names, name), (*above, id(node)))

    collect(module, (), ())
    return found


def _list_children(node: Any) -> list[tuple[Any, Any]]:
    if isinstance(node, nnx.List | list | tuple):
        return list(enumerate(node))
    if isinstance(node, nnx.Dict):
        return [(name, node[name]) for name in node]
    if isinstance(node, Mapping):
        return list(node.items())
    if isinstance(node, nnx.Module):
        return [(name, child) for name, child in vars(node).items() if not name.startswith("_pytree__")]
    return []


def _extend_names(node: Any, names: Path, name: Any) -> Path:
    """The Linen names of a child: elements of lists and dicts are part of one name, such as `layers_0` or `heads_a`."""
    if names and isinstance(node, nnx.List | nnx.Dict | list | tuple | Mapping):
        return (*names[:-1], f"{names[-1]}_{name}")
    name = str(name)
    if isinstance(node, nnx.RNNCellBase) and name in ("if_", "in_"):
        return (*names, name.removesuffix("_"))
    return (*names, dict(getattr(node, "linen_names", ())).get(name, name))


def _strip_lifted(path: Path) -> Path:
    """A path without the prefixes of lifted classes."""
    return tuple(LIFTED.sub("", name) for name in path)


def flatten_variables(variables: Mapping[str, Any]) -> dict[Path, Any]:
    """Returns the arrays of Linen variables by path, unboxed; frozen dicts are accepted."""
    found: dict[Path, Any] = {}

    def collect(tree: Any, path: Path) -> None:
        if isinstance(tree, Mapping):
            for name, child in tree.items():
                collect(child, (*path, str(name)))
        else:
            found[path] = tree

    collect(nn.meta.unbox(variables), ())
    return found


def _rename(path: Path, mapping: Mapping[str, str]) -> Path:
    """A Linen path with NNX's names; the longest prefix in `mapping` is renamed."""
    collection, *names = path
    for end in range(len(names), 0, -1):
        if (known := mapping.get("/".join(names[:end]))) is not None:
            names = [*known.split("/"), *names[end:]]
            break
    return (collection, *names)


def match_paths(wanted: Sequence[Slot], given: Iterable[Path], mapping: Mapping[str, str] | None) -> dict[Path, Path]:
    """Matches given paths to slots; returns the given path by the first path of each part of a slot.

    Equal paths are matched first, then paths that are equal without the prefixes of lifted classes, where there is
    only one.
    """
    names = {_rename(path, mapping or {}): path for path in given}
    found = {}
    parts = [paths for slot in wanted for paths in slot.parts]
    for paths in parts:
        if (same := next((path for path in paths if path in names), None)) is not None:
            found[paths[0]] = names.pop(same)
    alike: dict[Path, list[Path]] = {}
    for path in names:
        alike.setdefault(_strip_lifted(path), []).append(path)
    for paths in parts:
        if paths[0] not in found:
            several = next((alike[_strip_lifted(path)] for path in paths if _strip_lifted(path) in alike), [])
            if len(several) == 1:
                found[paths[0]] = names[several.pop()]
    return found


def load(
    module: nnx.Module,
    variables: Mapping[str, Any],
    *,
    mapping: Mapping[str, str] | None = None,
    dtype: Literal["strict", "cast"] = "strict",
    ignore: Sequence[str] = (),
) -> None:
    """Assigns Linen variables `{"params": …, "batch_stats": …}` to an NNX module, all of them or none.

    `mapping` renames paths or prefixes of paths from Linen (`encoder/Dense_0`) to NNX. With `dtype="strict"` a
    different dtype is an error; `"cast"` casts to the dtype of the module. `ignore` names collections to leave
    out, such as `intermediates`. Raises VariableMismatchError, which lists every missing and unexpected variable
    and every one of a wrong shape or dtype; then nothing is assigned.

    >>> layer = nn.Dense(3)
    >>> variables = layer.init(jax.random.key(0), jnp.ones((2, 4)))
    >>> module = make_abstract(lambda: nnx.Linear(4, 3, rngs=nnx.Rngs(0)))
    >>> load(module, variables)
    >>> bool((module.kernel[...] == variables["params"]["kernel"]).all())
    True
    >>> load(make_abstract(lambda: nnx.Linear(5, 3, rngs=nnx.Rngs(0))), variables)
    Traceback (most recent call last):
        ...
    tasks.porting.variables.VariableMismatchError: 1 variables do not fit:
      params/kernel has shape (4, 3), kernel needs (5, 3)
    """
    given = {path: leaf for path, leaf in flatten_variables(variables).items() if path[0] not in ignore}
    fit_variables(list_slots(module), given, mapping, dtype)


def fit_variables(
    wanted: Sequence[Slot], given: Mapping[Path, Any], mapping: Mapping[str, str] | None, dtype: str
) -> None:
    """Assigns all given arrays to the slots, or raises VariableMismatchError with those that do not fit."""
    if dtype not in ("strict", "cast"):
        raise ValueError(f"dtype must be strict or cast, got {dtype!r}")
    found = match_paths(wanted, given, mapping)
    begins = {"/".join(path[1:end]) for path in given for end in range(2, len(path) + 1)}
    problems = [
        Mismatch(MismatchKind.NAME, f"the mapping has {name}, but no path begins with it")
        for name in mapping or ()
        if name not in begins
    ]
    for slot in wanted:
        for first, *_ in slot.parts:
            if first in found:
                problems += _compare_slot(slot, found[first], given[found[first]], dtype)
            else:
                problems.append(describe_missing(first, slot.part_shape, f" for {format_path(slot.path)}"))
    left = set(given) - set(found.values())
    problems += [describe_unexpected(path, jnp.shape(given[path])) for path in given if path in left]
    raise_mismatches(problems)
    assign(wanted, {first: given[path] for first, path in found.items()})


def cast_variables(variables: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Returns variables in the dtypes of those with the same paths in `like`; others are left as they are."""
    dtypes = {path: leaf.dtype for path, leaf in flatten_variables(like).items() if hasattr(leaf, "dtype")}
    made: dict[str, Any] = {}
    for path, leaf in flatten_variables(variables).items():
        put(made, path, jnp.asarray(leaf, dtypes[path]) if path in dtypes else leaf)
    return made


def assign(wanted: Sequence[Slot], arrays: Mapping[Path, Any]) -> None:
    """Assigns arrays, by the first name of each part, to their slots; slots without arrays are not changed."""
    for slot in wanted:
        parts = [arrays[first] for first, *_ in slot.parts if first in arrays]
        if parts:
            slot.variable.set_value(slot.whole(parts))


def describe_missing(path: Sequence[Any], shape: Any, purpose: str = "") -> Mismatch:
    """Returns the mismatch of a variable that a module needs but was not given."""
    return Mismatch(MismatchKind.MISSING, f"missing {format_path(path)}, of shape {shape}{purpose}")


def describe_unexpected(path: Sequence[Any], shape: Any) -> Mismatch:
    """Returns the mismatch of a given variable that the module does not have."""
    return Mismatch(MismatchKind.UNEXPECTED, f"unexpected {format_path(path)}, of shape {shape}")


def describe_shape(name: str, shape: Any, needs: str) -> Mismatch:
    """Returns the mismatch of a variable of the wrong shape."""
    return Mismatch(MismatchKind.SHAPE, f"{name} has shape {shape}, {needs}")


def raise_mismatches(mismatches: Sequence[Mismatch]) -> None:
    """Raises VariableMismatchError with all of them, if there are any."""
    if mismatches:
        lines = [f"{len(mismatches)} variables do not fit:", *(f"  {mismatch.message}" for mismatch in mismatches)]
        raise VariableMismatchError("\n".join(lines), mismatches)


def _compare_slot(slot: Slot, path: Path, array: Any, dtype: str) -> list[Mismatch]:
    name, of = format_path(path), format_path(slot.path)
    if tuple(jnp.shape(array)) != slot.part_shape:
        return [describe_shape(name, jnp.shape(array), f"{of} needs {slot.part_shape}")]
    if dtype == "strict" and jnp.result_type(array) != slot.variable.dtype:
        message = f"{name} is {jnp.result_type(array)}, {of} is {slot.variable.dtype}; dtype='cast' casts"
        return [Mismatch(MismatchKind.DTYPE, message)]
    return []


def format_path(path: Sequence[Any]) -> str:
    """A path with slashes."""
    return "/".join(map(str, path))


def dump(
    module: nnx.Module, like: Mapping[str, Any] | None = None, mapping: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Returns the variables of an NNX module in Linen's form, a dict of collections; the inverse of `load`.

    `like` are Linen variables, or their shapes. They decide the names where several are possible: those of lifted
    modules, of shared modules, and those that `mapping` renames. Raises VariableMismatchError for a path of
    `like` that the module does not have.
    """
    wanted = list_slots(module)
    names = match_paths(wanted, flatten_variables(like), mapping) if like is not None else {}
    made: dict[str, Any] = {}
    for slot in wanted:
        for paths, piece in zip(slot.parts, slot.pieces(slot.variable[...]), strict=True):
            put(made, names.get(paths[0], paths[0]), piece)
    if like is not None and (missing := set(flatten_variables(like)) - set(names.values())):
        mismatches = [Mismatch(MismatchKind.UNEXPECTED, format_path(path)) for path in sorted(missing)]
        names_missing = ", ".join(mismatch.message for mismatch in mismatches)
        raise VariableMismatchError(f"the module has no {names_missing}", mismatches)
    return made


def make_abstract(make: Callable[[], Module]) -> Module:
    """Returns the module that `make` constructs with abstract variables, which `load` replaces by arrays.

    Only its streams of random numbers are allocated, because a Linen checkpoint does not have them.
    """
    module = nnx.eval_shape(make)
    nnx.update(module, jax.jit(lambda: nnx.state(make(), nnx.RngState))())
    return module


def name_keys(keys: Iterable[Any]) -> Path:
    """The path of a leaf in a pytree, by names and indices."""
    return tuple(str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in keys)


def put(tree: dict[str, Any], path: Path, leaf: Any) -> None:
    """Stores a leaf in nested dicts, which are created as needed."""
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = leaf


def same_bits(a: Any, b: Any) -> bool:
    """Whether two trees of arrays have the same structure, shapes, dtypes and bits, NaN included."""
    x, y = jax.tree.leaves_with_path(a), jax.tree.leaves_with_path(b)
    return len(x) == len(y) and all(
        p == q and u.dtype == v.dtype and u.shape == v.shape and jnp.asarray(u).tobytes() == jnp.asarray(v).tobytes()
        for (p, u), (q, v) in zip(x, y, strict=True)
    )

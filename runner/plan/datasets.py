"""Datasets: parameters that are trees of arrays, built from their description."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from runner.contract.building import build_object, check_description
from runner.errors import InvalidInputError

KEPT = 8
"""Built datasets that are kept in memory."""
ALIGNMENT = 64
"""Bytes: where an address is a multiple of it, XLA's clients for the CPU use an array as it lies, without a copy."""


@dataclass(frozen=True)
class Dataset:
    """A checked dataset: its description as JSON, the shapes and dtypes of its arrays, and a digest of their bytes."""

    owner: str
    text: str
    structure: str
    digest: str

    def __str__(self) -> str:
        return self.structure


def describe_dataset(owner: str, value: Any) -> Dataset:
    """Builds a dataset and describes it; `owner` begins the message of an error.

    Raises InvalidInputError for a value that is no description, whatever its target raises, and arrays that are not
    of numbers.
    """
    if not isinstance(value, Mapping) or "_target_" not in value:
        raise InvalidInputError(f"{owner} must be described by a _target_ that returns its arrays, got {value!r}")
    return _describe(owner, json.dumps(value, sort_keys=True))


@lru_cache(maxsize=1024)
def _describe(owner: str, text: str) -> Dataset:
    check_description(owner, json.loads(text))
    digest, shapes = hashlib.sha256(), []
    for path, array in list_arrays(owner, build_dataset(owner, text)):
        shapes.append(f"{path}={array.dtype}[{','.join(map(str, array.shape))}]")
        digest.update(f"{shapes[-1]} ".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
    return Dataset(owner, text, " ".join(shapes), digest.hexdigest()[:16])


@lru_cache(maxsize=KEPT)
def build_dataset(owner: str, text: str) -> Any:
    """The tree of arrays of a description; they are shared by all threads, and must not be written to."""
    return _align_tree(build_object(owner, json.loads(text)))


def forget_datasets() -> None:
    """Lets datasets be built again, because what builds them may have changed."""
    _describe.cache_clear()
    build_dataset.cache_clear()


def list_arrays(owner: str, tree: Any, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of a tree of tuples, lists, dicts and dataclasses, with their paths, in a fixed order.

    Raises InvalidInputError for a leaf that is no array of numbers.
    """
    members = _list_members(tree)
    if members is not None:
        for name, member in members:
            yield from list_arrays(owner, member, f"{path}.{name}".lstrip("."))
        return
    array = np.asarray(tree)
    if array.dtype.kind not in "biufV":
        raise InvalidInputError(f"{owner}: {path or 'it'} is {type(tree).__name__}, no array of numbers")
    yield path, array


def _align_tree(tree: Any) -> Any:
    """The tree with its arrays where all clients of XLA for the CPU can use them, so that they lie there once."""
    aligned = {name: _align_tree(member) for name, member in _list_members(tree) or ()}
    if hasattr(tree, "_replace"):
        return tree._replace(**aligned)
    if is_dataclass(tree) and not isinstance(tree, type):
        return replace(tree, **{field.name: aligned[field.name] for field in fields(tree) if field.init})
    if type(tree) is dict:
        return {key: aligned[str(key)] for key in tree}
    return type(tree)(aligned.values()) if type(tree) in (tuple, list) else _align(tree)


def _align(array: Any) -> Any:
    """The array itself if its address and its strides permit, or a copy."""
    if not isinstance(array, np.ndarray) or array.dtype.hasobject:
        return array
    if array.flags.c_contiguous and array.ctypes.data % ALIGNMENT == 0:
        return array
    place = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    first = -place.ctypes.data % ALIGNMENT
    aligned = place[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    aligned[...] = array
    return aligned


def _list_members(tree: Any) -> list[tuple[str, Any]] | None:
    if hasattr(tree, "_asdict"):
        return list(tree._asdict().items())
    if is_dataclass(tree):
        return [(field.name, getattr(tree, field.name)) for field in fields(tree)]
    if isinstance(tree, Mapping):
        return [(str(key), tree[key]) for key in sorted(tree)]
    return [(str(i), member) for i, member in enumerate(tree)] if isinstance(tree, tuple | list) else None

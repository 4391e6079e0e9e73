from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from runner import program
from runner.plan.datasets import ALIGNMENT, build_dataset, describe_dataset, list_arrays

SIZE = 1000


class Pair(NamedTuple):
    x: Any
    y: Any


@partial(jax.tree_util.register_dataclass, data_fields=["train", "test"], meta_fields=["rows"])
@dataclass(frozen=True)
class Parts:
    train: Any
    test: Any
    rows: int = 7


def misalign(values: np.ndarray) -> np.ndarray:
    """The same values at an address that is no multiple of the alignment."""
    place = np.empty(values.nbytes + 2 * ALIGNMENT, np.uint8)
    first = -place.ctypes.data % ALIGNMENT + values.itemsize
    moved = place[first : first + values.nbytes].view(values.dtype).reshape(values.shape)
    moved[...] = values
    return moved


def build(kind: str) -> Any:
    """A tree with arrays that XLA would copy: at other addresses, in another order, without elements or dimensions."""
    x = misalign(np.random.default_rng(0).normal(size=(SIZE, 3)).astype(np.float32))
    y, turned = misalign(np.arange(SIZE, dtype=np.int16)), np.asfortranarray(x)
    pair = Pair(x, y)
    return {
        "named tuple": pair,
        "dataclass": Parts(pair, Pair(turned, np.zeros(0, np.int32))),
        "dict": {"a": [x, y[::2]], "b": (np.float32(3), misalign(np.ones(5, bool)))},
        "array": turned,
    }[kind]


@pytest.mark.parametrize("kind", ["named tuple", "dataclass", "dict", "array"])
def test_the_arrays_of_a_dataset_lie_once_for_all_threads(kind):
    description = {"_target_": f"{__name__}.build", "kind": kind}
    dataset = describe_dataset("data", description)
    made, expected = build_dataset("data", dataset.text), build(kind)
    assert jax.tree.structure(made) == jax.tree.structure(expected)
    pairs = list(zip(list_arrays("data", made), list_arrays("data", expected), strict=True))
    assert pairs
    for (path, array), (expected_path, values) in pairs:
        assert path == expected_path
        assert array.dtype == values.dtype
        np.testing.assert_array_equal(array, values)
    host = [leaf for leaf in jax.tree.leaves(jax.tree.map(np.asarray, made)) if leaf.size > SIZE / 2]
    for device in (0, 1):
        placed = [leaf for leaf in jax.tree.leaves(program.put_input(dataset, device)) if leaf.size > SIZE / 2]
        assert [leaf.unsafe_buffer_pointer() for leaf in placed] == [array.ctypes.data for array in host]

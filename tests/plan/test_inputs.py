"""Inputs: an array has the values that were described, or the description is refused."""

import numpy as np
import pytest

from runner.contract.task import Kind, Parameter, Task
from runner.errors import InvalidInputError
from runner.plan.dtypes import find_changed_value
from runner.plan.inputs import DTYPES, Input, build_array, describe_input

TASK = Task("toy", "toys.line", lambda **_: None, (Parameter("x", Kind.ARRAY, ()),), ())


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        ([300, -1, 1.5], "uint8", "x.values must have whole numbers from 0 to 255 for x.dtype=uint8, got 300$"),
        ([[1, 2], [3, -129]], "int8", "from -128 to 127 for x.dtype=int8, got -129$"),
        ([0.5], "int32", "whole numbers from -2147483648 to 2147483647 for x.dtype=int32, got 0.5$"),
        ([2**31], "int32", "got 2147483648$"),
        ([float("nan")], "uint32", "got nan$"),
        ([float("-inf")], "int8", "got -inf$"),
        ([1, 2], "bool", "x.values must have 0 or 1, false or true for x.dtype=bool, got 2$"),
        ([0.0, 1e39], "float32", r"x.values must have numbers within its range for x.dtype=float32, got 1e\+39$"),
        (70000, "float16", "got 70000$"),
        ([1e39], "bfloat16", r"got 1e\+39$"),
        ([1.0, None], "float32", "a list of numbers, or lists of equal length, got "),
        ([10**400], "float32", "a list of numbers, or lists of equal length, got "),
        (["1+2j"], "float32", "a list of numbers, or lists of equal length, got "),
        ([[1], [2, 3]], "int8", "a list of numbers, or lists of equal length, got "),
    ],
)
def test_values_that_the_dtype_cannot_represent_are_refused(values, dtype, message):
    with pytest.raises(InvalidInputError, match=message) as refused:
        describe_input(TASK, "x", {"values": values, "dtype": dtype})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", [[0, 1, 1.0], [True, False], [[1], [0]]])
def test_values_that_it_represents_are_kept(values, dtype):
    array = build_array(describe_input(TASK, "x", {"values": values, "dtype": dtype}))
    assert array.astype(float).tolist() == np.array(values, dtype=float).tolist()


def test_floats_round_and_may_be_infinite():
    values = [0.1, float("inf"), float("nan"), 3.4028235677973366e38 / 2]
    array = build_array(describe_input(TASK, "x", {"values": values}))
    np.testing.assert_array_equal(array, np.float32(values))


@pytest.mark.parametrize(
    ("array", "dtype", "got"),
    [
        (np.array([1, 256]), "uint8", "256"),
        (np.asfortranarray([[1.0, 2.0], [2.5, 3.0]]), "int32", "2.5"),
        (np.array([2**31], dtype=np.float32), "int32", "2147483648"),
        (np.array([2**63 + 1], dtype=np.uint64), "int8", "9223372036854775809"),
        (np.array([1e300]), "float32", r"1e\+300"),
    ],
)
def test_a_file_with_such_values_is_refused(tmp_path, array, dtype, got):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(InvalidInputError, match=rf"x.file=x.npy must have .* for x.dtype={dtype}, got {got}$"):
        describe_input(TASK, "x", {"file": "x.npy", "dtype": dtype})


def test_a_file_is_checked_again_when_it_was_written_again(tmp_path):
    (tmp_path / "x.csv").write_text("1,2\n")
    describe_input(TASK, "x", {"file": "x.csv", "dtype": "int8"})
    (tmp_path / "x.csv").write_text("1,200\n")
    with pytest.raises(InvalidInputError, match=r"got 200$"):
        describe_input(TASK, "x", {"file": "x.csv", "dtype": "int8"})


@pytest.mark.parametrize("fill", ["normal", "uniform", "linspace"])
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_a_fill_between_whole_numbers_is_refused_for_integers(fill, dtype):
    with pytest.raises(InvalidInputError, match=f"x.fill must be ones or zeros for x.dtype={dtype}, got '{fill}'"):
        describe_input(TASK, "x", {"shape": [3], "fill": fill, "dtype": dtype})
    for exact in ({"fill": "ones"}, {"fill": "zeros"}, {"fill": "linspace", "shape": [2]}):
        describe_input(TASK, "x", {"shape": [3], "dtype": dtype, **exact})


def test_large_arrays_are_checked_in_pieces(monkeypatch):
    monkeypatch.setattr("runner.plan.dtypes.CHECKED_VALUES", 2)
    assert find_changed_value(np.array([1.0, 2, 3, 4, 5.5]), np.dtype("int8")) == 5.5


@pytest.mark.parametrize("fill", ["normal", "uniform"])
def test_the_stream_of_a_seed_does_not_depend_on_the_arrays_before_it(fill):
    """The generator is seeded again: nothing is left of a pair of normal values, of which the odd size took one."""
    method = {"normal": "standard_normal", "uniform": "random_sample"}[fill]
    for seed in (0, 1, 2**32 - 1, 1):
        array = build_array.__wrapped__(Input((3,), "float32", fill=fill, seed=seed))
        assert array.tolist() == getattr(np.random.RandomState(seed), method)(3).astype(np.float32).tolist()

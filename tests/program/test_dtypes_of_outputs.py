"""Outputs of every dtype and shape: written exactly, read back and compared, or refused before anything runs."""

import sys

import ml_dtypes
import numpy as np
import pytest

import runner as seedbed
from runner import compare

USUAL = ["float8_e5m2", "int4", "bfloat16", "bool"]
OTHERS = ["float16", "float8_e4m3fn", "float8_e4m3b11fnuz", "float8_e8m0fnu", "float4_e2m1fn"]
OTHERS += ["int2", "uint4", "uint2", "int8"]
"""All dtypes that a program of XLA may return and NumPy or Arrow may not know."""
REFUSED = ["float6_e2m3fn", "int1", "uint1", "complex64"]


@pytest.mark.parametrize("dtype", [*USUAL, *(pytest.param(name, marks=pytest.mark.matrix) for name in OTHERS)])
def test_an_output_of_any_dtype_is_exact(toy, dtype):
    sweep = ("-m", "task=typed", f"dtype={dtype}", "seed=0,1", "study=s")
    called = toy(*sweep)
    assert called.status == 0, called.err
    with np.errstate(all="ignore"):
        kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
        expected = np.float32([1.5, 0.5]).astype(kind).astype(float).tolist()
    frame = seedbed.read("outputs/s")
    assert frame["scalar"].astype(float).tolist() == expected
    assert np.stack(frame["array"]).astype(float).tolist() == [[value] * 2 for value in expected]
    assert (frame["status"] == "ok").all()
    assert toy(*sweep).out.splitlines()[:3] == called.out.splitlines()[:3]
    comparison = seedbed.compare_studies(["outputs/s"], metrics=["scalar", "array.max"])
    assert comparison.points["mean"].tolist() == [np.mean(expected)] * 2
    alone = toy("task=typed", f"dtype={dtype}").out.splitlines()[2].split()
    shown = str(kind.type(expected[0])) if dtype in ("bool", "int8") else f"{expected[0]:g}"
    assert alone[4:6] == [shown, f"[{shown},"]


@pytest.mark.parametrize("dtype", REFUSED)
def test_a_dtype_that_has_no_program_is_refused_before_anything_runs(toy, tmp_path, dtype):
    called = toy("task=typed", f"dtype={dtype}")
    assert (called.status, called.err.count("\n")) == (2, 1)
    assert f"returns {dtype} as 'scalar'; a table holds" in called.err
    assert not list(tmp_path.glob("outputs/*"))


@pytest.mark.parametrize(
    "shape", ["[2,0]", *(pytest.param(shape, marks=pytest.mark.matrix) for shape in ("[0]", "[0,2]"))]
)
def test_an_array_without_elements_is_one(toy, shape):
    sweep = ("-m", "task=typed", f"shape={shape}", "seed=0,1", "study=s")
    called = toy(*sweep)
    assert called.status == 0, called.err
    sizes = [int(size) for size in shape.strip("[]").split(",")]
    assert [array.shape for array in seedbed.read("outputs/s")["array"]] == [tuple(sizes)] * 2
    assert toy(*sweep, "report=true").status == 0
    assert len(seedbed.compare_studies(["outputs/s"], metrics=["scalar", "array.mean"]).points) == 1
    assert "[] (" in toy("task=typed", f"shape={shape}").out


def test_arrays_without_elements_alone_are_summarized(toy, monkeypatch, capsys):
    sweep = ("-m", "task=constant", "size=0,1", "study=s")
    first = toy(*sweep)
    assert first.status == 0, first.err
    assert toy(*sweep).out.splitlines()[:4] == first.out.splitlines()[:4]
    toy("-m", "task=constant", "size=0", "study=none")
    monkeypatch.setattr(sys, "argv", ["compare", "outputs/none", "--html"])
    capsys.readouterr()
    compare.main()
    assert "note: no run has a finite value of output.mean" in capsys.readouterr().out

"""Exports to files: the values and dtypes are those of the study, whatever its outputs are."""

import csv
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import runner as seedbed
from runner import export
from runner.contract.task import Output
from runner.errors import InvalidInputError
from runner.exports.nested import output_type, parse_cells
from runner.exports.targets import TARGETS

STUDIES = {
    "arrays and numbers": ("-m", "task=divide", "slope=1,0,-3", "seed=range(0,4)"),
    "curves": ("-m", "task=noisy", "level=-1,2", "seed=range(0,5)"),
    "failures": ("-m", "task=only_even", "size=2,3", "seed=range(0,2)"),
    "categories": ("-m", "task=grade", 'among=["=1+1","\'=x","-2",""]', "seed=range(0,8)"),
    "two tasks": ("-m", "task=noisy,noisier", "level=1,2", "seed=range(0,3)"),
    "lengths that differ": ("-m", "task=noisy", "steps=3,4", "seed=range(0,3)"),
    "minus zero and booleans": ("-m", "task=keep", "rate=0,8", "seed=range(0,3)"),
    "no seed": ("-m", "task=constant", "size=1,2"),
}


def read_back(frame):
    """Arrays as nested lists, so that frames can be compared."""
    return frame.map(lambda cell: json.dumps(listed(cell)) if isinstance(cell, np.ndarray | list) else cell)


def listed(cell):
    return [listed(member) for member in cell] if isinstance(cell, np.ndarray | list) else np.asarray(cell).item()


QUICK = ("arrays and numbers", "failures", "categories", "minus zero and booleans")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.matrix) for n in STUDIES])
def test_a_study_is_the_same_in_parquet_and_csv(toy, call_main, name):
    folder = toy(*STUDIES[name], "study=s").folder
    status, out, err = call_main(export.main, "outputs/s", "parquet")
    assert (status, err) == (0, ""), err
    frame, expected = pd.read_parquet(folder / "exports" / "s.parquet"), seedbed.read(folder)
    assert f"{len(expected)} runs written: outputs/s/exports/s.parquet" in out
    pd.testing.assert_frame_equal(read_back(frame), read_back(expected))
    assert call_main(export.main, "outputs/s", "csv", "--to", "a/b.csv")[0] == 0
    assert (folder.parents[1] / "a" / "b.csv").read_bytes() == (folder / "results.csv").read_bytes()


def test_the_metadata_of_parquet_have_manifest_and_environment(toy, call_main):
    folder = toy("-m", "task=noisy", "seed=range(0,3)", "study=s").folder
    for _ in "ab":  # again is an update
        assert call_main(export.main, "outputs/s", "parquet")[0] == 0
    assert [path.name for path in (folder / "exports").iterdir()] == ["s.parquet"]
    schema = pq.read_schema(folder / "exports" / "s.parquet")
    assert schema.metadata[b"seedbed.manifest"].decode() == (folder / "study.json").read_text()
    assert json.loads(schema.metadata[b"seedbed.environment"]) == json.loads((folder / "environment.json").read_text())
    assert (schema.field("seed").type, schema.field("score").type) == (pa.uint32(), pa.float32())
    assert schema.field("curve").type == pa.list_(pa.float32())


@pytest.mark.matrix
def test_repeated_runs_are_in_their_place(toy, call_main, monkeypatch):
    """Rows of repeated runs are at the end of the table, and further runs after them."""
    from toys import BROKEN

    monkeypatch.setattr("toys.BROKEN", {1, 4, 6})
    sweep = ("-m", "task=fragile", "slope=2,3", "study=s")
    toy(*sweep, "seed=range(0,8)", "block=2")
    monkeypatch.setattr("toys.BROKEN", BROKEN - BROKEN)
    toy(*sweep, "seed=range(0,8)", "block=2", "retry=failed")
    folder = toy(*sweep, "seed=range(0,9)", "block=2").folder
    monkeypatch.setattr("runner.storage.reader.BATCH_BYTES", 200)
    assert folder is None  # the study was there
    for target in ("parquet", "csv"):
        assert call_main(export.main, "outputs/s", target)[0] == 0
    expected = seedbed.read("outputs/s")
    assert expected["run"].tolist() == list(range(18))
    assert (expected["status"] == "ok").all()
    pd.testing.assert_frame_equal(pd.read_parquet("outputs/s/exports/s.parquet"), expected)
    rows = list(csv.reader(Path("outputs/s/exports/s.csv").read_text().splitlines()))
    assert [row[0] for row in rows[1:]] == list(map(str, range(18)))
    assert len(Path("outputs/s/results.csv").read_text().splitlines()) > len(rows)


CELLS = [
    (np.float32, (3,), ["[1.0, -0.0, 1e-45]", None, "[NaN, Infinity, -Infinity]"]),
    (np.float32, (2, 2), ["[[1.5, 2.0], [3.0, -4.0]]", "[[0.1, 0.2], [0.3, NaN]]"]),
    (np.int8, (2, 1, 3), ["[[[1, 2, 3]], [[4, 5, -128]]]", None]),
    (np.bool_, (2,), ["[true, false]"]),
    (np.uint32, (2,), ["[4294967295, 0]"]),
    (np.float32, (0,), ["[]", None]),
    (np.float32, (0, 2), ["[]"]),
    (np.float32, (2, 0), ["[[], []]"]),
    (np.float16, (2,), ["[0.1, -65504.0]"]),
    (ml_dtypes.bfloat16, (2,), ["[0.10009766, 3.0]"]),
]


@pytest.mark.parametrize(("dtype", "shape", "cells"), CELLS)
def test_cells_of_arrays_are_parsed(dtype, shape, cells):
    output = Output("y", shape, np.dtype(dtype))
    parsed = parse_cells(pa.array(cells, pa.string()), output)
    assert parsed.type == output_type(output)
    expected = [None if cell is None else json.loads(cell) for cell in cells]
    stored = np.float32 if dtype is ml_dtypes.bfloat16 else dtype
    for found, wanted in zip(parsed.to_pylist(), expected, strict=True):
        if wanted is None:
            assert found is None
        else:
            found, wanted = np.array(found, stored), np.array(wanted, stored)
            assert found.tobytes() == wanted.tobytes()
            assert found.shape == wanted.shape


@pytest.mark.parametrize("cell", ["[1.0, x]", "1.0 2.0", "[1, , 2]"])
def test_a_cell_that_is_no_array_is_refused(cell):
    with pytest.raises(InvalidInputError, match="the table is damaged: y has a cell that is no array"):
        parse_cells(pa.array([cell]), Output("y", (2,), np.dtype("float32")))


def test_bad_input_is_told_in_a_line(toy, call_main, monkeypatch):
    toy("-m", "task=noisy", "seed=range(0,3)", "study=s")
    monkeypatch.setattr("runner.exports.targets.find_spec", lambda name: None)
    for arguments, message in [
        (("outputs/s", "excel"), "there is no target 'excel'; there are: parquet, csv, wandb, mlflow, tensorboard, "),
        (("outputs/s", "wandb"), "wandb needs a library that is not installed: pip install 'seedbed[wandb]'"),
        (("outputs/t", "csv"), "outputs/t holds no study: there is no study.json"),
        (("outputs/s", "csv", "--all"), "--all is for trackers (wandb, mlflow, tensorboard, optuna); csv has all runs"),
        (("outputs/s", "csv", "--filter", "seed < 2"), "--filter is for trackers"),
        (("outputs/s", "csv", "--to", "/proc/x/y"), "/proc/x"),
    ]:
        status, out, err = call_main(export.main, *arguments)
        assert (status, out, err.count("\n")) == (2, "", 1), err
        assert message in err
    table = Path("outputs/s/results.csv")
    table.write_text(table.read_text().replace("ok", "ko", 1))
    status, _, err = call_main(export.main, "outputs/s", "parquet")
    assert (status, err.count("\n")) == (2, 1)
    assert "is not as the study wrote it" in err


def test_a_study_that_is_not_finished_says_what_is_missing(toy, call_main):
    folder = toy("-m", "task=noisy", "seed=range(0,9)", "study=s").folder
    lines = (folder / "results.csv").read_bytes().splitlines(keepends=True)
    (folder / "results.csv").write_bytes(b"".join(lines[:6]))
    status, out, _ = call_main(export.main, "outputs/s", "csv")
    assert status == 0
    assert "5 runs written" in out
    assert "4 runs of the study are pending" in out


@pytest.mark.parametrize(
    ("runs", "told"), [(1, "1 run at about 31 a second: 1 second"), (3_000, "97 seconds"), (1_000_000, "9 hours")]
)
def test_the_time_of_single_runs_is_estimated(runs, told):
    assert export._estimate(TARGETS["mlflow"], runs).endswith(told)

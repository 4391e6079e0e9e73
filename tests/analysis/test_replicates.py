"""What counts as a replicate: copies, parts of shards, pooled axes, failures, filters, and axes that follow others."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from runner import compare_studies
from runner.analysis.load import load_runs
from runner.analysis.replicates import group_samples, impute_worst, make_sample
from runner.errors import InvalidInputError


@pytest.fixture
def study(toy):
    return toy("-m", "task=noisy", "level=1,2", "seed=range(0,6)", "study=mine").folder


def test_a_copy_of_a_study_adds_no_seeds(study, tmp_path):
    once = compare_studies([study])
    twice = compare_studies([study, study])
    assert twice.points.equals(once.points)
    assert "1 of the folders were given more than once, and are read once" in twice.notes
    copy = tmp_path / "elsewhere" / "mine"
    shutil.copytree(study, copy)
    copied = compare_studies([study, copy])
    assert copied.points.equals(once.points)
    assert any("12 runs" in note and "counted once" in note for note in copied.notes)


def test_other_values_of_equal_runs_are_another_study(study, tmp_path, toy):
    other = tmp_path / "elsewhere" / "mine"
    shutil.copytree(study, other)
    lines = (other / "results.csv").read_text().splitlines(keepends=True)
    cells = lines[1].split(",")
    lines[1] = lines[1].replace(cells[5], "0.5", 1)
    (other / "results.csv").write_text("".join(lines))
    (other / "results.crc").unlink()
    manifest = json.loads((other / "study.json").read_text())
    (other / "study.json").write_text(json.dumps({**manifest, "table_bytes": None}))
    made = compare_studies([study, other])
    assert made.points["study"].tolist() == [str(study)] * 2 + [str(other)] * 2
    assert made.points["finished"].tolist() == [6] * 4
    longer = toy("-m", "task=noisy", "level=1", "seed=range(4,9)", "study=longer").folder
    joined = compare_studies([study, longer])
    assert joined.points[["level", "seeds", "finished"]].to_numpy().tolist() == [[1, 9, 9], [2, 6, 6]]


def test_parts_that_are_not_merged_are_read(study):
    manifest, lines = study / "study.json", (study / "results.csv").read_text().splitlines(keepends=True)
    data = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**data, "table_bytes": None}))
    (study / "results.crc").unlink()
    for first, rows in ((4, lines[5:9]), (7, lines[8:13])):  # run 7 is in both
        part = study / "parts" / f"{first:012d}"
        part.mkdir(parents=True)
        (part / "results.csv").write_text("".join([lines[0], *rows]))
    (study / "results.csv").write_text("".join(lines[:3]))
    assert load_runs([study]).number.tolist() == [0, 1, *range(4, 12)]
    (study / "results.csv").write_text(lines[0])
    assert compare_studies([study]).points["finished"].tolist() == [2, 6]


def test_seeds_without_all_values_of_pooled_axes_are_left_out(toy):
    folder = toy("-m", "task=noisy", "level=1,-1", "steps=3,4", "seed=range(0,4)", "study=grid").folder
    made = compare_studies([folder], by=["level"], keep="not (level == 1 and steps == 4 and seed == 2)")
    assert made.points[["level", "finished", "nonfinite"]].to_numpy().tolist() == [[1, 3, 0], [-1, 4, 4]]
    assert any(note.startswith("1 seeds that do not have all of these values") for note in made.notes)


def test_axes_that_another_one_determines_distinguish_nothing():
    from runner.analysis.load import _find_independent

    optimizer = np.array([0, 0, 1, 1, 2, 2])
    codes = {
        "optimizer": optimizer,
        "optimizer.b1": np.array([-1, -1, 0, 0, 0, 0]),
        "optimizer.name": optimizer,
        "lr": np.array([0, 1, 0, 1, 0, 1]),
        "steps": np.array([0, 1, 0, 1, 0, 1]),
    }
    assert _find_independent(list(codes), codes) == ["optimizer", "lr", "steps"]
    searched = {"lr": np.arange(6), "way": np.array([0, 1, 0, 1, 0, 1])}
    assert _find_independent(list(searched), searched) == ["lr"]
    assert _find_independent(list(searched), searched, {"lr"}) == ["lr", "way"]  # each of its values is of one point


def test_filters_leave_a_trace_and_know_all_outputs(toy, study):
    made = compare_studies([study], keep="seed < 3")
    assert made.exclusions == ("the filter 'seed < 3' leaves out 6 of 12 runs",)
    arrays = compare_studies([study], metrics=["curve.last"], keep="score > -9 and `curve.0` > -9 and task == 'noisy'")
    assert arrays.metrics == ("curve.last",)
    assert arrays.points["finished"].tolist() == [6, 6]
    assert "by their outcome (score, curve.0)" in arrays.exclusions[0]
    graded = toy("-m", "task=grade", "slope=1,2", "seed=range(0,6)", "study=graded").folder
    verdict = pd.read_csv(graded / "results.csv")["verdict"]
    words = compare_studies([graded], keep=f"verdict == '{verdict[0]}'")
    assert words.points["finished"].sum() == (verdict == verdict[0]).sum()
    with pytest.raises(InvalidInputError, match="words stand in quotes"):
        compare_studies([study], keep="task == noisy")


def test_curves_have_an_area_and_reach_thresholds(study):
    names = ["curve.area", "curve.steps_below_2", "curve.steps_above_1e9"]
    runs = load_runs([study], names)
    arrays = np.array([json.loads(text) for text in pd.read_csv(study / "results.csv")["curve"]])
    np.testing.assert_allclose(runs.values["curve.area"], np.trapezoid(arrays, axis=1))
    steps = [next((i for i, value in enumerate(row) if value <= 2), np.inf) for row in arrays]
    assert runs.values["curve.steps_below_2"].tolist() == steps
    sample = group_samples(runs, 2)["curve.steps_above_1e9"][0]
    assert (len(sample.values), sample.nonfinite, len(sample.lost)) == (0, 6, 6)  # never reached, and not forgotten


def test_failures_can_have_the_worst_or_the_last_value(lab, runner):
    a, b = make_sample(np.array([1.0, np.nan, 3.0])), make_sample(np.array([5.0, 2.0, 4.0]))
    worst = impute_worst([a, b], "minimize")
    assert [sample.values.tolist() for sample in worst] == [[1, 5, 3], [5, 2, 4]]
    assert impute_worst([a, b], "maximize")[0].values.tolist() == [1, 1, 3]
    lab(
        {
            "falling.py": "import jax.numpy as jnp\n\n\ndef fall(seed: int, scale: float):\n"
            "    steps = scale * jnp.arange(3, dtype=jnp.float32)\n"
            "    return {'loss': jnp.where((steps > 1) & (seed % 2 == 0), jnp.nan, steps)}\n",
            "conf/task/falling.yaml": "# @package _global_\ntask:\n  name: falling\n  _target_: falling.fall\n"
            "  outputs: [loss]\nscale: 1.0\nseed: 0\n",
        }
    )
    folder = runner("--config-dir", "conf", "-m", "task=falling", "seed=range(0,4)", "study=fall").folder
    dropped = compare_studies([folder], metrics=["loss.last"])
    assert dropped.points[["finished", "nonfinite", "mean"]].to_numpy().tolist() == [[4, 2, 2.0]]
    assert compare_studies([folder], metrics=["loss.last"], failures="last").points["mean"].tolist() == [1.5]

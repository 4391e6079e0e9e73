"""The answer in words, the five columns, and what the terminal prints of them."""

import re
import sys

import numpy as np
import pandas as pd
import pytest

from runner import compare
from runner.analysis.answer import answer, list_lines
from runner.analysis.tables import STANDINGS, list_standings


def test_the_answer_names_the_best_point_and_what_is_shown(simulate):
    made = simulate({"lr": [0.1, 0.2, 0.3, 0.4]}, seeds=12)
    found = answer(made)
    assert found.ran == "48 runs of mine: 4 points (4 values of lr), 12 runs each."
    assert found.failed == ""
    (own,) = found.metrics
    best = made.best["loss"]
    assert own.best.startswith("Best loss (less is better): lr=0.3, mean ")
    assert f"corrected for the choice among 4 points {best.corrected:.2f}"[:-1] in own.best
    shown = made.differences.set_index("lr")["conclusion"]
    worse = [name for name in (0.2, 0.4, 0.1) if shown[name] == "worse"]
    assert len(worse) == 3
    assert "Shown to be worse than the best: 3 points" in own.shown
    assert own.settle == "More seeds are not needed for these conclusions."
    assert len(list_lines(own)) == 3


def test_what_is_not_shown_comes_with_what_would_settle_it(simulate):
    made = simulate({"lr": [0.1, 0.2]}, seeds=3, spoil=lambda own, point: own - (point == 0) * 1.02)
    (own,) = answer(made).metrics
    assert own.shown == "No difference to the best is shown (not shown: lr=0.1)."
    assert "the point that is not shown" in own.settle
    assert own.command == made.suggestion


def test_failures_are_told_with_the_point_that_has_most(simulate):
    spoil = lambda own, point: np.where((point == 2) & (own > np.median(own[point == 2])), np.nan, own)  # noqa: E731
    made = simulate({"lr": [0.1, 0.2, 0.3]}, seeds=20, spoil=spoil)
    assert answer(made).failed == "10 of 60 runs have a result that is not finite, most at lr=0.3 (10 of 20)."
    table = list_standings(made, "loss")
    row = next(row for row in table.rows if row[0] == "lr=0.3")
    assert re.fullmatch(r"10 of 20 \[\d]", row[STANDINGS.index("seeds")])
    assert "10 not finite" in table.footnotes


def test_points_are_sorted_by_merit_and_sentences_are_footnotes(simulate):
    made = simulate({"lr": [0.1, 0.2, 0.3, 0.4]}, metrics={"loss": "minimize", "gain": "maximize"})
    for metric in made.metrics:
        table = list_standings(made, metric)
        means = made.points[made.points["metric"] == metric].set_index("lr")["mean"]
        order = [float(row[0].removeprefix("lr=")) for row in table.rows]
        assert order == means.sort_values(ascending=metric == "loss").index.tolist()
        assert table.rows[0][STANDINGS.index("verdict")] == "best"
        assert len(set(table.footnotes)) == len(table.footnotes)


def test_a_metric_without_a_direction_has_no_best(simulate):
    made = simulate({"lr": [0.1, 0.2]}, metrics={"time": ""})
    assert "has no direction in task.metrics" in answer(made).metrics[0].best


def test_of_many_metrics_those_with_a_direction_are_compared(lab, runner):
    lab(
        {
            "my_lab.py": "def many(seed, lr):\n    return {f'm{i}': lr * (i + 1) for i in range(8)}\n",
            "my_conf/task/many.yaml": (
                "# @package _global_\n"
                "task: {name: many, _target_: my_lab.many, metrics: {m3: minimize}}\n"
                "seed: 0\nlr: 0.1\n"
            ),
        }
    )
    folder = runner("--config-dir", "my_conf", "-m", "task=many", "lr=0.1,0.2", "seed=0,1,2", "study=mine").folder
    made = compare.compare([folder])
    assert made.metrics == ("m3",)
    assert any(note.startswith("m0, m1, m2, m4, m5, m6, m7: without a direction") for note in made.notes)
    assert compare.compare([folder], metrics=["m0"]).metrics == ("m0",)


def print_study(study, monkeypatch, capsys, *options, width="80"):
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setattr(sys, "argv", ["compare", str(study), *options])
    capsys.readouterr()
    compare.main()
    return capsys.readouterr().out


NUMBER = re.compile(r"[-+<]?\d[\d,.]*(?:e-?\d+)?")


@pytest.mark.parametrize("options", [(), ("--wide",)], ids=["short", "wide"])
def test_a_number_is_never_broken_at_80_columns(study, monkeypatch, capsys, options):
    narrow = print_study(study, monkeypatch, capsys, *options)
    whole = print_study(study, monkeypatch, capsys, *options, width="4000")
    tables = [line for line in narrow.splitlines() if line.startswith(" ")]
    assert tables
    assert max(map(len, tables)) <= 80
    known = set(NUMBER.findall(whole))
    assert {number for line in tables for number in NUMBER.findall(line)} <= known
    assert "left out" not in narrow


def test_wide_has_all_columns(study, monkeypatch, capsys):
    out = print_study(study, monkeypatch, capsys, "--wide")
    made = compare.compare([study])
    names = set(out.split())
    has = [
        name for name in made.differences if name not in ("command", "metric") and made.differences[name].notna().any()
    ]
    assert {name for name in has if not (made.differences[name].astype(str) == "").all()} <= names


def test_the_answer_ends_the_output(study, monkeypatch, capsys):
    out = print_study(study, monkeypatch, capsys, width="4000")
    (own,) = answer(compare.compare([study])).metrics
    lines = out.splitlines()
    told = [line for line in (*list_lines(own), f"  {own.command}" if own.command else "") if line]
    assert lines[-len(told) :] == told
    assert pd.Series(lines).str.contains("mean ± interval").any()


def test_one_seed_says_that_chance_cannot_be_told(simulate):
    (own,) = answer(simulate({"lr": [0.1, 0.2]}, seeds=1)).metrics
    assert own.best.endswith("how much of that is chance cannot be told from these seeds.")


def test_the_best_of_each_task_is_not_the_baseline(toy):
    folder = toy("-m", "task=noisy,noisier", "level=1,3", "seed=range(0,6)", "study=tasks").folder
    made = compare.compare([folder], metrics=["score"], baseline={"level": 3})
    (own,) = answer(made).metrics
    assert "task=noisy level=1" in own.best
    assert "level=3" not in own.best


def test_axes_may_have_the_names_of_columns(simulate):
    made = simulate({"low": [1.0, 2.0], "kind": ["a", "b"]})
    assert made.axes == ("axis.low", "axis.kind")
    assert made.points["axis.low"].tolist() == [1, 1, 2, 2]
    assert (made.points["low"] < made.points["mean"]).all()
    assert set(made.differences["kind"]) == {"paired"}
    (against,) = set(made.differences["against"])
    assert re.fullmatch("low=[12] kind=[ab]", against)
    assert answer(made).metrics[0].best.startswith(f"Best loss (less is better): {against}, mean ")

"""Races and confirmations: further seeds of a study at some of its points, whatever interrupts them."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from runner import compare, race
from runner.analysis import racing
from runner.analysis.comparison import compare_studies
from runner.analysis.load import load_runs
from runner.storage.folder import Folder
from runner.storage.lock import lock_folder

TASK = {
    "lab.py": """
        import jax
        import jax.numpy as jnp

        def own(seed: int, level: float, kind: str = "a", fails: float = 9.0):
            key = jax.random.fold_in(jax.random.key(seed), (level * 1000).astype("int32"))
            score = level + (2.0 if kind == "b" else 0.0) + jax.random.normal(key)
            return {"score": jnp.where(score > fails, jnp.nan, score), "other": score}
    """,
    "conf/task/own.yaml": """
        # @package _global_
        task: {name: own, _target_: lab.own, outputs: [score, other], metrics: {score: minimize}}
        seed: 0
        level: 1.0
        kind: a
        fails: 9.0
    """,
}
SWEEP = ("--config-dir", "conf", "-m", "task=own", "level=0,0.9,3", "seed=range(0,3)", "study=mine")


@pytest.fixture
def study(lab, runner):
    lab(TASK)
    return runner(*SWEEP).folder


@pytest.fixture
def run_race(call_main):
    return lambda *arguments: call_main(race.main, *map(str, arguments))


def read(study):
    return pd.read_csv(study / "results.csv")


def test_seeds_go_to_the_points_in_contention_until_the_choice_is_shown(study, run_race, runner):
    before = (study / "results.csv").read_bytes()
    command = json.loads((study / "environment.json").read_text())["command"]
    status, out, err = run_race(study, "--metric", "score", "--budget", "600")
    assert (status, err) == (0, "")
    assert "the best of 3 points by score (minimize) is level=0: no other is better, at level 0.95" in out
    assert (study / "results.csv").read_bytes().startswith(before)
    counts = read(study)["level"].value_counts()
    assert counts[0.0] == counts[0.9] > counts[3.0] >= 5
    assert counts.sum() - 9 <= 600
    # it stays an ordinary study: the same runs, called in its own way, are the same bits
    again = runner(*SWEEP[:-2], f"seed=range(0,{counts[0.0]})", "study=other").frame
    mine = read(study).merge(again, on=["level", "seed"], suffixes=("", "_again"))
    assert len(mine) == counts.sum()
    assert (mine["score"] == mine["score_again"]).all()
    assert json.loads((study / "environment.json").read_text())["command"] == command
    assert runner(*SWEEP[:-2], "seed=range(0,40)", "study=mine").status == 0
    assert not read(study).duplicated(["level", "seed"]).any()


@pytest.mark.matrix
@pytest.mark.parametrize("when", range(4))
def test_an_interrupted_race_goes_on_and_ends_alike(study, run_race, monkeypatch, tmp_path, when):
    arguments = ("--metric", "score", "--budget", "200")
    whole = shutil.copytree(study, tmp_path / "outputs" / "whole")
    assert run_race(whole, *arguments)[0] == 0

    def fail_at(function, count):
        calls = iter(range(count, -1, -1))

        def wrapped(*given, **options):
            if next(calls, 1) == 0:
                raise KeyboardInterrupt
            return function(*given, **options)

        return wrapped

    places = [(race, "record_looks", 1), (race, "write_race", 2), (race.Extensible, "add_seeds", 0)]
    owner, name, count = (*places, (race, "judge", 1))[when]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail_at(getattr(owner, name), count))
        assert run_race(study, *arguments)[0] == 130
    assert run_race(study, *arguments)[0] == 0
    assert (study / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    assert json.loads((study / "race.json").read_text()) == json.loads((whole / "race.json").read_text())
    assert len(json.loads((study / "looks.json").read_text())["looks"]) == len(
        json.loads((whole / "looks.json").read_text())["looks"]
    )


def test_a_spent_budget_is_told_and_a_larger_one_goes_on(study, run_race):
    status, out, _ = run_race(study, "--metric", "score", "--budget", "6")
    assert status == 0
    assert "not shown: " in out
    assert len(read(study)) == 15
    status, out, _ = run_race(study, "--metric", "score", "--budget", "600", "--difference", "5")
    assert "no other is better by more than 5" in out
    assert len(read(study)) == 15


@pytest.mark.matrix
def test_points_with_static_values_race_each_with_its_own_seeds(lab, runner, run_race):
    lab(TASK)
    study = runner(*SWEEP[:-3], "level=0,0.8", "kind=a,b", "seed=range(0,3)", "study=two").folder
    assert "level=0 kind=a: no other is better" in run_race(study, "--metric", "score", "--budget", "600")[1]
    counts = read(study).groupby(["level", "kind"]).size()
    assert counts[0.0, "a"] == counts[0.8, "a"] > counts[0.0, "b"] >= 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--metric", "other", "--budget", "100"), "other has no direction in task.metrics; there are: score"),
        (("--metric", "loss", "--budget", "100"), "there is no metric 'loss'; there are: score, other"),
        (
            ("--metric", "score", "--budget", "5"),
            "--budget must be at least 6, 2 more seeds for each of 3 points; got 5",
        ),
        (("--metric", "score", "--budget", "0"), "--budget must be a positive number of runs, got 0"),
        (("--metric", "score", "--budget", "9", "--level", "2"), "the confidence level must be at least 0.5 and less"),
        (("--metric", "score", "--budget", "9", "--difference", "-1"), "--difference must be a number of at least 0"),
    ],
)
def test_what_cannot_be_raced_is_told_in_a_line(study, run_race, arguments, message):
    before = (study / "results.csv").read_bytes()
    status, _, err = run_race(study, *arguments)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err
    assert (study / "results.csv").read_bytes() == before


def test_studies_that_cannot_be_extended_are_refused(study, run_race, runner, lab, tmp_path):
    asked = ("--metric", "score", "--budget", "100")

    def refuse(folder, message):
        status, _, err = run_race(folder, *asked)
        assert (status, err.count("\n")) == (2, 1), err
        assert message in err

    refuse(tmp_path, "holds no study")
    assert not (tmp_path / ".lock").exists()
    refuse(runner(*SWEEP[:4], "seed=range(0,3)", "study=one").folder, "has one point; a race is between two or more")
    with lock_folder(Folder(study)):
        refuse(study, "is in use by process")
    manifest = json.loads((study / "study.json").read_text())
    (study / "study.json").write_text(json.dumps({**manifest, "planned": 12}))
    refuse(study, "is not finished: 3 of 12 runs are pending; finish it first: ")
    (study / "study.json").write_text(json.dumps(manifest))
    (study / "race.json").write_text("{}")
    refuse(study, "race.json is damaged")
    (study / "race.json").unlink()
    (tmp_path / "lab.py").write_text(
        (tmp_path / "lab.py").read_text().replace("+ 2.0", "+ 2.5").replace("2.0 if", "2.5 if")
    )
    refuse(study, "is another study: code of task own was")


@pytest.fixture
def confirm(call_main):
    return lambda *arguments: call_main(compare.main, *map(str, arguments))


def test_fresh_seeds_confirm_the_best_point_alone(study, confirm):
    first = compare_studies([study], metrics=["score"])
    status, out, err = confirm(study, "--metric", "score", "--confirm", "6")
    assert (status, err) == (0, "")
    frame = read(study)
    fresh = frame[frame["seed"] >= 3]
    assert fresh["seed"].tolist() == list(range(3, 9))
    assert fresh["level"].nunique() == 1
    again = compare_studies([study], metrics=["score"])
    pd.testing.assert_frame_equal(again.points, first.points)
    assert again.looks == first.looks == 1
    best = again.best["score"]
    assert best.confirmed_mean == pytest.approx(fresh["score"].mean())
    assert best.confirmed.low < best.confirmed_mean < best.confirmed.high
    assert (best.estimate, best.corrected) == (first.best["score"].estimate, first.best["score"].corrected)
    assert "on fresh seeds alone" in out
    assert any("6 runs of fresh seeds confirm a point" in line for line in again.exclusions)
    # asked for once more, nothing is executed; another number is refused
    assert confirm(study, "--metric", "score", "--confirm", "6")[0] == 0
    assert len(read(study)) == len(frame)
    status, _, err = confirm(study, "--metric", "score", "--confirm", "9")
    assert (status, err.count("\n")) == (2, 1)
    assert "was confirmed by 6 seeds, and the number of seeds is chosen once; got --confirm 9" in err


def test_an_interrupted_confirmation_goes_on_with_the_same_seeds(study, confirm, monkeypatch):
    from runner.extension import Extensible

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Extensible, "add_seeds", interrupt)
        assert confirm(study, "--metric", "score", "--confirm", "4")[0] == 130
    assert len(read(study)) == 9
    assert confirm(study, "--metric", "score", "--confirm", "4")[0] == 0
    assert read(study)["seed"].max() == 6
    assert len(json.loads((study / "confirmations.json").read_text())["confirmations"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--confirm", "1"), "--confirm must be at least 2 seeds, got 1"),
        (("--confirm", "5", "--metric", "other"), "--confirm needs a metric with a direction in task.metrics"),
    ],
)
def test_what_cannot_be_confirmed_is_told_in_a_line(study, confirm, arguments, message):
    status, _, err = confirm(study, *arguments)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err


def test_a_point_that_fails_has_the_worst_value_in_a_race(lab, runner, run_race):
    lab(TASK)
    study = runner(*SWEEP[:4], "level=0,1", "fails=0.5", "seed=range(0,5)", "study=fails").folder
    track = race._read_track(race.Request(Folder(study), "score", 100, 0.0, 0.95, False))
    values = load_runs([study], ["score"]).values["score"]
    assert track.failures.sum() == np.isnan(values).sum() > 0
    assert np.nanmin(track.values) == -np.nanmax(values)
    status, out, _ = run_race(study, "--metric", "score", "--budget", "100")
    assert status == 0
    assert "of its runs have no finite value; the worst finite one stands for them" in out


def test_one_sided_p_values_are_those_of_scipy():
    from scipy import stats

    rng = np.random.default_rng(0)
    gaps = rng.normal(0.5, size=(3, 8))
    expected = [stats.ttest_1samp(row, 0, alternative="greater").pvalue for row in gaps]
    np.testing.assert_allclose(racing.one_sided_p(gaps), expected)
    half = np.concatenate([gaps[0], np.full(4, np.nan)])
    np.testing.assert_allclose(racing.one_sided_p(half[None]), expected[:1])
    low = stats.ttest_1samp(gaps[0], 0, alternative="greater").confidence_interval(0.99).low
    np.testing.assert_allclose(racing.lower_limits(gaps[:1], 0.01), [low])
    coins = np.array([[1.0, 1, 1, 0, -1], [2.0, 2, 2, 2, 2]])
    np.testing.assert_allclose(
        racing.one_sided_p(coins), [stats.binomtest(3, 4, alternative="greater").pvalue, 2.0**-5]
    )
    assert racing.one_sided_p(np.array([[1.0], [np.nan]])).tolist() == [1.0, 1.0]


@pytest.mark.matrix
def test_a_race_is_wrong_at_most_as_often_as_its_level_permits_and_cheaper_than_equal_seeds():
    benchmark = __import__("runpy").run_path(str(ROOT / "benchmarks" / "racing.py"))
    landscape = benchmark["Landscape"]("four", np.array([0.6, 0.0, -2, -2, -2, -2]), benchmark["draw_normal"])
    found = benchmark["describe"](landscape, benchmark["simulate"](landscape, 60))
    assert found["wrong"] <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 60)
    assert found["shown"] == 1
    assert found["ratio"] > 1.5


@pytest.mark.matrix
@pytest.mark.parametrize("part", ["successes", "coins", "metrics", "marks", "confirmation", "power", "survivors"])
def test_claims_hold_in_simulations(part, monkeypatch):
    benchmark = __import__("runpy").run_path(str(ROOT / "benchmarks" / "claims.py"))
    rows = list(benchmark["simulate"](20, part))
    assert rows
    assert [row.name for row in rows if not row.is_reached] == []

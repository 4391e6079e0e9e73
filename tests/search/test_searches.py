"""Searches through the command line: Optuna in batches, halving, and other people's sweepers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toys

OPTUNA = ["-m", "hydra/sweeper=optuna", "task=noisy", "level=interval(0,1)", "seed=0,1", "study=s"]
SMALL = ["hydra.sweeper.trials=12", "hydra.sweeper.batch=4"]
HALVING = [
    "-m",
    "task=keep",
    "rate=0.5,1.5,2.5,3,4,5,6,7,9",
    "steps=90",
    "hydra.sweeper.halving={budget: steps, eta: 3}",
]
pytestmark = pytest.mark.usefixtures("_optuna")


@pytest.fixture
def _optuna():
    pytest.importorskip("optuna")
    pytest.importorskip("cmaes")


@pytest.mark.matrix
@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "nsga2"])
def test_a_stopped_search_ends_with_the_same_bytes(toy, tmp_path, sampler, monkeypatch):
    """The search is ended between two of its batches, and within one."""
    from runner import searching

    call = [*OPTUNA, *SMALL, f"hydra.sweeper.sampler={sampler}", "steps=4"]
    whole = toy(*call)
    assert whole.status == 0, whole.err
    shutil.move(tmp_path / "outputs" / "s", tmp_path / "outputs" / "whole")
    execute = searching.Batches.execute
    for stops in (1, 2):
        calls = []

        def stop(self, *arguments, calls=calls, stops=stops):
            calls.append(1)
            if len(calls) > stops:
                raise KeyboardInterrupt
            return execute(self, *arguments)

        monkeypatch.setattr(searching.Batches, "execute", stop)
        assert toy(*call).status == 130
        assert json.loads(Path("outputs/s/study.json").read_text())["planned"] == 24
        monkeypatch.setattr(searching.Batches, "execute", execute)
    again = toy(*call)
    assert again.status == 0
    assert "already there" in again.out
    for name in ("results.csv", "results.crc"):
        assert (tmp_path / "outputs" / "s" / name).read_bytes() == (tmp_path / "outputs" / "whole" / name).read_bytes()


def test_a_search_stopped_within_a_batch_goes_on_with_its_points(toy, tmp_path, monkeypatch):
    from runner.execution import blocks

    whole = toy(*OPTUNA, *SMALL, "lanes=1", "block=1")
    assert len(whole.frame) == 24
    shutil.move(tmp_path / "outputs" / "s", tmp_path / "outputs" / "whole")
    execute, done = blocks.execute_blocks, []

    def stop(*arguments, **named):
        for result in execute(*arguments, **named):
            done.append(1)
            if len(done) == 14:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(blocks, "execute_blocks", stop)
    assert toy(*OPTUNA, *SMALL, "lanes=1", "block=1").status == 130
    assert len(pd.read_csv("outputs/s/results.csv")) == 13
    monkeypatch.setattr(blocks, "execute_blocks", execute)
    assert toy(*OPTUNA, *SMALL, "lanes=1", "block=1").status == 0
    for name in ("results.csv", "study.json"):
        assert Path("outputs/s", name).read_bytes() == Path("outputs/whole", name).read_bytes(), name


@pytest.mark.slow
def test_a_search_is_extended_and_shows_its_best_points(toy):
    first = toy(*OPTUNA, *SMALL)
    assert first.status == 0, first.err
    longer = toy(*OPTUNA, "hydra.sweeper.trials=14", "hydra.sweeper.batch=4")
    assert "28 runs of 14 trials" in longer.out
    assert "24 of them already there" in longer.out
    best = first.frame.groupby("level")["score"].mean().min()
    assert f"{best:.6g}" in longer.out
    assert "confirm by fresh seeds: python -m runner.compare outputs/s --metric score --confirm 20" in longer.out


@pytest.mark.matrix
def test_the_programs_are_compiled_once(toy):
    toys.TRACES.clear()
    call = [*OPTUNA[:2], "task=line", "slope=interval(0,1)", "seed=0,1", "study=s"]
    called = toy(*call, "x.shape=[3]", "hydra.sweeper.objective=loss", "hydra.sweeper.direction=minimize")
    assert called.status == 2
    assert "the task returns no 'loss'" in called.err
    toys.TRACES.clear()
    called = toy(*OPTUNA, *SMALL, "hydra.sweeper.objective=score")
    assert called.status == 0
    programs = pd.read_csv("outputs/s/programs.csv")
    assert programs["runs"].tolist() == [24]


@pytest.mark.matrix
def test_equal_points_are_executed_once(toy):
    call = ["-m", "hydra/sweeper=optuna", "task=noisy", "level=0.25,0.5", "seed=0,1", "study=s", *SMALL]
    called = toy(*call)
    assert called.status == 0, called.err
    assert len(called.frame) == 4
    assert "4 runs of 12 trials" in called.out


@pytest.mark.matrix
def test_options_have_their_own_dimensions(runner, lab):
    lab(
        {
            "forest.py": "def grow(seed: int, kind: dict, base: float = 0.0):\n"
            "    return {'loss': base + kind['width'] + kind.get('slope', 0.0)}\n",
            "conf/task/forest.yaml": "# @package _global_\ndefaults:\n  - /kind: round\n  - _self_\ntask:\n"
            "  name: forest\n  _target_: forest.grow\n  traced: [kind]\n  metrics: {loss: minimize}\n"
            "seed: 0\nbase: 0.0\n",
            "conf/kind/round.yaml": "width: 1.0\n",
            "conf/kind/steep.yaml": "width: 1.0\nslope: 2.0\n",
        }
    )
    call = [
        "--config-dir", "conf", "-m", "hydra/sweeper=optuna", "task=forest", "kind=round,steep",
        "kind.width=interval(1,2)", "kind.slope=interval(-3,0)", "study=f", *SMALL,
    ]  # fmt: skip
    called = runner(*call)
    assert called.status == 0, called.err
    frame = called.frame
    assert frame.loc[frame["kind"] == "round", "kind.slope"].isna().all()
    assert frame.loc[frame["kind"] == "steep", "kind.slope"].between(-3, 0).all()
    assert set(frame["kind"]) == {"round", "steep"}
    empty = runner("--config-dir", "conf", *call[2:6], "kind.slope=interval(-3,0)", "study=e")
    assert empty.status == 2
    assert "the space of the search has nothing in it for kind=round" in empty.err
    refused = runner(*call[:-3], "kind.height=interval(0,1)", "study=g")
    assert refused.status == 2
    assert "kind has no 'height'; it has: width" in refused.err


@pytest.mark.slow
def test_nonfinite_points_are_told_as_failed(toy):
    call = ["-m", "hydra/sweeper=optuna", "task=noisy", "level=interval(-1,1)", "seed=0,1", "study=s"]
    called = toy(*call, "hydra.sweeper.trials=12", "hydra.sweeper.batch=6")
    assert called.status == 0, called.err
    assert (called.frame.loc[called.frame["level"] < 0, "status"] == "nonfinite").all()
    shown = [line for line in called.out.splitlines() if line.strip() and line.split()[0].replace(".", "").isdigit()]
    assert shown
    assert all(float(line.split()[0]) >= 0 for line in shown[:5])


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("change", "label"),
    [
        (["level=interval(0,2)"], "space was 'level=interval(0,1)', is 'level=interval(0,2)'"),
        (["seed=0,1,2"], "seeds was '0,1', is '0,1,2'"),
        (["hydra.sweeper.sampler=random"], "sampler was 'tpe', is 'random'"),
        (["hydra.sweeper.batch=4"], "batch was 3, is 4"),
        (
            ["hydra.sweeper.reduce=worst"],
            "objective was 'minimize the mean of score', is 'minimize the worst of score'",
        ),
    ],
)
def test_another_search_is_refused_with_both_sides(toy, change, label):
    assert toy(*OPTUNA, "hydra.sweeper.trials=3", "hydra.sweeper.batch=3").status == 0
    before = Path("outputs/s/results.csv").read_bytes()
    called = toy(*OPTUNA, "hydra.sweeper.trials=3", "hydra.sweeper.batch=3", *change)
    assert called.status == 2
    assert label in called.err
    assert Path("outputs/s/results.csv").read_bytes() == before


@pytest.mark.matrix
def test_another_search_may_be_a_fork(toy):
    toy(*OPTUNA, "hydra.sweeper.trials=3", "hydra.sweeper.batch=3")
    forked = toy(*OPTUNA, "hydra.sweeper.trials=3", "hydra.sweeper.batch=3", "level=interval(0,2)", "on_mismatch=fork")
    assert forked.status == 0, forked.err
    assert forked.folder.name != "s"
    assert len(forked.frame) == 6


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hydra.sweeper.objective=loss"], "loss has no direction"),
        (["hydra.sweeper.objective=curve", "hydra.sweeper.direction=minimize"], "curve is an array of 5, no number"),
        (["hydra.sweeper.objective=los", "hydra.sweeper.direction=minimize"], "the task returns no 'los'; its numbers"),
        (["hydra.sweeper.constraints=['score<1']"], "a constraint must be of the form"),
        (["hydra.sweeper.trials=0"], "trials must be an integer from 1"),
        (["hydra.sweeper.sampler=bayes"], "sampler must be one of tpe"),
        (["seed=interval(0,9)"], "seeds are replicates"),
        (["level=interval(1,0)"], "the first bound must be below the second"),
        (["lvel=interval(0,1)"], "lvel"),
        (["retry=failed"], "retry is no setting of a search"),
        (["verify=2"], "verify is no setting of a search"),
    ],
)
def test_bad_settings_of_a_search_are_refused(toy, arguments, message):
    called = toy(*OPTUNA, *SMALL, *arguments)
    assert called.status == 2
    assert message in called.err
    assert called.folder is None or not (called.folder / "results.csv").exists()


@pytest.mark.matrix
def test_a_word_is_no_objective(toy):
    call = ["-m", "hydra/sweeper=optuna", "task=grade", "slope=interval(0,1)", "among=[a,b]", "modulus=2", "study=s"]
    called = toy(*call, "hydra.sweeper.objective=verdict", "hydra.sweeper.direction=minimize")
    assert called.status == 2
    assert "verdict is text, and cannot be an objective" in called.err


def test_a_space_of_seeds_only_is_empty(toy):
    called = toy("-m", "hydra/sweeper=optuna", "task=noisy", "seed=0,1", "study=s")
    assert called.status == 2
    assert "the space of the search has nothing in it" in called.err


def test_halving_executes_survivors_with_the_whole_budget(toy):
    called = toy(*HALVING, "seed=0,1", "study=h")
    assert called.status == 0, called.err
    frame = called.frame
    assert frame.groupby("steps")["rate"].nunique().to_dict() == {10: 9, 30: 3, 90: 1}
    assert frame.loc[frame["steps"] == 90, "rate"].unique().tolist() == [1.5]
    assert "26 runs of 13 trials" in called.out
    single = toy("task=keep", "rate=1.5", "steps=90", "seed=1", "study=one")
    of = frame[(frame["steps"] == 90) & (frame["seed"] == 1)].iloc[0]
    assert single.frame.iloc[0]["gain"] == of["gain"]  # to the bit: the same program runs from step 0
    again = toy(*HALVING, "seed=0,1", "study=h")
    assert "26 of them already there" in again.out


def test_halving_keeps_the_length_of_schedules(toy):
    """What refers to the budget within built objects has its final value in all rungs."""
    call = [
        "-m",
        "task=fit",
        "rate=1,2,3",
        "hydra.sweeper.halving={budget: count, eta: 3, least: 3}",
        "count=9",
        "study=h",
    ]
    called = toy(*call, "hydra.sweeper.objective=value", "hydra.sweeper.direction=minimize")
    assert called.status == 0, called.err
    assert sorted(called.frame["counted"]) == [3, 3, 3, 9]
    assert set(called.frame["length"]) == {9}


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("halving", "message"),
    [
        ("{budget: rate, eta: 3}", "rate is the budget"),
        ("{budget: way, eta: 3}", "way cannot be a budget, because it is no traced number"),
        ("{budget: seed, eta: 3}", "seed cannot be a budget"),
        ("{budget: steps, eta: 1}", "eta must be a number above 1, got 1"),
        ("{budget: steps, eta: 0.5}", "eta must be a number above 1, got 0.5"),
        ("{budget: steps, least: 0}", "least must be a positive integer"),
        ("{budget: steps, method: asha}", "method must be successive or hyperband"),
        ("{budgets: steps}", "must be of the form"),
        ("{budget: steps, rungs: 3}", "has no 'rungs'; it has: budget, eta, least, method"),
    ],
)
def test_bad_budgets_are_refused(toy, halving, message):
    called = toy(*HALVING[:-1], f"hydra.sweeper.halving={halving}", "study=h")
    assert called.status == 2
    assert message in called.err


@pytest.mark.matrix
def test_the_best_run_of_a_search_is_replayed(toy, call_main):
    from runner.replay import main

    called = toy("-m", "hydra/sweeper=optuna", "task=keep", "rate=interval(0,4)", "seed=0,1", "study=s", *SMALL)
    assert called.status == 0, called.err
    status, out, err = call_main(main, "outputs/s", "--best", "1", "--metric", "loss", "--save")
    assert status == 0, err
    best = called.frame.loc[called.frame["loss"].idxmin()]
    assert f"{best['loss']:.6g}" in out
    assert f"rate={best['rate']:.6g}" in out
    assert "identical" in out
    saved = Path("outputs/s/checkpoints", f"run-{best['run']}", "task", f"run-{best['run']}.yaml").read_text()
    assert f"rate: {best['rate']}" in saved


@pytest.mark.matrix
def test_hyperband_runs_several_brackets(toy):
    called = toy(
        "-m", "task=keep", "rate=interval(0,4)", "steps=9", "hydra.sweeper.samples=17", "study=h",
        "hydra.sweeper.halving={budget: steps, eta: 3, method: hyperband}",
    )  # fmt: skip
    assert called.status == 0, called.err
    assert called.frame["rate"].nunique() == 17
    assert (called.frame["steps"] == 9).sum() == 5


@pytest.mark.matrix
def test_jobs_of_another_sweeper_are_runs_of_one_study(toy):
    """Hydra's basic sweeper hands a list of overrides to the launcher."""
    called = toy(
        "-m",
        "hydra/sweeper=basic",
        "hydra/launcher=lanes",
        "task=noisy",
        "level=0.5,1",
        "steps=2,3",
        "seed=0,1",
        "study=l",
    )
    assert called.status == 0, called.err
    grid = toy("-m", "task=noisy", "level=0.5,1", "steps=2,3", "seed=0,1", "study=g")
    keys = ["level", "steps", "seed"]
    pd.testing.assert_frame_equal(
        called.frame.sort_values(keys, ignore_index=True).drop(columns="run"),
        grid.frame.sort_values(keys, ignore_index=True).drop(columns="run"),
    )


@pytest.mark.matrix
def test_settings_of_a_study_cannot_differ_between_jobs(toy):
    called = toy("-m", "hydra/sweeper=basic", "hydra/launcher=lanes", "task=noisy,divide", "study=l")
    assert called.status == 2
    assert "runs jobs of one study, which differ in task=noisy and task=divide" in called.err


@pytest.mark.matrix
def test_a_search_in_shards_has_the_same_rows(toy):
    pytest.importorskip("joblib")
    alone = toy(*OPTUNA, *SMALL)
    table = alone.csv
    assert alone.status == 0
    shards = toy(*OPTUNA[:-1], *SMALL, "study=t", "hydra.sweeper.shards=2")
    assert shards.status == 0, shards.err
    assert Path("outputs/t/results.csv").read_bytes() == table


def test_a_fixed_manifest_has_the_space(toy):
    toy(*OPTUNA, *SMALL)
    search = json.loads(Path("outputs/s/study.json").read_text())["fingerprint"]["search"]
    assert search["space"] == "level=interval(0,1)"
    assert search["sampler"] == "tpe"
    assert np.isfinite(search["sampler_seed"])

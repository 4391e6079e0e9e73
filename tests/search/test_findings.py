"""What a search says at its end: the best point as the seeds show it, and a command that confirms it."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from runner import compare, race, replay, studies
from runner.analysis.comparison import find_best_points
from runner.analysis.selection import correct_best, estimate_correlation
from runner.storage.folder import Folder

OPTUNA = ["-m", "hydra/sweeper=optuna", "task=noisy", "level=interval(0,1)", "hydra.sweeper.batch=4", "study=s"]
MAINS = {"runner.compare": compare.main, "runner.race": race.main}


@pytest.fixture
def paste(call_main):
    """Executes a printed command in this process: `paste("python -m runner.compare …")`."""

    def call(command):
        program, option, module, *words = shlex.split(command)
        assert (program, option) == ("python", "-m")
        return call_main(MAINS[module], *words)

    return call


def find_command(out, start="confirm by fresh seeds: "):
    return next(line.removeprefix(start) for line in out.splitlines() if line.startswith(start))


def test_the_end_of_a_search_has_the_corrected_best_and_confirms_it(toy, paste):
    pytest.importorskip("optuna")
    called = toy(*OPTUNA, "seed=0,1,2", "hydra.sweeper.trials=8")
    assert called.status == 0, called.err
    found = find_best_points(called.folder, ["score"])
    assert "corrected for the choice among 8 points" in called.out
    assert f"mean {found.best['score'].estimate:.3g}"[:-1] in called.out
    assert not Folder(called.folder).looks.exists()  # nothing is claimed of differences
    status, out, err = paste(find_command(called.out))
    assert status == 0, err
    assert "on fresh seeds alone" in out
    table = pd.read_csv("outputs/s/results.csv")
    assert sorted(table["seed"].iloc[24:]) == list(range(3, 23))
    assert table["level"].iloc[24:].nunique() == 1
    again = toy(*OPTUNA, "seed=0,1,2", "hydra.sweeper.trials=12")
    assert again.status == 0, again.err
    assert "36 runs of 12 trials" in again.out


@pytest.mark.slow
def test_points_with_static_values_are_confirmed_and_replayed(toy, paste, call_main):
    """The best point has another static value than the example that a search is recalled by."""
    pytest.importorskip("optuna")
    call = ["-m", "hydra/sweeper=optuna", "task=keep", "rate=interval(0,4)", "way=down,up", "study=s", "seed=0,1"]
    called = toy(*call, "hydra.sweeper.trials=8", "hydra.sweeper.batch=8")
    assert called.status == 0, called.err
    command = find_command(called.out)
    assert "--metric loss" in command
    status, out, err = paste(command)
    assert status == 0, err
    assert "on fresh seeds alone" in out
    for way in ("up", "down"):
        status, out, err = call_main(replay.main, "outputs/s", "--point", f"way={way}")
        assert status == 0, err
        assert "identical" in out


@pytest.mark.slow
def test_halving_says_that_its_rungs_have_chosen_and_is_confirmed(toy, paste):
    call = ["-m", "task=keep", "rate=1,1.5,3,4", "steps=8", "seed=0,1", "study=h", "hydra.sweeper.objective=gain"]
    called = toy(*call, "hydra.sweeper.halving={budget: steps, eta: 2}")
    assert called.status == 0, called.err
    assert "have chosen by the same seeds" in called.out
    status, out, err = paste(find_command(called.out))
    assert status == 0, err
    assert "on fresh seeds alone" in out
    table = pd.read_csv("outputs/h/results.csv")
    assert set(table["steps"].iloc[14:]) == {8}


@pytest.mark.slow
def test_what_a_smaller_budget_has_is_not_confirmed(toy):
    """The loss is the same with all budgets: the best mean is the first one, and halving has chosen the last one."""
    call = ["-m", "task=keep", "rate=0.5,1.5,3,9", "steps=8", "seed=0,1", "study=h"]
    called = toy(*call, "hydra.sweeper.halving={budget: steps, eta: 2}")
    assert "among points with the largest steps" in called.out
    assert "steps=8 rate=1.5 'seed=range(2,22)' study=h-confirmed" in find_command(called.out)


def test_drawn_points_have_a_best_one(toy, paste):
    called = toy("-m", "task=noisy", "level=interval(0,1)", "seed=0,1", "hydra.sweeper.samples=4", "study=d")
    assert "corrected for the choice among 4 points" in called.out
    status, out, err = paste(find_command(called.out))
    assert status == 0, err
    assert "on fresh seeds alone" in out


@pytest.mark.slow
def test_a_search_is_not_told_to_repeat_itself_with_more_seeds(toy, call_main, paste):
    """A learning search would propose other points with other seeds: a race gives seeds to those that there are."""
    pytest.importorskip("optuna")
    call = ["-m", "hydra/sweeper=optuna", "task=mixed_train", "lr=tag(log,interval(0.01,1))", "seed=0,1,2", "study=s"]
    assert toy(*call, "hydra.sweeper.trials=4", "hydra.sweeper.batch=4").status == 0
    _, out, _ = call_main(compare.main, "outputs/s", "--metric", "loss_after", "--difference", "1")
    command = next(line.strip() for line in out.splitlines() if line.startswith("  python"))
    assert command.startswith("python -m runner.race outputs/s --metric loss_after")
    status, _, err = paste(re.sub(r"--budget \d+", "--budget 12", command))
    assert status == 0, err


@pytest.mark.slow
def test_a_choice_by_constraints_is_confirmed_in_a_study_of_its_own(toy):
    pytest.importorskip("optuna")
    call = ["-m", "hydra/sweeper=optuna", "task=keep", "rate=interval(0,4)", "seed=0,1", "study=s"]
    called = toy(*call, "hydra.sweeper.trials=8", "hydra.sweeper.batch=8", "hydra.sweeper.constraints=['loss>=0.5']")
    assert called.status == 0, called.err
    assert "among points with loss>=0.5, and so another point than the best mean" in called.out
    allowed = called.frame[called.frame["loss"] >= 0.5]
    rate = allowed.loc[allowed["loss"].idxmin(), "rate"]
    assert f"rate={rate:.5g}"[:9] in find_command(called.out)
    assert "study=s-confirmed" in find_command(called.out)


def test_points_with_equal_values_are_one_in_the_choice(simulate):
    """Each point is there twice, as where an axis has no effect; a tie would leave the interval without a width."""
    once = simulate({"lr": [0.1, 0.2, 0.3, 0.4]}, seeds=5).runs
    values = once.values["loss"]
    twice = simulate({"lr": [0.1, 0.2, 0.3, 0.4], "none": [1, 2]}, seeds=5, spoil=lambda own, point: double(values))
    best = twice.best["loss"]
    assert (best.corrected, best.low, best.high) == pytest.approx(take_best(values), rel=1e-9)
    assert best.low < best.high


def double(values):
    return np.repeat(values.reshape(4, 5), 2, axis=0).ravel()


def take_best(values):
    table = values.reshape(4, 5)
    errors, correlation = table.std(axis=1, ddof=1) / 5**0.5, estimate_correlation(table)
    order = np.argsort(table.mean(axis=1), kind="stable")[:1].tolist()
    order += [i for i in range(4) if i not in order]
    found = correct_best(-table.mean(axis=1)[order], errors[order], np.full(4, 4), 0.95, correlation=correlation)
    return -found[0], -found[2], -found[1]


def test_objectives_are_the_first_metrics_of_the_study(toy, call_main):
    pytest.importorskip("optuna")
    call = ["-m", "hydra/sweeper=optuna", "task=keep", "rate=interval(0,4)", "seed=0,1", "study=s"]
    settings = ["hydra.sweeper.trials=4", "hydra.sweeper.objective=gain", "hydra.sweeper.direction=minimize"]
    called = toy(*call, *settings)
    assert called.status == 0, called.err
    manifest = json.loads(Path("outputs/s/study.json").read_text())
    assert manifest["metrics"] == {"gain": "minimize", "loss": "minimize"}
    assert "Best gain (less is better)" in called.out
    _, out, _ = call_main(studies.main, "show", "s")
    assert "corrected for the choice among 4 points" in " ".join(out.split())
    assert "tpe" in out

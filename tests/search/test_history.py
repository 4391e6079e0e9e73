"""What a search has led to: history, importance and front."""

from pathlib import Path

import numpy as np
import pytest

from runner.analysis.history import (
    average_points,
    divide_points,
    find_search,
    group_axis,
    measure_importance,
    read_batches,
    select_front,
    trace_history,
)
from runner.analysis.load import load_runs
from runner.search.importance import rank_by_optuna
from runner.storage.folder import Folder


@pytest.fixture
def drawn(toy):
    """32 drawn points of two seeds: the score is the level plus the seed's noise, whatever the steps are."""
    called = toy(
        "-m", "task=keep", "rate=interval(0,4)", "way=up,down", "seed=0,1", "hydra.sweeper.samples=16", "study=d"
    )
    assert called.status == 0, called.err
    return load_runs([called.folder], ["loss", "gain"])


def test_the_history_is_that_of_the_best_point_so_far(drawn):
    history = trace_history(drawn, "loss")
    assert history.runs.tolist() == list(range(2, 66, 2))
    assert np.array_equal(history.best, np.minimum.accumulate(history.values))
    assert np.array_equal(history.values, average_points(drawn, "loss"))
    assert np.isnan(history.seconds).all()  # it was one sweep, without batches
    assert np.array_equal(trace_history(drawn, "gain").best, np.maximum.accumulate(average_points(drawn, "gain")))
    search = find_search(drawn)
    assert search is not None
    assert (search.objectives, search.budget, search.is_learning, search.logarithmic) == ({}, "", False, ())
    assert divide_points(drawn, search)[1] == ["points"]


def test_importance_finds_the_axis_that_matters(drawn):
    """The loss is |rate − 2| for both ways."""
    shares = measure_importance(drawn, "loss")
    assert list(shares) == ["rate", "way"]
    assert shares["rate"] > 0.8
    assert shares["way"] < 0.1


def test_parts_of_an_axis_have_equally_many_points():
    assert np.bincount(group_axis(np.linspace(0, 1, 80).tolist())).tolist() == [10] * 8
    assert group_axis(["a", None, "b", "a"]).tolist() == [0, -1, 1, 0]
    assert group_axis([1.0, 2.0, None, 1.0]).tolist() == [0, 1, -1, 0]


def test_the_front_has_the_best_of_each_metric(drawn):
    front = select_front(drawn, ("loss", "gain"))
    assert front[average_points(drawn, "loss").argmin()]
    assert front[average_points(drawn, "gain").argmax()]
    assert 1 < front.sum() < len(front)


def test_a_grid_is_no_search(toy):
    assert find_search(load_runs([toy("-m", "task=noisy", "level=1,2", "study=g").folder])) is None


def test_all_axes_of_a_search_are_axes(drawn):
    """Each rate is that of one point, and so determines the way, which is an axis nevertheless."""
    assert list(drawn.points.columns) == ["rate", "way"]


def test_optuna_finds_the_key_that_matters():
    """Also a key that only some points have; what all points share is no key."""
    pytest.importorskip("optuna")
    rng = np.random.default_rng(0)
    points = [{"lr": float(rng.uniform()), "way": ["a", "b"][i % 2], "same": 1} for i in range(60)]
    points = [{**point, "own": float(rng.uniform())} if point["way"] == "a" else point for point in points]
    costs = np.array([abs(point["lr"] - 0.3) for point in points])
    shares = rank_by_optuna(points, np.where(np.arange(60) == 5, np.nan, costs))
    assert next(iter(shares)) == "lr"
    assert shares["lr"] > 0.6
    assert set(shares) == {"lr", "way", "own"}
    assert rank_by_optuna(points[:3], costs[:3]) == {}


@pytest.mark.matrix
def test_batches_are_timed(toy):
    pytest.importorskip("optuna")
    call = ["-m", "hydra/sweeper=optuna", "task=noisy", "level=interval(0,1)", "hydra.sweeper.batch=4", "study=s"]
    assert toy(*call, "hydra.sweeper.trials=8").status == 0
    first = read_batches(Folder(Path("outputs/s")))
    assert [(number, runs) for number, runs, _ in first] == [(0, 4), (1, 8)]
    toy(*call, "hydra.sweeper.trials=12")
    longer = read_batches(Folder(Path("outputs/s")))
    assert longer[:2] == first
    assert [seconds for _, _, seconds in longer] == sorted(seconds for _, _, seconds in longer)
    history = trace_history(load_runs([Path("outputs/s")], ["score"]), "score")
    assert history.seconds.tolist() == np.repeat([row[2] for row in longer], 4).tolist()


@pytest.mark.slow
def test_the_list_of_studies_says_what_is_a_search(toy, call_main):
    from runner.studies import main

    toy("-m", "task=noisy", "level=interval(0,1)", "hydra.sweeper.samples=2", "study=d")
    _, out, _ = call_main(main, "outputs")
    assert "search (sobol) level:2" in out

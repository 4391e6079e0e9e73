"""What a search has led to: history, importance, front and figures."""

from pathlib import Path

import numpy as np
import pytest

from runner.analysis.history import (
    average_points,
    draw_search,
    group_axis,
    is_search,
    measure_importance,
    read_batches,
    select_front,
    trace_history,
)
from runner.analysis.load import load_runs
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
    assert is_search(drawn)


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


@pytest.mark.slow
def test_a_search_has_its_figures_and_a_grid_has_none(toy, drawn, tmp_path):
    figures = draw_search(drawn, ["loss", "gain"])
    names = ["best so far over the runs", "along each axis", "what each axis explains", "all axes", "front"]
    assert list(figures) == [f"loss: {name}" for name in names]
    for number, figure in enumerate(figures.values()):
        figure.savefig(tmp_path / f"{number}.svg")
        assert (tmp_path / f"{number}.svg").stat().st_size > 5_000
    grid = toy("-m", "task=noisy", "level=1,2", "study=g")
    assert draw_search(load_runs([grid.folder]), ["score"]) == {}


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

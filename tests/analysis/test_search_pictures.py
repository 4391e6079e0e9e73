"""The pictures of searches as values: history, rungs, slices, importance, front and parallel coordinates."""

from dataclasses import replace

import numpy as np
import pytest

from runner.analysis import comparison as comparisons
from runner.analysis import figures
from runner.analysis.page.document import render_report
from runner.analysis.pictures import importance
from runner.analysis.pictures.gallery import draw_pictures
from runner.analysis.pictures.scene import MUTED, Dots, Line, Star, Symbols

TPE = {"sampler": "tpe", "directions": {"loss": "minimize"}, "logarithmic": ["lr"], "seeds": "0"}
HALVING = {"halving": "successive", "budget": "steps", "directions": {"loss": "minimize"}, "seeds": "0"}
LR = np.geomspace(1e-3, 1, 24).tolist()


@pytest.fixture
def searched(simulate, monkeypatch):
    """A comparison of simulated runs that a search has proposed: `searched({"lr": [0.1]}, facts)`."""

    def make(axes, facts, **options):
        made = simulate(axes, **options)
        manifest = made.runs.manifests[0]
        fingerprint = replace(manifest.fingerprint, search=facts)
        runs = replace(made.runs, manifests=(replace(manifest, fingerprint=fingerprint),))
        monkeypatch.setattr(comparisons, "load_runs", lambda *_: runs)
        return comparisons.compare_studies([folder.path for folder in runs.studies])

    return make


def draw(comparison):
    return {(picture.metric, picture.name): picture for picture in draw_pictures(comparison)}


def find_marks(picture, kind, panel=0):
    return [mark for mark in picture.panels[panel].marks if isinstance(mark, kind)]


def test_the_history_is_first_and_its_line_is_the_best_mean_so_far(searched):
    made = searched({"lr": LR, "way": ["a", "b"]}, TPE, seeds=3, spoil=lambda own, point: own + 900.0 * (point >= 24))
    pictures = draw(made)
    assert [key[1] for key, picture in pictures.items() if picture.is_main] == ["history", "slices"]
    history = pictures["loss", "history"]
    (line,) = find_marks(history, Line)
    means = made.runs.values["loss"].reshape(-1, 3).mean(axis=1)
    assert np.allclose(line.y, np.minimum.accumulate(means))
    assert line.is_step
    (star,) = find_marks(history, Star)
    assert (star.x, star.y) == (3 * (means.argmin() + 1), pytest.approx(means.min()))
    assert [dots.color for dots in find_marks(history, Dots)] == [MUTED, 0]
    assert len(history.panels) == 1
    assert "not recorded" in history.caption


def test_every_axis_has_a_slice_on_its_own_scale(searched):
    slices = draw(searched({"lr": LR, "momentum": LR, "way": ["a", "b"]}, TPE, seeds=1))["loss", "slices"]
    assert [(panel.x.label, panel.x.is_log, panel.x.names) for panel in slices.panels] == [
        ("lr", True, ()),
        ("momentum", False, ()),  # searched evenly, however wide it is
        ("way", False, ("a", "b")),
    ]


def test_runs_that_diverge_are_crosses_at_the_edge(searched):
    def diverge(own, point):
        return np.where(point >= 40, np.nan, own)

    pictures = draw(searched({"lr": LR, "way": ["a", "b"]}, TPE, seeds=2, spoil=diverge))
    for name in ("history", "slices"):
        (crosses,) = find_marks(pictures["loss", name], Symbols)
        assert len(crosses.x) == 8
        assert set(crosses.y.tolist()) == {pictures["loss", name].panels[0].y.high}
        assert "no finite value" in pictures["loss", name].caption


def test_the_rungs_of_halving_have_a_colour_each(searched):
    pictures = draw(searched({"steps": [10, 30, 90], "lr": LR[:5]}, HALVING, seeds=2))
    history = pictures["loss", "history"]
    assert [(key.text, key.color) for key in history.keys] == [("steps=10", 2), ("steps=30", 1), ("steps=90", 0)]
    assert len(find_marks(history, Line)) == 3
    assert "5 points with steps=10, 5 points with steps=30 and 5 points with steps=90" in history.caption
    rungs = pictures["loss", "rungs"]
    assert len(find_marks(rungs, Line)) == 5
    assert rungs.is_main
    assert ("loss", "slices") in pictures or ("loss", "axis") in pictures
    assert all(panel.x.label != "steps" for panel in pictures["loss", "slices"].panels)


def test_the_front_has_what_no_other_point_beats(searched):
    facts = {**TPE, "directions": {"loss": "minimize", "gain": "maximize"}}
    metrics = {"loss": "minimize", "gain": "maximize"}
    made = searched({"lr": LR}, facts, seeds=2, metrics=metrics)
    front = draw(made)["", "front"]
    (symbols,) = find_marks(front, Symbols)
    loss, gain = (made.runs.values[name].reshape(-1, 2).mean(axis=1) for name in metrics)
    beaten = [
        bool(((loss <= a) & (gain >= b) & ((loss < a) | (gain > b))).any()) for a, b in zip(loss, gain, strict=True)
    ]
    assert sorted(symbols.x) == sorted(loss[~np.array(beaten)])
    assert f"the {len(symbols.x)} points of 24" in front.caption
    assert ("", "front") not in draw(searched({"lr": LR}, TPE, seeds=2))


def test_importance_is_optunas_or_says_how_to_install_it(searched, monkeypatch):
    pytest.importorskip("optuna")
    made = searched({"lr": LR, "way": ["a", "b"]}, TPE, seeds=2)
    assert "Optuna's PED-ANOVA" in draw(made)["loss", "importance"].caption
    monkeypatch.setattr(importance, "has_optuna", lambda: False)
    picture = draw(made)["loss", "importance"]
    assert "pip install 'seedbed[optuna]'" in picture.caption
    assert picture.panels[0].y.names[0] == "lr"


def test_the_best_points_stand_out_in_parallel_coordinates(searched):
    threads = draw(searched({"lr": LR, "way": ["a", "b"]}, TPE, seeds=1))["", "threads"]
    others, best = find_marks(threads, Line)
    assert (others.color, best.color) == (MUTED, 0)
    assert np.isnan(best.y).sum() == 5  # a tenth of 48 points


def test_the_page_of_a_search_has_its_front_before_the_metrics(searched):
    facts = {**TPE, "directions": {"loss": "minimize", "gain": "maximize"}}
    made = searched({"lr": LR, "way": ["a", "b"]}, facts, seeds=2, metrics={"loss": "minimize", "gain": "maximize"})
    page = render_report(made)
    assert page.index('id="answer"') < page.index('id="front"') < page.index('id="metric-1"')
    assert page.count("<figcaption>") == page.count("<figure")


@pytest.mark.slow
def test_pictures_of_searches_are_written_as_files(searched, tmp_path):
    facts = {**HALVING, "directions": {"loss": "minimize", "gain": "maximize"}}
    made = searched({"steps": [10, 30], "lr": LR[:6]}, facts, seeds=2, metrics={"loss": "minimize", "gain": "maximize"})
    written = {path.name for path in figures.write_figures(made, tmp_path)}
    assert {"front.svg", "loss-history.svg", "loss-rungs.svg", "loss-slices.svg"} <= written

"""Pictures as values: which one is made for which axes, what its marks follow, and what is said of the rest."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from runner import compare
from runner.analysis import figures
from runner.analysis.page.frame import NARROW
from runner.analysis.page.geometry import CHARACTER
from runner.analysis.pictures.gallery import draw_pictures
from runner.analysis.pictures.scales import is_spread, scale_names, scale_numbers, scale_values
from runner.analysis.pictures.scene import Cells, Dots, Line, Star, Symbols
from runner.analysis.pictures.shown import choose_shown

LR = [0.001, 0.01, 0.1]
AXES = {
    "curve": ({"lr": LR}, "axis"),
    "categories": ({"method": ["a", "b"]}, "points"),
    "two numbers are categories": ({"lr": [0.1, 0.2]}, "points"),
    "map": ({"lr": LR, "width": [2, 4, 8]}, "heat"),
    "multiples": ({"lr": LR, "width": [2, 4], "method": ["a", "b"]}, "heat"),
    "lines": ({"lr": np.geomspace(1e-3, 1, 61).tolist(), "method": ["a", "b"]}, "lines"),
}


def take(comparison, name):
    return next(picture for picture in draw_pictures(comparison) if picture.name == name)


def find_marks(picture, kind):
    return [mark for panel in picture.panels for mark in panel.marks if isinstance(mark, kind)]


@pytest.mark.parametrize(("axes", "name"), AXES.values(), ids=AXES)
def test_the_main_picture_is_made_for_the_axes(simulate, axes, name):
    pictures = [picture for picture in draw_pictures(simulate(axes, seeds=4)) if picture.metric == "loss"]
    assert [picture.name for picture in pictures if picture.is_main] == [name]
    assert pictures[0].name == name
    assert all(picture.caption and len(picture.alternative) > 20 for picture in pictures)


def test_marks_follow_the_adjusted_verdict(simulate):
    """Filled where the difference is shown, hollow where it is not, and bars are the intervals of the table."""
    made = simulate({"lr": LR}, seeds=5, spoil=lambda own, point: own - (point == 2) * 0.9)
    shown = dict(zip(made.differences["lr"], made.differences["conclusion"], strict=True))
    assert set(shown.values()) == {"worse", "not shown"}
    (symbols,) = find_marks(take(made, "axis"), Symbols)
    filled = dict(zip(symbols.x.tolist(), symbols.is_filled.tolist(), strict=True))
    assert filled == {lr: shown.get(lr) == "worse" for lr in LR}
    (star,) = find_marks(take(made, "axis"), Star)
    assert made.runs.points["lr"][made.best["loss"].point] == star.x
    rows = made.differences.sort_values("lr")
    picture = take(made, "differences")
    whiskers = picture.panels[0].marks[1]
    assert sorted(whiskers.low) == pytest.approx(sorted(rows["low"]))
    assert sorted(whiskers.high) == pytest.approx(sorted(rows["high"]))


def test_all_runs_are_dots_or_it_is_said_which_are_not(simulate):
    made = simulate({"lr": LR}, seeds=30)
    (dots,) = find_marks(take(made, "points"), Dots)
    assert len(dots.x) == 90
    assert "are dots" not in take(made, "points").caption
    shown = choose_shown(made.runs, most=12)
    picture = next(p for p in draw_pictures(made, shown) if p.name == "points")
    (dots,) = find_marks(picture, Dots)
    assert len(dots.x) == 12
    assert "12 runs of 90 are dots, up to 4 of each point, evenly spaced by seed." in picture.caption
    assert np.bincount(made.runs.point[shown.runs]).tolist() == [4, 4, 4]


def test_points_that_are_left_out_are_counted(simulate):
    made = simulate({"lr": np.arange(1, 402).tolist()}, seeds=4, metrics={"time": ""})
    picture = take(made, "points")
    assert len(find_marks(picture, Symbols)[0].x) == 300
    assert "The first 300 of 401 points by merit" in picture.caption


def test_maps_have_every_point_and_mark_the_best(simulate):
    made = simulate({"lr": LR, "width": [2, 4], "method": ["a", "b"]}, seeds=4)
    picture = take(made, "heat")
    assert len(picture.panels) == 2
    cells = find_marks(picture, Cells)
    assert sum(np.isfinite(mark.shade).sum() for mark in cells) == len(made.runs.points)
    assert len(find_marks(picture, Star)) == 1
    assert "A map for each value of" in picture.caption


def test_points_without_a_finite_value_are_in_the_picture(simulate):
    made = simulate({"lr": LR}, spoil=lambda own, point: np.where(point == 0, np.nan, own))
    picture = take(made, "points")
    assert "0.001" in picture.panels[0].y.names
    assert "1 point without a finite value has no mark." in picture.caption
    made = simulate({"lr": LR, "width": [1, 2, 3]}, spoil=lambda own, point: np.where(point == 0, np.nan, own))
    assert sum(row.count("×") for row in find_marks(take(made, "heat"), Cells)[0].texts) == 1


def test_each_task_has_panels_of_its_own(toy):
    folder = toy("-m", "task=noisy,noisier", "level=1,3,5", "seed=range(0,6)", "study=tasks").folder
    made = compare.compare([folder], metrics=["score"])
    pictures = {picture.name: picture for picture in draw_pictures(made)}
    assert [panel.title for panel in pictures["axis"].panels] == ["noisy", "noisier"]
    assert "Each task has its own scales." in pictures["axis"].caption
    assert len(find_marks(pictures["axis"], Dots)[0].x) == 18
    assert "profile" in pictures


def test_scales_are_logarithmic_only_where_that_helps(simulate):
    small = lambda own, point: 10.0 ** (-point.astype(float)) * (1 + 0.01 * own)  # noqa: E731
    made = simulate({"lr": LR}, metrics={"loss": "minimize", "accuracy": "maximize"}, spoil=small)
    scales = {p.metric: p.panels[0].y for p in draw_pictures(made) if p.name == "axis"}
    assert (scales["loss"].is_log, scales["accuracy"].is_log) == (True, False)
    assert not is_spread(np.array([0.0, 1.0, 100.0]))


@pytest.mark.parametrize(
    ("low", "high", "is_log"),
    [(0, 1, False), (-3, 4e6, False), (0.0012, 0.0019, False), (1e-5, 3, True), (0.3, 0.7, True), (1, 1e12, True)],
)
def test_labels_of_ticks_do_not_touch_at_400_pixels(low, high, is_log):
    scale = scale_numbers("x", np.array([low, high], dtype=float), is_log=is_log)
    places = NARROW * scale.place(np.array([tick.at for tick in scale.ticks]))
    widths = [CHARACTER * len(tick.text) for tick in scale.ticks]
    assert len(places) >= 2
    assert all(b - a >= (v + w) / 2 for a, b, v, w in zip(places, places[1:], widths, widths[1:], strict=False))


def test_ticks_of_an_axis_are_values_that_were_run():
    values = np.array([0.001, 0.003, 0.0031, 0.1])
    scale = scale_values("lr", values)
    assert scale.is_log
    assert [tick.text for tick in scale.ticks] == ["0.001", "0.003", "0.1"]
    assert scale_names("kind", ["a", "b"]).place(1.0) == 0.75


def test_curves_are_of_the_runs_that_the_filter_selects(study):
    made = compare.compare([study], keep="level < 1.8 and seed < 5")
    frame = pd.read_csv(study / "results.csv")
    lines = find_marks(take(made, "curves"), Line)
    assert len(lines) == 2
    for line, level in zip(lines, (1.0, 1.5), strict=True):
        curves = frame[(frame["level"] == level) & (frame["seed"] < 5)]["curve"].map(json.loads)
        np.testing.assert_allclose(line.y, np.mean(curves.tolist(), axis=0), rtol=1e-6)
        assert line.x.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_curves_are_of_the_best_points_of_all_studies(toy, study):
    other = toy("-m", "task=noisy", "level=range(3,12)", "seed=range(0,8)", "study=other").folder
    better = toy("-m", "task=noisy", "level=0.5", "seed=range(0,8)", "study=better").folder
    picture = take(compare.compare([study, other, better]), "curves")
    assert [key.text for key in picture.keys][:4] == ["level=0.5", "level=1", "level=1.5", "level=2"]
    assert "The best 7 of 13 points by score." in picture.caption


def test_curves_are_over_steps_where_the_task_says_how_often(study):
    made = compare.compare([study])
    points = made.runs.points.assign(every=[10, 10, 10])
    made = replace(made, runs=replace(made.runs, points=points), axes=("level", "every"))
    made = replace(made, points=made.points.assign(every=10), differences=made.differences.assign(every=10))
    picture = take(made, "curves")
    assert picture.panels[0].x.label == "step"
    assert find_marks(picture, Line)[0].x.tolist() == [10, 20, 30, 40, 50]


def test_a_run_that_lacks_one_metric_is_in_the_picture_of_all_axes(simulate):
    made = simulate({"lr": LR}, metrics={"loss": "minimize", "time": ""})
    values = dict(made.runs.values)
    values["time"] = np.where(made.runs.point == 0, np.nan, values["time"])
    made = replace(made, runs=replace(made.runs, values=values))
    picture = take(made, "threads")
    dots = {float(mark.x[0]): len(mark.x) for mark in find_marks(picture, Dots)}
    assert dots == {0.0: 24, 1.0: 24, 2.0: 16}


@pytest.mark.slow
def test_figures_are_written(study, simulate):
    written = figures.write_figures(compare.compare([study]), study / "figures")
    names = ("score-axis", "score-points", "score-differences", "score-ecdf", "curve-curves")
    assert {path.name for path in written} == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    assert all(path.stat().st_size > 5000 for path in written)
    made = simulate({"lr": LR, "width": [2, 4, 8]})
    assert {"loss-heat", "loss-lines", "threads"} <= {name for name, _ in figures.draw_figures(made)}

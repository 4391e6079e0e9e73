"""Comparisons across seeds: numbers by hand and by scipy, and the command."""

import json
import math
import shlex
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from runner import compare
from runner.analysis import statistics

RNG = np.random.default_rng(0)


def test_shares_have_wilsons_interval():
    for wins, count in ((0, 3), (7, 10), (10, 10)):
        found = statistics.share_interval(wins, count, 0.95)
        expected = stats.binomtest(wins, count).proportion_ci(0.95, method="wilson")
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_the_probability_of_improvement_counts_pairs():
    a, b = np.array([1.0, 2, 2, 5]), np.array([2.0, 0, 7])
    by_hand = np.mean([(x > y) + 0.5 * (x == y) for x in a for y in b])
    assert statistics.improvement(a, b) == pytest.approx(by_hand)
    # the interval that just touches one half has the level of Brunner's and Munzel's test
    x, y = RNG.normal(0.8, size=9), RNG.normal(size=12)
    p = stats.brunnermunzel(x, y).pvalue
    assert statistics.improvement_interval(x, y, 1 - p).low == pytest.approx(0.5)
    assert statistics.improvement_interval(np.array([3.0, 4]), np.array([1.0, 2]), 0.95).low < 0.5


def test_power_and_the_seeds_that_it_asks_for():
    assert [statistics.seeds_needed(d, 0.05) for d in (0.5, 0.8, 1.0, -1.0)] == [34, 15, 10, 10]
    assert statistics.seeds_needed(0.0, 0.05) is None
    assert statistics.power(0.5, 34, 0.05) == pytest.approx(0.8078, abs=1e-4)
    for seeds in (2, 3, 10, 100):
        for alpha in (0.05, 1e-12):  # with 2 seeds SciPy's distribution does not converge there
            assert statistics.power(statistics.detectable(seeds, alpha), seeds, alpha) == pytest.approx(0.8, abs=1e-4)
    drawn = RNG.normal(1.2, size=(20000, 6))
    shown = np.abs(drawn.mean(axis=1) / drawn.std(axis=1, ddof=1) * math.sqrt(6)) > stats.t.ppf(0.975, 5)
    assert statistics.power(1.2, 6, 0.05) == pytest.approx(shown.mean(), abs=0.01)


def test_aggregates_are_those_of_the_statistical_precipice():
    """By the definitions of Agarwal et al. (2021), written out."""
    assert statistics.iqm(np.array([100.0, 1, 2, 3, 4, 5, 6, -50])) == np.mean([2, 3, 4, 5])
    scores = [RNG.normal(size=8), RNG.normal(1, 2, size=8)]
    found = statistics.aggregate(scores, 0.95)
    assert found.iqm == pytest.approx(stats.trim_mean(np.concatenate(scores), 0.25))
    assert found.median == pytest.approx(np.median([task.mean() for task in scores]))
    assert math.isnan(found.iqm_interval.low)  # two tasks are too few
    assert found.mean_interval.low < found.mean < found.mean_interval.high
    six = statistics.aggregate([RNG.normal(size=4) for _ in range(6)], 0.95)
    assert six.iqm_interval.low < six.iqm < six.iqm_interval.high
    assert statistics.optimality_gap([np.array([0.5, 2.0]), np.array([1.0])]) == 0.125
    np.testing.assert_allclose(
        statistics.profile(scores, np.array([0.0, 1.0])),
        [np.mean([np.mean(task > t) for task in scores]) for t in (0.0, 1.0)],
    )
    others = [task - 0.7 for task in scores]
    share, interval = statistics.average_improvement(scores, others, 0.95)
    by_hand = [np.mean([(x > y) + 0.5 * (x == y) for x in a for y in b]) for a, b in zip(scores, others, strict=True)]
    assert share == pytest.approx(np.mean(by_hand))
    assert interval.low < share < interval.high


def test_points_and_paired_differences_by_hand(study):
    made, frame = compare.compare([study]), pd.read_csv(study / "results.csv")
    assert made.axes == ("level",)
    assert made.metrics == ("score",)
    for row in made.points.to_dict("records"):
        values = frame[frame["level"] == row["level"]].set_index("seed")["score"]
        low, high = stats.t.interval(1 - 0.05 / 3, 7, values.mean(), stats.sem(values))
        expected = [8, 8, 0, 0, values.mean(), low, high, values.median(), stats.trim_mean(values, 0.25), values.std()]
        names = ["seeds", "finished", "nonfinite", "failed", "mean", "low", "high", "median", "iqm", "std"]
        assert [row[name] for name in names] == pytest.approx(expected)
        assert [row[n] for n in ("min_seed", "max_seed", "worst_seed")] == [
            values.idxmin(),
            values.idxmax(),
            values.idxmax(),
        ]
    wide = frame.pivot_table(index="seed", columns="level", values="score")
    for row, level in zip(made.differences.to_dict("records"), (2.0, 1.5), strict=True):
        gaps = (wide[level] - wide[1.0]).to_numpy()
        assert row["against"] == "level=1"
        assert row["difference"] == pytest.approx(gaps.mean())
        assert (row["conclusion"], row["improvement"]) == ("worse", 0.0)
        # the gaps do not vary but for rounding: by the signs of eight seeds, allowing for all three pairs
        assert (row["interval"], row["p"], row["p_adjusted"]) == ("sign", 2 / 2**8, 6 / 2**8)
    best = made.best["score"]
    assert (best.point, best.estimate) == (0, made.points["mean"][0])
    assert best.low < best.corrected < best.high


def test_all_pairs_margins_and_primary_metrics_are_options(toy, study, capsys):
    capsys.readouterr()
    options = [
        "--all-pairs",
        "--margin",
        "score=2",
        "--metric",
        "score",
        "--metric",
        "curve.area",
        "--primary",
        "score",
    ]
    assert command(study, *options, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["primary"] == ["score"]
    assert [row["conclusion"] for row in data["differences"][:3]] == ["same"] * 3
    assert [row["exploratory"] for row in data["differences"]] == [False] * 3 + [True] * 3
    declared = toy("-m", "task=noisy", "+task.primary=score", "seed=0,1", "study=declared").folder
    assert compare.compare([declared], metrics=["curve.0", "score"]).primary == ("score",)
    wrong = toy("task=noisy", "+task.primary=curve")
    assert (wrong.status, "primary must name some of the metrics, got 'curve'; they are: score" in wrong.err) == (
        2,
        True,
    )


def test_a_baseline_is_chosen_or_matched(toy, study):
    assert set(compare.compare([study], baseline={"level": 2}).differences["against"]) == {"level=2"}
    grid = toy("-m", "task=noisy", "level=1,2", "steps=3,4", "seed=range(0,4)", "study=grid").folder
    made = compare.compare([grid], baseline={"level": 1})
    assert made.differences[["level", "steps", "against"]].to_numpy().tolist() == [
        [2.0, 3, "level=1 steps=3"],
        [2.0, 4, "level=1 steps=4"],
    ]


def test_an_axis_that_is_not_compared_by_is_pooled_and_paired(toy):
    grid = toy("-m", "task=noisy", "level=1,2", "steps=3,4", "seed=range(0,4)", "study=grid").folder
    made, frame = compare.compare([grid], by=["level"]), pd.read_csv(grid / "results.csv")
    assert made.points[["seeds", "finished"]].to_numpy().tolist() == [[4, 4], [4, 4]]
    assert made.differences["pairs"].tolist() == [4]
    means = frame.groupby(["level", "seed"])["score"].mean()
    assert made.points["std"].tolist() == pytest.approx([means[level].std() for level in (1.0, 2.0)])
    assert made.notes[0] == "each value is the average of a seed over all values of steps"


def test_nonfinite_and_failed_runs_are_counted(toy):
    folder = toy("-m", "task=noisy", "level=-1,1", "seed=range(0,5)", "study=bad").folder
    made = compare.compare([folder])
    assert made.points["nonfinite"].tolist() == [5, 0]
    assert made.points["nonfinite_share"].tolist() == [1.0, 0.0]
    assert math.isnan(made.points["mean"][0])
    assert made.points["failed_low"].tolist() == pytest.approx([0.025 ** (1 / 5), 0])
    assert made.points["failed_high"].tolist() == pytest.approx([1, 1 - 0.025 ** (1 / 5)])
    assert "score: 5 of 10 replicates have no finite value; means are of the others" in made.notes
    failed = toy("-m", "task=only_even", "size=2,3", "seed=range(0,4)", "study=failed").folder
    made = compare.compare([failed])
    assert made.points[["seeds", "finished", "failed"]].to_numpy().tolist() == [[4, 4, 0], [4, 0, 4]]
    assert made.points["min_seed"].tolist() == [0, None]


@pytest.mark.parametrize(("seeds", "words"), [(1, "one seed shows"), (3, "all 3 seeds differ alike, which is too few")])
def test_few_seeds_say_what_they_cannot_show(toy, seeds, words):
    folder = toy("-m", "task=noisy", "level=1,1.1", f"seed=range(0,{seeds})", "study=few").folder
    made = compare.compare([folder])
    assert words in made.differences["verdict"][0]
    assert any("one seed for each point" in note for note in made.notes) == (seeds == 1)


def test_points_without_a_common_seed_are_compared_by_welch(toy):
    sweep = (
        "-m",
        "task=noisy",
        "hydra.sweeper.zip=[level,seed]",
        "level=1,1,1,2,2,2",
        "seed=range(0,6)",
        "study=apart",
    )
    folder = toy(*sweep).folder
    made, values = compare.compare([folder]), pd.read_csv(folder / "results.csv")["score"].to_numpy()
    row = made.differences.iloc[0]
    assert (row["kind"], row["interval"], row["pairs"]) == ("unpaired", "Welch", 3)
    assert row["p"] == stats.ttest_ind(values[3:], values[:3], equal_var=False).pvalue
    assert any("compared unpaired" in note for note in made.notes)


@pytest.mark.matrix
def test_studies_are_joined(toy, study):
    other = toy("-m", "task=noisy", "level=3", "seed=range(0,8)", "study=other").folder
    made = compare.compare([study, other])
    assert made.points["level"].tolist() == [1, 2, 1.5, 3]
    assert (made.differences["pairs"] == 8).all()
    longer = toy("-m", "task=noisy", "level=1", "steps=6", "seed=range(0,8)", "study=longer").folder
    assert set(compare.compare([study, longer]).axes) == {"level", "steps"}


def test_a_study_half_done_is_told(study):
    table = study / "results.csv"
    table.write_bytes(b"".join(table.read_bytes().splitlines(keepends=True)[:12]))
    made = compare.compare([study])
    assert made.points[["level", "seeds", "finished"]].to_numpy().tolist() == [[1, 8, 8], [2, 8, 3]]
    assert "13 planned runs are pending" in made.notes[0]


def test_parts_of_arrays_are_metrics(study):
    made = compare.compare([study], metrics=["curve.mean", "curve.norm", "curve.last", "curve.0", "curve.max"])
    arrays = np.array([json.loads(text) for text in pd.read_csv(study / "results.csv")["curve"][:8]])
    rows = made.points[made.points["level"] == 1].set_index("metric")["mean"]
    assert rows["curve.mean"] == pytest.approx(arrays.mean())
    assert rows["curve.norm"] == pytest.approx(np.linalg.norm(arrays, axis=1).mean())
    assert rows["curve.last"] == pytest.approx(arrays[:, -1].mean())
    assert rows["curve.0"] == rows["curve.max"] == pytest.approx(arrays[:, 0].mean())


@pytest.mark.matrix
def test_a_study_of_arrays_alone_is_compared_by_their_means(runner):
    folder = runner("-m", "task=bridge", "features=2,3", "seed=0,1,2", "study=arrays", "report=true").folder
    made, table = compare.compare([folder]), pd.read_csv(folder / "results.csv")
    assert made.metrics == ("y.mean",)
    means = [np.mean(json.loads(text)) for text in table["y"]]
    assert made.points["mean"].tolist() == pytest.approx([np.mean(means[:3]), np.mean(means[3:])])
    assert (folder / "report.html").exists()


def test_several_tasks_are_aggregated(toy):
    folder = toy("-m", "task=noisy,noisier", "level=1,3", "seed=range(0,6)", "study=tasks").folder
    made, frame = compare.compare([folder]), pd.read_csv(folder / "results.csv")
    assert made.aggregates["level"].tolist() == [1, 3]
    assert made.best == {}  # one for each task
    assert made.differences[["task", "against"]].to_numpy().tolist() == [
        ["noisy", "task=noisy level=1"],
        ["noisier", "task=noisier level=1"],
    ]
    assert "score: aggregates are of the values as they are, which have one scale in all tasks" in made.notes
    bounded = compare.compare([folder], bounds={"score": (0.0, 10.0)}).aggregates
    assert bounded["mean"].tolist() == pytest.approx((1 - made.aggregates["mean"] / 10).tolist())
    missing = frame.assign(gap=np.maximum(frame["score"], 0) / 10).groupby("level")["gap"].mean()
    assert bounded["gap"].tolist() == pytest.approx(missing.tolist())
    by_base = compare.compare([folder], baseline={"level": 1}).aggregates
    assert by_base["mean"][0] == pytest.approx(1)
    assert made.aggregates["iqm"][0] == pytest.approx(stats.trim_mean(frame[frame["level"] == 1]["score"], 0.25))
    pairs = [
        np.mean(own[own["level"] == 3]["score"].to_numpy()[:, None] < own[own["level"] == 1]["score"].to_numpy())
        for _, own in frame.groupby("task")
    ]
    assert made.aggregates["improvement"][1] == pytest.approx(np.mean(pairs))


REFUSED = [
    (
        ["--metric", "lost"],
        "there is no metric 'lost'; there are: score; of arrays: curve.{mean,min,max,norm,last,area,steps_below_0.1,0",
    ),
    (["--metric", "curve.9"], "curve.9: index 9 is out of bounds"),
    (["--by", "x"], "there is no axis 'x'; there are: task, level, steps"),
    (["--baseline", "level=7"], "the baseline has level=7; there are: 1.0, 2.0, 1.5"),
    (["--baseline", "x=7"], "the baseline names 'x'; the axes are: level"),
    (["--baseline", "7"], "axis=value pairs"),
    (["--filter", "level <"], "cannot be evaluated"),
    (["--filter", "level > 9"], "selects none of 24 runs"),
    (["--level", "95"], "at least 0.5 and less than 1, got 95"),
    (["--primary", "x"], "there is no metric 'x' to compare; there are: score"),
    (["--margin", "x"], "--margin: 'x' is not a number"),
    (["--margin", "-1"], "the margin of score must be a number of at least 0, got -1.0"),
    (["--margin", "1", "--margin", "2"], "--margin must be a number, or metric=number pairs"),
    (
        ["--failures", "last"],
        "failures=last takes the last finite elements of arrays, as of --metric curve.last; score",
    ),
    (["--bounds", "score=1,0"], "--bounds must be metric=low,high"),
    (["--all-pairs", "--baseline", "level=1"], "a comparison of all pairs has no baseline"),
]


def test_words_are_not_compared_and_spoil_nothing(toy, capsys):
    called = toy("-m", "task=grade", "slope=1,2", "seed=range(0,6)", "study=mine", "report=true")
    assert called.status == 0, called.err
    made = compare.compare([called.folder])
    assert made.metrics == ("score",)
    assert made.points["mean"].tolist() == [2.5, 5]
    assert made.notes[0] == "verdict: categorical outputs, which are in the table and not compared"
    assert made.notes[0] in (called.folder / "report.html").read_text()
    for arguments in (["--metric", "verdict"], ["--metric", "verdict.mean"]):
        capsys.readouterr()
        assert command(called.folder, *arguments) == 2
        assert "; there are: score" in (err := capsys.readouterr().err)
        assert ("'verdict' is categorical and not a metric" in err) == (len(arguments[1]) == len("verdict"))


def test_a_study_of_words_alone_has_nothing_to_compare_and_a_report(toy, capsys):
    called = toy("-m", "task=only_categories", "seed=range(0,6)", "study=mine", "report=true")
    assert called.status == 0, called.err
    made = compare.compare([called.folder])
    assert (made.metrics, len(made.points)) == ((), 0)
    assert made.notes[0] in (called.folder / "report.html").read_text()
    capsys.readouterr()
    assert command(called.folder) == 0
    assert capsys.readouterr().out == "note: parity: categorical outputs, which are in the table and not compared\n"
    assert command(called.folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["points"] == []
    assert command(called.folder, "--metric", "parity") == 2
    assert "'parity' is categorical and not a metric; there are: none" in capsys.readouterr().err


def test_a_word_of_one_study_is_no_number_of_another(toy):
    words = toy("-m", "task=only_categories", "seed=0,1,2", "study=words").folder
    numbers = toy("-m", "task=only_categories", "kind=number", "seed=0,1,2,3", "study=numbers").folder
    made = compare.compare([words, numbers])
    assert made.points[["kind", "finished", "mean"]].to_numpy().tolist() == [["number", 4, 0.5]]


def command(*arguments):
    """Runs the command within this process: its exit status."""
    before, sys.argv = sys.argv, ["compare", *map(str, arguments)]
    try:
        compare.main()
        return 0
    except SystemExit as end:
        return end.code
    finally:
        sys.argv = before


def test_what_is_not_there_is_refused(study, capsys):
    for arguments, message in REFUSED:
        capsys.readouterr()
        assert command(study, *arguments) == 2, arguments
        assert message in capsys.readouterr().err
    assert command(study.parent / "nowhere") == 2
    assert "holds no study" in capsys.readouterr().err
    content = (study / "results.csv").read_bytes()
    (study / "results.csv").write_bytes(content + b"24,noisy,0")  # as while it is being written
    assert command(study) == 0
    (study / "results.csv").write_bytes(content.replace(b"ok", b"ko", 1))
    assert command(study) == 2
    assert "is not as the study wrote it: the first difference is in line 2" in capsys.readouterr().err


def test_a_filter_and_the_outputs_for_programs(study, capsys):
    capsys.readouterr()
    assert command(study, "--filter", "level < 1.8 and seed < 5", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert [row["finished"] for row in data["points"]] == [5, 5]
    assert data["differences"][0]["against"] == "level=1"
    assert command(study, "--csv", "points") == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert command(study, "--wide") == 0
    out = capsys.readouterr().out
    assert "score, less is better" in out
    assert "score: all columns of points" in out
    assert "Best score (less is better): level=1, mean " in out


def test_the_command_adds_the_seeds_that_are_asked_for(toy, monkeypatch):
    words = ["python", "-m", "runner", "--config-dir", "x", "-m", "task=noisy,noisier", "level=2", "seed=range(0,4)"]
    monkeypatch.setattr(sys, "orig_argv", [*words, "study=more"])
    folder = toy(*words[5:], "study=more").folder
    row = compare.compare([folder], baseline={"task": "noisy"}, difference=3.0).differences.iloc[0]
    told = shlex.split(row["command"])
    assert told == [*words[:-1], f"seed=range(0,{row['seeds_needed']})", "study=more"]
    assert toy(*told[5:]).status == 0
    assert (compare.compare([folder]).points["finished"] == row["seeds_needed"]).all()

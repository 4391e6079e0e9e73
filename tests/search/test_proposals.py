"""Searches as generators, without any runner: what they propose for functions with a known best point."""

import numpy as np
import pytest

from runner.errors import InvalidInputError
from runner.search.halving import Halving, Method, cut_brackets, halve
from runner.search.intervals import Interval
from runner.search.objectives import (
    Constraint,
    Direction,
    Objective,
    Reduction,
    judge,
    make_objectives,
    parse_constraint,
)
from runner.search.optimization import Method as Sampler
from runner.search.optimization import Optimization, check_optimization, check_space, optimize
from runner.search.points import Results, Trial
from runner.search.ranking import find_front, rank_trials
from runner.search.space import Choice, Space, Steps

LOSS = Objective("loss", Direction.MINIMIZE)
GAIN = Objective("gain", Direction.MAXIMIZE)
PLANE = Space((), {(): (Interval("x", -1.0, 1.0), Interval("y", 1e-3, 1.0, is_log=True))})
FOREST = Space(
    (Choice("kind", ("round", "steep")),),
    {("round",): (Interval("x", -1.0, 1.0),), ("steep",): (Interval("x", -1.0, 1.0), Interval("slope", 1.0, 9.0))},
)


def run(proposals, function, seeds=3):
    """Plays a search against `function(point)`, whose runs differ by a hundredth; the trials and the batches."""
    noise = 0.01 * np.arange(seeds)
    batches = [next(proposals)]
    try:
        while True:
            rows = [function(point) for point in batches[-1]]
            outputs = {name: np.array([row[name] + noise for row in rows]) for name in rows[0]}
            batches.append(proposals.send(Results(outputs)))
    except StopIteration as end:
        return end.value, batches


def bowl(point):
    return {"loss": (point["x"] - 0.3) ** 2 + np.log10(point["y"] / 0.1) ** 2}


def settings(sampler, trials=40, batch=8, objectives=(LOSS,), **others):
    return Optimization(Sampler(sampler), trials, batch, 0, objectives, **others)


@pytest.fixture(autouse=True)
def _optuna():
    pytest.importorskip("optuna")
    pytest.importorskip("cmaes")


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "nsga2", "qmc", "random"])
def test_a_search_repeats_and_a_longer_one_begins_with_the_same_batches(sampler):
    trials, batches = run(optimize(PLANE, settings(sampler)), bowl)
    again, longer = run(optimize(PLANE, settings(sampler, trials=50)), bowl)
    assert len(trials) == 40
    assert [len(batch) for batch in longer] == [8] * 6 + [2]
    assert longer[:5] == batches
    assert [t.values for t in again[:40]] == [t.values for t in trials]
    assert all(-1 <= t.point["x"] <= 1 and 1e-3 <= t.point["y"] <= 1 for t in trials)


@pytest.mark.matrix
@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_a_search_finds_more_than_random_points(sampler):
    best = {}
    for name in (sampler, "random"):
        trials, _ = run(optimize(PLANE, settings(name, trials=96, batch=8)), bowl)
        best[name] = np.sort([t.values[0] for t in trials])[:10].mean()
    assert best[sampler] < best["random"] / 2


def test_conditional_dimensions_belong_to_their_options():
    trials, _ = run(optimize(FOREST, settings("tpe")), lambda p: {"loss": p["x"] ** 2 * p.get("slope", 2.0)})
    kinds = {trial.point["kind"] for trial in trials}
    assert kinds == {"round", "steep"}
    assert all(("slope" in trial.point) == (trial.point["kind"] == "steep") for trial in trials)


def test_several_objectives_lead_to_a_front():
    trade = lambda p: {"loss": p["x"] ** 2, "gain": -((p["x"] - 0.5) ** 2)}  # noqa: E731
    trials, _ = run(optimize(PLANE, settings("nsga2", 60, 20, (LOSS, GAIN))), trade)
    front = rank_trials(trials, (LOSS, GAIN))
    assert len(front) > 3
    assert all(-0.1 < trial.point["x"] < 0.6 for trial in front)


def test_constraints_decide_what_is_best():
    constraint = Constraint("loss", -1.0, 0.5)
    trials, _ = run(optimize(PLANE, settings("tpe", 64, constraints=(constraint,))), bowl)
    best = rank_trials(trials, (LOSS,))[0]
    assert 0.49 <= best.values[0] < 0.6
    assert not all(trial.is_feasible for trial in trials)


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "nsga2"])
def test_points_without_a_finite_run_are_told_as_failed(sampler):
    broken = lambda p: {"loss": np.nan if p["x"] < 0 else p["x"]}  # noqa: E731
    trials, _ = run(optimize(PLANE, settings(sampler)), broken)
    assert all((trial.values is None) == (trial.point["x"] < 0) for trial in trials)
    assert rank_trials(trials, (LOSS,))[0].point["x"] >= 0


def test_integers_and_lists_are_dimensions():
    space = Space((), {(): (Steps("n", 2, 10, 4), Choice("shape", ([8], [16])), Interval("k", 1, 3, is_integer=True))})
    trials, _ = run(optimize(space, settings("tpe", 20, 5)), lambda p: {"loss": p["n"] + p["shape"][0] + p["k"]})
    assert {trial.point["n"] for trial in trials} <= {2, 6, 10}
    assert rank_trials(trials, (LOSS,))[0].point == {"n": 2, "shape": [8], "k": 1}


GIVEN = {"sampler": "tpe", "trials": 10, "batch": 5, "sampler_seed": 0, "options": {}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampler": "grid"}, "must be one of tpe"),
        ({"trials": 0}, "trials must be an integer from 1"),
        ({"batch": "many"}, "batch must be an integer from 1"),
        ({"sampler_seed": -1}, "sampler_seed must be an integer"),
        ({"sampler": "cmaes", "batch": 3}, "batch must be at least 4 for cmaes"),
        ({"options": 3}, "must be arguments"),
        ({"options": {"n_startup": 3}}, "TPESampler refuses"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(InvalidInputError, match=message):
        check_optimization({**GIVEN, **change}, (LOSS,), ())


def test_a_sampler_that_lacks_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(InvalidInputError, match="sampler=gp needs torch: pip install torch"):
        check_optimization({**GIVEN, "sampler": "gp"}, (LOSS,), ())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidInputError, match=r"needs Optuna: pip install 'seedbed\[optuna\]'"):
        check_optimization(GIVEN, (LOSS,), ())


def test_what_cmaes_cannot_search_is_refused():
    cmaes = {**GIVEN, "sampler": "cmaes"}
    with pytest.raises(InvalidInputError, match="one objective and no constraints"):
        check_optimization(cmaes, (LOSS, GAIN), ())
    with pytest.raises(InvalidInputError, match="searches numbers, not choices such as kind"):
        check_space(check_optimization(cmaes, (LOSS,), ()), FOREST)


def test_reductions_of_known_values():
    values = np.array([[1.0, 2.0, 3.0, 10.0]])
    expected = {"mean": 4.0, "median": 2.5, "iqm": 2.5, "worst": 10.0}
    for name, value in expected.items():
        objective = Objective("loss", Direction.MINIMIZE, Reduction(name))
        assert judge(Results({"loss": values}), [objective], ()).values[0, 0] == value
    worst = Objective("loss", Direction.MAXIMIZE, Reduction.WORST)
    assert judge(Results({"loss": values}), [worst], ()).values[0, 0] == 1.0
    # Student's quantile for 3 degrees of freedom at 95 % is 2.3534 (NIST/SEMATECH e-Handbook, table 1.3.6.7.2)
    upper = judge(Results({"loss": values}), [Objective("loss", Direction.MINIMIZE, Reduction.UPPER)], ())
    assert upper.values[0, 0] == pytest.approx(4 + 2.3534 * values.std(ddof=1) / 2, rel=1e-4)


def test_a_nonfinite_run_counts_as_the_worst_one_so_far():
    first = judge(Results({"loss": np.array([[1.0, 5.0]])}), [LOSS], ())
    second = judge(Results({"loss": np.array([[1.0, np.nan], [np.inf, np.nan]])}), [LOSS], (), first.worst)
    assert second.values[0, 0] == 3.0
    assert np.isnan(second.values[1, 0])
    assert judge(Results({"gain": np.array([[1.0, np.nan, 4.0]])}), [GAIN], ()).values[0, 0] == 2.0


@pytest.mark.parametrize(
    ("given", "metrics", "message"),
    [
        ((None, None, "mean"), {}, "the task declares no metrics"),
        (("loss", None, "mean"), {}, "loss has no direction"),
        (("loss", "down", "mean"), {}, "must be minimize or maximize, got 'down'"),
        ((["loss", "gain"], "minimize", "mean"), {}, "one of minimize and maximize for each of loss, gain"),
        ((["loss", "loss"], None, "mean"), {"loss": "minimize"}, "names an output twice"),
        ((3, None, "mean"), {}, "must be a name"),
        (("loss", None, "best"), {"loss": "minimize"}, "reduce must be one of"),
    ],
)
def test_objectives_are_checked(given, metrics, message):
    with pytest.raises(InvalidInputError, match=message):
        make_objectives(*given, metrics)


def test_constraints_are_parsed():
    assert parse_constraint("train_loss <= 0.5") == Constraint("train_loss", 1.0, 0.5)
    assert parse_constraint("accuracy>=1e-2") == Constraint("accuracy", -1.0, 0.01)
    for text in ("loss<0.5", "loss<=much", "loss<=nan", 3):
        with pytest.raises(InvalidInputError, match="a constraint must be of the form"):
            parse_constraint(text)


def make_halving(method=Method.SUCCESSIVE, most=81, least=None, objective=LOSS):
    return Halving("steps", most, 3.0, least, method, objective)


def slow(point):
    """Better with more steps, and in the end the best for x = 0.5."""
    return {"loss": abs(point["x"] - 0.5) + 1.0 / point["steps"]}


def test_each_rung_has_a_third_of_the_points_and_three_times_the_budget():
    points = [{"x": i / 27} for i in range(27)]
    trials, batches = run(halve(points, make_halving()), slow)
    assert [(len(batch), batch[0]["steps"]) for batch in batches] == [(27, 3), (9, 9), (3, 27), (1, 81)]
    assert rank_trials(trials, [LOSS])[0].point == min(points, key=lambda p: abs(p["x"] - 0.5))
    assert sum(len(batch) * batch[0]["steps"] for batch in batches) < 0.2 * 27 * 81


def test_a_least_budget_limits_the_rungs():
    _, batches = run(halve([{"x": i / 9} for i in range(9)], make_halving(most=90, least=30)), slow)
    assert [(len(batch), batch[0]["steps"]) for batch in batches] == [(9, 30), (3, 90)]


def test_ties_are_decided_by_the_order_and_nonfinite_points_lose():
    points = [{"x": i} for i in range(9)]
    _, batches = run(halve(points, make_halving()), lambda p: {"loss": np.nan if p["x"] == 0 else 1.0})
    assert [[point["x"] for point in batch] for batch in batches] == [list(range(9)), [1, 2, 3], [1]]


def test_hyperband_gives_some_points_the_whole_budget_at_once():
    settings = make_halving(Method.HYPERBAND, most=9)
    points = [{"x": i / 17} for i in range(17)]
    brackets = list(cut_brackets(17, settings))
    assert [(len(bracket), rungs) for bracket, rungs in brackets] == [(9, 3), (5, 2), (3, 1)]
    trials, _ = run(halve(points, settings), slow)
    assert {t.point["x"] for t in trials} == {p["x"] for p in points}
    assert sum(trial.budget == 9 for trial in trials) == 1 + 1 + 3


def test_the_front_of_points_is_that_of_the_definition():
    costs = np.random.default_rng(0).integers(0, 6, size=(60, 3)).astype(float)
    dominated = [any((other <= own).all() and (other < own).any() for other in costs) for own in costs]
    assert find_front(costs).tolist() == [not each for each in dominated]


def test_only_the_largest_budget_is_ranked():
    trials = (Trial({"x": 1}, (0.1,), True, 0, 3), Trial({"x": 2}, (0.5,), True, 1, 9))
    assert [trial.point for trial in rank_trials(trials, [LOSS])] == [{"x": 2}]

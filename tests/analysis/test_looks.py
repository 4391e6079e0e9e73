"""Looks at a study, the level that they spend, and seeds that are proposed for a difference of interest."""

import json
import os
import threading

import numpy as np
import pytest
from scipy import stats

from runner.analysis import looks
from runner.analysis.comparison import compare_studies
from runner.analysis.power import limit_spread, plan_seeds
from runner.analysis.statistics import power
from runner.compare import main
from runner.errors import InvalidInputError
from runner.storage.folder import Folder


@pytest.fixture
def study(toy):
    return toy("-m", "task=noisy", "level=1,2", "seed=range(0,4)", "study=mine").folder


def test_all_looks_together_spend_the_level():
    assert looks.spend(1, 0.05) == 0.025
    assert sum(looks.spend(k, 0.05) for k in range(1, 10**5)) == pytest.approx(0.05, abs=1e-6)


def test_the_same_runs_are_one_look_and_others_the_next(tmp_path):
    folder = Folder(tmp_path)
    assert looks.record_look(folder, "loss", "a") == looks.Look(1, 0.025)
    assert looks.record_look(folder, "loss", "b").number == 2
    assert looks.record_look(folder, "loss", "a").number == 1
    assert looks.record_look(folder, "gain", "b", alpha=0.1) == looks.Look(2, 0.1 / 6)
    assert [look["questions"] for look in looks.read_looks(folder)] == [["loss"], ["loss", "gain"]]
    assert looks.count_looks(folder) == 2


def test_looks_of_several_processes_at_once_are_all_counted(tmp_path):
    threads = [threading.Thread(target=looks.record_look, args=(Folder(tmp_path), "q", str(i))) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert looks.count_looks(Folder(tmp_path)) == 8


def test_a_damaged_record_is_a_line(tmp_path):
    (tmp_path / "looks.json").write_text('{"format": 1, "looks": [{}]}')
    with pytest.raises(InvalidInputError, match=r"looks\.json is damaged .*restore it"):
        looks.record_look(Folder(tmp_path), "q", "a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_compared_nevertheless(tmp_path):
    tmp_path.chmod(0o500)
    found = looks.record_look(Folder(tmp_path), "q", "a")
    tmp_path.chmod(0o700)
    assert found == looks.Look(1, 0.025, is_recorded=False)


def test_more_seeds_and_other_filters_are_further_looks(study, toy, call_main):
    first = compare_studies([study])
    assert (first.looks, first.alpha) == (1, pytest.approx(0.025))
    assert compare_studies([study], baseline={"level": 1.0}).looks == 1
    assert compare_studies([study], keep="seed < 3").looks == 2
    assert call_main(main, str(study), "--json")[0] == 0
    toy("-m", "task=noisy", "level=1,2", "seed=range(0,6)", "study=mine")
    again = compare_studies([study])
    assert (again.looks, again.alpha) == (3, pytest.approx(0.05 / 12))
    assert any("this is look 3 at the study" in note for note in again.notes)
    data = json.loads((study / "looks.json").read_text())
    assert data["looks"][1]["questions"] == ["score by level; where seed < 3"]


def test_a_single_point_claims_nothing_and_is_no_look(toy):
    folder = toy("-m", "task=noisy", "seed=range(0,4)", "study=one").folder
    assert compare_studies([folder]).looks == 1
    assert not (folder / "looks.json").exists()


def test_overwriting_a_study_moves_its_looks_aside(study, toy):
    compare_studies([study])
    toy("-m", "task=noisy", "level=1,2", "seed=range(0,4)", "study=mine", "overwrite=true")
    assert not (study / "looks.json").exists()
    assert (study.with_name("mine.old1") / "looks.json").exists()


def test_the_limit_of_a_standard_deviation_is_that_of_its_confidence():
    rng = np.random.default_rng(0)
    for pilot in (3, 10):
        spreads = rng.normal(size=(4000, pilot)).std(axis=1, ddof=1)
        limits = spreads * limit_spread(1.0, pilot - 1)  # the limit is in proportion to the spread
        assert limit_spread(spreads[0], pilot - 1) == pytest.approx(limits[0])
        assert np.mean(limits > 1) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(
    ("pilot", "comparisons", "draws"),
    [(3, 1, 60), *(pytest.param(*each, 300, marks=pytest.mark.matrix) for each in ((3, 1), (5, 190), (10, 1)))],
)
def test_most_plans_reach_the_power(pilot, comparisons, draws):
    rng, alpha = np.random.default_rng(1), 0.05 / 6
    reached = []
    for _ in range(draws):
        plan = plan_seeds(float(rng.normal(size=pilot).std(ddof=1)), pilot, 1.0, alpha, comparisons=comparisons)
        reached.append(power(1.0, plan.seeds, alpha / comparisons) >= 0.8)
    assert np.mean(reached) > 0.75


def test_a_plan_is_browne_s_by_hand():
    plan = plan_seeds(2.0, 5, 1.0, 0.05)
    spread = 2.0 * np.sqrt(4 / stats.chi2.ppf(0.2, 4))
    assert power(1 / spread, plan.seeds, 0.05) >= 0.8 > power(1 / spread, plan.seeds - 1, 0.05)
    assert plan.more == plan.seeds - 5
    assert plan_seeds(0.0, 5, 1.0, 0.05) is None
    assert plan_seeds(1.0, 1, 1.0, 0.05) is None


TASK = {
    "lab.py": """
        import jax

        def own(seed: int, level: float, kind: str = "a"):
            key = jax.random.fold_in(jax.random.key(seed), (level * 1000).astype("int32"))
            return {"score": level + jax.random.normal(key)}
    """,
    "conf/task/own.yaml": """
        # @package _global_
        task: {name: own, _target_: lab.own, outputs: [score], metrics: {score: minimize}}
        seed: 0
        level: 1.0
        kind: a
    """,
}


def test_seeds_are_proposed_for_a_difference_and_for_the_points_concerned(lab, runner, call_main):
    lab(TASK)
    sweep = ("--config-dir", "conf", "-m", "task=own", "level=0,0.1,9", "seed=range(0,5)", "study=mine")
    folder = runner(*sweep).folder
    asked = compare_studies([folder])
    assert asked.suggestion == ""
    found = compare_studies([folder], difference=1.0)
    row = found.differences.set_index("level").loc[0.1 if found.best["score"].point == 0 else 0.0]
    (plan,) = {row["seeds_needed"]}
    assert 10 < plan < 400
    words = found.suggestion.split()
    assert "level=0.0,0.1" in words
    assert f"'seed=range(0,{int(plan)})'" in found.suggestion
    assert found.differences.set_index("level").loc[9.0, "command"] == ""
    status, _, err = call_main(main, str(folder), "--difference", "-1")
    assert (status, err.count("\n")) == (2, 1)
    assert "the difference of interest must be a positive number, got -1.0" in err

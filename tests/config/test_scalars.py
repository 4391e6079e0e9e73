"""Numbers within built objects, integers and datasets that reach a program as its arguments."""

import json

import pandas as pd
import pytest
import toys

from runner import compare_studies


def programs(called):
    return len(pd.read_csv(called.folder / "programs.csv"))


def test_numbers_within_a_built_object_are_columns_and_axes_of_one_program(toy):
    called = toy("-m", "task=fit", "rate=2,3", "rule.schedule.start=0.5,1.5", "count=7,9", "seed=range(0,2)")
    assert called.status == 0, called.err
    frame = called.frame
    assert programs(called) == 1
    assert len(frame) == 16
    assert frame["value"].tolist() == ((frame["rate"] + frame["rule.schedule.start"]) * 3).tolist()
    assert frame["counted"].tolist() == frame["count"].tolist() == frame["length"].tolist()
    assert list(frame.columns)[:7] == ["run", "task", "seed", "rule.schedule.start", "count", "limit", "rate"]


def test_a_number_that_is_set_itself_refers_to_nothing_any_more(toy):
    frame = toy("-m", "task=fit", "rate=2", "rule.factor=4,5").frame
    assert frame["rule.factor"].tolist() == [4, 5]
    assert frame["value"].tolist() == [13.5, 16.5]


def test_an_integer_is_a_float_where_the_target_takes_one(toy):
    whole, point = toy("task=fit", "rate=3"), toy("task=fit", "rate=3.0")
    assert whole.csv == point.csv
    assert programs(toy("-m", "task=fit", "rate=1,2.5")) == 1


def test_integers_within_a_built_object_are_constants(toy):
    called = toy("-m", "task=fit", "rule.power=1,2")
    assert called.frame["value"].tolist() == [7.5, 13.5]
    assert called.frame["rule.power"].tolist() == [1, 2]
    assert programs(called) == 2


def test_a_traced_integer_may_be_null(toy):
    called = toy("-m", "task=fit", "limit=4,5")
    assert called.frame["limited"].tolist() == [4, 5]
    assert programs(called) == 1
    assert toy("task=fit", "limit=4").frame["limited"].tolist() == [4]


def test_a_value_that_something_else_refers_to_is_no_axis(toy):
    """Another value of `data.seed` is another array, so that each `count` is composed."""
    called = toy("-m", "task=fit", "count=7,9", "data.seed=${count}")
    assert called.frame["value"].tolist() == [2.5 * (3 + 21 + 7), 2.5 * (3 + 27 + 9)]


def test_datasets_of_the_same_shapes_share_a_program(toy):
    toys.TRACES.clear()
    called = toy("-m", "task=fit", "data.seed=0,1", "data.size=3,4")
    frame = called.frame
    sums = frame["data.size"] * (frame["data.size"] - 1) / 2 + frame["data.size"] * frame["data.seed"]
    assert frame["value"].tolist() == (2.5 * (sums + frame["data.seed"])).tolist()
    assert programs(called) == 2
    manifest = json.loads((called.folder / "study.json").read_text())
    assert "content of data" in manifest["fingerprint"]["values"]["fit"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["data.size=0"], "task 'fit': data: ValueError: size must be at least 1, got 0"),
        (["data.word=no"], "task 'fit': data: y is ndarray, no array of numbers"),
        (["~data._target_"], "task 'fit': data must be described by a _target_ that returns its arrays, got {"),
        (["count=1.5"], "task 'fit': count must be an integer from -2147483648 to 2147483647, got 1.5"),
        (["count=2147483648"], "task 'fit': count must be an integer from -2147483648 to 2147483647, got 2147483648"),
        (["-m", "rate=1,two"], "task 'fit': rate must be a float, got 'two'"),
        (["-m", "rule.factor=1,two"], "task 'fit': rule.factor must be a float, got 'two'"),
        (["rule._target_=os.system"], "task 'fit': rule: _target_ 'os.system' is not allowed"),
        (["+rule._what_=1"], "task 'fit': rule has no '_what_'"),
        (["task.traced=[rule,nothing]"], "task 'fit': traced must name parameters, got 'nothing'"),
        (["task.traced=[seed]"], "task 'fit': traced must name parameters, got 'seed'"),
        (["+other=1"], "task 'fit' has no parameter 'other'"),
        (["count=-2"], "task 'fit': count must not be negative, got -2"),
        (["-m", "count=3,-1"], "task 'fit': count must not be negative, got -1"),
        (["-m", "spare=1,2"], "task 'fit': spare has no effect, because nothing refers to it"),
        (["task.check=toys.nothing"], "cannot import 'toys.nothing'"),
    ],
)
def test_refusals(toy, arguments, told):
    called = toy("task=fit", *arguments) if arguments[0] != "-m" else toy("-m", "task=fit", *arguments[1:])
    assert called.status == 2
    assert told in called.err
    assert called.folder is None


def test_another_constant_or_another_dataset_is_another_study(toy):
    arguments = "task=fit", "study=mine"
    assert toy(*arguments).status == 0
    assert "'power': 2" in toy(*arguments, "rule.power=2", "seed=1").err
    assert "content of data was" in toy(*arguments, "data.seed=2", "seed=1").err
    assert toy(*arguments, "rate=5").status == 0  # a traced number has a column


def test_a_number_that_refers_to_another_one_in_some_runs_has_no_cell_there(lab, runner):
    """As the initial rate of schedules: some begin at the learning rate, which has a column, others at a number."""
    rule = "_target_: toys.scale\npower: 1\nschedule: {_target_: toys.ramp, start: '${rate}', length: 3}\nfactor: "
    task = "# @package _global_\ndefaults: [{/rule: number}, _self_]\n"
    task += "task: {name: own, _target_: toys.fit, traced: [rule, count]}\nseed: 0\nrate: 2.0\ncount: 7\nlimit: null\n"
    task += "data: {_target_: toys.draw, seed: 0, size: 3, word: ''}\n"
    lab(
        {
            "lab/task/own.yaml": task,
            "lab/rule/number.yaml": rule + "4.0\n",
            "lab/rule/reference.yaml": rule + "${rate}\n",
        }
    )
    called = runner("--config-dir", "lab", "-m", "task=own", "rule=number,reference", "rate=2,3", "study=two")
    assert called.status == 0, called.err
    assert called.frame["rule.factor"].fillna(0).tolist() == [4, 4, 0, 0]
    assert called.frame["value"].tolist() == [18, 21, 12, 18]
    assert len(compare_studies(["outputs/two"], metrics=["value"]).points) == 4
    again = runner("--config-dir", "lab", "-m", "task=own", "rule=number,reference", "rate=2,3", "study=two")
    assert (again.status, again.folder) == (0, None)

"""Runs that are executed once more: which ones, whether they are the same, and what is saved of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT

from runner import program
from runner.replay import main

SWEEP = ("-m", "task=keep", "rate=0.5,2,8", "seed=range(0,4)", "study=mine")


@pytest.fixture
def replay(call_main):
    return lambda *arguments: call_main(main, *arguments)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Where the first test that needs the study leaves a copy for the others."""
    return tmp_path_factory.mktemp("original") / "mine"


@pytest.fixture
def study(toy, original, tmp_path):
    if not original.exists():
        shutil.copytree(toy(*SWEEP).folder, original)
    folder = tmp_path / "outputs" / "mine"
    if not folder.exists():
        shutil.copytree(original, folder)
    return folder


def read_rows(out):
    """The first word of each row of the printed table, and the rest."""
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    return {int(words[0]): words[1] for words in lines if words and words[0].isdigit() and "saved in" not in words[1]}


def load(folder):
    with np.load(folder / "variables.npz") as file:
        return dict(file)


def test_runs_are_replayed_by_their_numbers_and_are_identical(study, replay):
    status, out, err = replay(str(study), "--run", "6,1", "--run", "11")
    assert (status, err) == (0, "")
    assert list(read_rows(out)) == [6, 1, 11]
    assert all(row.endswith("identical") for row in read_rows(out).values())
    assert "rate=2" in read_rows(out)[6]
    assert "seed=2" in read_rows(out)[6]
    assert not (study / "checkpoints").exists()


def test_a_replay_leaves_the_study_as_it_is(study, replay):
    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    assert replay(str(study), "--best", "2", "--metric", "loss")[0] == 0
    assert {path: path.read_bytes() for path in study.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        (("--best", "3", "--metric", "loss"), [4, 5, 6]),  # equal ones by their number
        (("--best", "2", "--metric", "gain"), [7, 6]),  # rate 8 would win, and is not finite
        (("--best", "99", "--metric", "loss"), [4, 5, 6, 7, 0, 1, 2, 3]),
        (("--best", "1", "--metric", "gain", "--point", "rate=0.5"), [3]),
        (("--point", "rate=2.0"), [4, 5, 6, 7]),
        (("--point", "rate=2", "--point", "seed=3"), [7]),
    ],
)
def test_the_best_runs_and_those_of_a_point(study, replay, arguments, numbers):
    status, out, _ = replay(str(study), *arguments)
    assert status == 0
    assert list(read_rows(out)) == numbers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--run", "12"), "has no run 12; its table has 12, from 0"),
        (("--run", "x"), "--run takes numbers of runs such as 17,204, got 'x'"),
        (("--run", "1", "--best", "2", "--metric", "loss"), "--run names the runs; leave out --best and --point"),
        ((), "give --run 17,204, or --best 3 --metric NAME, or --point lr=0.1"),
        (("--best", "1"), "--best needs a --metric with a direction in task.metrics, got None; there are: loss, gain"),
        (("--best", "1", "--metric", "taken"), "direction in task.metrics, got taken; there are: loss, gain"),
        (("--best", "0", "--metric", "loss"), "--best must be at least 1, got 0"),
        (("--best", "1", "--metric", "loss", "--point", "rate=8"), "no run of"),
        (("--point", "rate"), "--point takes axis=value such as lr=0.1, got rate"),
        (("--point", "rate=3"), "no run has rate=3; there are: 0.5, 2.0, 8.0"),
        (("--point", "speed=3"), "there is no axis 'speed'; there are: task, rate, steps, way"),
    ],
)
def test_what_does_not_exist_is_told_in_a_line(study, replay, arguments, message):
    status, _, err = replay(str(study), *arguments)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


def test_a_folder_without_a_study_or_its_configuration_is_refused(study, replay, tmp_path):
    status, _, err = replay(str(tmp_path), "--run", "0")
    assert (status, err.count("\n")) == (2, 1)
    assert "holds no study" in err
    (study / ".hydra" / "config.yaml").unlink()
    status, _, err = replay(str(study), "--run", "0")
    assert (status, err.count("\n")) == (2, 1)
    assert "config.yaml, which has the configuration of the study" in err


def test_saved_runs_have_variables_configuration_and_verdict(study, replay):
    status, out, _ = replay(str(study), "--run", "6,9", "--save")
    assert status == 0
    assert "2 runs saved in outputs/mine/checkpoints" in out
    folder = study / "checkpoints" / "run-6"
    variables = load(folder)
    assert (variables["total"], variables["steps"]) == (2.0 * 10, 5)
    report = json.loads((folder / "replay.json").read_text())
    assert (report["run"], report["task"], report["verdict"]) == (6, "keep", "identical")
    assert report["outputs"]["word"] == "even"
    assert report["outputs"]["gain"] == 20.0
    assert report["versions"]["jax"]


def test_the_saved_configuration_repeats_the_run(study, replay, runner):
    assert replay(str(study), "--run", "6", "--save", "kept")[0] == 0
    again = runner("--config-dir", "kept/run-6", "task=run-6", "study=again")
    row = (study / "results.csv").read_text().splitlines()[7]
    assert again.csv.decode().splitlines()[1].partition(",")[2] == row.partition(",")[2]


def test_an_earlier_replay_is_replaced_and_nothing_else(study, replay):
    for _ in range(2):
        assert replay(str(study), "--run", "6", "--save", "kept")[0] == 0
    (study / "checkpoints" / "run-1").mkdir(parents=True)
    (study / "checkpoints" / "run-1" / "mine.txt").touch()
    status, _, err = replay(str(study), "--run", "6,1", "--save")
    assert status == 2
    assert "run-1 exists, and is no run that a replay has saved" in err
    assert not (study / "checkpoints" / "run-6").exists()


def test_overwrite_moves_checkpoints_aside_with_their_study(study, replay, toy):
    replay(str(study), "--run", "6", "--save")
    assert toy(*SWEEP, "overwrite=true").status == 0
    assert not (study / "checkpoints").exists()
    assert (study.with_name("mine.old1") / "checkpoints" / "run-6").is_dir()


@pytest.mark.matrix
def test_a_task_without_variables_is_compared_and_has_nothing_to_save(toy, replay):
    for task, axis in (("walk", "rate=1,2"), ("line", "slope=1,2"), ("divide", "slope=0,2")):
        folder = toy("-m", f"task={task}", axis, "seed=range(0,3)", f"study={task}").folder
        status, out, _ = replay(str(folder), "--run", "0,5")
        assert status == 0
        assert [row.split()[-1] for row in read_rows(out).values()] == ["identical", "identical"]
        status, _, err = replay(str(folder), "--run", "0,5", "--save")
        assert status == 2
        assert f"task '{task}' has nothing to save" in err


def test_a_difference_is_told_and_is_not_called_identical(study, replay, monkeypatch):
    real = program.run_program

    def change(*arguments):
        outputs = real(*arguments)
        outputs["gain"] = outputs["gain"] * np.float32(1 + 1e-6)
        outputs["curve"] = np.abs(outputs["curve"])  # minus zero becomes zero
        return outputs

    monkeypatch.setattr(program, "run_program", change)
    status, out, _ = replay(str(study), "--run", "6", "--save")
    assert status == 1
    assert "identical" not in out
    assert "2 values differ, by at most 1.9e-05" in out
    assert "gain" in read_rows(out)[6]
    report = json.loads((study / "checkpoints" / "run-6" / "replay.json").read_text())
    assert (report["verdict"], report["differing"]) == ("different", 2)


@pytest.mark.matrix
def test_runs_that_failed_fail_again_and_are_not_saved(toy, replay):
    folder = toy("-m", "task=fragile", "slope=1", "seed=range(0,3)", "study=fragile").folder
    assert replay(str(folder), "--run", "0,2")[0] == 0
    import toys

    toys.BROKEN.add(2)
    try:
        status, out, _ = replay(str(folder), "--run", "0,2")
        assert status == 1
        assert read_rows(out)[0].endswith("identical")
        assert "status" in read_rows(out)[2]
        failed = toy("-m", "task=fragile", "slope=1", "seed=range(0,3)", "study=failed").folder
        status, out, _ = replay(str(failed), "--run", "0,2")
        assert status == 0
    finally:
        toys.BROKEN.clear()


def test_other_code_or_versions_are_refused_unless_accepted(study, replay):
    manifest = study / "study.json"
    manifest.write_text(manifest.read_text().replace('"jax": "', '"jax": "0.'))
    status, _, err = replay(str(study), "--run", "6")
    assert status == 2
    assert "version of jax was '0." in err
    assert "--accept" in err
    status, out, err = replay(str(study), "--run", "6", "--accept")
    assert status == 0
    assert "warning" in err
    assert read_rows(out)[6].endswith("identical")


@pytest.mark.matrix
def test_runs_of_earlier_calls_are_found(study, toy, replay):
    toy("-m", "task=keep", "rate=4", "seed=range(10,12)", "steps=5,6", "study=mine")
    status, out, _ = replay(str(study), "--run", "6,13,15", "--save")
    assert status == 0
    assert all(row.endswith("identical") for row in read_rows(out).values())
    assert load(study / "checkpoints" / "run-6")["total"] == 20.0
    text = (study / "checkpoints" / "run-6" / "task" / "run-6.yaml").read_text()
    assert "rate: 2.0" in text
    assert "seed: 2" in text
    assert "steps: 3" in text
    toy("-m", "task=keep", "rate=4", "way=down", "study=mine")
    status, _, err = replay(str(study), "--run", "6")
    assert status == 2
    assert "run 6 is not of the last sweep of the study" in err


@pytest.mark.matrix
def test_swept_groups_and_static_values_are_recalled(toy, replay, runner, tmp_path):
    shutil.copytree(ROOT / "tests" / "conf", tmp_path / "own")
    sweep = "-m", "task=keep,walk", "seed=range(0,2)", "steps=3,4", "study=two"
    folder = runner("--config-dir", "own", *sweep).folder
    status, out, _ = replay(str(folder), "--run", "0,3,5,7")
    assert status == 0
    assert len(read_rows(out)) == 4
    assert "task=walk" in read_rows(out)[5]
    static = toy("-m", "task=keep", "way=up,down", "rate=1,2", "study=static").folder
    status, out, _ = replay(str(static), "--best", "1", "--metric", "gain", "--save")
    assert list(read_rows(out)) == [1]
    assert replay(str(static), "--run", "3", "--save")[0] == 0
    assert "way: down" in (static / "checkpoints" / "run-3" / "task" / "run-3.yaml").read_text()
    shutil.rmtree(tmp_path / "own")
    status, _, err = replay(str(folder), "--run", "0")
    assert (status, err.count("\n")) == (2, 1)


@pytest.mark.matrix
def test_lanes_blocks_and_shards_of_a_study_are_recalled(toy, replay):
    narrow = toy(*SWEEP[:-1], "lanes=2", "block=4", "study=narrow").folder
    assert replay(str(narrow), "--best", "5", "--metric", "gain", "--save")[0] == 0
    assert "lanes: 2" in (narrow / "checkpoints" / "run-6" / "task" / "run-6.yaml").read_text()
    shards = toy(*SWEEP[:-1], "hydra.sweeper.shards=2", "study=shards").folder
    assert replay(str(shards), "--run", "0,11")[0] == 0
    single = toy("task=keep", "rate=3", "study=single").folder
    assert replay(str(single), "--run", "0", "--save")[0] == 0


def test_a_replay_compiles_one_program_for_each_signature(study, replay, monkeypatch):
    compiled = []
    real = program.compile_program
    monkeypatch.setattr(program, "compile_program", lambda traced: compiled.append(traced) or real(traced))
    replay(str(study), "--run", "0,5,6,10")
    (traced,) = compiled
    assert traced.capacity == traced.lanes  # no more than these runs need


def test_the_end_of_a_study_and_a_comparison_name_the_command(toy, call_main):
    from runner.compare import main as compare

    line = "keep the best run: python -m runner.replay outputs/mine --best 1 --metric loss --save\n"
    called = toy(*SWEEP)
    assert line in called.out
    assert line in toy(*SWEEP).out  # nothing is executed
    assert line in call_main(compare, str(called.folder), "--metric", "gain")[1]
    assert "runner.replay" not in toy("-m", "task=walk", "rate=1,2").out


def test_repeated_runs_are_compared_with_their_last_row(toy, replay):
    folder = toy("-m", "task=divide", "slope=0,1", "seed=range(0,2)", "study=again").folder
    toy("-m", "task=divide", "slope=0,1", "seed=range(0,2)", "study=again", "retry=nonfinite")
    assert replay(str(folder), "--run", "0,1,2")[0] == 0


NETS = '''
    from flax import nnx


    class Normed(nnx.Module):
        """An NNX module with statistics and a stream of random numbers."""

        def __init__(self, inputs, outputs, *, rngs):
            self.first = nnx.Linear(inputs, 6, rngs=rngs)
            self.norm = nnx.BatchNorm(6, rngs=rngs)
            self.dropout = nnx.Dropout(0.2, rngs=rngs)
            self.last = nnx.Linear(6, outputs, rngs=rngs)

        def __call__(self, x):
            return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))
'''
TRAIN = ("-m", "task=train", "data=iris", "seed=range(0,3)", "steps=20", "batch=16", "study=mine")


def load_iris():
    from runner.contract.building import build_object

    text = (ROOT / "conf" / "data" / "iris.yaml").read_text()
    return build_object("data", yaml.safe_load(text))


def measure_accuracy(outputs, part):
    return np.float32((np.argmax(outputs, axis=-1) == part.y).astype(np.float32).mean())


@pytest.mark.matrix
@pytest.mark.usefixtures("standard_promotion")
def test_the_winner_of_a_sweep_is_a_linen_checkpoint_that_predicts(runner, replay):
    from tasks.porting import checkpoints
    from tasks.training.architectures import Mlp

    arguments = *TRAIN, "lr=0.01,0.1", "model.hidden=[6]", "every=5", "horizon=20", "best=true"
    folder = runner(*arguments).folder
    status, _, err = replay(str(folder), "--best", "1", "--metric", "validation_loss", "--save")
    assert status == 0, err
    (saved,) = (folder / "checkpoints").iterdir()
    report, data = json.loads((saved / "replay.json").read_text()), load_iris()
    for name, column in (("checkpoint", "test_accuracy"), ("best", "best_test_accuracy")):
        outputs = Mlp(hidden=[6], outputs=3).apply(checkpoints.read(saved / name), data.test.x)
        assert measure_accuracy(outputs, data.test) == np.float32(report["outputs"][column])
    more = "task=train", "data=iris", "model.hidden=[6]", "steps=1", "lr=0.0", "batch=16", "seed=9"
    started = runner(*more, f"init_from={saved}", "study=started").frame
    assert np.float32(started["test_loss"][0]) == np.float32(report["outputs"]["test_loss"])
    refused = runner(*more, f"init_from={saved}", "model.hidden=[5]", "study=refused")
    assert refused.status == 2
    assert "params/Dense_0/kernel has shape (4, 6), and needs (4, 5)" in refused.err
    assert refused.folder is None


@pytest.mark.matrix
@pytest.mark.usefixtures("standard_promotion")
def test_the_winner_of_a_sweep_is_an_nnx_checkpoint_that_predicts(runner, replay, lab):
    lab({"my_nets.py": NETS})
    own = "model._target_=my_nets.Normed", "~model.hidden", "~model.dropout"
    folder = runner(*TRAIN, "lr=0.01,0.1", *own).folder
    status, out, err = replay(str(folder), "--best", "2", "--metric", "test_accuracy", "--save", "kept")
    assert status == 0, err
    import my_nets
    from flax import nnx

    from tasks.porting import checkpoints

    data = load_iris()
    for number in read_rows(out):
        report = json.loads(Path(f"kept/run-{number}/replay.json").read_text())
        module = my_nets.Normed(4, 3, rngs=nnx.Rngs(0))
        checkpoints.load_nnx(f"kept/run-{number}/checkpoint", module)
        module.eval()
        assert measure_accuracy(module(data.test.x), data.test) == np.float32(report["outputs"]["test_accuracy"])
    more = "task=train", "data=iris", *own, "steps=1", "batch=16"
    assert runner(*more, f"init_from=kept/run-{number}", "study=started").status == 0


@pytest.mark.matrix
@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(
    "model",
    [("model=hybrid",), ("model=hybrid", "model.way=linen"), ("model=hybrid", "model.way=nnx"), ("model=ported",)],
)
def test_runs_of_every_kind_of_model_are_saved_and_started_from(runner, replay, model):
    folder = runner(*TRAIN, *model).folder
    status, out, err = replay(str(folder), "--best", "1", "--metric", "validation_loss", "--save", "kept")
    assert status == 0, err
    (number,) = read_rows(out)
    report = json.loads(Path(f"kept/run-{number}/replay.json").read_text())
    more = "task=train", "data=iris", *model, "steps=1", "lr=0.0", "batch=16", f"init_from=kept/run-{number}"
    assert np.float32(runner(*more).frame["test_loss"][0]) == np.float32(report["outputs"]["test_loss"])

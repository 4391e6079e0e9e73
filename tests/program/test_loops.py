"""Tasks that return a loop: their runs share lanes, end at different steps, and are cut into segments."""

import json
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, wait_until

from runner import program
from runner.contract.task import load_task
from runner.execution import blocks
from runner.plan.pending import Block
from runner.plan.segments import Plan, Segment
from runner.program import executable, states

SEEDS = np.arange(37, dtype=np.uint32)
TAKEN = 3 + SEEDS % 5


def trace(lanes, block=None, **static):
    task = load_task("walk", "toys.walk", (), (), (), ("steps",))
    values = {"burden": 0, "fails": False} | static
    segment = Segment(task, values, {"seed": 0, "rate": 1.0, "steps": 3}, {})
    return program.trace_segment(segment, lanes=lanes, block=block)


def scalars(seeds=SEEDS):
    count = len(seeds)
    return {"seed": seeds, "rate": np.full(count, 0.5, np.float32), "steps": np.full(count, 3, np.int32)}


@pytest.mark.parametrize("lanes", [1, 4, 64])
def test_each_run_ends_at_its_own_step_and_its_outputs_are_its_own(lanes):
    compiled = program.compile_program(trace(lanes, block=64))
    outputs = program.run_program(compiled, len(SEEDS), scalars(), {})
    assert outputs["taken"].tolist() == TAKEN.tolist()
    assert outputs["total"].tolist() == (0.5 * TAKEN * (TAKEN - 1) / 2).tolist()
    alone = program.run_program(compiled, 1, scalars(SEEDS[4:5]), {})
    assert {name: values[0] for name, values in alone.items()} == {name: v[4] for name, v in outputs.items()}


def test_lanes_that_end_take_the_next_run():
    """The longest of all runs is no measure of the advances of the program, their sum is."""
    advances = []

    class Count:
        def restore(self, described):
            return None

        def visit(self, lanes):
            advances.append(np.asarray(lanes.runs))

        def end(self, lanes):
            return None

    compiled, lanes = program.compile_program(trace(4, block=64)), 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executable, "SEGMENT_SECONDS", 0.0)  # one advance in each segment
        program.run_program(compiled, len(SEEDS), scalars(), {}, Count())
    assert TAKEN.sum() / lanes <= len(advances) + 1 <= TAKEN.sum() / lanes + 2 * TAKEN.max()


OWN_WALK = """

def walk(seed: int) -> toys.Walk:
    start = 0, FACTORS.sum()
    return toys.Walk(start, lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * FACTORS[0]), lambda s: {"end": s[1]})
"""


class Stop:
    """Asks to stop once, after so many segments."""

    def __init__(self, segments):
        self.left = segments

    def __call__(self):
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("segments", [0, 5, 30])
def test_a_state_that_was_kept_goes_on_with_the_same_bits(tmp_path, monkeypatch, segments):
    monkeypatch.setattr(executable, "SEGMENT_SECONDS", 0.0)
    compiled = program.compile_program(trace(4, block=64, burden=3))
    whole = program.run_program(compiled, len(SEEDS), scalars(), {})
    with pytest.raises(program.StoppedError):
        program.run_program(
            compiled, len(SEEDS), scalars(), {}, program.StateKeeper(tmp_path / "a", "these", Stop(segments))
        )
    visits = []
    keeper = program.StateKeeper(tmp_path / "a", "these", on_segment=lambda: visits.append(1))
    again = program.run_program(compiled, len(SEEDS), scalars(), {}, keeper)
    assert {name: v.tobytes() for name, v in again.items()} == {name: v.tobytes() for name, v in whole.items()}
    everything = []
    other = program.StateKeeper(tmp_path / "a", "others", on_segment=lambda: everything.append(1))
    program.run_program(compiled, len(SEEDS), scalars(), {}, other)  # the state of other runs is not restored
    assert len(everything) - len(visits) == segments + 1


@pytest.mark.parametrize("lanes", [pytest.param(1, marks=pytest.mark.matrix), 4])
def test_a_program_that_returns_variables_is_another_one_with_the_same_outputs(lanes):
    task = load_task("keep", "toys.keep", (), (), (), ("steps",))
    segment = Segment(task, {"way": "up"}, {"seed": 0, "rate": 1.0, "steps": 3}, {})
    traced = program.trace_segment(segment, lanes=lanes, block=64)
    found = program.return_variables(traced, 6)
    assert found.traced.name != traced.name
    assert found.traced.lanes == lanes
    assert found.traced.capacity == -(-6 // lanes) * lanes
    assert program.trace_segment(segment, lanes=lanes, block=64).name == traced.name
    few = scalars(SEEDS[:6])
    whole = program.run_program(program.compile_program(traced), 6, few, {})
    outputs, variables = found.split(program.run_program(program.compile_program(found.traced), 6, few, {}))
    assert {name: v.tobytes() for name, v in outputs.items()} == {name: v.tobytes() for name, v in whole.items()}
    assert [each["steps"] for each in variables] == TAKEN[:6].tolist()
    assert [each["wide"].shape for each in variables] == [(2, 3)] * 6
    assert program.return_variables(trace(lanes), 6) is None


def test_the_state_of_other_code_is_not_restored(tmp_path, lab):
    """A study may go on with other code if its user accepts that; its states may not."""
    identities = []
    for constant in ("[0.5, 0.25]", "[0.5, 0.75]"):  # the structure of the program is the same
        lab({"own_walk.py": f"import toys\nimport numpy as np\n\nFACTORS = np.float32({constant})\n{OWN_WALK}"})
        load_task.cache_clear()
        task = load_task("own", "own_walk.walk", ())
        segment = Segment(task, {}, {"seed": 0}, {})
        plan, block = Plan((segment,)), Block(0, np.arange(1), np.arange(1))
        compiled = SimpleNamespace(traced=SimpleNamespace(name="a", lanes=1, capacity=1))
        identities.append(blocks.identify_block(plan, block, compiled, {"seed": SEEDS[:1]}))
    assert len(set(identities)) == 2


def test_states_are_kept_when_they_are_due(tmp_path, monkeypatch):
    monkeypatch.setattr(states, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(executable, "SEGMENT_SECONDS", 0.0)
    compiled = program.compile_program(trace(1, block=8))
    seen = []
    keeper = program.StateKeeper(tmp_path, "a", on_segment=lambda: seen.append(len(list(tmp_path.glob("[0-9]*")))))
    program.run_program(compiled, 8, scalars(SEEDS[:8]), {}, keeper)
    assert seen[0] == 0
    assert max(seen) == 1  # an earlier state is removed


def test_a_study_of_a_loop_has_the_bytes_of_its_runs_alone(toy):
    arguments = "-m", "task=walk", "rate=0.5,2", "seed=range(0,9)", "steps=3,8"
    called = toy(*arguments)
    assert called.status == 0
    assert called.frame["taken"].tolist() == (called.frame["steps"] + called.frame["seed"] % 5).tolist()
    alone = toy("task=walk", "rate=2", "seed=7", "steps=8")
    row = called.frame[(called.frame["seed"] == 7) & (called.frame["rate"] == 2) & (called.frame["steps"] == 8)]
    assert alone.frame["total"].tolist() == row["total"].tolist() == [2.0 * 10 * 9 / 2]
    assert len((called.folder / "programs.csv").read_text().splitlines()) == 2  # steps are traced: one program
    shards = toy(*arguments, "hydra.sweeper.shards=2", "lanes=auto", "study=shards")
    assert shards.csv == called.csv


def test_outputs_that_are_not_finite_are_told_by_their_status(toy):
    assert toy("task=walk", "fails=true").frame["status"].tolist() == ["nonfinite"]


def test_an_eager_loop_is_executed_step_by_step(lab, runner):
    lab(
        {
            "conf_lab/task/own.yaml": """
            # @package _global_
            task: {name: own, _target_: toys.walk, eager: {burden: 1}}
            seed: 3
            rate: 1.0
            steps: 3
            burden: 1
            """
        }
    )
    assert runner("--config-dir", "conf_lab", "task=own").frame["taken"].tolist() == [6]


SOON = """
import sys
from runner.program import states
from runner.__main__ import main
states.FIRST_SECONDS = 0.5
sys.argv[1:] = ["--config-dir", CONF, *ARGUMENTS]
main()
"""


@pytest.mark.matrix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_long_run_that_is_ended_goes_on_from_its_state(tmp_path, toy, monkeypatch, number):
    arguments = ["task=walk", "burden=400", "rate=0.001", "steps=12000", "study=mine"]
    script = SOON.replace("CONF", repr(str(ROOT / "tests" / "conf"))).replace("ARGUMENTS", repr(arguments))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")
    states_there = tmp_path / "outputs" / "mine" / "states"
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        assert wait_until(lambda: list(states_there.glob("*/current.json")) or process.poll() is not None)
        process.send_signal(number)
    assert process.returncode
    (kept,) = states_there.glob("*/current.json")
    assert json.loads(kept.read_text())["number"] >= 1
    restored = []
    real = program.StateKeeper.restore

    def restore(keeper, described):
        lanes = real(keeper, described)
        restored.append(int(lanes.states[0][0]) if lanes else 0)
        return lanes

    monkeypatch.setattr(program.StateKeeper, "restore", restore)
    assert toy(*arguments).status == 0
    assert 0 < restored[0] < 12_000
    assert not states_there.exists()
    once = toy(*arguments[:-1], "study=once")
    assert once.csv == (tmp_path / "outputs" / "mine" / "results.csv").read_bytes()

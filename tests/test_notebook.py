"""`runner.run`: the command's engine, folder and bytes from Python, in a process of somebody else's."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import toys
from conftest import PATIENCE, ROOT, wait_until
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

import runner as seedbed
from runner import jupyter, notebook
from runner.contract.held import HOLDER
from runner.errors import InvalidInputError, StudyFailedError

CONF = ROOT / "tests" / "conf"


def run(*overrides, **values):
    return seedbed.run(*overrides, config_dir=CONF, **values)


def read_files(folder):
    """What the shell's call would have written, byte for byte: not times, and not where a call came from."""
    kept = ("results.csv", "results.crc", "study.json", ".hydra/config.yaml", ".hydra/overrides.yaml")
    return {name: (folder / name).read_bytes() for name in kept}


def test_a_sweep_has_the_bytes_of_the_command_that_it_prints(runner, capsys, tmp_path):
    study = run(task="line", slope=[0.5, 2.0], seed=range(5), study="mine", note="two words")
    shown = capsys.readouterr().out.splitlines()[0]
    program, *words = shlex.split(shown)
    assert [program, *words[:4]] == ["python", "-m", "runner", "--config-dir", str(CONF)]
    from_python = read_files(study.path)
    (tmp_path / "outputs").rename(tmp_path / "elsewhere")
    called = runner(*words[2:])
    assert called.status == 0, called.err
    assert study.path == called.folder
    assert read_files(called.folder) == from_python
    recorded = json.loads((tmp_path / "elsewhere/mine/environment.json").read_text())["command"]
    assert shlex.join(recorded) == shown


def test_what_a_study_has():
    study = run(
        task="grade", slope=[1.0, 2.0], seed=range(6), modulus=2, among=("even", "odd"), study="mine", quiet=True
    )
    assert study.path == Path.cwd() / "outputs" / "mine"
    pd.testing.assert_frame_equal(study.frame, seedbed.read("outputs/mine"))
    assert study.frame["seed"].dtype == np.uint32
    assert study.programs["runs"].sum() == 12
    assert study.programs["compile_seconds"].dtype == np.float64
    comparison = study.compare(metrics=["score"], baseline={"slope": 2.0})
    assert comparison.points["seeds"].tolist() == [6, 6]
    assert len(study.compare(study, metrics=["score"]).runs) == 12
    assert repr(study) == "Study('outputs/mine'): 12 runs"
    assert seedbed.Study("outputs/mine") == study


def test_the_head_of_the_report():
    study = run(task="noisy", level=[0.0, 1.0, -1.0], seed=range(3), study="mine", note="<b> & more", quiet=True)
    page = study._repr_html_()
    assert "9 runs, 3 nonfinite" in page
    assert "&lt;b&gt; &amp; more" in page
    assert "task=noisy level=0.0,1.0,-1.0" in page.replace("&#39;", "'")
    for name in ("score", "level", "mean ± interval", "verdict"):
        assert f">{name}" in page
    single = run(task="line", quiet=True)
    assert "<th>value</th>" in single._repr_html_()
    assert seedbed.Study("nowhere")._repr_html_().count("holds no study") == 1


def test_strings_are_the_commands_own(capsys):
    study = run("task=line", "x.shape=[2],[4]", sweep=True)
    assert study.frame["value"].tolist() == [2.0, 4.0]
    assert " -m " in capsys.readouterr().out.splitlines()[0]
    with pytest.raises(InvalidInputError, match="Ambiguous value for argument 'slope=1,2'"):
        run("task=line", "slope=1,2")


@pytest.mark.slow
def test_names_that_are_no_identifiers():
    study = run(
        task="line", quiet=True, **{"x.shape": [(2,), (4,)], "hydra.sweeper.zip": [["x.shape", "slope"]]}, slope=[1, 10]
    )
    assert study.frame["value"].tolist() == [2.0, 40.0]


def test_a_study_is_extended_as_by_the_command(toy, capsys):
    first = run(task="line", slope=[1.0], seed=range(3), study="mine")
    capsys.readouterr()
    second = run(task="line", slope=[1.0, 2.0], seed=range(3), study="mine")
    assert "6 runs in outputs/mine/results.csv, 3 of them already there" in capsys.readouterr().out
    assert (len(first.frame), len(second.frame)) == (6, 6)  # read when it was asked for
    called = toy("-m", "task=line", "slope=1.0,2.0,3.0", "seed=range(0,3)", "study=mine")
    assert "6 of them already there" in called.out


def test_nothing_is_printed_where_that_is_asked_for(capfd):
    run(task="line", seed=range(3), quiet=True)
    assert capfd.readouterr() == ("", "")


REFUSED = [
    ({"slope": "abc"}, InvalidInputError, "task 'line': slope must be a float, got 'abc'"),
    ({"slop": 1.0}, InvalidInputError, "task 'line' has no parameter 'slop'; it has: seed, x, slope, shift"),
    ({"task": "lin"}, InvalidInputError, "there is no task 'lin'; did you mean 'line'"),
    ({"task": 3}, InvalidInputError, "task takes the name of a task, a list of names, or a function, got 3"),
    ({"slope": [1.0, 2.0], "sweep": False}, InvalidInputError, "sweep=False, but slope has several values"),
    ({"study": "a/b"}, InvalidInputError, "study must be a name without / and"),
    ({"seed": range(0)}, InvalidInputError, "the sweep of 'seed' is empty"),
    ({"lanes": [1, 2]}, InvalidInputError, "lanes must be auto or a positive integer"),
    (
        {"task": "refuses", "mode": ["ok", "bad"]},
        StudyFailedError,
        "task 'refuses' with seed=0, mode=bad: ValueError: bad",
    ),
]


@pytest.mark.parametrize(("values", "kind", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_errors_are_exceptions_with_the_commands_message(values, kind, message):
    with pytest.raises(kind) as refused:
        run(**{"task": "line", **values})
    assert message in str(refused.value)
    assert GlobalHydra.instance().hydra is None
    if kind is StudyFailedError:
        assert "python -m runner --config-dir" in str(refused.value)
    else:
        assert not Path("outputs").exists()


@pytest.mark.parametrize("override", ["--help", "-m", 3, ("a=1",)])
def test_flags_are_no_overrides(override):
    with pytest.raises(InvalidInputError, match="an override is a text KEY=VALUE, got"):
        run(override)


def test_an_application_of_hydra_around_it_is_left_as_it_was():
    arguments, environment, path = list(sys.argv), dict(os.environ), list(sys.path)
    config = HydraConfig.instance().cfg
    with initialize_config_dir(str(CONF / "task"), version_base="1.3"):
        before = GlobalHydra.instance().hydra
        run(task="line", seed=range(2), quiet=True)
        assert GlobalHydra.instance().hydra is before
        assert compose("noisy").level is not None
        with pytest.raises(InvalidInputError):
            run(task="line", slope="abc")
        assert GlobalHydra.instance().hydra is before
    assert HydraConfig.instance().cfg is config
    assert (sys.argv, sys.path) == (arguments, path)
    changed = {name for name, value in os.environ.items() if environment.get(name) != value}
    assert all(name.endswith(("THREADS", "NPROC")) for name in changed)


@pytest.mark.matrix
def test_several_config_folders(lab):
    text = "# @package _global_\ntask: {name: other, _target_: toys.divide}\nseed: 0\nslope: 2.0\n"
    lab({"more/task/other.yaml": text})
    study = seedbed.run(task=["line", "other"], slope=[4.0], config_dir=[CONF, "more"], quiet=True)
    assert study.frame["task"].tolist() == ["line", "other"]


@pytest.mark.matrix
def test_shards():
    shards = {"hydra.sweeper.shards": 2}
    study = run(task="line", slope=[1.0, 2.0], seed=range(20), quiet=True, **shards)
    assert len(study.frame) == 40
    with pytest.raises(
        InvalidInputError, match="task 'scale' is a function of this process, and the shards run in others"
    ):
        seedbed.run(
            task=lambda seed: seed, seed=range(4), **{**shards, "hydra/launcher": "joblib", "task.name": "scale"}
        )


@pytest.mark.matrix
def test_threads_take_turns_and_are_told_so(capsys):
    done, entered, proceed = {}, threading.Event(), threading.Event()

    def stop(seed):
        entered.set()
        proceed.wait(PATIENCE)

    def call(name):
        done[name] = run(task="line" if name == "second" else "fragile", seed=range(2), study=name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toys, "when_called", stop)
        threads = [threading.Thread(target=call, args=(name,)) for name in ("first", "second")]
        threads[0].start()
        assert entered.wait(PATIENCE)
        threads[1].start()
        told = []
        wait_until(lambda: told.append(capsys.readouterr().err) or "waits for it" in told[-1])
        proceed.set()
        for thread in threads:
            thread.join()
    assert "runner.run is under way in another thread of this process; this call waits for it" in "".join(told)
    assert {name: len(study.frame) for name, study in done.items()} == {"first": 2, "second": 2}


def test_a_task_cannot_call_it(monkeypatch):
    monkeypatch.setattr(notebook, "_thread", [threading.get_ident()])
    with pytest.raises(InvalidInputError, match="called within another"):
        run(task="line")


def test_ctrl_c_leaves_a_study_that_goes_on(monkeypatch):
    def interrupt(seed):
        if seed == 20 and interrupt.armed:
            interrupt.armed = False
            os.kill(os.getpid(), signal.SIGINT)

    interrupt.armed = True
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(toys, "when_called", interrupt)
    sweep = {"task": "fragile", "seed": range(100), "block": 5, "threads": 1, "study": "mine"}
    with pytest.raises(KeyboardInterrupt, match=r"interrupted after \d+ of 100 runs; resume with: python -m runner "):
        run(**sweep)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    rows = len(seedbed.Study("outputs/mine").frame)
    assert 0 < rows < 100
    study = run(**sweep)
    assert study.frame["seed"].tolist() == list(range(100))


def test_a_dry_run_leaves_no_folder(capsys):
    study = run(task="line", seed=range(3), dry_run=True)
    assert "groups" in (out := capsys.readouterr().out) or "program" in out
    assert not study.path.exists()
    with pytest.raises(InvalidInputError, match="holds no study"):
        study.frame  # noqa: B018


def scale(seed: int, x: jnp.ndarray, rate: float, steps: int = 1, words: tuple[str, ...] = ()):
    return {"value": rate * x.sum() * steps + seed.astype(jnp.float32), "count": jnp.float32(len(words))}


def test_a_function_is_a_task(capsys):
    study = seedbed.run(
        task=scale,
        x={"shape": (4,), "fill": "ones"},
        rate=[0.5, 1.0],
        steps=[1, 2],
        seed=range(2),
        words=("a", "b"),
        study="mine",
    )
    assert study.frame["value"].tolist() == [2, 3, 4, 5, 4, 5, 8, 9]
    assert set(study.frame["task"]) == {"scale"}
    assert "task._target_=" in capsys.readouterr().out.splitlines()[0]
    again = seedbed.run(
        task=scale,
        x={"shape": (4,), "fill": "ones"},
        rate=[0.5, 1.0],
        steps=[1, 2],
        seed=range(3),
        words=("a", "b"),
        study="mine",
    )
    assert len(again.frame) == 12


@pytest.mark.matrix
def test_a_function_of_a_module_is_a_task_of_the_command_too(runner, capsys):
    study = seedbed.run(task=toys.divide, seed=range(3), slope=[1.0, 2.0], study="mine")
    words = shlex.split(capsys.readouterr().out.splitlines()[0])
    assert "task._target_=toys.divide" in words
    before = (study.path / "results.csv").read_bytes()
    study.path.rename("elsewhere")
    assert runner(*words[3:]).csv == before


def test_a_function_that_was_defined_again_is_another_study():
    def define(offset):
        def task(seed: int):
            return seed + jnp.uint32(offset)

        return task

    first = seedbed.run(task=define(1), seed=range(2), study="mine", quiet=True)
    assert first.frame["output"].tolist() == [1, 2]
    with pytest.raises(InvalidInputError, match="is another study: code of task task was"):
        seedbed.run(task=define(2), seed=range(2), study="mine")
    second = seedbed.run(task=define(2), seed=range(2), study="other", quiet=True)
    assert second.frame["output"].tolist() == [2, 3]


def test_a_lambda_prints_that_its_module_is_to_be_named(capsys):
    study = seedbed.run(task=lambda seed: seed + jnp.uint32(1), seed=3)
    assert study.frame["output"].tolist() == [4]
    assert "task._target_=MODULE.task" in (shown := capsys.readouterr().out)
    assert HOLDER not in shown


@pytest.mark.parametrize("task", [int, object()])
def test_what_is_no_function_is_no_task(task):
    with pytest.raises(InvalidInputError, match="task takes the name of a task, a list of names, or a function"):
        seedbed.run(task=task)


def test_a_parameter_of_a_function_without_a_value():
    with pytest.raises(
        InvalidInputError, match="task 'scale': x has no value; the task has: seed, x, rate, steps, words"
    ):
        seedbed.run(task=scale, rate=1.0, seed=0)


@pytest.mark.slow
def test_values_that_were_read_before_are_read_again(lab):
    lab({"my_lab.py": "def task(seed: int, x):\n    return x.sum()\n"})
    values = {"task": "function", "task.name": "mine", "task._target_": "my_lab.task", "+seed": 0}
    np.save("data.npy", np.float32([1, 2]))
    given = {**values, "+x": {"shape": (2,), "file": "data.npy", "dtype": "float32"}}
    assert seedbed.run(quiet=True, **given).frame["output"].tolist() == [3.0]
    np.save("data.npy", np.float32([5, 6]))
    assert seedbed.run(quiet=True, **given).frame["output"].tolist() == [11.0]


class Frontend:
    """What a notebook shows below a cell."""

    def __init__(self):
        self.shown = []

    def __call__(self, value, display_id):
        assert display_id is True
        self.shown.append(value._repr_html_())
        return self

    def update(self, value):
        self.shown.append(value._repr_html_())


def test_progress_in_a_notebook(monkeypatch, capsys):
    frontend = Frontend()
    monkeypatch.setattr("runner.terminal.find_display", lambda: frontend)
    run(task="line", slope=[1.0, 2.0], seed=range(50), block=10)
    assert frontend.shown[0] == '<progress value="0" max="100"></progress> 0 of 100 runs'
    assert re.fullmatch(
        r'<progress value="100" max="100"></progress> 100 of 100 runs, [\d,]+ runs/s', frontend.shown[-1]
    )
    assert max(map(len, capsys.readouterr().out.splitlines()[1:])) <= 100
    run(task="line", seed=range(2), quiet=True)
    assert 'max="2"' not in "".join(frontend.shown)


def test_outside_of_a_notebook_there_is_no_display():
    assert jupyter.find_display() is None


def test_warnings_are_no_errors_of_the_call():
    """`-W error`, as pytest has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(task="line", seed=range(2), quiet=True)


@pytest.mark.matrix
def test_in_ipython_and_after_jax_has_started(tmp_path):
    """A process of its own: IPython changes what Python does with exceptions and output."""
    pytest.importorskip("IPython")
    text = """
import jax
import jax.numpy as jnp
jnp.ones(3).sum().block_until_ready()
import runner
def double(seed: int, rate: float):
    return {"value": 2 * rate + seed}
study = runner.run(task=double, rate=[1.0, 2.0], seed=range(2), study="mine")
print(study.frame["value"].tolist())
runner.run(lr="abc")
"""
    (tmp_path / "session.ipy").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NPROC": "1", "IPYTHONDIR": str(tmp_path / "ipython")}
    call = [sys.executable, "-m", "IPython", "--colors=NoColor", "session.ipy"]
    called = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "[2.0, 3.0, 4.0, 5.0]" in called.stdout, called.stdout + called.stderr
    assert "task 'mixed_train': lr must be a float, got 'abc'" in called.stdout + called.stderr

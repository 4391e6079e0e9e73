"""The command line as a user meets it: what is refused, what is shown, what is written."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from runner.contract.task import load_function, load_task
from runner.plan.inputs import build_array, describe_input

MATRIX = pytest.mark.matrix
REFUSED = [
    (("task=nope",), "there is no task 'nope'", "mixed_train"),
    (("foo=1",), "task 'mixed_train' has no parameter 'foo'", "it has: seed, x, y, lr, hidden"),
    (("+foo=1",), "task 'mixed_train' has no parameter 'foo'", "it has: seed, x, y, lr, hidden"),
    (("-m", "foo=1,2"), "task 'mixed_train' has no parameter 'foo'", "it has: seed, x, y, lr, hidden"),
    (("x.foo=1",), "x has no 'foo'", "it has: shape, fill, seed, dtype, values, file"),
    (("+x.foo=1",), "x has no 'foo'", "shape, fill, seed, dtype, values, file"),
    (("lr=abc",), "lr must be a float", "'abc'"),
    (("lr=null",), "lr must be a float", "None"),
    (("lr=true",), "lr must be a float", "True"),
    (("-m", "lr=0.1,abc"), "lr must be a float", "'abc'"),
    (("task=port_dense", "features=0"), "features must be at least 1, got 0", "features=0, x.shape=[16]"),
    (("task=port_dense", "features=1.5"), "features must be an integer", "1.5"),
    (("task=port_dense", "features=null"), "features must be an integer", "None"),
    (("seed=-1",), "seed must be an integer from 0 to 4294967295", "-1"),
    (("seed=2**32",), "seed must be an integer from 0 to 4294967295", "'2**32'"),
    (("seed=4294967296",), "seed must be an integer from 0 to 4294967295", "4294967296"),
    (("-m", "seed=range(-1,3)"), "seed must be an integer from 0 to 4294967295", "-1"),
    (("seed=0.5",), "seed must be an integer", "0.5"),
    (("x.shape=[8,2]",), "x and y must agree in all axes but the last, got (8, 2) and (3,)", "y.shape=[3]"),
    (("x.shape=[0]",), "x.shape must be a list of positive integers", "[0]"),
    (("x.shape=8",), "x.shape must be a list of positive integers", "8"),
    (("x.fill=blue",), "x.fill must be one of normal, uniform, linspace, ones, zeros", "'blue'"),
    (("x.dtype=float99",), "x.dtype must be one of float32", "'float99'"),
    (("x.seed=-1",), "x.seed must be an integer from 0", "-1"),
    (("x.values=[1,a]",), "x.values must be a list of numbers", "[1, 'a']"),
    (("x.values=[[1,2],[3]]",), "x.values must be a list of numbers, or lists of equal length", "[3]"),
    (("x.values=[1.0]", "x.file=a.npy"), "x has both x.values and x.file", "give one of them"),
    (("x.file=none.npy",), "cannot read x.file=none.npy", "No such file"),
    (("x.file=broken.npy",), "cannot read x.file=broken.npy", "broken.npy"),
    (("x.file=words.csv",), "cannot read x.file=words.csv", "words.csv"),
    (("x.file=empty.csv",), "x.file=empty.csv has 0 values", "not numbers"),
    (("x.file=data.txt",), "x.file must be a file that ends in .npy or .csv", "data.txt"),
    (("x=3",), "x must have at least one axis", "x.shape=[]"),
    (("-m", "seed=range(0,0)"), "the sweep of 'seed' is empty", "range(0,0)"),
    (("-m", "seed=range(0,1,0)"), "the step of a range cannot be 0", "range(0,1,0)"),
    (("-m", "task=glob(zz*)"), "the sweep of 'task' is empty", "glob(zz*)"),
    (("-m", "lr=interval(0,1)"), "an interval has no discrete values", "lr=interval(0,1)"),
    (("-m", "lr=1,2", "seed=1,2,3", "hydra.sweeper.zip=[lr,seed]"), "equally many values", "lr has 2, seed has 3"),
    (("-m", "lr=1,2", "hydra.sweeper.zip=[lr,seed]"), "zip names 'seed', which is not swept", "swept are: lr"),
    (("-m", "lr=1,2", "hydra.sweeper.zip=[1,lr]"), "zip takes a list of keys, or a list of such lists", "[1, 'lr']"),
    (("-m", "lr=1,2", "hydra.sweeper.zip=[lr]"), "zip takes two keys or more", "['lr']"),
    (("-m", "lr=1,2", "seed=1,2", "hydra.sweeper.zip=[[lr,seed],[lr,seed]]"), "zip names 'lr' twice", "'seed'"),
    (
        ("-m", "+experiment=lr_across_seeds,lr_with_width"),
        "has a sweep itself, over lr",
        "lr_across_seeds",
    ),
    (("lr=0.1,0.2",), "Ambiguous value for argument 'lr=0.1,0.2'", "--multirun"),
    (("lr==3",), "cannot parse 'lr==3'", "="),
    (("lanes=0",), "lanes must be auto or a positive integer", "0"),
    (("block=many",), "block must be auto or a positive integer", "'many'"),
    (("on_mismatch=maybe",), "on_mismatch must be refuse, fork or accept", "'maybe'"),
    (("dry_run=maybe",), "dry_run must be true or false", "'maybe'"),
    (("threads=-2",), "threads must be auto or a positive integer", "-2"),
    (("--config-dir", "nowhere"), "nowhere' not found", ""),
    (("task._target_=my_lab.nothing",), "cannot import 'my_lab.nothing'", "my_lab"),
    (("task._target_=tasks.bridge.nothing",), "cannot import 'tasks.bridge.nothing'", "nothing"),
    (("task._target_=math.sin",), "_target_ 'math.sin' is not allowed", "standard library"),
    (("task._target_=tasks.parity.cases.CASES",), "'tasks.parity.cases.CASES' is not a function", "dict"),
    (("task._target_=null",), "task has no _target_", ""),
    (("task.outputs=[a,b,c]", "task.metrics=null"), "returns an array of shape (2,)", "['a', 'b', 'c']"),
    (("task.outputs=2", "task.metrics=null"), "outputs must be a name, or a list of names", "2"),
    (("task.outputs=[a,b]",), "task 'mixed_train': metrics must map outputs", "the outputs are: a, b"),
    (("task.metrics.loss_after=lower",), "to minimize or maximize, got loss_after: lower", "loss_before"),
    (("task.outputs=[seed,b]", "task.metrics=null"), "two columns of the table would be named 'seed'", "hidden"),
    (("hydra.run.dir=/dev/null/x",), "cannot write /dev/null/x", "Not a directory"),
    (("-m", "seed=1,2", "hydra.sweep.dir=/dev/null/x"), "cannot write /dev/null/x", "Not a directory"),
]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY nonsense")
    (tmp_path / "words.csv").write_text("a,b\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "data.txt").write_text("1\n")


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(("arguments", "rule", "given"), REFUSED, ids=lambda value: str(value)[:60])
def test_bad_input_is_refused_in_a_line_and_leaves_nothing(runner, tmp_path, arguments, rule, given):
    called = runner(*arguments)
    assert rule in called.err
    assert given in called.err
    assert called.status == 2
    assert "Traceback" not in called.err
    assert called.out == ""
    assert called.err.startswith("error: ")
    assert called.err.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("task", "rule"),
    [
        ("misspelt", "task 'misspelt' has no parameter 'slop'; it has: seed, x, slope, shift"),
        ("unset", "task 'unset': slope has no value"),
        ("text", "returns a str as 'output', no array"),
    ],
)
def test_mistakes_inside_a_yaml_are_refused(toy, tmp_path, task, rule):
    called = toy(f"task={task}")
    assert called.status == 2
    assert rule in called.err
    assert list(tmp_path.glob("outputs/*")) == []


def test_a_traceback_is_shown_where_it_is_asked_for(tmp_path):
    called = command("-m", "runner", "lr=abc", cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert called.returncode == 2
    assert "Traceback" in called.stderr
    assert called.stderr.strip().endswith("error: task 'mixed_train': lr must be a float, got 'abc'")


def test_a_folder_that_a_study_did_not_make_is_left_as_it_was(runner, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    assert runner("lr=abc", "hydra.run.dir=mine").status == 2
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_help_lists_tasks_parameters_and_examples(runner):
    called = runner("--help")
    assert called.status == 0
    assert re.search(r"mixed_train +seed=0 x.shape=\[8\] y.shape=\[3\] lr=0.05 hidden=4", called.out)
    for name in [path.stem for path in (ROOT / "conf").glob("*/*.yaml")]:
        assert name in called.out
    assert "python -m runner task=mixed_train lr=0.1" in called.out


def test_help_lists_the_tasks_of_a_config_dir(toy):
    assert re.search(r"line +seed=0 x.shape=\[4\] slope=1.0 shift=0", toy("--help").out)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flag",
    [
        ("--cfg", "job"),
        *(pytest.param(f, marks=MATRIX) for f in (("--info", "config"), ("--info", "defaults"), ("--hydra-help",))),
    ],
)
def test_hydras_own_flags(tmp_path, flag):
    """In a process of its own: they configure the logging of theirs."""
    called = command("-m", "runner", *flag, cwd=tmp_path)
    assert (called.returncode, called.stderr) == (0, "")
    assert called.stdout


def test_the_config_is_shown_with_its_overrides(runner):
    assert "lr: 0.7" in runner("--cfg", "job", "lr=0.7").out


def test_an_own_folder(runner, tmp_path):
    assert runner("hydra.run.dir=here/it/is").status == 0
    assert (tmp_path / "here/it/is/results.csv").exists()


SHIPPED = sorted(path for kind in ("experiment", "task") for path in (ROOT / "conf" / kind).glob("*.yaml"))
TRAINING = [path.stem for path in SHIPPED if "override /task: train\n" in path.read_text()]


HEAVY = {
    "bridge_across_inputs",
    "dense_across_widths",
    "every_task",
    "lr_with_width",
    "parity",
    "parity_matrix",
    "parity_native",
    "port_across_shapes",
    "port_resnet",
    "port_transformer",
    *TRAINING,
}


def mark(path):
    return pytest.mark.matrix if path.stem in HEAVY else pytest.mark.slow


@pytest.mark.usefixtures("standard_promotion")  # for Linen's norms and optax
@pytest.mark.parametrize("path", [pytest.param(path, marks=mark(path), id=path.stem) for path in SHIPPED])
def test_every_yaml_composes_and_runs(runner, path):
    fewer = {
        "parity_matrix": ("layer=Dense", "dtype=float32", "mode=jit", "seed=0,1"),
        "parity_native": ("layer=LayerNorm", "dtype=bfloat16", "mode=jit", "seed=0"),
        "port_resnet": ("dry_run=true",),  # both are trained by test_models
        "port_transformer": ("dry_run=true",),
        **dict.fromkeys(TRAINING, ("dry_run=true",)),  # they take a minute; see tests/tasks/training/test_studies.py
    }.get(path.stem, ())
    name = f"+experiment={path.stem}" if path.parent.name == "experiment" else f"task={path.stem}"
    called = runner(*(["-m"] if fewer else []), name, *fewer)
    assert called.status == 0, called.err
    if "dry_run=true" in fewer:
        return
    assert (called.frame["status"] == "ok").all()
    if path.stem == "parity_matrix":
        assert (called.frame["verdict"] == "identical").all()
        assert (called.frame["linen_losses"] == called.frame["nnx_losses"]).all()
    if path.stem == "port_across_shapes":
        assert len(called.frame) == 180
        assert (called.frame["nnx_sum"] == called.frame["linen_sum"]).all()


COMMANDS = [
    ("task=bridge",),
    ("task=mixed_train", "lr=0.1", "hidden=3"),
    ("task=mixed_train", "lr=0.1", "x.shape=[32,64]", "y.shape=[32,8]", "hidden=64"),
    ("task=port_dense", "x.shape=[5,7]", "features=3"),
    ("task=dense_forward", "features=200"),
]
SWEPT = [COMMANDS[0], *(pytest.param(arguments, marks=MATRIX) for arguments in COMMANDS[1:])]


@pytest.fixture
def _promoted():
    """Rank promotion is what `x @ kernel + bias`, the tasks' own definition, does to a batch."""
    jax.config.update("jax_numpy_rank_promotion", "allow")  # for all threads, as a context is not
    yield
    jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.mark.usefixtures("_promoted")
@pytest.mark.parametrize("arguments", SWEPT, ids=str)
def test_a_run_alone_is_the_same_run_in_a_sweep(runner, arguments):
    """The same bytes, whatever the block, the threads, and the place among the others."""
    *_, last = swept = runner("-m", *arguments, "seed=range(0,150)").csv.splitlines()
    assert runner("-m", *arguments, "seed=range(0,150)", "block=64", "threads=3").csv.splitlines() == swept
    alone = runner(*arguments, "seed=149").csv.splitlines()[1]
    assert alone.split(b",")[1:] == last.split(b",")[1:]


@pytest.mark.usefixtures("_promoted")
@pytest.mark.parametrize("arguments", SWEPT, ids=str)
def test_one_lane_is_the_plain_function(runner, arguments):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", list(arguments))
    loaded = load_task(config.task.name, config.task._target_, tuple(config.task.outputs))
    arrays = {
        n: build_array(describe_input(loaded, n, OmegaConf.to_container(config[n]))) for n in ("x", "y") if n in config
    }
    arrays |= {"lr": np.float32(config.lr)} if "lr" in config else {}
    static = {name: config[name] for name in ("features", "hidden") if name in config}
    plain = jax.jit(lambda seed, arrays: load_function(loaded)(seed=seed, **arrays, **static))
    frame = runner("-m", *arguments, "lanes=1", "seed=range(0,40)").frame
    for seed, row in frame.iterrows():
        expected = np.asarray(plain(np.uint32(seed), arrays))
        values = [json.loads(row[name]) if isinstance(row[name], str) else row[name] for name in config.task.outputs]
        # on some processors XLA vectorises a sum within the loop otherwise than alone, which changes its last bits
        np.testing.assert_allclose(np.float32(values).reshape(expected.shape), expected, rtol=1e-6, atol=1e-6)


def command(*arguments, cwd, **variables):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.matrix
def test_the_module_in_a_process_of_its_own(tmp_path):
    called = command("-W", "error::DeprecationWarning:runner", "-m", "runner", "lr=0.1", cwd=tmp_path)
    assert (called.returncode, called.stderr) == (0, "")
    (path,) = tmp_path.glob("outputs/*/results.csv")
    assert str(path.relative_to(tmp_path)) in called.stdout
    environment = json.loads((path.parent / "environment.json").read_text())
    assert environment["versions"]["jax"]
    assert environment["devices"] == ["cpu"]


def test_the_console_script_with_a_task_of_the_users_own(tmp_path):
    (tmp_path / "my_lab.py").write_text("def my_task(seed: int, lr: float):\n    return {'twice': 2 * lr}\n")
    (tmp_path / "my_conf" / "task").mkdir(parents=True)
    (tmp_path / "my_conf" / "task" / "mine.yaml").write_text(
        "# @package _global_\ntask: {name: mine, _target_: my_lab.my_task}\nseed: 0\nlr: 0.5\n"
    )
    script = Path(sys.executable).with_name("seedbed")
    call = [script, "--config-dir", "my_conf", "-m", "task=mine", "lr=1,2"]
    called = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
    assert (called.returncode, called.stderr) == (0, "")
    (path,) = tmp_path.glob("outputs/mine-*/results.csv")
    assert pd.read_csv(path)["twice"].tolist() == [2, 4]


@pytest.mark.slow
def test_values_are_refused_without_a_word_of_jax_where_hydra_knows_better(tmp_path):
    """`--help` and unknown keys answer without the seconds that JAX takes to import."""
    spy = (
        "import sys, runner.__main__ as m\n"
        "for argument in ('--help', '--cfg=job', 'foo=1'):\n"
        "    sys.argv = ['runner', argument]\n"
        "    try: m.main()\n"
        "    except SystemExit: pass\n"
        "print({'jax'} & set(sys.modules))"
    )
    called = command("-c", spy, cwd=tmp_path)
    assert called.stdout.endswith("\nset()\n")
    assert "has no parameter 'foo'" in called.stderr

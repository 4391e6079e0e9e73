"""Flags, and overrides before Hydra composes them."""

import re

import pytest

from runner.config.arguments import read_arguments

REFUSED = [
    (("task=null",), "task takes the name of a task, got 'task=null'"),
    (("task=1",), "task takes the name of a task, got 'task=1'"),
    (("task=[a]",), "task takes the name of a task, got 'task=[a]'"),
    (("-m", "task=line,null"), "task takes the name of a task"),
    (("task=lime",), "there is no task 'lime'; did you mean 'line'"),
    (("+experiment=lr_seeds",), "there is no experiment 'lr_seeds'; did you mean 'lr_across_seeds'"),
    (("hydra/launcher=basics",), "there is no hydra/launcher 'basics'; did you mean 'basic'?"),
    (("--run", "--multirun", "seed=1"), "Only one of --run, --multirun, --cfg, --info and --shell_completion"),
    (("--cfg", "job", "--info"), "Only one of --run, --multirun, --cfg, --info and --shell_completion"),
    (("--resolve",), "The --resolve flag can only be used in conjunction with --cfg or --help"),
    (("--foo",), "unrecognized arguments: --foo"),
    (("--foo", "a=\n", "task=line"), "unrecognized arguments: --foo"),
    (("task=constant", "+task.eager={size:{b:[1]}}"), "eager must be a mapping such as {mode: eager}, got {'size'"),
    (("task=constant", "+task.eager={size:[{b:1}]}"), "eager must be a mapping such as {mode: eager}, got {'size'"),
    (("hydra/job_logging=[]",), "hydra/job_logging selects nothing"),
    (("-m", "task=apply", "x=[1,2]", "x.fill=ones,zeros"), "x.fill=ones: x is a list here"),
    (("--cfg", "foo"), "argument --cfg/-c: invalid choice: 'foo'"),
    (("--shell-completion",), "Expecting one subcommand"),
    (("--experimental-rerun", "x"), "--experimental-rerun is not supported"),
    (("--config-name", "nope"), "there is no config nope.yaml"),
    (("-m", "hydra.mode=RUN", "seed=1,2"), "Running Hydra app with --multirun"),
    (("hydra.searchpath=[nope]",), "path=nope is not available"),
    (("hydra.verbose=null",), "hydra.verbose must be true, false, or loggers, got 'hydra.verbose=null'"),
    (("-m", "seed=range(nan,3)"), "seed=range(nan,3): the bounds and the step of a range must be finite"),
    (("-m", "seed=range(inf)"), "seed=range(inf): the bounds and the step of a range must be finite"),
    (("-m", "seed=range(a,b)"), "cannot parse 'seed=range(a,b)': TypeError"),
    (("-m", "seed=range()"), "cannot parse 'seed=range()': TypeError"),
    (("-m", "hydra.launcher=null", "seed=1,2"), "Hydra launcher is not configured"),
    (("seed",), "an argument is a flag or KEY=VALUE, got 'seed'"),
    (("=3",), "an argument is a flag or KEY=VALUE, got '=3'"),
    (("study=\udcff",), "an argument must be UTF-8, got 'study=\\udcff'"),
    (("x=[ü]",), "cannot parse 'x=[ü]': a value with other characters"),
    (("x=" + "[" * 400 + "]" * 400,), "nested too deeply"),
]


@pytest.mark.parametrize(("arguments", "rule"), REFUSED, ids=lambda value: str(value)[:60])
def test_arguments_are_refused_in_one_line(toy, tmp_path, arguments, rule):
    called = toy(*arguments)
    assert (called.status, called.out) == (2, "")
    assert called.err.startswith("error: ")
    assert rule in called.err
    assert called.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_overrides_may_stand_before_and_after_flags():
    assert read_arguments(["a=1", "-m", "b=1,2", "--config-dir", "c=3", "d=4", "--info"]) == [
        *("a=1", "b=1,2", "d=4"),
        *("-m", "--config-dir", "c=3", "--info"),
    ]


def test_the_same_sweep_with_overrides_around_the_flag(toy):
    first = toy("slope=2", "-m", "task=line", "seed=0,1")
    assert first.csv == toy("-m", "task=line", "seed=0,1", "slope=2").csv


def test_words_that_are_not_ascii_need_no_quotes(toy):
    assert read_arguments(["-m", "a=ü,b", "c='ü'", "d=[ü]"]) == ['a="ü",b', "c='ü'", "d=[ü]", "-m"]
    assert toy("task=line", "study=größe").folder.name == "größe"


def test_the_versions(runner):
    called = runner("--version")
    assert called.status == 0
    assert re.fullmatch(
        r"seedbed \d+\.\d+\.\d+\S* \(jax [\d.]+\S*, flax [\d.]+\S*, hydra-core [\d.]+\S*, Python 3[\d.]+\)\n",
        called.out,
    )


def test_the_help_text_fits_a_terminal_and_explains_the_settings(runner):
    out = runner("--help").out
    assert max(map(len, out.splitlines())) <= 80
    assert re.search(r"lanes=auto\|N +how many runs a program executes", out)


def test_an_unknown_package_of_the_config_is_a_usage_error(runner):
    called = runner("--cfg", "job", "--package", "nope")
    assert (called.status, "nope" in called.err) == (2, True)

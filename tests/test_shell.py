"""The command `seedbed`, its help and its completion, and what messages look like on a terminal."""

import os
import pty
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from runner import commands, output
from runner.commands import COMMANDS, complete_line
from runner.output import fit_message

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def seedbed(call_main, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    return lambda *arguments: call_main(commands.main, *arguments)


def test_the_help_lists_the_commands(seedbed):
    status, out, err = seedbed("--help")
    assert (status, err) == (0, "")
    for name in [*COMMANDS, "completion", "NO_COLOR", "--version"]:
        assert name in out
    assert max(map(len, out.splitlines())) < 80
    assert seedbed()[1] == seedbed("-h")[1] == out


def test_the_version(seedbed):
    status, out, _ = seedbed("--version")
    assert status == 0
    assert re.fullmatch(r"seedbed [\w.]+ \(jax [\w.]+, flax [\w.]+, hydra-core [\w.]+, Python [\w.]+\)\n", out)


@pytest.mark.parametrize("arguments", [("run", "lr=abc"), ("lr=abc",), ("-m", "lr=abc"), ("+lr=abc",)], ids=" ".join)
def test_run_may_be_left_out(seedbed, arguments):
    status, out, err = seedbed(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert "lr" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", "nowhere"), "error: nowhere holds no study: there is no study.json\n"),
        (("studies", "nowhere"), "error: there is no folder nowhere\n"),
        (("replay", "nowhere", "--run", "1"), "nowhere"),
        (("comapre",), "error: there is no command 'comapre'; did you mean 'compare'? there are: run, compare, "),
        (("completion", "tcsh"), "error: completion takes one of bash, zsh, fish, got tcsh\n"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_the_others_are_what_their_modules_are(seedbed, arguments, message):
    status, _, err = seedbed(*arguments)
    assert status == 2
    assert message in err


def test_port_is_tasks_porting(seedbed):
    status, out, _ = seedbed("port", "--help")
    assert status == 0
    assert "Linen" in out


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_has_a_help(seedbed, name):
    if name in ("export", "race"):
        pytest.importorskip(COMMANDS[name].module)
    status, out, err = seedbed(name, "--help")
    assert (status, err) == (0, "")
    assert len(out.splitlines()) > 5


def test_the_help_of_run_fits_80_columns(runner):
    lines = runner("--help").out.splitlines()
    assert [line for line in lines if len(line) > 80 and " " in line.strip()] == []
    for word in ("Usage:", "Settings:", "Flags:", "Examples:", "Exit status:", "Environment:"):
        assert any(line.strip().startswith(word) for line in lines)


CANDIDATES = [
    ("seedbed ", {*COMMANDS, "completion"}, set()),
    ("seedbed co", {"compare", "completion"}, {"run"}),
    ("seedbed run task=m", {"task=mixed_train"}, {"task=bridge"}),
    ("seedbed task=", {"task=mixed_train", "task=function"}, set()),
    ("seedbed run -m task=mixed_train l", {"lr=", "lanes=", "large="}, {"hidden="}),
    ("seedbed run task=port_dense f", {"features="}, {"hidden="}),
    ("seedbed run -m task=bridge,port_dense 'seed=range(0,5)' x.", {"x.shape.", "x.fill="}, set()),
    ("seedbed run x.fi", {"x.fill=", "x.file="}, {"x.shape."}),
    ("seedbed run +exp", {"+experiment="}, set()),
    ("seedbed run +experiment=lr", {"+experiment=lr_across_seeds"}, set()),
    ("seedbed run task=train optimizer=ada", {"optimizer=adam", "optimizer=adan"}, {"optimizer=sgd"}),
    ("seedbed run on_mismatch=", {"on_mismatch=fork", "on_mismatch=accept"}, set()),
    ("seedbed run sw", set(), {"sweep."}),
    ("seedbed run study=", {"study=one", "study=two"}, {"study=other"}),
    ("seedbed run --", {"--multirun", "--config-dir"}, set()),
    ("seedbed run --config-dir my", {"my_conf/"}, set()),
    ("seedbed run --config-dir my_conf task=", {"task=mine", "task=bridge"}, set()),
    ("seedbed compare ", {"outputs/one", "outputs/two"}, {"outputs/other"}),
    ("seedbed compare outputs/t", {"outputs/two"}, {"outputs/one"}),
    ("seedbed completion z", {"zsh"}, {"bash"}),
    ("seedbed run nonsense==3 ", set(), {"task="}),
    ("", {*COMMANDS}, set()),
]


@pytest.fixture
def place(tmp_path):
    for name in ("one", "two"):
        (tmp_path / "outputs" / name).mkdir(parents=True)
        (tmp_path / "outputs" / name / "study.json").touch()
    (tmp_path / "outputs" / "other").mkdir()
    (tmp_path / "my_conf" / "task").mkdir(parents=True)
    (tmp_path / "my_conf" / "task" / "mine.yaml").write_text("# @package _global_\ntask: {name: mine, _target_: a.b}\n")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(("line", "there", "not_there"), CANDIDATES, ids=[line for line, _, _ in CANDIDATES])
def test_candidates(line, there, not_there):
    found = set(complete_line(line))
    assert there <= found
    assert not not_there & found


def test_the_candidates_are_printed(seedbed):
    assert seedbed("complete", "seedbed co") == (0, "compare\ncompletion\n", "")


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The command on the path, as a shell finds it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "seedbed").write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m runner.commands "$@"\n')
    (folder / "seedbed").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


BASH = """
source <(seedbed completion bash)
COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_seedbed_completion
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.slow
@pytest.mark.usefixtures("place", "script")
@pytest.mark.parametrize(
    ("line", "words", "expected"),
    [
        ("seedbed comp", "seedbed comp", "compare\ncompletion\n"),
        ("seedbed run task=mixed", "seedbed run task = mixed", "mixed_train\n"),  # bash ends words at =
        ("seedbed compare outputs/o", "seedbed compare outputs/o", "outputs/one\n"),
    ],
)
def test_bash_completes(line, words, expected):
    called = subprocess.run(["bash", "-c", BASH.format(line=line, words=words)], capture_output=True, text=True)
    assert (called.stdout, called.stderr) == (expected, "")


@pytest.mark.matrix
@pytest.mark.usefixtures("place", "script")
def test_fish_completes():
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    text = "seedbed completion fish | source; complete -C 'seedbed run task=mixed'"
    called = subprocess.run(["fish", "-c", text], capture_output=True, text=True)
    assert called.stdout.split() == ["task=mixed_train"]


@pytest.mark.matrix
@pytest.mark.usefixtures("place", "script")
def test_zsh_reads_the_script():
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    called = subprocess.run(
        ["zsh", "-fc", "source <(seedbed completion zsh); whence -w _seedbed"], capture_output=True, text=True
    )
    assert called.stdout == "_seedbed: function\n", called.stderr


def test_a_message_fits_the_terminal_and_its_command_stays_whole(monkeypatch):
    message, command = "error: " + "word " * 30 + "resume with: ", "python -m runner -m " + "key=value " * 12
    assert fit_message(message + command, command) == message + command  # no terminal: one line
    monkeypatch.setattr(output.sys, "stderr", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setenv("COLUMNS", "80")
    *lines, last = fit_message(message + command, command).split("\n")
    assert max(map(len, lines)) <= 80
    assert last == f"  {command}"
    assert " ".join(lines).split() == message.split()


def call_on_a_terminal(*arguments, cwd, **variables):
    """The output of a command on a terminal of 80 columns."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "80"}
    environment |= {"HYDRA_FULL_ERROR": "0", **variables}
    call = [sys.executable, "-m", "runner.commands", *arguments]
    process = subprocess.Popen(call, cwd=cwd, env=environment, stdout=follower, stderr=follower, stdin=follower)
    os.close(follower)
    parts = []
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # its end, on Linux
            break
        if not part:
            break
        parts.append(part)
    process.wait()
    os.close(leader)
    return b"".join(parts).decode().replace("\r\n", "\n")


@pytest.mark.matrix
def test_messages_on_a_terminal(tmp_path):
    shown = call_on_a_terminal("run", "foo=1", cwd=tmp_path, NO_COLOR="1")
    assert shown.startswith("error: task 'mixed_train' has no parameter 'foo'; it has: seed,")
    assert max(map(len, shown.splitlines())) <= 80
    table = call_on_a_terminal("run", "-m", "seed=range(0,3)", "lr=0.1,0.2", cwd=tmp_path, NO_COLOR="1")
    assert "mixed_train" in table
    assert not re.search(r"\x1b\[(3[0-7]|4[0-7]|9[0-7]|38|48)", table)
    for line in ESCAPES.sub("", table).split("\r")[-1].splitlines():
        assert len(line) <= 80 or line.startswith(("compare across seeds:", "keep the best run:")), line


@pytest.mark.slow
def test_off_a_terminal_there_are_no_escapes(runner):
    called = runner("-m", "seed=range(0,3)")
    assert "\x1b" not in called.out + called.err

"""Random command lines of Hydra's grammar and beyond it: each ends with an exit status, a message, and nothing else."""

import contextlib
import os
import random
import re
from pathlib import Path

import pytest

PLAIN_WORDS = r"""
0 1 -1 0.5 1e3 1e999 nan -inf null true abc ü 日本 🙂 ? * 2**32 99999999999999999999 0x10 1_000 a:b a=b $HOME ${seed}
${nothing} ${ % @ 'a' "a" 'a "a a'b \ \, .. a/b [] [1,2] [[1],[2,3]] [1 1] {} {a:1} {a:{b:[1]}} {a ( ) () 1,2 , 1,,2
range(2) range(0,3) range(3,0,-1) range(1) range(0,1,0.5) range(0,1,0) range(nan,3) range() choice(1,2) choice()
interval(0,1) glob(*) glob(li*) sort(2,1) shuffle(1,2) tag(a,choice(1)) int(1.5) float(2) str(3) bool(x) nope(1)
sort(range(3))
"""
ODD_WORDS = ["", " ", "a b", "\n", "\t", "\x00", "\x7f", "\ud800", "\u202e", "1" * 300, "a" * 300, "[" * 200]
WORDS = [*PLAIN_WORDS.split(), *ODD_WORDS]
PLAIN_KEYS = """
seed slope shift x x.shape x.fill x.values x.dtype x.seed x.file x.foo task task.name task._target_ task.outputs
task.metrics task.eager task@foo experiment experiment@a:b study lanes block threads overwrite report on_mismatch sweep
sweep.part hydra hydra.mode hydra.verbose hydra.job hydra.run.dir hydra.sweep.dir hydra.sweep.subdir hydra.sweeper.zip
hydra.sweeper.params hydra.output_subdir hydra.job.chdir hydra.job.name hydra.callbacks hydra.searchpath hydra/launcher
cores_per_run
hydra/sweeper hydra/job_logging hydra/hydra_logging hydra.launcher hydra.help hydra.runtime.output_dir hydra.overrides
foo a.b.c ü . seed. 1 _target_
"""
KEYS = [*PLAIN_KEYS.split(), ""]
VALID = {
    "seed": [
        "0",
        "7",
        "1,2",
        "range(0,3)",
        "range(5)",
        "sort(3,1,2)",
        "choice(1,4)",
        "4294967295",
        "shuffle(range(4))",
    ],
    "slope": ["1", "0.5", "-2e-3", "0.1,0.2", "${seed}", "range(0,1,0.25)", "'2'", "float(1)"],
    "x.shape": ["[2]", "[2,3]", "[1],[2]", "[]"],
    "x.fill": ["normal", "ones,zeros", "'uniform'"],
    "x.values": ["[1,2]", "[[1,2],[3,4]]", "null"],
    "study": ["mine", "a b", "ü", "'x y'", "${task.name}_1", "1", "a,b"],
    "hydra.run.dir": ["out", "out/${study}", "."],
    "hydra.sweep.dir": ["out", "out/${study}/x", "."],
    "lanes": ["1", "auto", "3"],
    "block": ["2", "auto"],
    "threads": ["1"],
    "on_mismatch": ["fork", "accept", "refuse"],
    "overwrite": ["true"],
    "report": ["false"],
    "hydra.verbose": ["false", "[nothing]"],
    "hydra.job.chdir": ["true", "false"],
    "hydra.sweeper.zip": ["[seed,slope]", "[[seed,slope]]"],
    "hydra.sweeper.shards": ["1", "0"],
    "hydra/job_logging": ["none", "stdout", "default"],
}
TASKS = ["line", "pair", "divide", "grade", "words", "noisy", "constant", "apply", "line,pair", "nope", "glob(li*)"]
PLAIN_FLAGS = """
-m;--multirun;--run;--cfg job;-c all;--resolve;--help;--version;--hydra-help;--package x;-p nope;--foo;-x;--;-;--cfg;-sc
--config-name nope;--config-path nope;--experimental-rerun x;seed;=;~
"""
FLAGS = [flag.split() for flag in re.split("[;\n]", PLAIN_FLAGS.strip())]
ALLOWED = re.compile(r"error: [^\n]+\n|package '[^\n]*' not found in config\n|")


def draw_value(source):
    if source.random() < 0.2:
        return ",".join(source.choices(WORDS, k=source.randint(2, 3)))
    if source.random() < 0.1:
        return f"[{','.join(source.choices(WORDS, k=source.randint(0, 3)))}]"
    return source.choice(WORDS)


def draw_line(source):
    """A command line that runs little: a toy task, a few overrides, mostly a dry run."""
    parts = [[f"task={source.choice(TASKS)}"]] if source.random() < 0.2 else [["task=line"]]
    parts += [["-m"]] if source.random() < 0.5 else []
    for _ in range(source.choice([0, 1, 1, 2, 3])):
        key = source.choice(list(VALID))
        parts.append([f"{key}={source.choice(VALID[key])}"])
    for _ in range(source.choice([0, 0, 1, 1, 2])):
        prefix = source.choice(["", "", "", "", "", "+", "++", "~"])
        equals = "=" if source.random() < 0.97 else ""
        parts.append([f"{prefix}{source.choice(KEYS)}{equals}{draw_value(source)}"])
    parts += [source.choice(FLAGS)] if source.random() < 0.1 else []
    parts += [["dry_run=true"]] if source.random() < 0.85 else []
    source.shuffle(parts)
    return [word for part in parts for word in part]


def find_fault(called, left):
    """What is wrong with how a command line ended, if anything is."""
    if called.status not in (0, 1, 2):
        return f"exit status {called.status}"
    if not ALLOWED.fullmatch(called.err):
        return "more than a message on standard error"
    if called.status == 2 and (left or not called.err):
        return f"left {left}"
    return None


def call_in(folder, toy, arguments):
    """Calls the command in an empty folder: how it ended, and what it left there."""
    folder.mkdir()
    with contextlib.chdir(folder):
        called = toy(*arguments)
        left = sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))
    return called, left


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "lines"), [(7, 15), pytest.param(7, 120, marks=pytest.mark.matrix)])
def test_random_command_lines_end_with_a_status_and_a_message(toy, tmp_path, monkeypatch, seed, lines):
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    source, faults = random.Random(seed), []
    for number in range(lines):
        arguments = draw_line(source)
        called, left = call_in(tmp_path / str(number), toy, arguments)
        if fault := find_fault(called, left):
            faults.append((fault, arguments, called.err))
    assert faults == []

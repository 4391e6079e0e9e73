"""Random command lines of Hydra's grammar and beyond it: each ends with an exit status, a message, and nothing else."""

import contextlib
import os
import random
import re
from pathlib import Path

LINES = 150
WORDS = [
    *(
        "0",
        "1",
        "-1",
        "0.5",
        "1e3",
        "1e999",
        "nan",
        "-inf",
        "null",
        "true",
        "abc",
        "ü",
        "日本",
        "",
        " ",
        "a b",
        "?",
        "*",
    ),
    *("2**32", "99999999999999999999", "0x10", "1_000", "a:b", "a=b", "$HOME", "${seed}", "${nothing}", "${", "%", "@"),
    *("'a'", '"a"', "'a", '"a', "a'b", "\\", "\\,", "..", "a/b", "\n", "\t", "\x00", "\x7f", "\ud800", "\u202e", "🙂"),
    *("[]", "[1,2]", "[[1],[2,3]]", "[1", "1]", "{}", "{a:1}", "{a:{b:[1]}}", "{a", "(", ")", "()", "1,2", ",", "1,,2"),
    *(
        "range(2)",
        "range(0,3)",
        "range(3,0,-1)",
        "range(1)",
        "range(0,1,0.5)",
        "range(0,1,0)",
        "range(nan,3)",
        "range()",
    ),
    *(
        "choice(1,2)",
        "choice()",
        "interval(0,1)",
        "glob(*)",
        "glob(li*)",
        "sort(2,1)",
        "shuffle(1,2)",
        "tag(a,choice(1))",
    ),
    *("int(1.5)", "float(2)", "str(3)", "bool(x)", "nope(1)", "sort(range(3))", "1" * 300, "a" * 300, "[" * 200),
]
KEYS = [
    *(
        "seed",
        "slope",
        "shift",
        "x",
        "x.shape",
        "x.fill",
        "x.values",
        "x.dtype",
        "x.seed",
        "x.file",
        "task",
        "task.name",
    ),
    *(
        "task._target_",
        "task.outputs",
        "task.metrics",
        "task.eager",
        "experiment",
        "study",
        "lanes",
        "block",
        "threads",
    ),
    *("overwrite", "report", "on_mismatch", "sweep", "sweep.part", "hydra", "hydra.mode", "hydra.verbose", "hydra.job"),
    *("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.sweeper.zip", "hydra.sweeper.params"),
    *(
        "hydra.output_subdir",
        "hydra.job.chdir",
        "hydra.job.name",
        "hydra.callbacks",
        "hydra.searchpath",
        "hydra/launcher",
    ),
    *(
        "hydra/sweeper",
        "hydra/job_logging",
        "hydra/hydra_logging",
        "hydra.launcher",
        "hydra.help",
        "",
        "foo",
        "a.b.c",
        "ü",
    ),
    *(
        "x.foo",
        "task@foo",
        "experiment@a:b",
        ".",
        "seed.",
        "1",
        "_target_",
        "hydra.runtime.output_dir",
        "hydra.overrides",
    ),
]
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
    "hydra.sweeper.shards": ["1", "2"],
    "hydra/job_logging": ["none", "stdout", "default"],
}
TASKS = [
    "line",
    "line",
    "pair",
    "divide",
    "grade",
    "words",
    "noisy",
    "constant",
    "apply",
    "line,pair",
    "nope",
    "glob(li*)",
]
FLAGS = [
    *(
        ["-m"],
        ["-m"],
        ["-m"],
        ["-m"],
        ["--multirun"],
        ["--run"],
        ["--cfg", "job"],
        ["-c", "all"],
        ["--resolve"],
        ["--help"],
    ),
    *(
        ["--version"],
        ["--hydra-help"],
        ["--package", "x"],
        ["-p", "nope"],
        ["--config-name", "nope"],
        ["--foo"],
        ["-x"],
    ),
    *(
        ["--"],
        ["-"],
        ["--cfg"],
        ["-sc"],
        ["--config-path", "nope"],
        ["--experimental-rerun", "x"],
        ["seed"],
        ["="],
        ["~"],
    ),
]
ALLOWED = re.compile(r"error: [^\n]+\n|package '[^\n]*' not found in config\n|")


def draw_value(random):
    if random.random() < 0.2:
        return ",".join(random.choices(WORDS, k=random.randint(2, 3)))
    if random.random() < 0.1:
        return f"[{','.join(random.choices(WORDS, k=random.randint(0, 3)))}]"
    return random.choice(WORDS)


def draw_line(random):
    """A command line that runs little: a toy task, a few overrides, mostly a dry run."""
    parts = [[f"task={random.choice(TASKS)}"]] if random.random() < 0.2 else [["task=line"]]
    parts += [["-m"]] if random.random() < 0.5 else []
    for _ in range(random.choice([0, 1, 1, 2, 3])):
        key = random.choice(list(VALID))
        parts.append([f"{key}={random.choice(VALID[key])}"])
    for _ in range(random.choice([0, 0, 1, 1, 2])):
        prefix = random.choice(["", "", "", "", "", "+", "++", "~"])
        parts.append([f"{prefix}{random.choice(KEYS)}{'=' if random.random() < 0.97 else ''}{draw_value(random)}"])
    if random.random() < 0.1:
        parts.append(random.choice(FLAGS))
    if random.random() < 0.85:
        parts.append(["dry_run=true"])
    random.shuffle(parts)
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


def test_random_command_lines_end_with_a_status_and_a_message(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    source, faults = random.Random(7), []
    for number in range(LINES):
        arguments = draw_line(source)
        called, left = call_in(tmp_path / str(number), toy, arguments)
        if fault := find_fault(called, left):
            faults.append((fault, arguments, called.err))
    assert faults == []

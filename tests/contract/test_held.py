"""Functions that are handed over as objects: where they are found, and when their code is another one."""

import copy
import datetime
import linecache
import sys
import types
from functools import partial

import jax
import numpy as np
import pandas as pd
import pytest
import toys

from runner.contract.held import is_held, locate_function, name_function
from runner.contract.loaded import check_loaded
from runner.contract.object_code import read_code
from runner.contract.task import load_function, load_task
from runner.errors import InvalidInputError

CELL = """
RATE = {rate}
TABLE = np.array({table})

def helper(x):
    return x * RATE + TABLE.sum()

class Scale:
    factor = {factor}
    def apply(self, x):
        return x * self.factor

def other(x):
    return x - {other}

def task(seed: int, x: float = {default}):
    inner = lambda y: helper(y)
    return Scale().apply(inner(x)) + seed{comment}
"""
SAME = {"rate": 2.0, "table": [1, 2], "factor": 3, "other": 1, "default": 1.0, "comment": ""}


def run_cell(**changed):
    """The task of a notebook's cell, as `__main__` would have it."""
    namespace = {"__name__": "__main__", "np": np}
    text = CELL.format(**{**SAME, **changed})
    name = f"<cell {hash(text)}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), namespace)
    return namespace["task"]


def test_the_same_cell_is_the_same_code():
    assert read_code(run_cell()) == read_code(run_cell())


@pytest.mark.parametrize(
    "changed",
    [{"rate": 2.5}, {"table": [1, 3]}, {"factor": 4}, {"default": 1.5}, {"comment": "  # why"}],
    ids=lambda changed: next(iter(changed)),
)
def test_what_the_function_uses_is_its_code(changed):
    assert read_code(run_cell(**changed)) != read_code(run_cell())


def test_what_it_does_not_use_is_not():
    assert read_code(run_cell(other=5)) == read_code(run_cell())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pd.DataFrame({"a": [1.0]}), pd.DataFrame({"b": [1.0]})),
        (pd.Series([1, 2]), pd.Series([1, 3])),
        (np.array(["a", None], object), np.array(["a", "b"], object)),
        (datetime.date(2026, 1, 1), datetime.date(2026, 1, 2)),
        ({"a": (1, 2)}, {"a": (1, 3)}),
        ({1, 2}, {1, 3}),
        (types.SimpleNamespace(rate=1), types.SimpleNamespace(rate=2)),
        (True, 1),
        (toys.line, toys.divide),
        (jax.random.key(0), jax.random.key(1)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_of_every_kind_count(one, other):
    def make(value):
        def task(seed: int):
            return value

        return task

    assert read_code(make(one)) == read_code(make(copy.deepcopy(one)))
    assert read_code(make(one)) != read_code(make(other))


def test_closures_and_arguments_count():
    def make(rate):
        def task(seed: int):
            return seed * rate

        return task

    assert read_code(make(1.0)) == read_code(make(1.0))
    assert read_code(make(1.0)) != read_code(make(2.0))
    assert read_code(partial(make(1.0), 3)) != read_code(partial(make(1.0), 4))
    assert read_code(jax.jit(make(1.0))) != read_code(jax.jit(make(2.0)))


def test_a_function_that_refers_to_itself():
    def count(seed: int):
        return [count, seed]

    assert read_code(count)


def test_code_without_a_source_is_known_by_what_it_does():
    def define(text):
        namespace = {"__name__": "__main__"}
        exec(text, namespace)
        return namespace["f"]

    assert read_code(define("def f(seed): return seed + 1")) == read_code(define("\n\ndef f(seed): return seed + 1"))
    assert read_code(define("def f(seed): return seed + 1")) != read_code(define("def f(seed): return seed + 2"))


def test_a_function_of_a_module_keeps_its_path():
    assert locate_function(toys.line) == "toys.line"
    assert not is_held("toys.line")


def test_others_are_held():
    target = locate_function(task := run_cell())
    assert is_held(target)
    assert load_function(load_task("own", target, ())) is task
    assert name_function(lambda seed: seed) == "task"
    assert name_function(partial(toys.line, slope=1.0)) == "line"
    assert is_held(locate_function(partial(toys.line, slope=1.0)))


def test_a_module_that_was_changed_after_its_import(lab, tmp_path):
    lab({"my_lab.py": "RATE = 0.5\nLOG = []\n\ndef task(seed: int):\n    return seed * RATE\n"})
    import my_lab

    task = load_task("mine", "my_lab.task", ())
    my_lab.LOG.append("used")
    check_loaded(task)
    for text in (
        "RATE = 0.7\n\ndef task(seed: int):\n    return seed * RATE\n",
        "RATE = 0.5\n\ndef task(seed: int):\n    return seed + RATE\n",
    ):
        (tmp_path / "my_lab.py").write_text(text)
        with pytest.raises(InvalidInputError, match=r"importlib\.reload\(my_lab\), or restart the kernel"):
            check_loaded(task)
    (tmp_path / "my_lab.py").write_text("# moved\nRATE = 0.5\n\n\ndef task(seed: int):\n    return seed * RATE\n")
    check_loaded(task)


def test_modules_that_others_have_compiled_are_not_judged(monkeypatch, lab, tmp_path):
    """pytest, coverage and others rewrite what they import."""
    lab({"my_lab.py": "def task(seed: int):\n    return seed\n"})
    module = types.ModuleType("my_lab")
    exec(compile("def task(seed: int):\n    return seed + 1\n", str(tmp_path / "my_lab.py"), "exec"), vars(module))
    monkeypatch.setitem(sys.modules, "my_lab", module)
    check_loaded(load_task("mine", "my_lab.task", ()))

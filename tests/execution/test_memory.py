"""Groups that fit neither into the memory nor into XLA, and tables that do not fit onto the disk."""

from collections import namedtuple

import jax
import pandas as pd
import pytest
import toys
from conftest import PATIENCE, start_command

from runner import pipeline, program
from runner.program import devices, executable


@pytest.mark.matrix
def test_a_group_that_would_make_xla_abort_costs_only_its_own_runs(tmp_path):
    process = start_command(tmp_path, "-m", "task=mixed_train", "hidden=4,2147483648", "study=mine")
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, errors
    frame = pd.read_csv(tmp_path / "outputs/mine/results.csv")
    assert frame["status"].tolist() == ["ok", "failed"]
    assert frame["reason"][1].endswith("an axis of 2,147,483,648 elements; XLA takes at most 2,147,483,647")


def test_an_axis_that_is_too_long_for_xla_is_refused(toy):
    called = toy("-m", "task=constant", "size=2147483648", "block=1")
    assert called.status == 2
    assert "task 'constant' with size=2147483648: an array has an axis of 2,147,483,648 elements" in called.err


def test_a_group_that_exceeds_the_memory_of_the_machine_costs_only_its_own_runs(toy, monkeypatch):
    """It is known before it is executed: the system kills a process that uses more than there is."""
    for module in (executable, program):
        monkeypatch.setattr(module, "count_memory", lambda: 50_000)
    called = toy("-m", "task=constant", "size=2,100000", "study=mine")
    assert called.status == 1
    assert called.frame["status"].tolist() == ["ok", "failed"]
    assert "bytes for 1 run: OutOfMemoryError: they exceed the memory of this machine" in called.frame["reason"][1]
    assert "50,000" not in called.csv.decode()
    assert "warning: group 1 (constant size=100000) is estimated to take" in called.err
    assert "the memory has 50,000 bytes" in called.err


@pytest.mark.matrix
def test_large_sizes_that_fit_are_executed(runner):
    called = runner("task=mixed_train", "hidden=1000000")
    assert (called.status, called.err) == (0, "")


def test_the_memory_is_that_of_the_machine_or_of_the_container(tmp_path):
    whole = devices._count_machine_memory()
    assert whole > 2**28
    assert program.count_memory() <= whole
    limit = tmp_path / "memory.max"
    assert devices._read_number(limit) is None
    limit.write_text("max\n")
    assert devices._read_number(limit) is None
    limit.write_text("1073741824\n")
    assert devices._read_number(limit) == 2**30


def test_a_table_that_exceeds_the_free_disk_space_is_told_before_it_begins(toy, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(pipeline.shutil, "disk_usage", lambda path: usage(1000))
    called = toy("-m", "task=line", "seed=range(0,20)")
    assert called.status == 0
    assert "warning: results.csv is estimated to grow by 1.8 kB; the disk has 1 kB left" in called.err
    assert toy("-m", "task=line", "seed=range(0,2)").err == ""


@pytest.mark.parametrize("by", ["debug", *(pytest.param(by, marks=pytest.mark.matrix) for by in ("pure", "io"))])
def test_a_callback_is_called_once_for_each_run(toy, by):
    toys.CALLS.clear()
    called = toy("-m", "task=calls", f"by={by}", "seed=5,7,9")
    jax.effects_barrier()
    assert called.frame["heard"].tolist() == [5, 7, 9]
    assert sorted(toys.CALLS) == [5, 7, 9]


def test_what_a_task_prints_is_printed_once_for_each_run(toy):
    called = toy("-m", "task=calls", "by=print", "seed=5,7,9")
    assert sorted(line for line in called.out.splitlines() if line.startswith("seed")) == ["seed 5", "seed 7", "seed 9"]

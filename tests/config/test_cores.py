"""The cores of a run: one thread of XLA's pool, unless the call asks for more."""

import json
import os
import subprocess
import sys

import jax
import jaxlib
import pandas as pd
import pytest
from conftest import PATIENCE, ROOT, start_command

from runner import program
from runner.config.cores import VARIABLES
from runner.program import devices

SLOW = pytest.mark.slow


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """The variables as the tests began with; what a call sets is undone."""
    for name in VARIABLES:
        monkeypatch.setenv(name, os.environ.get(name, "1"))


@pytest.mark.matrix
@pytest.mark.skipif(not jaxlib.__version__.startswith("0.10."), reason="hangs with jaxlib 0.10 only")
def test_a_task_that_hangs_in_a_pool_of_several_threads_returns(tmp_path, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name)
    process = start_command(tmp_path, "-m", "task=recurrent", "seed=range(0,2000)", "lanes=16", "study=mine")
    try:
        _, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert process.returncode == 0, err
    assert len(pd.read_csv(tmp_path / "outputs/mine/results.csv")) == 2000


def run_on(cores, place, *arguments):
    """The table of a study in a process that may use these cores."""
    place.mkdir()
    code = f"import os, runpy; os.sched_setaffinity(0, {cores}); runpy.run_module('runner', run_name='__main__')"
    conf = ["--config-dir", str(ROOT / "tests" / "conf"), "task=reduce", "study=mine", *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment["PYTHONPATH"] = f"{ROOT}:{ROOT / 'tests'}"
    done = subprocess.run(
        [sys.executable, "-c", code, *conf],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((place / "outputs/mine/study.json").read_text())
    return (place / "outputs/mine/results.csv").read_bytes(), record["fingerprint"]["cores_per_run"]


@pytest.mark.matrix
@SLOW
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not bind processes to cores")
def test_the_bits_do_not_depend_on_the_cores_of_the_machine(tmp_path):
    all_cores = os.sched_getaffinity(0)
    one = run_on({min(all_cores)}, tmp_path / "one")
    assert run_on(all_cores, tmp_path / "all") == one
    table, cores = run_on(all_cores, tmp_path / "divided", "cores_per_run=4")
    assert (one[1], cores) == (1, 4)
    assert table != one[0]


@pytest.mark.skipif(program.count_pool() is None, reason="the system does not name threads")
def test_the_study_records_the_pool_that_there_is(toy):
    """In a process in which JAX has started, its pool stays as it is."""
    called = toy("task=line", "cores_per_run=3", "study=mine")
    assert called.status == 0
    assert called.err == (
        "warning: NPROC=1 has no effect: cores_per_run=3 decides how many threads XLA's pool has\n"
        "warning: XLA's pool has 1 thread in this process, in which JAX had started before, and not cores_per_run=3; "
        "the study records 1\n"
    )
    assert json.loads((called.folder / "study.json").read_text())["fingerprint"]["cores_per_run"] == 1
    assert toy("task=line", "cores_per_run=3", "study=mine").status == 0


def test_a_study_with_other_cores_for_a_run_is_another_one(toy):
    folder = toy("task=line", "study=mine").folder
    record = json.loads((folder / "study.json").read_text())
    record["fingerprint"]["cores_per_run"] = 2
    (folder / "study.json").write_text(json.dumps(record))
    called = toy("task=line", "study=mine")
    assert called.status == 2
    assert "is another study: cores_per_run was 2, is 1. Options: " in called.err
    del record["fingerprint"]["cores_per_run"]
    (folder / "study.json").write_text(json.dumps(record))
    assert toy("task=line", "study=mine", "seed=1").status == 0
    assert json.loads((folder / "study.json").read_text())["fingerprint"]["cores_per_run"] == 1


def test_runs_do_not_wait_for_one_another_in_the_pool(toy):
    """The pool would execute one program at a time: the runner's threads do it, and hand no part of a run to it."""
    assert toy("task=line").status == 0
    assert jax.config.values["jax_cpu_enable_async_dispatch"] is False
    expected = {"xla_cpu_multi_thread_eigen": False} if program.count_pool() == 1 else {}
    assert devices.list_compiler_options() == expected


def test_a_variable_that_contradicts_is_told(toy, monkeypatch):
    monkeypatch.setenv("NPROC", "8")
    called = toy("task=line")
    told = "warning: NPROC=8 has no effect: cores_per_run=1 decides how many threads XLA's pool has\n"
    assert (called.status, called.err) == (0, told)


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "auto", "null", "[1]"])
def test_cores_that_are_no_count_are_refused(toy, given):
    called = toy("task=line", f"cores_per_run={given}")
    assert (called.status, called.folder) == (2, None)
    assert "cores_per_run must be a positive integer, got " in called.err


def test_threads_are_the_cores_divided_by_those_of_a_run(monkeypatch):
    from runner.execution.schedule import make_schedule
    from runner.plan.pending import PendingRuns
    from runner.plan.segments import Plan

    monkeypatch.setattr(program, "count_cores", lambda: 9)
    for cores, threads in [(1, 9), (2, 4), (4, 2), (16, 1)]:
        schedule = make_schedule(Plan((), cores_per_run=cores), PendingRuns(None, [], 0, []), is_resumed=True)
        assert schedule.threads == threads


def test_few_large_runs_are_told_of_the_setting(toy, monkeypatch):
    monkeypatch.setattr(program, "count_cores", lambda: 8)
    assert "cores_per_run" not in toy("-m", "task=line", "seed=0,1").out
    monkeypatch.setattr(program, "is_large", lambda traced: True)
    assert (
        "2 large runs and 8 cores: cores_per_run=4 divides each run among several"
        in toy("-m", "task=line", "seed=0,1").out
    )
    assert "cores_per_run" not in toy("-m", "task=line", "seed=range(0,8)").out

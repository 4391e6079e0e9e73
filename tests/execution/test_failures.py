"""What fails: a run by itself, which is a result, and the surroundings, which are none."""

import json
import os
import time

import jax
import pytest
import toys

import runner
from runner import program
from runner.program import cache, devices
from runner.storage.checksums import read_records
from runner.storage.folder import Folder
from runner.storage.writer import SYNC_SECONDS

pytestmark = pytest.mark.slow

SWEEP = ("-m", "task=fragile", "slope=1,2", "seed=range(0,6)", "study=mine")


@pytest.fixture(autouse=True)
def _healthy():
    toys.BROKEN.clear()
    yield
    toys.BROKEN.clear()


@pytest.mark.parametrize("lanes", ["auto", pytest.param("4", marks=pytest.mark.matrix)])
def test_a_run_that_fails_costs_none_of_its_neighbours(toy, lanes):
    toys.BROKEN.update({3})
    called = toy(*SWEEP, f"lanes={lanes}")
    frame = called.frame
    assert called.status == 1
    assert frame["status"].tolist() == (["ok"] * 3 + ["failed"] + ["ok"] * 2) * 2
    assert frame["reason"].dropna().unique().tolist() == ["ValueError: seed 3 is broken"]
    assert frame["value"].dropna().tolist() == [0, 1, 2, 4, 5, 0, 2, 4, 8, 10]
    assert "2 of 12 runs have no result: ValueError: seed 3 is broken; execute them once more with: " in called.err
    assert called.err.rstrip().endswith("study=mine retry=failed")


@pytest.mark.matrix
def test_a_study_with_failed_runs_says_so_at_every_call(toy):
    toys.BROKEN.update({3})
    first = toy(*SWEEP)
    toys.BROKEN.clear()
    again = toy(*SWEEP)
    assert (again.status, again.err) == (1, first.err)
    assert "12 of them already there" in again.out


def test_failed_runs_are_executed_once_more_and_their_last_row_counts(toy):
    whole = toy(*[argument.replace("mine", "whole") for argument in SWEEP])
    toys.BROKEN.update({3, 5})
    first = toy(*SWEEP)
    before, folder = first.csv, first.folder
    toys.BROKEN.discard(3)
    again = toy(*SWEEP, "retry=failed")
    assert again.status == 1
    assert first.csv.startswith(before)
    assert first.frame["run"].tolist() == [*range(12), 3, 5, 9, 11]
    assert first.frame["status"].tolist()[12:] == ["ok", "failed", "ok", "failed"]
    assert "2 of 12 runs have no result" in again.err
    toys.BROKEN.clear()
    last = toy(*SWEEP, "retry=failed")
    assert (last.status, last.err) == (0, "")
    assert toy(*SWEEP, "retry=failed").status == 0
    frame = runner.read(folder)
    assert frame.equals(runner.read(whole.folder))
    assert len(first.frame) == 18
    compared = [runner.compare_studies([path]).points for path in (folder, whole.folder)]
    assert compared[0].equals(compared[1])
    assert toy(*SWEEP).out.splitlines()[:-2] == toy(*SWEEP[:-1], "study=whole").out.splitlines()[:-2]


@pytest.mark.matrix
def test_a_study_that_has_repeated_runs_is_extended_and_resumed(toy):
    toys.BROKEN.update({1})
    folder = toy(*SWEEP).folder
    toys.BROKEN.clear()
    toy(*SWEEP, "retry=failed")
    more = ("-m", "task=fragile", "slope=1,2,3", "seed=range(0,6)", "study=mine")
    assert toy(*more).status == 0
    content = (folder / "results.csv").read_bytes()
    lines = content.splitlines(keepends=True)
    assert len(lines) == 1 + 12 + 2 + 6
    (folder / "results.csv").write_bytes(b"".join(lines[:17]))
    assert toy(*more).status == 0
    assert (folder / "results.csv").read_bytes() == content
    (folder / "results.csv").write_bytes(b"".join(lines[:14]))  # one of two repeated rows is lost
    assert toy(*more).status == 1
    assert toy(*more, "retry=failed").status == 0
    frame = runner.read(folder)
    assert frame["run"].tolist() == list(range(18))
    assert frame["value"].tolist() == (frame["slope"] * frame["seed"]).tolist()


def test_nonfinite_runs_are_executed_once_more_on_request(toy):
    first = toy("-m", "task=divide", "slope=0,1", "seed=0,1", "study=mine")
    again = toy("-m", "task=divide", "slope=0,1", "seed=0,1", "study=mine", "retry=nonfinite")
    assert (first.status, again.status) == (0, 0)
    assert first.frame["run"].tolist() == [0, 1, 2, 3, 0, 1]
    assert runner.read(first.folder)["status"].tolist() == ["nonfinite", "nonfinite", "ok", "ok"]


def test_runs_are_not_repeated_in_shards(toy):
    toys.BROKEN.update({1})
    toy(*SWEEP)
    called = toy(*SWEEP, "retry=failed", "hydra.sweeper.shards=2")
    assert (called.status, called.err.count("\n")) == (2, 1)
    assert "leave out hydra.sweeper.shards" in called.err


def test_a_retry_of_what_is_no_status_is_refused(toy):
    called = toy("task=line", "retry=ok")
    assert (called.status, called.err) == (2, "error: retry must be failed or nonfinite, got 'ok'\n")


@pytest.mark.parametrize("home", ["a file", pytest.param("no permission", marks=pytest.mark.matrix)])
def test_without_a_cache_the_runs_are_executed_all_the_same(toy, tmp_path, monkeypatch, home):
    place = tmp_path / "home"
    place.touch()
    if home == "no permission":
        monkeypatch.setattr(cache, "_make_folder", refuse_folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    called = toy("-m", "task=line", "shift=41,42", "study=mine")
    assert called.status == 0
    assert called.frame["status"].tolist() == ["ok", "ok"]
    assert called.err.startswith("warning: executables are not cached: ")
    assert called.err.count("\n") == 1


def refuse_folder(folder):
    raise PermissionError(13, "Permission denied", str(folder))


def test_a_disk_that_fails_is_no_result(toy, monkeypatch):
    def fail(description, device):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(program, "put_input", fail)
    called = toy("task=line", "study=mine")
    assert called.status == 1
    assert "Input/output error" in called.err
    assert len(called.frame) == 0
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("jax_default_prng_impl", "rbg", "setting jax_default_prng_impl was 'not set', is 'rbg'"),
        pytest.param(
            "jax_default_matmul_precision",
            "float32",
            "setting jax_default_matmul_precision was 'not set', is 'float32'",
            marks=pytest.mark.matrix,
        ),
        pytest.param("jax_enable_x64", True, "setting jax_enable_x64 was 'not set', is True", marks=pytest.mark.matrix),
    ],
)
def test_settings_of_jax_belong_to_the_study(toy, name, value, told):
    before = getattr(jax.config, name)
    toy("task=line", "study=mine")
    try:
        jax.config.update(name, value)
        called = toy("task=line", "study=mine", "seed=1")
        other = toy("task=line", "study=other")
    finally:
        jax.config.update(name, before)
    assert called.status == 2
    assert told in called.err
    assert json.loads((other.folder / "study.json").read_text())["fingerprint"]["settings"] == {name: value}
    back = toy("task=line", "study=other", "seed=1")
    assert back.status == 2
    assert f"setting {name} was {value!r}, is 'not set'" in back.err


def test_flags_of_xla_that_concern_numbers_are_settings(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4 --xla_cpu_enable_fast_math=true")
    assert devices.list_settings() == {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"}
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/tmp/x")
    assert devices.list_settings() == {}
    assert "XLA_FLAGS" in os.environ


def test_rows_are_on_disk_while_a_later_block_takes_long(toy, tmp_path, monkeypatch):
    table, seen = Folder(tmp_path / "outputs" / "mine"), []

    def wait_for_rows(seed):
        if seed == 1:
            until = time.monotonic() + 6 * SYNC_SECONDS
            while not seen and time.monotonic() < until:
                seen.extend([records] if len(records := read_records(table.checksums)) > 1 else [])
                time.sleep(0.05)

    monkeypatch.setattr(toys, "when_called", wait_for_rows)
    called = toy("-m", "task=fragile", "slope=1", "seed=0,1", "study=mine", "block=1", "threads=1")
    assert called.status == 0
    assert len(seen) == 1  # the header and the row of seed 0, while seed 1 was executed

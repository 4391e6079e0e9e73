"""Studies that are stopped, taken up again, extended, contradicted and fought over."""

import itertools
import json
import os
import random
import shutil
import signal
import sys
import time

import jax
import numpy as np
import pandas as pd
import pytest
from conftest import PATIENCE, start_command, wait_until
from jax.experimental.compilation_cache import compilation_cache

import runner
from runner import __main__ as command
from runner import pipeline, program, studies
from runner.errors import InvalidInputError
from runner.program import cache
from runner.storage.folder import Folder
from runner.storage.lock import is_locked, lock_folder

SWEEP = ("-m", "task=divide,line", "slope=0.5,3,0", "seed=range(0,40)", "study=mine")


def test_a_finished_study_is_summed_up_again_and_runs_nothing(toy):
    first = toy(*SWEEP)
    before = {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()}
    second = toy(*SWEEP)
    assert second.status == 0
    assert second.out.replace(", 240 of them already there", "") == first.out
    assert {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()} == before


@pytest.mark.matrix
def test_a_single_run_that_is_there_is_shown_as_before(toy):
    for task in ("task=divide", "task=noisy", "task=grade"):
        first = toy(task, "seed=3", f"study={task[5:]}")
        again = toy(task, "seed=3", f"study={task[5:]}")
        assert again.out.replace(", 1 of them already there", "") == first.out
    toy("-m", "task=divide", "seed=range(0,9)", "slope=1,2", "study=sweep")
    alone = toy("task=divide", "seed=7", "slope=2", "study=alone").out.splitlines()
    assert toy("task=divide", "seed=7", "slope=2", "study=sweep").out.splitlines()[:3] == alone[:3]


@pytest.mark.matrix
def test_a_table_cut_anywhere_grows_back_to_the_same_bytes(toy):
    whole = toy(*SWEEP)
    content, table = whole.csv, whole.folder / "results.csv"
    places = [0, 5, content.index(b"\n") + 1, *random.Random(0).sample(range(len(content)), 2), len(content) - 1]
    tails = (b"", b"\0" * 5000, b"\0\0\n12,")
    for place, tail in [*zip(places, itertools.cycle(tails), strict=False), *((places[3], tail) for tail in tails)]:
        table.write_bytes(content[:place] + tail)
        again = toy(*SWEEP)
        assert (again.status, again.err) == (0, "")
        assert table.read_bytes() == content
        torn = len(content[:place] + tail) - (content.rfind(b"\n", 0, place) + 1)
        assert (f"({torn:,} bytes)" in again.out) == (torn > 0)


@pytest.mark.matrix
def test_a_lost_table_is_made_again(toy):
    whole = toy(*SWEEP)
    content, table = whole.csv, whole.folder / "results.csv"
    table.unlink()
    toy(*SWEEP)
    assert table.read_bytes() == content


def test_more_seeds_and_values_extend_the_table(toy):
    first = toy("-m", "task=line", "slope=1,2", "seed=range(0,30)", "study=mine")
    content, table = first.csv, first.folder / "results.csv"
    second = toy("-m", "task=line", "slope=2,1,5", "seed=range(10,35)", "shift=0,7", "study=mine")
    assert second.status == 0
    assert table.read_bytes().startswith(content)
    frame = pd.read_csv(table)
    assert frame["run"].tolist() == list(range(len(frame)))
    runs = list(frame[["slope", "seed", "shift"]].itertuples(index=False, name=None))
    old = {(slope, seed, 0) for slope in (1, 2) for seed in range(30)}
    new = {(slope, seed, shift) for slope in (2, 1, 5) for seed in range(10, 35) for shift in (0, 7)}
    assert len(runs) == len(set(runs))
    assert set(runs) == old | new
    assert (frame["value"] == 4 * frame["slope"] + frame["shift"]).all()
    assert "150 runs in outputs/mine/results.csv, 40 of them already there" in second.out
    # the whole again, the first part again, a single run of it: all is there
    for again in (("slope=2,1,5", "seed=range(10,35)", "shift=0,7"), ("slope=1,2", "seed=range(0,30)")):
        assert "of them already there" in toy("-m", "task=line", *again, "study=mine").out
    assert "1 run in outputs/mine/results.csv, 1 of them" in toy("task=line", "slope=5", "seed=12", "study=mine").out
    assert len(pd.read_csv(table)) == len(frame)


def test_an_extension_that_is_cut_short_is_taken_up_by_another(toy):
    first = toy("-m", "task=line", "slope=1", "seed=range(0,20)", "study=mine")
    table = first.folder / "results.csv"
    toy("-m", "task=line", "slope=1,2", "seed=range(0,20)", "study=mine")
    lines = table.read_bytes().splitlines(keepends=True)
    table.write_bytes(b"".join(lines[:26]))
    toy("-m", "task=line", "slope=3", "seed=range(0,5)", "study=mine")
    toy("-m", "task=line", "slope=1,2", "seed=range(0,20)", "study=mine")
    frame = pd.read_csv(table)
    assert frame["slope"].tolist() == [1] * 20 + [2] * 5 + [3] * 5 + [2] * 15
    assert frame["run"].tolist() == list(range(45))


@pytest.mark.matrix
def test_an_extension_that_never_wrote_a_row_is_made_whole(toy):
    """Its record is there, and the last row of the table is a run of the new product, too."""
    first = toy("-m", "task=line", "slope=1,2", "seed=range(0,20)", "study=mine")
    before = first.csv
    more = ("-m", "task=line", "slope=1,2", "seed=range(0,30)", "shift=0,1", "study=mine")
    toy(*more)
    whole = first.csv
    for rows in (40, 41, 60):
        (first.folder / "results.csv").write_bytes(b"".join(whole.splitlines(keepends=True)[: 1 + rows]))
        assert toy(*more).status == 0
        assert first.csv == whole
    assert whole.startswith(before)
    assert len(first.frame) == 120


def test_the_summary_of_an_extension_is_that_of_all_its_runs(toy):
    toy("-m", "task=divide", "slope=2,0", "seed=range(0,5)", "study=mine")
    extended = toy("-m", "task=divide", "slope=2,0", "seed=range(0,9)", "study=mine").out
    fresh = toy("-m", "task=divide", "slope=2,0", "seed=range(0,9)", "study=other").out
    assert extended.splitlines()[:-2] == fresh.splitlines()[:-2]


CONTRADICTIONS = [
    (("x.fill=zeros",), "line: x.fill was 'ones', is 'zeros'"),
    (("x.shape=[7]",), "line: x.shape was [4], is [7]"),
    (("lanes=2",), "lanes was 'auto', is 2"),
    (("-m", "x.shape=[4],[7]"), "the table has no column x.shape; it has: seed, slope, shift"),
]


@pytest.mark.parametrize(("arguments", "message"), CONTRADICTIONS)
def test_what_contradicts_a_study_is_refused_with_both_sides(toy, arguments, message):
    first = toy("task=line", "study=mine")
    before = {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()}
    second = toy(*arguments, "task=line", "study=mine")
    assert second.status == 2
    assert message in second.err
    assert "Options: study=…, on_mismatch=fork" in second.err
    assert {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("label", "change"),
    [
        ("version of jax", {"versions": {"jax": "old"}}),
        ("code of task line", {"code": {"line": "old"}}),
        ("kind of device", {"device": "old"}),
    ],
)
def test_another_version_code_or_device_is_refused(toy, label, change):
    manifest = toy("task=line", "study=mine").folder / "study.json"
    data = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**data, "fingerprint": {**data["fingerprint"], **change}}))
    second = toy("task=line", "study=mine", "seed=1")
    assert second.status == 2
    assert f"{label} was 'old', is '" in second.err


def test_changed_code_is_another_code(tmp_path, toy, monkeypatch):
    module, conf = tmp_path / "lab_code.py", tmp_path / "my_conf" / "task"
    conf.mkdir(parents=True)
    (conf / "own.yaml").write_text("# @package _global_\ntask: {name: own, _target_: lab_code.own}\nseed: 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for body in ("1.0", "2.0"):
        module.write_text(f"import jax.numpy as jnp\ndef own(seed: int):\n    return jnp.float32({body})\n")
        called = toy("--config-dir", str(conf.parent), "hydra.searchpath=[]", "task=own", "study=mine")
    assert called.status == 2
    assert "code of task own was" in called.err


def test_a_fork_is_a_sibling_and_copies_nothing(toy, tmp_path):
    first = toy("task=line", "study=mine")
    second = toy("task=line", "study=mine", "x.shape=[7]", "on_mismatch=fork")
    assert second.status == 0
    assert second.folder.name == "mine.fork1"
    assert second.frame["value"].tolist() == [7]
    assert not (first.folder / ".holder.json").exists()
    assert first.frame["value"].tolist() == [4]


def test_the_lock_of_the_original_is_released_before_its_fork_runs(toy, tmp_path, monkeypatch):
    toy("task=line", "study=mine")
    locked, real = [], pipeline.execute_pending

    def execute(call, study, schedule):
        locked.append(is_locked(Folder(tmp_path / "outputs" / "mine")))
        return real(call, study, schedule)

    monkeypatch.setattr(pipeline, "execute_pending", execute)
    assert toy("task=line", "study=mine", "x.shape=[7]", "on_mismatch=fork").status == 0
    assert locked == [False]


def test_a_study_of_format_2_is_read_and_resumed(toy):
    """What version 0.1.0 wrote: names of the fingerprint were sentences."""
    sweep = ("-m", "task=divide,line", "slope=0.5,3", "seed=range(0,6)", "study=mine")
    folder = toy(*sweep).folder
    whole, manifest = (folder / "results.csv").read_bytes(), folder / "study.json"
    data = json.loads(manifest.read_text())
    taken = data.pop("fingerprint")
    facts = {f"the version of {name}": version for name, version in taken["versions"].items()}
    facts |= {"lanes": taken["lanes"], "the kind of device": taken["device"]}
    facts |= {f"the code of task {task}": digest for task, digest in taken["code"].items()}
    facts |= {f"{owner}: {name}": value for owner, own in taken["values"].items() for name, value in own.items()}
    indexes = [{**index, "parts": index["segments"]} for index in data.pop("indexes")]
    manifest.write_text(json.dumps({**data, "format": 2, "facts": facts, "extents": indexes}))
    (folder / "results.csv").write_bytes(b"".join(whole.splitlines(keepends=True)[:9]))
    assert len(runner.read(folder)) == 8
    again = toy(*sweep)
    assert (again.status, (folder / "results.csv").read_bytes()) == (0, whole)
    assert json.loads(manifest.read_text())["fingerprint"] == taken


def test_what_was_accepted_is_recorded(toy):
    first = toy("task=line", "study=mine")
    assert toy("task=line", "study=mine", "seed=1", "x.fill=zeros", "on_mismatch=accept").status == 0
    assert first.frame["value"].tolist() == [4, 0]
    assert json.loads((first.folder / "study.json").read_text())["accepted"] == ["line: x.fill was 'ones', is 'zeros'"]


def test_overwriting_moves_the_study_aside(toy, tmp_path):
    first = toy("task=line", "study=mine")
    content = first.csv
    second = toy("task=line", "study=mine", "slope=2", "overwrite=true")
    assert "mine.old1" in second.out
    assert (tmp_path / "outputs/mine.old1/results.csv").read_bytes() == content
    assert pd.read_csv(tmp_path / "outputs/mine/results.csv")["value"].tolist() == [8]


def test_what_is_asked_for_twice_is_run_once(toy):
    called = toy("-m", "task=line", "slope=1,2,1", "seed=3,3", "shift=0,0")
    assert "10 runs are duplicates of others, and are executed once" in called.out
    assert called.frame["slope"].tolist() == [1, 2]


def test_a_study_in_use_says_by_whom(toy, tmp_path):
    with lock_folder(Folder(tmp_path / "outputs" / "mine")):
        called = toy("task=line", "study=mine")
    assert called.status == 2
    assert f"outputs/mine is in use by process {os.getpid()} on " in called.err
    assert toy("task=line", "study=mine").status == 0


def test_a_damaged_record_is_told(toy):
    first = toy("task=line", "study=mine")
    (first.folder / "study.json").write_text("{")
    assert "study.json is damaged" in toy("task=line", "study=mine").err
    (first.folder / "study.json").unlink()
    assert "results.csv exists, but study.json beside it does not" in toy("task=line", "study=mine").err


@pytest.mark.matrix
def test_a_full_disk_is_taken_up_again(toy, monkeypatch):
    """A writer that fails once stands for a disk that is full for a while."""
    whole = toy(*SWEEP).csv
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 8:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    stopped = toy(*SWEEP[:-1], "study=other")
    assert stopped.status == 1
    assert "No space left on device" in stopped.err
    assert toy(*SWEEP[:-1], "study=other").status == 0
    assert (stopped.folder / "results.csv").read_bytes() == whole


def test_an_executable_that_a_kill_has_torn_is_replaced(tmp_path, monkeypatch, toy):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    command = ("task=line", "x.shape=[9]", "lanes=3", "study=mine", "overwrite=true")
    jax.clear_caches()
    compilation_cache.reset_cache()

    def call():
        jax.clear_caches()
        called = toy(*command)
        assert (called.status, called.err) == (0, "")
        return pd.read_csv(tmp_path / "outputs/mine/programs.csv")["cache_hit"].item()

    try:
        assert [call(), call()] == [False, True]
        entries = {path: path.read_bytes() for path in tmp_path.glob("cache/seedbed/*/*-cache")}
        torn = next(path for path in entries if path.name.startswith("jit_program"))
        torn.write_bytes(entries[torn][:1000])
        cache.remove_truncated_entries(torn.parent)
        assert not torn.exists()
        assert {path: path.read_bytes() for path in torn.parent.glob("*-cache")} == {
            path: content for path, content in entries.items() if path != torn
        }
        torn.write_bytes(entries[torn][:1000])
        assert [call(), call()] == [False, True]
    finally:
        compilation_cache.reset_cache()


def test_a_disk_that_refuses_is_a_failure_and_no_mistake(capsys):
    for error, status in ((OSError(30, "Read-only file system", "x"), 1), (NotADirectoryError(20, "No", "x"), 2)):
        with pytest.raises(SystemExit, match=str(status)):
            command.leave(error)
        assert f"error: cannot write x: {error.strerror}" in capsys.readouterr().err


@pytest.mark.matrix
def test_a_block_that_does_not_fit_the_memory_is_halved(toy, monkeypatch):
    expected = toy("-m", "task=line", "seed=range(0,200)", "lanes=8", "study=one").csv
    real = program.run_program

    def tight(made, *arguments):
        if made.traced.capacity > 32:
            raise program.OutOfMemoryError("RESOURCE_EXHAUSTED")
        return real(made, *arguments)

    monkeypatch.setattr(program, "run_program", tight)
    called = toy("-m", "task=line", "seed=range(0,200)", "lanes=8", "study=two")
    assert called.csv == expected
    assert pd.read_csv(called.folder / "programs.csv")["block"].tolist() == [32]
    monkeypatch.setattr(program, "run_program", lambda *_: (_ for _ in ()).throw(program.OutOfMemoryError("no room")))
    failed = toy("-m", "task=line", "seed=range(0,20)", "lanes=8", "study=three")
    assert failed.status == 1
    assert "memory cannot hold" in failed.err
    assert "bytes for 8 runs at once" in failed.err


LONG = ("-m", "task=line", "slope=range(0,10)", "seed=range(0,60000)", "study=long")


def finish(cwd):
    process = start_command(cwd, *LONG)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err


def wait_for_rows(cwd, process, size):
    table = cwd / "outputs" / "long" / "results.csv"
    assert wait_until(lambda: process.poll() is not None or (table.exists() and table.stat().st_size > size))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    place = tmp_path_factory.mktemp("whole")
    finish(place)
    return (place / "outputs" / "long" / "results.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.matrix)]
)
def test_a_signal_ends_at_a_block_and_the_same_command_goes_on(tmp_path, uninterrupted, number, status):
    process = start_command(tmp_path, *LONG)
    wait_for_rows(tmp_path, process, 1_000_000)
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == status, err
    assert "interrupted after" in err
    assert "resume with: " in err
    table = tmp_path / "outputs" / "long" / "results.csv"
    content = table.read_bytes()
    assert uninterrupted.startswith(content)
    assert content.endswith(b"\n")
    finish(tmp_path)
    assert table.read_bytes() == uninterrupted


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes", [(1_000_000,), pytest.param((0, 1, 3_000_000, 20_000_000), marks=pytest.mark.matrix)], ids=len
)
def test_kill_minus_nine_at_any_moment_loses_nothing(tmp_path, uninterrupted, sizes):
    chance = random.Random(1)
    for size in sizes:
        process = start_command(tmp_path, *LONG)
        wait_for_rows(tmp_path, process, size) if size else time.sleep(chance.uniform(0.5, 2.0))
        process.kill()
        process.communicate()
    finish(tmp_path)
    assert (tmp_path / "outputs" / "long" / "results.csv").read_bytes() == uninterrupted


def test_a_table_is_read_back_with_its_dtypes(toy):
    folder = toy("-m", "task=divide,words", "seed=0,4294967295", "study=mine").folder
    frame = runner.read(folder)
    assert frame["run"].tolist() == [0, 1, 2, 3]
    assert frame["seed"].dtype == np.uint32
    assert frame["seed"].tolist() == [0, 4294967295] * 2
    assert frame["quotient"].dtype == np.float32
    assert frame["matrix"][0].dtype == np.float32
    assert frame["matrix"][0].tolist() == [[1, 1], [1, 1]]
    assert frame["matrix"][2] is None or np.isnan(frame["matrix"][2])
    assert frame["mode"].tolist()[2:] == ["a, b"] * 2
    floats = toy("-m", "task=divide", "slope=0.1,3,1e-30,0", "study=other").folder
    frame = runner.read(floats)
    assert (frame["slope"] == np.float32([0.1, 3, 1e-30, 0])).all()
    with np.errstate(divide="ignore"):
        assert (frame["quotient"] == 1 / np.float32([0.1, 3, 1e-30, 0])).all()
    assert frame["half"].dtype == np.int32
    with pytest.raises(InvalidInputError, match="holds no study"):
        runner.read(folder.parent)


@pytest.mark.slow
@pytest.mark.matrix
def test_a_study_of_words_is_taken_up_extended_and_cut_in_shards(toy):
    command = ("-m", "task=grade", "modulus=5", "slope=1,2", "seed=range(0,30)")
    whole = toy(*command, "study=mine")
    assert "12 of 60 runs have no result" in whole.err
    content, table = whole.csv, whole.folder / "results.csv"
    lines = content.splitlines(keepends=True)
    for rows in (1, 4, 7, 8, 11, 12, 40):  # after each of the words, and within a row
        table.write_bytes(b"".join(lines[:rows]) + lines[rows][:-9])
        again = toy(*command, "study=mine")
        assert table.read_bytes() == content
        assert again.out.splitlines()[1:5] == whole.out.splitlines()[:4]
    cut = toy(*command, "study=cut", "hydra.sweeper.shards=3")
    assert cut.csv == content
    assert cut.out == whole.out.replace("/mine", "/cut")
    toy(*command[:-1], "seed=range(0,43)", "study=mine")
    toy(*command[:-1], "seed=range(0,43)", "study=cut", "hydra.sweeper.shards=2")
    assert table.read_bytes() == cut.csv


@pytest.mark.matrix
def test_the_summary_of_words_is_the_same_when_read_back(toy):
    """Also of a task that has none."""
    command = ("-m", "task=grade,divide", "slope=1,2", "study=mine")
    toy(*command, "seed=range(0,10)")
    extended, fresh = toy(*command, "seed=range(0,23)"), toy(*command[:-1], "seed=range(0,23)")
    assert "größer 5" not in fresh.out  # it is the fourth, and cut off
    assert '"" 6, identical 6, off by 1, "at most" 6, …' in fresh.out
    assert extended.out.splitlines()[:-2] == fresh.out.splitlines()[:-2]
    assert toy(*command, "seed=range(0,23)").out.splitlines()[:-2] == fresh.out.splitlines()[:-2]


def test_a_task_of_unnamed_outputs_has_no_words_read_back(toy):
    for _ in "ab":  # made, and read back
        lines = toy("-m", "task=grade,constant", "study=mine").out.splitlines()
        assert "identical 1" in lines[2]
        assert lines[3].split()[:2] == ["constant", "1"]
        assert "nan" not in lines[3]


def test_studies_are_listed(toy, tmp_path, monkeypatch, capsys):
    toy("-m", "task=divide", "slope=1,0", "seed=range(0,5)", "study=whole")
    half = toy("-m", "task=line", "shift=0,1", "seed=range(0,5)", "study=half").folder
    lines = (half / "results.csv").read_bytes().splitlines(keepends=True)
    (half / "results.csv").write_bytes(b"".join(lines[:8]) + b"7,line")
    broken = toy("task=line", "study=broken").folder
    (broken / "study.json").write_text("{")
    monkeypatch.setattr(sys, "argv", ["runner.studies"])
    capsys.readouterr()
    studies.main()
    listed = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()[2:]}
    assert listed["whole"][1:8] == ["divide", "slope:2", "seed:5", "10", "10", "5", "0"]
    assert listed["whole"][-1] == "complete"
    assert listed["half"][1:8] == ["line", "shift:2", "seed:5", "7", "10", "0", "0"]
    assert "unfinished:" in listed["half"]
    assert "damaged" in listed["broken"]
    monkeypatch.setattr(sys, "argv", ["runner.studies", "nowhere"])
    with pytest.raises(SystemExit, match="2"):
        studies.main()
    assert "there is no folder nowhere" in capsys.readouterr().err


@pytest.mark.matrix
def test_a_folder_that_vanishes_is_told(tmp_path):
    process = start_command(tmp_path, *LONG)
    wait_for_rows(tmp_path, process, 1_000_000)
    shutil.rmtree(tmp_path / "outputs" / "long")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "cannot append to" in err
    assert "the file was deleted" in err

"""Shards: the bytes of one process, whatever becomes of them."""

import json
import os
import random
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from conftest import PATIENCE, ROOT, start_command, wait_until
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from runner import program, studies
from runner.config import callers
from runner.config.callers import Caller
from runner.config.launch import BASIC_LAUNCHER, ShardLauncher
from runner.execution import shards
from runner.storage import lock
from runner.storage.checksums import sum_rows, sum_table, write_records
from runner.storage.folder import Folder

pytestmark = pytest.mark.slow

SWEEP = ("-m", "lanes=8", "task=divide,line", "slope=0.5,3,0", "seed=range(0,40)")
MORE = ("-m", "lanes=8", "task=divide,line", "slope=0.5,3,0,2", "seed=range(5,60)")
RUNS = 240


@pytest.fixture
def lose(monkeypatch):
    """Shards that fail when they have made so many blocks of eight runs: `lose({2: 1, 3: 0})`."""
    real, begun = shards.execute_part, []

    def fail(blocks):
        begun.clear()

        def make(plan, folder, numbers, *, stop, **rest):
            begun.append(numbers)
            count, left = len(begun), iter(range(blocks.get(len(begun), 10**9)))
            real(plan, folder, numbers, stop=lambda: next(left, None) is None, **rest)
            if count in blocks:
                raise RuntimeError(f"shard {count} was lost")

        monkeypatch.setattr(shards, "execute_part", make)

    return fail


@pytest.mark.parametrize("count", [2, pytest.param(5, marks=pytest.mark.matrix)])
def test_any_number_of_shards_gives_the_bytes_of_one(toy, count):
    whole = toy(*SWEEP, "study=whole")
    cut = toy(*SWEEP, "study=cut", f"hydra.sweeper.shards={count}")
    assert (cut.status, cut.err) == (0, "")
    assert cut.csv == whole.csv
    assert cut.out == whole.out.replace("/whole", "/cut")
    assert not (cut.folder / "parts").exists()
    assert pd.read_csv(cut.folder / "programs.csv")["runs"].sum() == RUNS
    assert len(json.loads((cut.folder / "environment.json").read_text())["shards"]) == count


@pytest.mark.matrix
def test_an_extension_in_shards_is_that_of_one_process(toy):
    whole = toy(*SWEEP, "study=whole")
    assert toy(*MORE, "study=whole").status == 0
    cut = toy(*SWEEP, "study=cut", "hydra.sweeper.shards=3")
    assert toy(*MORE, "study=cut", "hydra.sweeper.shards=4").status == 0
    assert cut.csv == whole.csv


@pytest.mark.matrix
@pytest.mark.parametrize("then", [(), ("hydra.sweeper.shards=3",)])
def test_a_lost_shard_costs_only_itself(toy, lose, then):
    whole = toy(*SWEEP, "study=whole")
    lose({1: 1, 3: 2, 4: 0})
    lost = toy(*SWEEP, "study=mine", "hydra.sweeper.shards=4", "block=8", "threads=1")
    assert lost.status == 1
    assert "runs are missing: shard 1 was lost; resume with: " in lost.err
    kept = [pd.read_csv(part / "results.csv") for part in sorted((lost.folder / "parts").glob("[0-9]*"))]
    assert [frame["run"].tolist()[0] for frame in kept] == [60, 120]
    assert len(kept[0]) == 60
    assert whole.csv.startswith(lost.csv)
    done = len(lost.frame) + sum(map(len, kept))

    lose({})
    assert f"{RUNS} runs in outputs/mine/results.csv, {done} of them" in toy(*SWEEP, "study=mine", *then).out
    assert lost.csv == whole.csv
    assert not (lost.folder / "parts").exists()


@pytest.mark.matrix
def test_parts_are_kept_for_their_own_sweep(toy, lose):
    lose({1: 0})
    lost = toy(*SWEEP, "study=mine", "hydra.sweeper.shards=3")
    other = toy(*MORE, "study=mine")
    assert other.status == 2
    assert (
        "has 160 runs of another sweep that are not in its table yet, because a shard was lost; finish it first: "
        in other.err
    )
    lose({})
    assert toy(*MORE, "study=mine", "overwrite=true").status == 0
    assert len(lost.frame) == 440


@pytest.mark.parametrize("content", [b"[]", pytest.param(b"\xff\xfe", marks=pytest.mark.matrix)])
@pytest.mark.matrix
def test_damaged_files_of_a_part_are_told_or_left_out(toy, lose, content):
    whole = toy(*SWEEP, "study=whole").csv
    lose({1: 0})
    lost = toy(*SWEEP, "study=mine", "hydra.sweeper.shards=3", "block=8")
    lose({})
    part = sorted((lost.folder / "parts").iterdir())[-1]
    for name in ("summary.json", "programs.csv"):
        (part / name).write_bytes(content)
    (lost.folder / "programs.csv").write_bytes(content)
    fingerprint = (part / "fingerprint.json").read_bytes()
    (part / "fingerprint.json").write_bytes(content)
    told = toy(*SWEEP, "study=mine")
    assert (told.status, told.err.count("\n")) == (2, 1)
    assert "fingerprint.json is damaged" in told.err
    (part / "fingerprint.json").write_bytes(fingerprint)
    assert toy(*SWEEP, "study=mine").status == 0
    assert lost.csv == whole


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.matrix)])
@pytest.mark.matrix
def test_a_merge_that_is_cut_anywhere_ends_with_the_same_bytes(toy, lose, seed):
    whole = toy(*SWEEP, "study=whole").csv
    lose({1: 0})
    lost = toy(*SWEEP, "study=mine", "hydra.sweeper.shards=4", "block=8")
    parts, table, chance = lost.folder / "parts", lost.folder / "results.csv", random.Random(seed)
    lines = whole.splitlines(keepends=True)
    first = parts / f"{0:012d}"
    first.mkdir()
    (first / "results.csv").write_bytes(b"".join(lines[:61]))
    write_records(first / "results.crc", sum_table(first / "results.csv"))
    torn = parts / f"{180:012d}" / "results.csv"
    torn.write_bytes(torn.read_bytes()[: chance.randrange(200, 2000)] + b"\0\0")
    # as if the table had taken in the first part, and some of the second, when it was killed
    cut = whole[: chance.randrange(len(lines[0]), len(b"".join(lines[:121])))]
    table.write_bytes(cut)
    write_records(lost.folder / "results.crc", sum_rows(cut[: cut.rfind(b"\n") + 1]))
    assert toy(*SWEEP, "study=mine").status == 0
    assert lost.csv == whole


@pytest.mark.matrix
def test_a_shard_on_another_device_does_not_mix_its_bits(toy, monkeypatch):
    seen = []

    def devices():
        seen.append(1)
        return ["cpu" if len(seen) < 8 else "H100"]

    monkeypatch.setattr(program, "describe_devices", devices)
    mixed = toy(*SWEEP, "study=mine", "hydra.sweeper.shards=3")
    assert mixed.status == 1
    assert "kind of device was 'cpu', is 'H100'" in mixed.err
    assert set(mixed.frame["run"]) < set(range(RUNS))
    again = toy(*SWEEP, "study=mine", "hydra.sweeper.shards=3")
    assert again.status == 2
    assert "kind of device was 'cpu', is 'H100'" in again.err
    assert toy(*SWEEP, "study=mine", "hydra.sweeper.shards=3", "on_mismatch=accept").status == 0
    record = json.loads((mixed.folder / "study.json").read_text())
    assert record["accepted"] == ["kind of device was 'cpu', is 'H100'"]
    assert len(mixed.frame) == RUNS


@pytest.mark.matrix
def test_a_group_that_cannot_be_built_has_its_rows_from_any_shard(toy):
    sweep = ("-m", "task=only_even", "size=2,3", "seed=range(0,10)")
    whole = toy(*sweep, "study=whole")
    assert whole.frame["status"].tolist() == ["ok"] * 10 + ["failed"] * 10
    cut = toy(*sweep, "study=cut", "hydra.sweeper.shards=4")
    assert (cut.status, cut.csv) == (1, whole.csv)
    assert cut.err.replace("study=cut", "study=whole") == whole.err
    content = whole.csv
    (whole.folder / "results.csv").write_bytes(content[: content.index(b"\n10,") + 1])
    again = toy(*sweep, "study=whole")
    assert (again.status, whole.csv) == (1, content)


@pytest.mark.matrix
def test_a_study_in_use_by_a_shard_says_so(toy, lose):
    lose({1: 0})
    lost = toy(*SWEEP, "study=mine", "hydra.sweeper.shards=3")
    with lock.lock_folder(Folder(lost.folder).part(80)):
        called = toy(*SWEEP, "study=mine")
    assert called.status == 2
    assert f"is in use by a shard, process {os.getpid()} on " in called.err


@pytest.mark.matrix
def test_the_rows_of_parts_are_listed(toy, lose, monkeypatch, capsys):
    lose({1: 0})
    toy(*SWEEP, "study=mine", "hydra.sweeper.shards=3")
    monkeypatch.setattr(sys, "argv", ["runner.studies"])
    capsys.readouterr()
    studies.main()
    assert "slope:3 seed:40   160    240" in capsys.readouterr().out


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "true", "many"])
def test_shards_that_are_no_count_are_refused(toy, given):
    called = toy(*SWEEP, f"hydra.sweeper.shards={given}")
    assert (called.status, called.folder) == (2, None)
    assert called.err.startswith("error: hydra.sweeper.shards must be a positive integer, got ")


@dataclass
class Launcher:
    """What shards need to know of a launcher."""

    target: str
    n_jobs: int | None = None

    def shards(self):
        return ShardLauncher(4, None, OmegaConf.create({"_target_": self.target, "n_jobs": self.n_jobs}), ())


@pytest.mark.parametrize(
    ("launcher", "expected"),
    [
        (Launcher("JoblibLauncher", -1), 2),
        (Launcher("JoblibLauncher", 2), 4),
        (Launcher("JoblibLauncher", 100), 2),
        (Launcher("LocalLauncher"), 2),
        (Launcher("hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"), None),
        (Launcher(BASIC_LAUNCHER), None),
    ],
)
def test_threads_are_shared_out_between_the_shards_of_a_machine(launcher, expected):
    assert launcher.shards().count_threads(4, cores=8) == expected
    assert launcher.shards().count_threads(4, cores=8, cores_per_run=2) == (expected and expected // 2)
    assert launcher.shards().count_threads(4, cores=1) in (1, None)


def test_the_slurm_launcher_is_composed():
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        made = compose(
            "config", ["hydra/launcher=slurm", "hydra.launcher.partition=gpu"], return_hydra_config=True
        ).hydra.launcher
    assert made._target_.endswith("SlurmLauncher")
    assert (made.array_parallelism, made.timeout_min, made.mem_gb, made.partition) == (64, 240, 16, "gpu")
    assert made.additional_parameters.requeue is True
    assert made.max_num_timeout > 0


LONG = ("-m", "task=line", "slope=range(0,10)", "seed=range(0,60000)", "study=long", "hydra.sweeper.shards=2")


def end_of(process):
    _, err = process.communicate(timeout=PATIENCE)
    return process.returncode, err


def is_held(cwd):
    folder = Folder(cwd / "outputs" / "long")
    return any(map(lock.is_locked, [folder, *folder.parts]))


def finish(cwd, *arguments):
    assert wait_until(lambda: not is_held(cwd))
    status, err = end_of(start_command(cwd, *arguments))
    assert status == 0, err


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    place = tmp_path_factory.mktemp("whole")
    finish(place, *LONG[:-1])
    return (place / "outputs" / "long" / "results.csv").read_bytes()


def wait_for_parts(cwd, process, size):
    """Until all of two shards have made some rows."""

    def are_there():
        tables = list(cwd.glob("outputs/long/parts/*/results.csv"))
        return process.poll() is not None or (len(tables) == 2 and min(t.stat().st_size for t in tables) > size)

    assert wait_until(are_there)


@pytest.mark.parametrize("launcher", ["joblib", pytest.param("submitit_local", marks=pytest.mark.matrix)])
@pytest.mark.matrix
def test_a_launcher_gives_the_same_bytes(tmp_path, whole, launcher):
    finish(tmp_path, *LONG, f"hydra/launcher={launcher}")
    assert (tmp_path / "outputs" / "long" / "results.csv").read_bytes() == whole


@pytest.mark.matrix
def test_ctrl_c_ends_the_shards_and_another_launcher_goes_on(tmp_path, whole):
    process = start_command(tmp_path, *LONG, "hydra/launcher=joblib")
    wait_for_parts(tmp_path, process, 100_000)
    process.send_signal(signal.SIGINT)
    status, err = end_of(process)
    assert status == 130, err
    assert "interrupted after" in err
    assert "resume with: " in err
    assert not is_held(tmp_path)
    finish(tmp_path, *LONG[:-1], "hydra.sweeper.shards=3")
    assert (tmp_path / "outputs" / "long" / "results.csv").read_bytes() == whole


@pytest.mark.matrix
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_shard_that_is_killed_costs_only_itself(tmp_path, whole, launcher):
    process = start_command(tmp_path, *LONG, f"hydra/launcher={launcher}")
    wait_for_parts(tmp_path, process, 100_000)
    second = sorted(tmp_path.glob("outputs/long/parts/[0-9]*"))[1]
    os.kill(json.loads((second / ".holder.json").read_text())["pid"], signal.SIGKILL)
    status, err = end_of(process)
    assert status == 1
    assert "runs are missing" in err
    finish(tmp_path, *LONG)
    assert (tmp_path / "outputs" / "long" / "results.csv").read_bytes() == whole


@pytest.mark.matrix
def test_kill_minus_nine_of_all_of_it_loses_nothing(tmp_path, whole):
    for size in (0, 100_000, 1_000_000):
        process = start_command(tmp_path, *LONG, "hydra/launcher=joblib")
        wait_for_parts(tmp_path, process, size)
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            pipe.close()
        assert wait_until(lambda: not is_held(tmp_path))  # shards that have lost their parent end on their own
    finish(tmp_path, *LONG)
    assert (tmp_path / "outputs" / "long" / "results.csv").read_bytes() == whole


def find_processes(cwd):
    """The other processes that work in a folder."""
    found: set[int] = set()
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            found |= {int(link.parent.name)} if link.readlink() == cwd else set()
    return found - {os.getpid()}


@pytest.mark.matrix
def test_workers_end_with_the_process_that_waits_for_them(tmp_path):
    """One is idle, the other is within a block that takes longer than anyone waits."""
    slow = (
        "-m",
        "task=loops",
        "start=1,16000000",
        "seed=range(0,2000)",
        "lanes=1",
        "study=long",
        "hydra.sweeper.shards=2",
    )
    process = start_command(tmp_path, *slow, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    first = tmp_path / "outputs" / "long" / "parts" / f"{0:012d}" / "summary.json"
    assert wait_until(lambda: first.exists() or process.poll() is not None)
    time.sleep(2)
    assert len(find_processes(tmp_path)) >= 3
    process.kill()  # its number stays taken until it is waited for
    wait_until(lambda: not find_processes(tmp_path))
    left = find_processes(tmp_path)
    for number in left - {process.pid}:  # they would hold the pipes
        os.kill(number, signal.SIGKILL)
    process.communicate()
    assert not left


def test_no_process_ends_that_is_no_worker(monkeypatch):
    started = []
    monkeypatch.setattr(callers, "_start_watching", lambda *given: started.append(given))
    host = socket.gethostname()
    for caller in (None, Caller("elsewhere", 1), Caller(host, os.getpid())):
        with callers.end_with(caller, Path(".end")):
            pass
        assert caller is None or not caller.is_gone()
    assert not started
    with callers.end_with(Caller(host, os.getppid()), Path(".end")):
        pass
    assert started == [(Caller(host, os.getppid()), os.getpid(), Path(".end"))]

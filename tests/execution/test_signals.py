"""Two signals: the first is honoured after the blocks under way, the second ends the call at once."""

import os
import signal
import subprocess
import time

import pandas as pd
import pytest
from conftest import PATIENCE, start_command, wait_until

from runner.execution.signals import ONE_SIGNAL_SECONDS, catch_signals
from runner.storage import lock
from runner.storage.checksums import count_covered, read_records
from runner.storage.folder import Folder

pytestmark = pytest.mark.slow

FIRST = "stopping after the blocks under way; a second Ctrl-C or SIGTERM ends the call at once\n"
ENDLESS, MINUTES = "-1", "16000000"
"""Starts from which `loops` counts for ever, and for so long that a block of 2,000 runs takes minutes."""
AT_ONCE = 1
"""Seconds within which a second signal ends a process."""


def sweep(last, *more):
    """Runs that take no time, and after them some that take as long as `last` says."""
    return "-m", "task=loops", f"start=1,2,{last}", "seed=range(0,2000)", "lanes=1", "block=1000", "study=mine", *more


def count_synced(place):
    """The bytes of the tables that are known to be on disk."""
    records = [*place.glob("outputs/mine/results.crc"), *place.glob("outputs/mine/parts/*/results.crc")]
    return sum(count_covered(read_records(path)) for path in records)


def wait_for_rows(place, process, rows):
    """Until the runs that take no time are synced, although those under way never return."""
    least = rows * len('100,"loops",100,1,0,"ok",')
    if not wait_until(lambda: process.poll() is not None or count_synced(place) > least):
        process.kill()
        raise AssertionError("the rows were not written")


def interrupt_twice(process, number):
    """The line after the first signal, and the seconds until the process ends after the second."""
    process.send_signal(number)
    line = process.stderr.readline()
    time.sleep(2 * ONE_SIGNAL_SECONDS)
    assert process.poll() is None
    started = time.monotonic()
    process.send_signal(number)
    process.wait(timeout=PATIENCE)
    return line, time.monotonic() - started


@pytest.mark.parametrize(
    ("last", "number"), [(ENDLESS, signal.SIGINT), pytest.param(MINUTES, signal.SIGTERM, marks=pytest.mark.matrix)]
)
def test_a_second_signal_ends_the_call_at_once(tmp_path, last, number):
    process = start_command(tmp_path, *sweep(last))
    wait_for_rows(tmp_path, process, 4000)
    line, seconds = interrupt_twice(process, number)
    process.communicate()
    assert line == FIRST
    assert (process.returncode, seconds < AT_ONCE) == (-number, True)
    check_resumption(tmp_path)


@pytest.mark.matrix
def test_a_second_signal_ends_shards_at_once(tmp_path):
    process = start_command(tmp_path, *sweep(ENDLESS, "hydra.sweeper.shards=2", "hydra/launcher=joblib"))
    wait_for_rows(tmp_path, process, 4000)
    line, seconds = interrupt_twice(process, signal.SIGINT)
    assert line == FIRST
    assert (process.returncode, seconds < AT_ONCE) == (-signal.SIGINT, True)
    folder = Folder(tmp_path / "outputs" / "mine")
    assert wait_until(lambda: not any(map(lock.is_locked, folder.parts)))
    process.communicate(timeout=PATIENCE)
    check_resumption(tmp_path)


def check_resumption(place):
    """The rows that were there are kept, and the study takes other runs, which end."""
    process = start_command(place, *sweep("3"))
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert "6,000 runs in outputs/mine/results.csv, 4,000 of them already there" in out
    frame = pd.read_csv(place / "outputs" / "mine" / "results.csv")
    assert frame.groupby("start").size().to_dict() == {1: 2000, 2: 2000, 3: 2000}
    assert (frame["end"] == 0).all()


def test_a_signal_that_is_sent_twice_within_a_moment_is_one():
    """As `timeout` does, which signals the process and its group."""
    calls, before = [], signal.getsignal(signal.SIGINT)  # ignored in a background process of a shell
    with catch_signals(lambda: calls.append(1)) as get_signal:
        sender = subprocess.Popen(["sh", "-c", f"kill -TERM {os.getpid()}; kill -TERM {os.getpid()}"])
        sender.wait()
        time.sleep(3 * ONE_SIGNAL_SECONDS)
        assert (get_signal(), calls) == (signal.SIGTERM, [1])
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is before

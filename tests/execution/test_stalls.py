"""Stalls are told, once for each group."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from runner.execution import stalls
from runner.execution.stalls import StallWatch, find_limit


@dataclass
class Piece:
    """A result, which took so many seconds."""

    ended: float
    started: float = 0.0


@pytest.mark.parametrize(("longest", "limit"), [(None, 600), (0.0, 60), (1.0, 60), (6.0, 60), (7.0, 70), (100.0, 1000)])
def test_the_limit_is_far_more_than_an_earlier_block_took_and_a_minute(longest, limit):
    assert find_limit(longest) == limit


def watch_blocks(monkeypatch, seconds):
    """A first block of so many seconds and a second one, of which a line is told or not."""
    monkeypatch.setattr(stalls, "POLL_SECONDS", 0.01)
    lines, told = [], threading.Event()

    def warn(line):
        lines.append(line)
        told.set()

    def work(delay):
        told.wait(delay)
        return [Piece(seconds)]

    watch = StallWatch(lambda signature: f"0 ({signature})", warn)
    with ThreadPoolExecutor(1) as workers:
        for delay in (0, 0.3, 0.3):
            watch.wait_for(watch.add("rnn", workers.submit(work, delay)))
    return lines


def test_a_stall_is_told_once_with_its_group_and_what_can_be_done(monkeypatch):
    monkeypatch.setattr(stalls, "LEAST_SECONDS", 0.05)
    lines = watch_blocks(monkeypatch, 0.004)
    assert len(lines) == 1
    assert lines[0].startswith("no block has returned for 0 s; the one waited for is of group 0 (rnn), ")
    assert "an earlier one took 0.0 s at most" in lines[0]
    assert "Ctrl-C stops after the blocks under way, a second one at once" in lines[0]


def test_blocks_that_take_as_long_as_earlier_ones_are_no_stall(monkeypatch):
    monkeypatch.setattr(stalls, "LEAST_SECONDS", 0.05)
    assert watch_blocks(monkeypatch, 1.0) == []


def test_others_that_return_meanwhile_are_no_stall(monkeypatch):
    monkeypatch.setattr(stalls, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(stalls, "FIRST_SECONDS", 0.15)
    lines, gates = [], [threading.Event() for _ in range(4)]
    watch = StallWatch(str, lines.append)
    with ThreadPoolExecutor(4) as workers:
        first, *others = [watch.add("a", workers.submit(lambda g=gate: g.wait() and [Piece(0)])) for gate in gates]
        for i, gate in enumerate([*gates[1:], gates[0]]):
            threading.Timer(0.1 * (i + 1), gate.set).start()
        watch.wait_for(first)
        assert lines == []
        for other in others:
            watch.wait_for(other)


def test_a_stall_of_a_study_is_a_warning(toy, monkeypatch):
    monkeypatch.setattr(stalls, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(stalls, "FIRST_SECONDS", 0.0)
    called = toy("-m", "task=line", "shift=77", "seed=range(0,3)")  # it is compiled for longer
    assert called.status == 0
    assert called.err.startswith(
        "warning: no block has returned for 0 s; the one waited for is of group 0 (line shift=77)"
    )
    assert "it is its first" in called.err

"""What the execution of each group cost: runs, failures, seconds, and its program."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from runner.execution.blocks import Result
from runner.execution.schedule import Schedule
from runner.execution.verification import Verification
from runner.program import Program


@dataclass(frozen=True)
class ProgramFacts:
    """What is told of a program once its executable is dropped; see `Program` and `TracedTask`."""

    lanes: int
    capacity: int
    bytes: int
    cache_hit: bool
    compile_seconds: float


def _note_facts(program: Program | None) -> ProgramFacts | None:
    if program is None:
        return None
    traced = program.traced
    return ProgramFacts(traced.lanes, traced.capacity, program.bytes, program.cache_hit, program.compile_seconds)


@dataclass(frozen=True)
class GroupStatistics:
    """The cost of a group so far; for `seconds`, until `ended`, at least one of its blocks was being executed."""

    runs: int = 0
    failed: int = 0
    seconds: float = 0.0
    ended: float = 0.0
    program: ProgramFacts | None = None
    reason: str | None = None

    def add(self, result: Result) -> "GroupStatistics":
        """The statistics with one more block; blocks come in the order in which they began."""
        runs = len(result.block)
        return GroupStatistics(
            self.runs + runs,
            self.failed + (runs if result.outputs is None else 0),
            self.seconds + max(0.0, result.ended - max(result.started, self.ended)),
            max(result.ended, self.ended),
            self._choose_facts(_note_facts(result.program)),
            self.reason or result.reason,
        )

    def _choose_facts(self, newer: ProgramFacts | None) -> ProgramFacts | None:
        """The facts of the first program, since others are copies of it, unless a smaller one has replaced it."""
        is_copy = self.program and newer and newer.capacity == self.program.capacity
        return self.program if is_copy else newer or self.program


@dataclass(frozen=True)
class Progress:
    """The statistics of all groups of a schedule, by signature."""

    schedule: Schedule
    groups: Mapping[str, GroupStatistics]

    @property
    def runs(self) -> int:
        return sum(group.runs for group in self.groups.values())

    @property
    def failed(self) -> int:
        return sum(group.failed for group in self.groups.values())

    @property
    def failures(self) -> Counter[str]:
        """The number of failed runs by the first reason of their group."""
        failures: Counter[str] = Counter()
        for group in self.groups.values():
            failures += Counter({group.reason or "": group.failed})
        return failures

    def add(self, result: Result) -> "Progress":
        """The statistics with one more block."""
        signature = self.schedule.plan.segments[result.block.segment].signature
        return Progress(self.schedule, {**self.groups, signature: self.groups[signature].add(result)})

    def program_rows(
        self, devices: Sequence[str], verified: Mapping[str, Verification] = MappingProxyType({})
    ) -> list[Sequence[Any]]:
        """The rows of `programs.csv`; `devices` are the kinds of the schedule's devices."""
        return [self.group_row(signature, devices, verified.get(signature)) for signature in self.groups]

    def group_row(self, signature: str, devices: Sequence[str], verified: Verification | None = None) -> Sequence[Any]:
        """The row of one group."""
        group = self.groups[signature]
        number, task, static, inputs = self.schedule.describe_group(signature)
        rate = round(group.runs / group.seconds, 1) if group.seconds else ""
        program = self._describe_program(signature, devices)
        runs = max(group.runs, self.schedule.runs_of(signature))  # those of earlier schedules included
        row = [number, task, static, inputs, runs, group.failed, *program]
        checked = verified.cells if verified else [""] * len(Verification().cells)
        return [*row, round(group.seconds, 6), rate, group.reason or "", *checked]

    def _describe_program(self, signature: str, devices: Sequence[str]) -> list[Any]:
        facts = self.groups[signature].program
        if facts is None:
            return [""] * 6
        size = min(self.schedule.sizes[signature], facts.capacity)  # less than scheduled if it was out of memory
        seconds = round(facts.compile_seconds, 6)
        count, kinds = len(self.schedule.devices), " ".join(devices)
        used = kinds if count == 1 else f"{count} x {kinds}"
        return [facts.lanes, size, used, facts.bytes, facts.cache_hit, seconds]


def begin_progress(schedule: Schedule, before: Mapping[str, GroupStatistics] = MappingProxyType({})) -> Progress:
    """The statistics before the first block, those of earlier schedules of the same groups included."""
    return Progress(schedule, {name: before.get(name, GroupStatistics()) for name in schedule.groups})

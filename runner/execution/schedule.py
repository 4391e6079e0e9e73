"""What each group is and what it took: the plan as a table, and `programs.csv`."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runner.execution.blocks import Groups, Result
from runner.plan.study import PendingRuns, Plan
from runner.program.programs import Program, Traced


@dataclass(frozen=True)
class GroupStatistics:
    """What a group has taken so far: at least one of its blocks ran for `seconds`, the last one until `ended`."""

    runs: int = 0
    failed: int = 0
    seconds: float = 0.0
    ended: float = 0.0
    program: Program | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Schedule:
    """The groups of a plan in the order of the table, with the runs in a block and what each has taken."""

    plan: Plan
    todo: PendingRuns
    groups: Groups
    sizes: Mapping[str, int]
    spent: Mapping[str, GroupStatistics]

    @property
    def missing(self) -> int:
        return sum(self.todo.missing)

    @property
    def runs(self) -> int:
        return sum(spent.runs for spent in self.spent.values())

    @property
    def failed(self) -> int:
        return sum(spent.failed for spent in self.spent.values())

    @property
    def reasons(self) -> list[str]:
        return [spent.reason for spent in self.spent.values() if spent.reason]


def opened(plan: Plan, todo: PendingRuns, groups: Groups, sizes: Mapping[str, int]) -> Schedule:
    """The ledger of a plan before its first block."""
    return Schedule(plan, todo, groups, sizes, {signature: GroupStatistics() for signature in groups})


def entered(ledger: Schedule, result: Result) -> Schedule:
    """The ledger with one more block; blocks come in the order in which they began."""
    signature = ledger.plan.study.segments[result.block.segment].signature
    spent, runs = ledger.spent[signature], len(result.block)
    entry = GroupStatistics(
        spent.runs + runs,
        spent.failed + (runs if result.outputs is None else 0),
        spent.seconds + max(0.0, result.ended - max(result.started, spent.ended)),
        max(result.ended, spent.ended),
        result.program or spent.program,
        spent.reason or result.reason,
    )
    return replace(ledger, spent={**ledger.spent, signature: entry})


def preview(ledger: Schedule) -> tuple[list[str], list[list[Any]]]:
    """The plan as a header and a row for each group; bytes by estimate, for the compiler has not seen it."""
    header = ["group", "task", "runs", "static", "inputs", "lanes", "block", "blocks", "bytes"]
    rows = []
    numbers = _numbers(ledger.plan)
    for signature, group in ledger.groups.items():
        number = numbers[signature]
        task, runs, static, inputs = _described(ledger, signature)
        members = ledger.plan.groups[signature]
        blocks = sum(-(-ledger.todo.missing[member] // ledger.sizes[signature]) for member in members)
        if isinstance(group, Traced):
            rows.append([number, task, runs, static, inputs, group.lanes, ledger.sizes[signature], blocks, group.bytes])
        else:
            rows.append([number, task, runs, static, inputs, "–", "–", "–", f"cannot be built: {group}"])
    return header, rows


def _numbers(plan: Plan) -> dict[str, int]:
    """A group has the same number in all shards of a call."""
    return {signature: number for number, signature in enumerate(plan.groups)}


def _described(ledger: Schedule, signature: str) -> tuple[str, int, str, str]:
    members = ledger.plan.groups[signature]
    segment = ledger.plan.study.segments[members[0]]
    static = " ".join(f"{name}={value}" for name, value in segment.static.items())
    inputs = " ".join(f"{name}={value}" for name, value in segment.inputs.items())
    return segment.task.name, sum(ledger.todo.missing[member] for member in members), static, inputs


COLUMNS = (
    *("group", "task", "static", "inputs", "runs", "failed", "lanes", "block", "devices", "bytes"),
    *("cache_hit", "compile_seconds", "run_seconds", "runs_per_second", "reason"),
)


def text(ledger: Schedule, devices: Sequence[str]) -> str:
    """`programs.csv`: what the table leaves out because it differs between two executions."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    numbers = _numbers(ledger.plan)
    for signature, spent in ledger.spent.items():
        number = numbers[signature]
        task, runs, static, inputs = _described(ledger, signature)
        took = [round(spent.seconds, 6), round(spent.runs / spent.seconds, 1) if spent.seconds else ""]
        made = _program(ledger, signature, devices)
        writer.writerow([number, task, static, inputs, runs, spent.failed, *made, *took, spent.reason or ""])
    return out.getvalue()


def joined(text: str, more: str) -> str:
    """Two texts of `programs.csv` as one."""
    return text + more.partition("\n")[2] if text else more


def failures(text: str) -> tuple[int, list[str]]:
    """How many runs of a `programs.csv` have failed, and why."""
    rows = [row for row in csv.DictReader(io.StringIO(text)) if row["failed"] != "0"]
    return sum(int(row["failed"]) for row in rows), [row["reason"] for row in rows]


def _program(ledger: Schedule, signature: str, devices: Sequence[str]) -> list[Any]:
    program = ledger.spent[signature].program
    if program is None:
        return [""] * 6
    traced = program.traced
    size = min(ledger.sizes[signature], traced.capacity)  # less than planned where the device's memory asked for it
    return [traced.lanes, size, " ".join(devices), program.bytes, program.cache_hit, round(program.compile_seconds, 6)]

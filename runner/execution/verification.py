"""Some runs of each group executed once more, each alone with one lane, and compared with their results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from math import inf
from typing import Any

import numpy as np

from runner import program
from runner.execution.blocks import Outputs, Result, execute_alone
from runner.execution.schedule import Schedule
from runner.plan.pending import Block

STATUS = "status"
"""What differs if a run fails in its block and not alone, or the other way round."""


@dataclass(frozen=True)
class Sampled:
    """A run that is to be verified, with its outputs `(1, …)`, None if it failed."""

    block: Block
    outputs: Outputs | None


@dataclass(frozen=True)
class Sample:
    """The runs of a schedule that are verified: by signature their positions among its runs, and those met so far."""

    schedule: Schedule
    positions: Mapping[str, np.ndarray]
    seen: Mapping[str, int]
    runs: Mapping[str, tuple[Sampled, ...]]

    def add(self, result: Result) -> "Sample":
        """The sample after one more block; blocks come in the order of the schedule."""
        signature = self.schedule.plan.segments[result.block.segment].signature
        if signature not in self.positions:
            return self
        first, chosen = self.seen[signature], self.positions[signature]
        stop = first + len(result.block)
        low, high = np.searchsorted(chosen, [first, stop])
        found = tuple(_take_run(result, int(position) - first) for position in chosen[low:high])
        runs = {**self.runs, signature: self.runs[signature] + found} if found else self.runs
        return replace(self, seen={**self.seen, signature: stop}, runs=runs)


@dataclass(frozen=True)
class Verification:
    """How many runs were verified, how many of their values differ, and by how much at most, in which output."""

    runs: int = 0
    differing: int = 0
    largest: float = 0.0
    relative: float = 0.0
    output: str = ""

    def merge(self, other: "Verification") -> "Verification":
        """Both together."""
        output = other.output if other.largest > self.largest or not self.output else self.output
        largest, relative = max(self.largest, other.largest), max(self.relative, other.relative)
        return Verification(self.runs + other.runs, self.differing + other.differing, largest, relative, output)

    @property
    def cells(self) -> list[Any]:
        """Its cells of `programs.csv`."""
        return [self.runs, self.differing, self.largest, self.relative, self.output]


def choose_sample(schedule: Schedule, count: int) -> Sample:
    """At most `count` runs of each group, drawn by its signature: the same ones for the same runs."""
    groups = schedule.groups if count else ()
    positions = {signature: _draw(signature, schedule.runs_of(signature), count) for signature in groups}
    return Sample(schedule, positions, dict.fromkeys(positions, 0), dict.fromkeys(positions, ()))


def verify_sample(sample: Sample, stop: Callable[[], object]) -> dict[str, Verification]:
    """Executes the runs of a sample alone, group by group, until `stop` returns something true.

    Groups that cannot be traced are left out.
    """
    verified = {}
    for signature, runs in sample.runs.items():
        if stop():
            break
        if runs and not isinstance(sample.schedule.groups[signature], str):
            verified[signature] = _verify_group(sample.schedule, runs)
    return verified


def describe_verification(rows: Sequence[Mapping[str, str]]) -> str:
    """One line about the rows of `programs.csv`, by column."""
    verified = [row for row in rows if row.get("verified")]
    whole = Verification()
    for row in verified:
        numbers = float(row["largest_difference"]), float(row["largest_relative_difference"])
        whole = whole.merge(
            Verification(int(row["verified"]), int(row["differing"]), *numbers, output=row["differing_output"])
        )
    groups = len({row["group"] for row in verified})
    runs = f"{whole.runs:,} {'run' if whole.runs == 1 else 'runs'} of {groups:,} {'group' if groups == 1 else 'groups'}"
    return f"verified {runs} alone, with one lane: {_describe_difference(whole, verified)}"


def _describe_difference(whole: Verification, rows: Sequence[Mapping[str, str]]) -> str:
    if not whole.differing:
        return "identical"
    lanes = sorted({int(row["lanes"]) for row in rows if int(row["differing"]) and row["lanes"]})
    why = f"; lanes={','.join(map(str, lanes))} may give other bits than lanes=1" if lanes != [1] else ""
    return f"{describe_values(whole)}{why}"


def describe_values(found: Verification) -> str:
    """How many values differ, and by how much."""
    values = f"{found.differing:,} {'value differs' if found.differing == 1 else 'values differ'}"
    return f"{values}, by at most {found.largest:.2g} (relative {found.relative:.2g}; {found.output})"


def _draw(signature: str, runs: int, count: int) -> np.ndarray:
    """Positions of runs, int64 ascending."""
    generator = np.random.default_rng(int.from_bytes(sha256(signature.encode()).digest()[:8]))
    return np.sort(generator.choice(runs, min(count, runs), replace=False))


def _take_run(result: Result, place: int) -> Sampled:
    outputs = result.outputs
    own = None if outputs is None else {name: values[place : place + 1].copy() for name, values in outputs.items()}
    return Sampled(result.block.cut(place, place + 1), own)


def _verify_group(schedule: Schedule, runs: Sequence[Sampled]) -> Verification:
    plan = schedule.plan
    traced = program.trace_segment(plan.segments[runs[0].block.segment], lanes=1, block=1)
    try:
        compiled = program.compile_program(replace(traced, device=schedule.devices[0]))
    except program.CompilationError:
        compiled = None
    whole = Verification()
    for run in runs:
        alone = None if compiled is None else execute_alone(plan, run.block, compiled)[0].outputs
        whole = whole.merge(compare_outputs(run.outputs, alone))
    return whole


def compare_outputs(outputs: Outputs | None, alone: Outputs | None) -> Verification:
    """How the outputs `(1, …)` of one run differ from those that it has alone; None where it failed."""
    if outputs is None or alone is None:
        return Verification(1) if outputs is alone else Verification(1, 1, inf, inf, STATUS)
    whole = Verification(1)
    for name, values in outputs.items():
        whole = whole.merge(_compare_values(name, values.reshape(-1), alone[name].reshape(-1)))
    return whole


def _compare_values(name: str, values: np.ndarray, alone: np.ndarray) -> Verification:
    """Categories differ by infinity, as a number differs from NaN; NaN equals NaN, and zero differs from minus zero."""
    if values.dtype == object:
        unequal = int(np.count_nonzero(values != alone))
        return Verification(0, unequal, inf, inf, name) if unequal else Verification()
    a, b = values.astype(np.float64), alone.astype(np.float64)
    if values.dtype.kind in "iu" and alone.dtype.kind in "iu":  # exact beyond the integers of float64
        differ = values != alone
    else:
        differ = ~((a == b) & (np.signbit(a) == np.signbit(b)) | np.isnan(a) & np.isnan(b))
    if not differ.any():
        return Verification()
    a, b = a[differ], b[differ]
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = np.abs(a - b)
        relative = np.where(difference == 0, 0.0, difference / np.maximum(np.abs(a), np.abs(b)))
    largest, most = (float(np.nan_to_num(x, nan=inf, posinf=inf).max()) for x in (difference, relative))
    return Verification(0, len(a), largest, most, name)

"""Runs of a study executed once more: their outputs are compared with the table, their variables are returned."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from pathlib import Path

import numpy as np

from runner import program
from runner.errors import InvalidInputError
from runner.execution.blocks import Outputs, Result, execute_alone
from runner.execution.verification import STATUS, Verification, compare_outputs
from runner.plan.dtypes import stored_dtype
from runner.plan.pending import Block
from runner.plan.segments import Axis, Plan, Segment
from runner.program import VariablesTask
from runner.storage.rows import SavedRun
from runner.storage.run_index import RunIndex


@dataclass(frozen=True)
class ReplayGroup:
    """Some runs of one signature, and the program that executes them; `task` is None if it returns no variables."""

    segments: tuple[Segment, ...]
    runs: tuple[tuple[SavedRun, ...], ...]
    """The runs of each segment."""
    traced: program.TracedTask
    task: VariablesTask | None


@dataclass(frozen=True)
class Replay:
    """A run that was executed once more, with outputs `(1, …)`, or the reason why it has none; and its variables."""

    run: SavedRun
    segment: Segment
    outputs: Outputs | None
    reason: str | None
    variables: object
    task: VariablesTask | None

    @cached_property
    def difference(self) -> Verification:
        """How the outputs differ from those in the table."""
        saved = self.run.outputs if self.run.reason is None else None
        if saved is None or self.outputs is None:
            return Verification(1) if self.run.reason == self.reason else Verification(1, 1, inf, inf, STATUS)
        own = {name: values.astype(_read_dtype(values), copy=False) for name, values in self.outputs.items()}
        if missing := sorted(set(own).symmetric_difference(saved)):
            return Verification(1, len(missing), inf, inf, missing[0])
        return compare_outputs(saved, own)

    def save(self, folder: Path) -> None:
        """Lets the task write the variables into a folder."""
        assert self.task is not None
        self.task.write(self.variables, folder)


def match_runs(plan: Plan, index: RunIndex, runs: Sequence[SavedRun]) -> dict[int, list[SavedRun]]:
    """The runs by the number of their segment in a plan, of which `index` is the index.

    The runs may have other traced values than those of the plan. Raises InvalidInputError for a run whose static
    values no segment has.
    """
    numbers = {key.key: number for number, key in enumerate(index.segments)}
    found: dict[int, list[SavedRun]] = {}
    for run in runs:
        number = numbers.get(run.key)
        if number is None or set(plan.segments[number].traced) != set(run.traced):
            raise InvalidInputError(
                f"run {run.number} is not of the last sweep of the study, and has static values that it does not have; "
                "call the command of that sweep once more"
            )
        found.setdefault(number, []).append(run)
    return found


def trace_groups(plan: Plan, matched: Mapping[int, Sequence[SavedRun]]) -> list[ReplayGroup]:
    """The groups of some runs by the number of their segment, traced with the study's rule for lanes and blocks.

    Raises InvalidInputError for a task that cannot be traced.
    """
    groups = []
    for numbers in plan.groups.values():
        chosen = [number for number in numbers if number in matched]
        if chosen:
            segments, runs = zip(*((plan.segments[n], tuple(matched[n])) for n in chosen), strict=True)
            traced = program.trace_segment(segments[0], lanes=plan.lanes, block=plan.block)
            task = program.return_variables(traced, max(map(len, runs)))
            groups.append(ReplayGroup(segments, runs, traced, task))
    return groups


def replay_group(plan: Plan, group: ReplayGroup) -> Iterator[Replay]:
    """Executes the runs of a group, a block at a time. Raises InvalidInputError if XLA cannot compile the task."""
    traced = group.task.traced if group.task else group.traced
    try:
        compiled = program.compile_program(traced)
    except program.CompilationError as error:
        raise InvalidInputError(f"task {group.segments[0].task.name!r}: {error}") from error
    for segment, runs in zip(group.segments, group.runs, strict=True):
        for start in range(0, len(runs), traced.capacity):
            part = runs[start : start + traced.capacity]
            for result in _execute(plan, segment, part, compiled):
                yield from _divide(result, segment, part, group.task)


def _execute(plan: Plan, segment: Segment, runs: Sequence[SavedRun], compiled: program.Program) -> list[Result]:
    columns = {name: np.concatenate([run.traced[name] for run in runs]) for name in segment.traced}
    axes = (Axis(columns),) if columns else ()
    alone = Plan((segment,), axes, plan.lanes, plan.block)
    block = Block(0, np.arange(len(runs)), np.array([run.number for run in runs]))
    return execute_alone(alone, block, compiled)


def _divide(result: Result, segment: Segment, runs: Sequence[SavedRun], task: VariablesTask | None) -> Iterator[Replay]:
    """The runs of a result, which may be a part of a block, one by one."""
    own, variables = result.outputs, [None] * len(result.block)
    if task and result.outputs is not None:
        own, variables = task.split(result.outputs)
    for i, place in enumerate(result.block.places):
        outputs = None if own is None else {name: values[i : i + 1] for name, values in own.items()}
        yield Replay(runs[int(place)], segment, outputs, result.reason, variables[i], task)


def _read_dtype(values: np.ndarray) -> np.dtype:
    return values.dtype if values.dtype == object else stored_dtype(values.dtype)

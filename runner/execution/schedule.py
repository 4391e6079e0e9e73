"""The schedule of a call: the groups with pending runs, traced, and the sizes of their blocks."""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from runner import program
from runner.contract.task import Output, load_function
from runner.errors import InvalidInputError
from runner.plan.pending import Block, PendingRuns, cut_blocks, iterate_blocks
from runner.plan.segments import Plan
from runner.plan.size import CELL_BYTES, format_bytes
from runner.program import TracedTask

REFUSED_BLOCK = 65536
"""Runs in a block of a group that cannot be traced: only the rows of its failures are written."""

MOST_BLOCKS = 32
"""Blocks in a batch: formatting them together gains little more, and threads should have something to share."""

Groups = Mapping[str, TracedTask | str]
"""For each signature its traced task, or the reason why its task cannot be traced."""


@dataclass(frozen=True)
class Schedule:
    """The groups of a plan that have runs to execute, in the order of the table.

    `sizes` has the most runs in a block of each signature. `threads` blocks are executed at once, on the `devices` of
    these numbers. `repeated` are runs that have a row already, and are executed once more after the pending ones.
    """

    plan: Plan
    pending: PendingRuns
    groups: Groups
    sizes: Mapping[str, int]
    threads: int
    repeated: tuple[Block, ...] = ()
    devices: tuple[int, ...] = (0,)
    places: tuple[int, ...] = (0,)
    """The devices among which threads are divided: a CPU is there once for each; see `runner.program.devices`."""

    @property
    def runs(self) -> int:
        """How many runs are to be executed."""
        return sum(self.pending.to_execute) + sum(map(len, self.repeated))

    @property
    def outputs(self) -> list[Output]:
        """What the traced groups return, in their order."""
        return [output for group in self.groups.values() if isinstance(group, TracedTask) for output in group.outputs]

    @property
    def can_save(self) -> bool:
        """Whether a replay can save what runs of some group have trained."""
        return any(isinstance(group, TracedTask) and group.can_save for group in self.groups.values())

    def runs_of(self, signature: str) -> int:
        """How many runs of a group are to be executed."""
        segments = self.plan.groups[signature]
        repeated = sum(len(block) for block in self.repeated if block.segment in segments)
        return repeated + sum(self.pending.to_execute[segment] for segment in segments)

    def count_runs(self) -> Counter[str]:
        """How many runs of each group are to be executed."""
        counts = Counter(
            {name: sum(self.pending.to_execute[s] for s in self.plan.groups[name]) for name in self.groups}
        )
        for block in self.repeated:
            counts[self.plan.segments[block.segment].signature] += len(block)
        return counts

    def iterate_blocks(self) -> Iterator[Block]:
        """The blocks to execute, in the order in which their rows are appended."""
        yield from iterate_blocks(self.plan, self.pending, self.sizes)
        yield from cut_blocks(self.plan, self.repeated, self.sizes)

    def iterate_batches(self) -> Iterator[list[Block]]:
        """The same blocks, small ones of a group together, as far as they cost no more than a whole block.

        A block of few runs takes as long as one of all lanes.
        """
        batch: list[Block] = []
        for block in self.iterate_blocks():
            if batch and not self._can_join(block, batch):
                yield batch
                batch = []
            batch.append(block)
        if batch:
            yield batch

    def _can_join(self, block: Block, batch: Sequence[Block]) -> bool:
        """Whether a block may be executed with others: all of different segments, so that threads share the rest."""
        signature = self.plan.segments[block.segment].signature
        group, before = self.groups[signature], {each.segment for each in batch}
        segments = self.plan.groups[signature]
        if isinstance(group, str) or block.segment in before or not before.issubset(segments) or group.make_loop:
            return False
        cost = sum(max(len(each), group.lanes) for each in (*batch, block))
        return cost <= group.capacity and len(batch) < min(MOST_BLOCKS, len(segments) // (4 * self.threads))

    def describe_group(self, signature: str) -> tuple[int, str, str, str]:
        """The number of a group, which is the same in all shards, its task, static values and inputs as text."""
        segment = self.plan.segments[self.plan.groups[signature][0]]
        static = " ".join(f"{name}={value}" for name, value in segment.static.items())
        inputs = " ".join(f"{name}={value}" for name, value in segment.inputs.items())
        return self._numbers[signature], segment.task.name, static, inputs

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {signature: number for number, signature in enumerate(self.plan.groups)}


def make_schedule(
    plan: Plan,
    pending: PendingRuns,
    repeated: tuple[Block, ...] = (),
    *,
    is_resumed: bool,
    is_here: bool = True,
    known: Mapping[str, TracedTask | str] = MappingProxyType({}),
) -> Schedule:
    """Traces the groups that have runs to execute; nothing is compiled. `is_here`: this process executes them.

    Groups that are `known` were traced by an earlier schedule.

    Raises InvalidInputError if no group can be traced, and for devices that are not here. A resumed study is exempt
    from the first: it ends as it would have without the interruption, and its last runs may be such.
    """
    groups: dict[str, TracedTask | str] = {}
    again = {block.segment for block in repeated}
    refusals: list[InvalidInputError] = []
    with program.freeze_heap():
        for signature, segments in plan.groups.items():
            if not any(pending.to_execute[segment] for segment in segments) and not again.intersection(segments):
                continue
            segment = plan.segments[segments[0]]
            load_function(segment.task)  # a module that cannot be imported refuses the call, not only these runs
            if signature in known:
                groups[signature] = known[signature]
                continue
            try:
                groups[signature] = program.trace_segment(segment, lanes=plan.lanes, block=plan.block)
            except InvalidInputError as refusal:
                groups[signature] = str(refusal)
                refusals.append(refusal)
    if refusals and len(refusals) == len(groups) and not is_resumed:
        raise _summarize_refusals(refusals) from refusals[0]
    devices = program.select_devices(plan.devices) if is_here else (0,)
    threads = plan.threads or count_threads(len(devices), plan.cores_per_run)
    sizes = {name: size_block(plan.runs_per_segment, group, threads) for name, group in groups.items()}
    places = program.list_places(devices, threads) if is_here else devices
    return Schedule(plan, pending, groups, sizes, threads, repeated, devices, places)


def count_threads(devices: int, cores_per_run: int) -> int:
    """Threads that execute blocks: one for the cores of a run, at least one for each device, two for an accelerator."""
    if program.is_accelerated():
        return program.BLOCKS_ON_DEVICE * devices
    return max(program.count_cores() // cores_per_run, devices)


def check_metrics(schedule: Schedule, known: Collection[Output]) -> None:
    """Raises InvalidInputError for a metric that no traced group of its task returns, and `known` does not have.

    A task is left out if some group of it cannot be traced, since that one might return the metric. Where the YAML
    leaves the outputs to the task, they may depend on its values, and one of the metrics is enough.
    """
    for task in {segment.task.name: segment.task for segment in schedule.plan.segments}.values():
        groups = [group for name, group in schedule.groups.items() if schedule.describe_group(name)[1] == task.name]
        traced = [group for group in groups if isinstance(group, TracedTask)]
        if not traced or len(traced) < len(groups):
            continue
        names = dict.fromkeys(output.name for output in (*known, *(o for group in traced for o in group.outputs)))
        is_open = not task.outputs and any(metric in names for metric, _ in task.metrics)
        for metric, _ in task.metrics:
            if metric not in names and not is_open:
                has = ", ".join(names) or "none"
                raise InvalidInputError(f"task {task.name!r}: metrics names {metric!r}; the outputs are: {has}")


def _summarize_refusals(refusals: Sequence[InvalidInputError]) -> InvalidInputError:
    others = len(refusals) - 1
    rest = f" (and {others} other {'groups' if others > 1 else 'group'})" if others else ""
    summary = InvalidInputError(f"{refusals[0]}{rest}")
    for note in getattr(refusals[0], "__notes__", ()):
        summary.add_note(note)
    return summary


def size_block(runs: int, group: TracedTask | str, threads: int) -> int:
    """Runs in a block: a segment's runs divided evenly among the threads, in whole lanes.

    It may depend on the number of threads, because results do not depend on where a block begins or ends.
    """
    if isinstance(group, str):
        return REFUSED_BLOCK
    rounds = -(-runs // (group.capacity * threads))
    even = -(-runs // (rounds * threads))
    return min(group.capacity, -(-even // group.lanes) * group.lanes)


def list_shortages(schedule: Schedule, memory: int | None, free_bytes: int) -> Iterator[str]:
    """A line for each group that seems to exceed the memory, and one if the table seems to exceed the free disk space.

    Both are estimates, which is why they are no errors. Whether a group exceeds the memory is known once it is
    compiled; the reason in the table then leaves out what the machine has, so that the table does not depend on it.
    """
    for signature, group in schedule.groups.items():
        if memory is not None and isinstance(group, TracedTask) and group.bytes > memory:
            number, task, static, _ = schedule.describe_group(signature)
            needed = f"is estimated to take {group.bytes:,} bytes at once; the memory has {memory:,} bytes"
            yield f"group {number} ({' '.join(filter(None, (task, static)))}) {needed}"
    table = sum(
        schedule.runs_of(name) * _estimate_row(schedule.plan, name, group) for name, group in schedule.groups.items()
    )
    if table > free_bytes:
        needed = f"results.csv is estimated to grow by {format_bytes(table)}"
        yield f"{needed}; the disk has {format_bytes(free_bytes)} left"


def describe_idle_cores(schedule: Schedule, cores: int) -> str | None:
    """A line about `cores_per_run` if the runs are fewer than the cores and large; None otherwise."""
    traced = [group for group in schedule.groups.values() if isinstance(group, TracedTask)]
    if schedule.plan.cores_per_run > 1 or schedule.runs >= cores or not any(map(program.is_large, traced)):
        return None
    return (
        f"{schedule.runs} large {'run' if schedule.runs == 1 else 'runs'} and {cores} cores: "
        f"cores_per_run={cores // max(1, schedule.runs)} divides each run among several; the study is another one then"
    )


def _estimate_row(plan: Plan, signature: str, group: TracedTask | str) -> int:
    """The bytes of a row of a group, by the rule of `runner.plan.size`, with each element of an array as a cell."""
    segment = plan.segments[plan.groups[signature][0]]
    elements = sum(math.prod(output.shape) for output in group.outputs) if isinstance(group, TracedTask) else 0
    return CELL_BYTES * (len({"run", "task", "status", "reason", *segment.traced, *segment.static}) + elements)


def describe_compilation(schedule: Schedule, *, is_elsewhere: bool = False) -> str:
    """How many programs the schedule has, and how many of them are in the cache unless other machines compile them."""
    names = [g.name for g in schedule.groups.values() if isinstance(g, TracedTask) and not g.is_eager]
    cached = None if is_elsewhere else program.find_cached(names)
    count = f"{len(names):,} program{'' if len(names) == 1 else 's'}"
    if cached is None:
        return f"{count} to compile"
    there = sum(name in cached for name in names)
    return f"{count}: {there:,} in the cache, {len(names) - there:,} to compile"


def preview_schedule(schedule: Schedule) -> tuple[list[str], list[Sequence[Any]]]:
    """The schedule as a header and a row for each group; bytes are estimates, since nothing is compiled."""
    header = ["group", "task", "runs", "static", "inputs", "lanes", "block", "blocks", "bytes"]
    rows: list[Sequence[Any]] = []
    for signature, group in schedule.groups.items():
        number, task, static, inputs = schedule.describe_group(signature)
        size, segments = schedule.sizes[signature], schedule.plan.groups[signature]
        blocks = sum(-(-schedule.pending.to_execute[segment] // size) for segment in segments)
        row = [number, task, schedule.runs_of(signature), static, inputs]
        if isinstance(group, TracedTask):
            rows.append([*row, group.lanes, size, blocks, group.bytes])
        else:
            rows.append([*row, "–", "–", "–", f"cannot be traced: {group}"])
    return header, rows

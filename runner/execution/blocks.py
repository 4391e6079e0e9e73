"""Groups traced, and their blocks run over threads, with the results in the order of the table."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from runner.errors import InvalidInputError
from runner.plan.contract import Output
from runner.plan.inputs import Input
from runner.plan.study import Block, Plan
from runner.program import programs as program
from runner.program.programs import Program, Traced

REFUSED_BLOCK = 65536
"""Runs in a block of a group that cannot be built: only their rows are written."""

Groups = Mapping[str, Traced | str]
"""For each signature its traced task, or the reason why there is none."""


@dataclass(frozen=True)
class Result:
    """A block, or a piece of one, with its outputs, each `(runs, …)`, or with the reason why it has none.

    `rows` is the block as the table writes it, `program` the executable that ran it.
    """

    block: Block
    program: Program | None
    outputs: Mapping[str, np.ndarray] | None
    reason: str | None
    rows: bytes
    started: float
    """When the run of the block began and ended, in seconds of a common clock; compilation is before it."""
    ended: float


Compiled = dict[str, Future[Program] | str]
"""For each signature its program, made or in the making, or the reason why there is none."""

Render = Callable[[Block, Mapping[str, np.ndarray] | None, str | None], bytes]


def trace(plan: Plan, missing: Sequence[int]) -> Groups:
    """Traces the groups in which runs are missing, by segment, before anything is compiled."""
    groups: dict[str, Traced | str] = {}
    for signature, members in plan.groups.items():
        if not any(missing[member] for member in members):
            continue
        segment = plan.study.segments[members[0]]
        try:
            groups[signature] = program.trace(segment, lanes=plan.study.lanes, block=plan.study.block)
        except InvalidInputError as refusal:
            groups[signature] = str(refusal)
    return groups


def check(groups: Groups) -> None:
    """Raises InvalidInputError if there are groups, and none of them can be built."""
    refusals = [group for group in groups.values() if isinstance(group, str)]
    if groups and len(refusals) == len(groups):
        others = len(refusals) - 1
        raise InvalidInputError(
            refusals[0] + (f" (and {others} other {'groups' if others > 1 else 'group'})" if others else "")
        )


def outputs(groups: Groups) -> list[Output]:
    """What the groups that can be built return, in their order."""
    return [output for group in groups.values() if isinstance(group, Traced) for output in group.outputs]


def block_size(runs: int, group: Traced | str, threads: int) -> int:
    """Runs in a block: a segment's runs shared out evenly over the threads, each of whole lanes.

    Where a block begins and ends shows in no result, so the number of threads may have a say.
    """
    if isinstance(group, str):
        return REFUSED_BLOCK
    rounds = -(-runs // (group.capacity * threads))
    even = -(-runs // (rounds * threads))
    return min(group.capacity, -(-even // group.lanes) * group.lanes)


def execute(
    plan: Plan, groups: Groups, blocks: Iterator[Block], render: Render, *, threads: int, stop: Callable[[], object]
) -> Iterator[Result]:
    """Runs the blocks and yields their results in order, until `stop` says so: then those that have begun.

    Executables release the GIL, so `threads` blocks run at once and as many wait to be taken: memory does
    not grow with the number of runs. While one group runs, the next ones are compiled.
    """
    workers, compilers = ThreadPoolExecutor(threads), ThreadPoolExecutor(threads)
    compiled: Compiled = {}
    names, place = list(groups), {name: i for i, name in enumerate(groups)}
    device_array = lru_cache(maxsize=64)(program.put)
    under_way: deque[Future[list[Result]]] = deque()
    try:
        for block in blocks:
            if stop():
                break
            signature = plan.study.segments[block.segment].signature
            for name in names[len(compiled) : place[signature] + threads]:
                group = groups[name]
                compiled[name] = group if isinstance(group, str) else compilers.submit(program.compile, group)
            under_way.append(workers.submit(_run, plan, block, compiled, render, device_array))
            if len(under_way) >= 2 * threads:
                yield from under_way.popleft().result()
        while under_way and not (stop() and under_way[0].cancel()):
            yield from under_way.popleft().result()
    finally:
        workers.shutdown(cancel_futures=True)
        compilers.shutdown(cancel_futures=True)


def _run(plan: Plan, block: Block, compiled: Compiled, render: Render, put: Callable[[Input], object]) -> list[Result]:
    executable, outputs, reason, started = None, None, None, time.perf_counter()
    segment = plan.study.segments[block.segment]
    try:
        made = compiled[segment.signature]
        if isinstance(made, str):
            raise InvalidInputError(made)
        executable, started = made.result(), time.perf_counter()
        inputs = {name: put(value) for name, value in segment.inputs.items()}
        scalars = plan.traced(block.segment, block.places)
        executable, outputs = _fitting(executable, len(block), scalars, inputs)
        if executable is not made.result():
            compiled[segment.signature] = _done(executable)
    except InvalidInputError as refusal:
        reason = str(refusal)
    except Exception as error:  # what fails here costs the runs of this block only, and its rows say why
        reason = program.reason(error)
    return [
        Result(piece, executable, made, why, render(piece, made, why), started, time.perf_counter())
        for piece, made, why in _pieces(block, outputs, reason)
    ]


Piece = tuple[Block, Mapping[str, np.ndarray] | None, str | None]


def _pieces(block: Block, outputs: Mapping[str, np.ndarray] | None, reason: str | None) -> Iterator[Piece]:
    """The block whole, or cut where a code stands for no word: such runs fail, and not their neighbours."""
    words = {name: values for name, values in (outputs or {}).items() if values.dtype == object}
    if outputs is None or not any(word is None for values in words.values() for word in values):
        yield block, outputs, reason
        return
    reasons = np.full(len(block), None, dtype=object)
    for name, values in words.items():
        reasons[[word is None for word in values]] = f"the code of {name!r} stands for none of its words"
    changes = np.flatnonzero(reasons[1:] != reasons[:-1]) + 1
    for start, stop in pairwise([0, *changes.tolist(), len(block)]):
        piece = Block(block.segment, block.places[start:stop], block.first + start)
        own = {name: values[start:stop] for name, values in outputs.items()}
        yield piece, None if reasons[start] else own, reasons[start]


def _fitting(
    executable: Program, count: int, scalars: Mapping[str, np.ndarray], inputs: Mapping[str, object]
) -> tuple[Program, dict[str, np.ndarray]]:
    """The outputs of some runs, by a program of half the capacity as often as the device's memory asks for it.

    The lanes stay as they are, for the bits depend on them. Raises InvalidInputError where those alone do not fit.
    """
    try:
        size = executable.traced.capacity
        cuts = [slice(start, start + size) for start in range(0, count, size)]
        parts = [
            program.call(executable, len(range(count)[cut]), {n: v[cut] for n, v in scalars.items()}, dict(inputs))
            for cut in cuts
        ]
        return executable, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    except program.OutOfMemoryError as error:
        smaller = program.halved(executable)
        if smaller is None:
            lanes = executable.traced.lanes
            wanted = f"{executable.bytes:,} bytes for {lanes} {'run' if lanes == 1 else 'runs at once'}"
            raise InvalidInputError(f"the device's memory cannot hold {wanted}: {program.reason(error)}") from error
        return _fitting(smaller, count, scalars, inputs)


def _done(executable: Program) -> Future[Program]:
    future: Future[Program] = Future()
    future.set_result(executable)
    return future

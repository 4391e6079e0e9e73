"""Blocks executed over devices and threads, with the results appended in the order of the table."""

import hashlib
import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from runner import program
from runner.errors import InvalidInputError, StudyFailedError
from runner.execution.compilation import KeptPrograms, Programs
from runner.execution.placement import Copies, ProgramSource, Turns
from runner.execution.schedule import Schedule
from runner.execution.stalls import StallWatch
from runner.plan.datasets import Dataset
from runner.plan.inputs import Input
from runner.plan.pending import Block
from runner.plan.segments import Plan
from runner.plan.texts import shorten_reason
from runner.program import Program
from runner.storage.columns import Columns
from runner.storage.fingerprint import identify_code, list_contents
from runner.storage.folder import Folder
from runner.storage.writer import Rows, format_rows, open_table

DEVICE_INPUTS = 64
"""Inputs that are kept on a device at most."""

Outputs = Mapping[str, np.ndarray]
Halve = Callable[[Program], Program | None]
PutInput = Callable[[Input | Dataset, int | None], object]
Warn = Callable[[str], object]
Keep = Callable[[Block, Program, Outputs], program.Keeper | None]
FormatRows = Callable[[Sequence[Rows]], bytes]


@dataclass(frozen=True)
class Result:
    """A block, or a piece of one, with its outputs `(runs, …)`, or with the reason why it has none.

    `rows` are its lines of the table, those of blocks that were formatted with it included, or nothing if it is one of
    these. `program` is the executable that ran it. `started` and `ended` are seconds of a common clock; compilation
    comes before `started`.
    """

    block: Block
    program: Program | None
    outputs: Outputs | None
    reason: str | None
    started: float
    ended: float
    rows: bytes = b""


def execute_schedule(
    schedule: Schedule,
    columns: Columns,
    folder: Folder,
    stop: Callable[[], object],
    warn: Warn = lambda _: None,
    kept: KeptPrograms | None = None,
) -> Iterator[Result]:
    """Executes the pending runs in order, and yields each result once its rows are appended to the table of a folder.

    Ends early when `stop` returns something true, after the blocks that have begun. `warn` is given a line for each
    group that seems to have stalled. `kept` has the programs of earlier schedules of a search.
    """
    with open_table(folder, columns.header) as table:
        # rows that wait to be synced must not wait for a block that takes long
        watch = StallWatch(partial(_describe_group, schedule), warn, on_wait=table.sync)
        keep = partial(_make_keeper, schedule.plan, folder, stop, watch.note_segment)
        format_batch = partial(format_rows, schedule.plan, columns)
        for result in execute_blocks(schedule, format_batch, stop, watch, keep, kept):
            table.append(result.rows)
            _forget_state(folder, result.block)
            yield result


def execute_blocks(
    schedule: Schedule,
    format_batch: FormatRows,
    stop: Callable[[], object],
    watch: StallWatch,
    keep: Keep,
    kept: KeptPrograms | None = None,
) -> Iterator[Result]:
    """Executes blocks over the schedule's devices and threads, and yields the results in the order of the blocks.

    Each device has a queue and its share of the threads. Executables release the GIL. At most twice as many batches as
    threads are under way, so that memory does not grow with the number of runs. While one group runs, the next ones are
    compiled. Runs that are ended between two segments of their loop have no result, and nor have those after them.
    """
    plan, turns = schedule.plan, Turns(schedule.places, list(schedule.groups))
    queues = [ThreadPoolExecutor(-(-schedule.threads // len(turns.devices))) for _ in turns.devices]
    threads, compilers = max(schedule.threads, len(queues)), ThreadPoolExecutor(schedule.threads)
    programs = Programs(turns.place_groups(schedule.groups), schedule.count_runs(), compilers, threads, kept)
    copies = Copies(programs, kept)
    put_input = lru_cache(maxsize=DEVICE_INPUTS * len(queues))(program.put_input)
    under_way: deque[Future[list[Result]]] = deque()

    def await_first() -> Iterator[Result]:
        for result in watch.wait_for(under_way.popleft()):
            copies.release(plan.segments[result.block.segment].signature, len(result.block))
            yield result

    try:
        with program.freeze_heap():
            for batch in schedule.iterate_batches():
                if stop():
                    break
                programs.request(signature := plan.segments[batch[0].segment].signature)
                place = turns.take(signature)
                source = copies.on(turns.devices[place])
                future = queues[place].submit(_execute_batch, plan, batch, source, format_batch, put_input, keep)
                under_way.append(watch.add(signature, future))
                if len(under_way) >= 2 * threads:
                    yield from await_first()
            while under_way and not (stop() and under_way[0].cancel()):
                yield from await_first()
    except program.StoppedError:
        return
    finally:
        for pool in (*queues, compilers):
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in (*queues, compilers):
            pool.shutdown()


def _make_keeper(
    plan: Plan,
    folder: Folder,
    stop: Callable[[], object],
    on_segment: Callable[[], object],
    block: Block,
    compiled: Program,
    scalars: Outputs,
) -> program.Keeper:
    identity = identify_block(plan, block, compiled, scalars)
    return program.StateKeeper(_locate_state(folder, block), identity, stop, on_segment)


def identify_block(plan: Plan, block: Block, compiled: Program, scalars: Outputs) -> str:
    """By what the state of a block is known: its runs and their values, the program, and the code."""
    traced, segment, digest = compiled.traced, plan.segments[block.segment], hashlib.sha256()
    for name in sorted(scalars):
        digest.update(scalars[name].tobytes())
    inputs = [f"{name}={value!r}" for name, value in sorted(segment.inputs.items())]
    runs = [int(block.numbers[0]), int(block.numbers[-1]), len(block), digest.hexdigest()]
    made_by = [identify_code(segment.task), traced.name, traced.lanes, traced.capacity, segment.signature]
    return json.dumps([*made_by, *list_contents(segment).items(), *inputs, *runs])


def _forget_state(folder: Folder, block: Block) -> None:
    """Deletes the state of a block whose rows are in the table."""
    if (state := _locate_state(folder, block)).exists():
        shutil.rmtree(state)
        with suppress(OSError):  # there are those of other blocks
            folder.states.rmdir()


def _locate_state(folder: Folder, block: Block) -> Path:
    return folder.states / str(int(block.numbers[0]))


def _describe_group(schedule: Schedule, signature: str) -> str:
    number, task, static, _ = schedule.describe_group(signature)
    return f"{number} ({' '.join(filter(None, (task, static)))})"


@dataclass(frozen=True)
class _Single:
    """The one program of a block that is executed alone."""

    compiled: Program

    def get(self, _: str) -> Program:
        return self.compiled

    def halve(self, _: str, exceeded: Program) -> Program | None:
        return program.halve_program(exceeded)


def execute_alone(plan: Plan, block: Block, compiled: Program) -> list[Result]:
    """Executes a block with a program of its own, in this thread; its rows are not formatted."""
    return _execute_block(plan, block, _Single(compiled), program.put_input, lambda *_: None)


@dataclass(frozen=True)
class _Piece:
    """Runs of a block that were executed together; see `Result`."""

    block: Block
    program: Program | None
    outputs: Outputs | None
    reason: str | None


def _execute_batch(
    plan: Plan,
    batch: Sequence[Block],
    programs: ProgramSource,
    format_batch: FormatRows,
    put_input: PutInput,
    keep: Keep,
) -> list[Result]:
    """The results of some blocks, formatted together."""
    results = [result for block in batch for result in _execute_block(plan, block, programs, put_input, keep)]
    rows = format_batch([Rows(result.block, result.outputs, result.reason) for result in results])
    results[-1] = replace(results[-1], ended=time.perf_counter())
    return [replace(results[0], rows=rows), *results[1:]]


def _execute_block(plan: Plan, block: Block, programs: ProgramSource, put_input: PutInput, keep: Keep) -> list[Result]:
    """The results of a block. Raises StudyFailedError for what fails around the task, which is no result of it."""
    pieces, started = [], time.perf_counter()
    try:
        compiled = programs.get(plan.segments[block.segment].signature)
        device = compiled.traced.device
        inputs = {name: put_input(value, device) for name, value in plan.segments[block.segment].inputs.items()}
        started = time.perf_counter()
        pieces = _execute_pieces(plan, block, compiled, inputs, programs, keep)
    except InvalidInputError as refusal:
        pieces = [_Piece(block, None, None, str(refusal))]
    except program.CompilationError as error:
        pieces = [_Piece(block, None, None, str(error))]
    except (OSError, MemoryError) as error:
        raise StudyFailedError(f"{program.describe_error(error)}; the same command resumes the study") from error
    return [_make_result(part, started) for piece in pieces for part in _split_invalid_codes(piece)]


def _make_result(piece: _Piece, started: float) -> Result:
    reason = shorten_reason(piece.reason) if piece.reason else None
    return Result(piece.block, piece.program, piece.outputs, reason, started, time.perf_counter())


def _execute_pieces(
    plan: Plan, block: Block, compiled: Program, inputs: Mapping[str, object], programs: ProgramSource, keep: Keep
) -> list[_Piece]:
    """The outputs of a block; one that fails is halved until only the runs that fail by themselves have none."""
    signature = plan.segments[block.segment].signature
    scalars = plan.traced(block.segment, block.places)
    try:
        halve = partial(programs.halve, signature)
        keeper = keep(block, compiled, scalars) if compiled.traced.make_loop else None
        executable, outputs = _run_within_memory(compiled, len(block), scalars, inputs, halve, keeper)
        return [_Piece(block, executable, outputs, None)]
    except InvalidInputError as refusal:
        return [_Piece(block, compiled, None, str(refusal))]
    except (MemoryError, program.StoppedError):
        raise
    except Exception as error:  # whatever the task raises while it runs is the result of the run
        if len(block) == 1:
            return [_Piece(block, compiled, None, program.describe_error(error))]
    middle = len(block) // 2
    halves = block.cut(0, middle), block.cut(middle, len(block))
    return [piece for half in halves for piece in _execute_pieces(plan, half, compiled, inputs, programs, keep)]


def _split_invalid_codes(piece: _Piece) -> Iterator[_Piece]:
    """The piece, cut where a code has no category: only those runs fail."""
    outputs, size = piece.outputs, len(piece.block)
    texts = {name: values for name, values in (outputs or {}).items() if values.dtype == object}
    if outputs is None or not any(text is None for values in texts.values() for text in values):
        yield piece
        return
    reasons = np.full(size, None, dtype=object)
    for name, values in texts.items():
        # tables of earlier versions have this sentence: it stays, so that the same study gives the same bytes
        reasons[[text is None for text in values]] = f"the code of {name!r} stands for none of its words"
    changes = np.flatnonzero(reasons[1:] != reasons[:-1]) + 1
    for start, stop in pairwise([0, *changes.tolist(), size]):
        cut = {name: values[start:stop] for name, values in outputs.items()}
        yield replace(
            piece, block=piece.block.cut(start, stop), outputs=None if reasons[start] else cut, reason=reasons[start]
        )


def _run_within_memory(
    executable: Program,
    count: int,
    scalars: Outputs,
    inputs: Mapping[str, object],
    halve: Halve,
    keeper: program.Keeper | None = None,
) -> tuple[Program, dict[str, np.ndarray]]:
    """The outputs of `count` runs, by a program with less capacity each time the device's memory is exceeded.

    The lanes stay as they are, because the bits depend on them. Raises InvalidInputError if they alone do not fit.
    """
    try:
        size = executable.traced.capacity
        cuts = [slice(start, start + size) for start in range(0, count, size)]
        pieces = [
            program.run_program(
                executable,
                len(range(count)[cut]),
                {n: v[cut] for n, v in scalars.items()},
                dict(inputs),
                keeper if len(cuts) == 1 else None,
            )
            for cut in cuts
        ]
        return executable, {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    except program.OutOfMemoryError as error:
        smaller = halve(executable)
        if smaller is None:
            lanes = executable.traced.lanes
            wanted = f"{executable.bytes:,} bytes for {lanes} {'run' if lanes == 1 else 'runs at once'}"
            reason = program.describe_error(error)
            raise InvalidInputError(f"the device's memory cannot hold {wanted}: {reason}") from error
        return _run_within_memory(smaller, count, scalars, inputs, halve)

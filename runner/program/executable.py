"""The executable of a signature: compiled once, it serves a single run and every block of a sweep alike."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import SingleDeviceSharding

from runner.contract.task import Output
from runner.errors import describe_error
from runner.program.cache import count_hits, watch_cache
from runner.program.cost import fit_size
from runner.program.devices import (
    count_device_memory,
    count_memory,
    find_device,
    list_compiler_options,
    shares_binaries,
    use_device,
)
from runner.program.loops import Lanes, LoopProgram, begin_lanes
from runner.program.trace import Arrays, TracedTask

# JAX logs the traceback of a callback that raises, raw and once for each attempt; the reason of the run has the error
logging.getLogger("jax._src.callback").setLevel(logging.CRITICAL)


class OutOfMemoryError(Exception):
    """The device has no room for a program's arrays."""


SEGMENT_SECONDS = 0.5
"""About how long a segment of a loop takes: Ctrl-C waits for it."""


class StoppedError(Exception):
    """Runs were ended between two segments of their loop, because the user asked for it; they have no result."""


class CompilationError(Exception):
    """XLA cannot compile a task; the message says why."""


@dataclass(frozen=True)
class Program:
    """An executable with the seconds of its compilation, and its bytes by the compiler's own analysis.

    `is_shared` says that a copy for another device of the same kind has the same bits.
    """

    traced: TracedTask
    executable: Callable[..., Any]
    compile_seconds: float
    cache_hit: bool
    bytes: int
    is_shared: bool = False


def compile_program(traced: TracedTask) -> Program:
    """Compiles the program of a signature, or loads it from the cache; an eager task is wrapped as it is.

    On an accelerator it is compiled with fewer runs at once until, by the compiler's analysis, two blocks fit into its
    memory. One of several GPUs takes the binary that the cache has, so that the others can load the same. Raises
    CompilationError if XLA refuses the task, and OSError if the surroundings do, such as a full disk.
    """
    if traced.is_eager:
        return Program(traced, partial(_run_eagerly, traced), 0.0, False, traced.bytes)
    watch_cache()
    program = _fit_program(_compile(traced))
    if traced.device is None or not shares_binaries() or program.cache_hit:
        return replace(program, is_shared=True)
    cached = _compile(program.traced)  # another process may have written the entry first, and entries are kept
    seconds = program.compile_seconds + cached.compile_seconds
    taken = cached if cached.cache_hit else program
    return replace(taken, compile_seconds=seconds, cache_hit=False, is_shared=cached.cache_hit)


def copy_program(program: Program, device: int | None) -> Program:
    """The same program for another device, with the same bits; where there is none, the program as it is.

    JAX leaves the device out of the key of its cache on GPUs, and only there: they load the binary that was compiled
    for the first of them. A second compilation of it may give other bits, and is not used. The devices of any other
    platform have a compilation each. An eager task stays where it is.
    """
    if device == program.traced.device or program.traced.is_eager or not program.is_shared:
        return program
    copy = _compile(replace(program.traced, device=device))
    if shares_binaries() and not copy.cache_hit:
        return program
    return replace(copy, is_shared=True)


def _fit_program(program: Program) -> Program:
    """The program, with fewer runs at once where two blocks of it would exceed an accelerator's memory."""
    traced, memory = program.traced, count_device_memory()
    if memory is None:
        return program
    size = fit_size(traced.lanes, traced.capacity, program.bytes, memory, may_narrow=traced.may_narrow)
    return program if size is None else _fit_program(_compile(replace(traced, lanes=size[0], capacity=size[1])))


def _compile(traced: TracedTask) -> Program:
    columns = jax.tree.map(lambda s: jax.ShapeDtypeStruct((traced.capacity,), s.dtype), traced.scalars)
    started, hits = time.perf_counter(), count_hits()
    try:
        lowered = (_lower_loop if traced.make_loop else _lower_task)(traced, columns)
        executable = lowered.compile(compiler_options=list_compiler_options())
    except OSError:
        raise
    except Exception as error:
        raise CompilationError(describe_error(error)) from error
    seconds = time.perf_counter() - started
    return Program(traced, executable, seconds, count_hits() > hits, _count_bytes(executable))


def _lower_task(traced: TracedTask, columns: Arrays) -> Any:
    lanes, capacity = traced.lanes, traced.capacity

    def program(n: jax.Array, scalars: Arrays, inputs: Arrays) -> Arrays:
        def body(i: jax.Array, outputs: Arrays) -> Arrays:
            results = _run_lanes(traced, i * lanes, scalars, inputs)
            put = partial(lax.dynamic_update_slice_in_dim, start_index=i * lanes, axis=0)
            return {name: put(outputs[name], results[name]) for name in outputs}

        empty = {output.name: jnp.zeros((capacity, *output.shape), output.compiled) for output in traced.outputs}
        return lax.fori_loop(0, (n + lanes - 1) // lanes, body, empty)

    program.__name__ = traced.name
    placed = jax.jit(program, **_place(traced))
    return placed.lower(jax.ShapeDtypeStruct((), jnp.int32), columns, traced.inputs)


def _lower_loop(traced: TracedTask, columns: Arrays) -> Any:
    loop, number = describe_loop(traced), jax.ShapeDtypeStruct((), jnp.int32)

    def program(n: jax.Array, budget: jax.Array, lanes: Lanes, scalars: Arrays, inputs: Arrays) -> Lanes:
        return loop.advance_lanes(n, budget, lanes, scalars, inputs)

    program.__name__ = traced.name
    described = loop.describe_lanes(columns, traced.inputs)
    placed = jax.jit(program, donate_argnums=2, **_place(traced))
    return placed.lower(number, number, described, columns, traced.inputs)


def _place(traced: TracedTask) -> dict[str, Any]:
    """Arguments of `jax.jit` that compile for a device; another default device would have the task traced again."""
    if traced.device is None:
        return {}
    device = SingleDeviceSharding(find_device(traced.device))
    return {"in_shardings": device, "out_shardings": device}


def describe_loop(traced: TracedTask) -> LoopProgram:
    """The function that is compiled for a task that returns a loop."""
    assert traced.make_loop
    assert traced.finish
    outputs = {
        output.name: jax.ShapeDtypeStruct((traced.capacity, *output.shape), output.compiled)
        for output in traced.outputs
    }
    return LoopProgram(traced.make_loop, traced.finish, traced.lanes, outputs)


class Keeper(Protocol):
    """Keeps the state of runs that take long, between the segments into which their loop is cut."""

    def restore(self, described: Lanes) -> Lanes | None:
        """The state that was kept, of these abstract values; None if there is none."""
        ...

    def visit(self, lanes: Lanes) -> None:
        """Called after each segment but the last; may keep the state, and raises StoppedError to end here."""
        ...

    def end(self, lanes: Lanes) -> None:
        """Called after the last segment."""
        ...


def run_program(
    program: Program, n: int, scalars: Mapping[str, np.ndarray], inputs: Arrays, keeper: Keeper | None = None
) -> dict[str, np.ndarray]:
    """The outputs `(n, …)` of n runs with scalars `(n,)`; n is at most the program's capacity.

    Categorical outputs are objects: strings, and None where a code is out of range. A task that returns a loop is
    executed in segments, after which `keeper` is called. Raises OutOfMemoryError if the device has no room. On a CPU
    that is known before: memory that exceeds the machine's may be granted nevertheless, and the system then kills the
    process that uses it.
    """
    available = None if program.traced.is_eager else count_memory()
    if available is not None and program.bytes > available:
        raise OutOfMemoryError("they exceed the memory of this machine")
    capacity = program.traced.capacity
    padded = {name: _pad(column, capacity) for name, column in scalars.items()}
    try:
        if program.traced.make_loop:
            outputs: Arrays = _run_segments(program, n, padded, inputs, keeper)
        else:
            outputs = program.executable(np.int32(n), padded, inputs)
        fetched = {output: np.asarray(outputs[output.name])[:n] for output in program.traced.outputs}
    except jax.errors.JaxRuntimeError as error:
        # the status is in the text only: JaxRuntimeError has no field for it
        if "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error):
            raise OutOfMemoryError(str(error)) from error
        raise
    return {output.name: _decode(output, v) if output.is_categorical else v for output, v in fetched.items()}


def _run_segments(program: Program, n: int, scalars: Arrays, inputs: Arrays, keeper: Keeper | None) -> Arrays:
    """The outputs of n runs of a loop; a segment takes about `SEGMENT_SECONDS`, on which no bits depend."""
    described = describe_loop(program.traced).describe_lanes(scalars, inputs)
    lanes = (keeper.restore(described) if keeper else None) or begin_lanes(described, n)
    budget, longest = 1, np.iinfo(np.int32).max
    while np.asarray(lanes.is_active).any():
        started = time.perf_counter()
        lanes = program.executable(np.int32(n), np.int32(budget), lanes, scalars, inputs)
        if not np.asarray(lanes.is_active).any():
            break
        seconds = time.perf_counter() - started
        budget = max(1, min(longest, int(budget * min(4.0, SEGMENT_SECONDS / seconds))))
        if keeper:
            keeper.visit(lanes)
    if keeper:
        keeper.end(lanes)
    return dict(lanes.outputs)


def halve_program(program: Program) -> Program | None:
    """A program with half the capacity and the same lanes, or None if there is no smaller one."""
    traced = program.traced
    steps = traced.capacity // traced.lanes
    return compile_program(replace(traced, capacity=steps // 2 * traced.lanes)) if steps > 1 else None


def _pad(column: np.ndarray, size: int) -> np.ndarray:
    """A column `(n,)` as `(size,)`.

    The lanes that no run needs repeat the last run: one that no run has might be a loop that never ends.
    """
    padded = np.full(size, column[-1])  # `np.pad` takes five times as long
    padded[: len(column)] = column
    return padded


def _run_eagerly(traced: TracedTask, n: np.int32, scalars: Mapping[str, np.ndarray], inputs: Arrays) -> Arrays:
    """What an executable returns, by calls of the task outside of any program."""
    with use_device(traced.device):
        runs = [
            traced.call({name: jnp.asarray(column[place]) for name, column in scalars.items()}, inputs)
            for place in range(int(n))
        ]
    return {name: np.stack([np.asarray(run[name]) for run in runs]) for name in runs[0]}


def _run_lanes(traced: TracedTask, start: jax.Array, scalars: Arrays, inputs: Arrays) -> Arrays:
    """The results of `lanes` runs from row `start` on; a single lane is the plain function, without `vmap`."""
    call, lanes = traced.call, traced.lanes
    if lanes == 1:
        result = call({name: column[start] for name, column in scalars.items()}, inputs)
        return jax.tree.map(lambda value: value[None], result)
    rows = {name: lax.dynamic_slice_in_dim(column, start, lanes) for name, column in scalars.items()}
    if rows:
        return jax.vmap(call, in_axes=(0, None))(rows, inputs)
    return jax.tree.map(lambda value: jnp.broadcast_to(value, (lanes, *value.shape)), call({}, inputs))


def _decode(output: Output, codes: np.ndarray) -> np.ndarray:
    # neither clipped nor counted from the end: a wrong code must not read as a valid category
    is_valid = (codes >= 0) & (codes < len(output.categories))
    return np.array([*output.categories, None], dtype=object)[np.where(is_valid, codes, -1)]


def _count_bytes(executable: Any) -> int:
    # peak_memory leaves out the temporaries on a CPU
    memory = executable.memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return used - memory.alias_size_in_bytes

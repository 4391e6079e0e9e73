"""The executable of a signature: compiled once, it serves a single run and every block of a sweep alike."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from runner.contract.task import Output
from runner.errors import describe_error
from runner.program.cache import count_hits, watch_cache
from runner.program.devices import count_memory, list_compiler_options
from runner.program.trace import Arrays, TracedTask

# JAX logs the traceback of a callback that raises, raw and once for each attempt; the reason of the run has the error
logging.getLogger("jax._src.callback").setLevel(logging.CRITICAL)


class OutOfMemoryError(Exception):
    """The device has no room for a program's arrays."""


class CompilationError(Exception):
    """XLA cannot compile a task; the message says why."""


@dataclass(frozen=True)
class Program:
    """An executable with the seconds of its compilation, and its bytes by the compiler's own analysis."""

    traced: TracedTask
    executable: Callable[..., Arrays]
    compile_seconds: float
    cache_hit: bool
    bytes: int


def compile_program(traced: TracedTask) -> Program:
    """Compiles the program of a signature, or loads it from the cache; an eager task is wrapped as it is.

    Raises CompilationError if XLA refuses the task, and OSError if the surroundings do, such as a full disk.
    """
    if traced.is_eager:
        return Program(traced, partial(_run_eagerly, traced), 0.0, False, traced.bytes)
    watch_cache()
    lanes, capacity = traced.lanes, traced.capacity

    def program(n: jax.Array, scalars: Arrays, inputs: Arrays) -> Arrays:
        def body(i: jax.Array, outputs: Arrays) -> Arrays:
            results = _run_lanes(traced, i * lanes, scalars, inputs)
            put = partial(lax.dynamic_update_slice_in_dim, start_index=i * lanes, axis=0)
            return {name: put(outputs[name], results[name]) for name in outputs}

        empty = {output.name: jnp.zeros((capacity, *output.shape), output.compiled) for output in traced.outputs}
        return lax.fori_loop(0, (n + lanes - 1) // lanes, body, empty)

    program.__name__ = traced.name
    columns = jax.tree.map(lambda s: jax.ShapeDtypeStruct((capacity,), s.dtype), traced.scalars)
    started, hits = time.perf_counter(), count_hits()
    try:
        lowered = jax.jit(program).lower(jax.ShapeDtypeStruct((), jnp.int32), columns, traced.inputs)
        executable = lowered.compile(compiler_options=list_compiler_options())
    except OSError:
        raise
    except Exception as error:
        raise CompilationError(describe_error(error)) from error
    seconds = time.perf_counter() - started
    return Program(traced, executable, seconds, count_hits() > hits, _count_bytes(executable))


def run_program(program: Program, n: int, scalars: Mapping[str, np.ndarray], inputs: Arrays) -> dict[str, np.ndarray]:
    """The outputs `(n, …)` of n runs with scalars `(n,)`; n is at most the program's capacity.

    Categorical outputs are objects: strings, and None where a code is out of range. Raises OutOfMemoryError if the
    device has no room. On a CPU that is known before: memory that exceeds the machine's may be granted nevertheless,
    and the system then kills the process that uses it.
    """
    available = None if program.traced.is_eager else count_memory()
    if available is not None and program.bytes > available:
        raise OutOfMemoryError("they exceed the memory of this machine")
    capacity = program.traced.capacity
    padded = {name: _pad(column, capacity) for name, column in scalars.items()}
    try:
        outputs = program.executable(np.int32(n), padded, inputs)
        fetched = {output: np.asarray(outputs[output.name])[:n] for output in program.traced.outputs}
    except jax.errors.JaxRuntimeError as error:
        # the status is in the text only: JaxRuntimeError has no field for it
        if "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error):
            raise OutOfMemoryError(str(error)) from error
        raise
    return {output.name: _decode(output, v) if output.is_categorical else v for output, v in fetched.items()}


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

"""A signature's executable: the only owner of `jit`, `vmap`, devices and the compilation cache.

One program serves every run of its signature, alone or among millions:

    program(n, scalars[C]…, inputs…) -> outputs[C, …]
        fori_loop(0, ceil(n / W)):  the task on W lanes

The capacity C and the lanes W are fixed, the number n of runs is not. So a run has the same bits whatever
its neighbours, and a signature is compiled once.
"""

import math
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from runner.errors import InvalidInputError
from runner.plan import inputs as arrays
from runner.plan.contract import Built, Output, Task
from runner.plan.study import Segment, scalar_dtype

MAX_LANES = 64
"""On two CPU cores nothing was gained from more; see benchmarks/."""
LANES_BYTES = 128 * 1024
"""What all lanes may keep alive at once: it should stay in a core's own cache."""
MAX_CAPACITY = 8192
CAPACITY_BYTES = 32 * 1024**2
"""What the outputs of a block may take."""
EAGER = 4
"""Runs in a block of what is not compiled: seconds, perhaps."""
CAPACITY_WORK = 2**31
"""Scalar operations in a block, around a second of one core: progress and Ctrl-C wait for a block."""

Arrays = dict[str, Any]


@dataclass(frozen=True)
class Traced:
    """A signature whose shapes are checked: its task traced once, nothing compiled.

    `call` takes a dict of scalars and one of inputs for a single run.
    """

    call: Callable[[Arrays, Arrays], Arrays]
    scalars: Arrays
    inputs: Arrays
    outputs: tuple[Output, ...]
    lanes: int
    capacity: int
    eager: bool
    bytes: int
    """What the lanes and a block's arrays take by estimate; the compiler knows better afterwards."""


@dataclass(frozen=True)
class Program:
    """An executable with what its making took; `bytes` is by the compiler's own analysis."""

    traced: Traced
    executable: Callable[..., Arrays]
    compile_seconds: float
    cache_hit: bool
    bytes: int


def trace(segment: Segment, *, lanes: int | None = None, block: int | None = None) -> Traced:
    """Traces the segment's task once on abstract values.

    Raises InvalidInputError, naming the values, where the task refuses them or returns what is no array.
    """
    task = segment.task
    scalars = {name: jax.ShapeDtypeStruct((), scalar_dtype(task, name)) for name in segment.traced}
    inputs = {name: jax.ShapeDtypeStruct(i.shape, arrays.dtype(i)) for name, i in segment.inputs.items()}
    static = {name: value.value if isinstance(value, Built) else value for name, value in segment.static.items()}

    eager = any(segment.static.get(name) == value for name, value in task.eager)

    def named(scalars: Arrays, inputs: Arrays) -> _Returned:
        return _named(task, task.function(**static, **scalars, **inputs))

    run = named if eager else jax.jit(named)

    def call(scalars: Arrays, inputs: Arrays) -> Arrays:
        returned = run(scalars, inputs)
        return {name: value.code if isinstance(value, _Category) else value for name, value in returned.items()}

    try:
        traced = jax.jit(named).trace(scalars, inputs)
    except Exception as error:  # whatever the task raises is a refusal of these values
        raise InvalidInputError(f"{_values(segment)}: {reason(error)}") from error
    outputs = _outputs(task, traced.out_info)
    jaxpr = traced.jaxpr.jaxpr
    lanes = 1 if eager else lanes or _power(LANES_BYTES // max(1, _live_bytes(jaxpr)), MAX_LANES)
    capacity = block or (EAGER if eager else _capacity(sum(output.bytes for output in outputs), _work(jaxpr)))
    capacity = math.ceil(capacity / lanes) * lanes
    columns = capacity * (4 * len(scalars) + sum(output.bytes for output in outputs))
    return Traced(call, scalars, inputs, outputs, lanes, capacity, eager, columns + lanes * _live_bytes(jaxpr))


def _values(segment: Segment) -> str:
    shapes = {f"{name}.shape": list(value.shape) for name, value in segment.inputs.items()}
    values = {**segment.traced, **segment.static, **shapes}
    return f"task {segment.task.name!r} with " + ", ".join(f"{name}={value}" for name, value in values.items())


def reason(error: Exception) -> str:
    """The type and the first line of an error."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


@partial(jax.tree_util.register_dataclass, data_fields=["code"], meta_fields=["categories"])
@dataclass(frozen=True)
class _Category:
    """A word as a program has it: its place among `words`, int32 `()`."""

    code: Any
    categories: tuple[str, ...]


_Returned = dict[str, jax.Array | _Category]


def _named(task: Task, returned: Any) -> _Returned:
    """What a task returned, by name. A dict brings its names; an array or a word takes those of the YAML."""
    names = task.outputs
    if isinstance(returned, Mapping):
        if names and set(names) != set(returned):
            raise TypeError(f"returns {sorted(returned)}, but task.outputs names {list(names)}")
        named = dict(returned)
    elif isinstance(returned, tuple | list) and not _is_category(returned):
        if len(returned) != len(names):
            raise TypeError(f"returns {len(returned)} values, but task.outputs names {list(names)}")
        named = dict(zip(names, returned, strict=True))
    elif len(names) > 1:
        if _is_category(returned):
            raise TypeError(f"returns a word, but task.outputs names {list(names)}")
        if jnp.shape(returned)[:1] != (len(names),):
            raise TypeError(f"returns an array of shape {jnp.shape(returned)}, but task.outputs names {list(names)}")
        named = {name: returned[i] for i, name in enumerate(names)}
    else:
        named = {(names or ("output",))[0]: returned}
    return {
        name: _category(name, value) if _is_category(value) else _array(name, value) for name, value in named.items()
    }


def _is_category(value: Any) -> bool:
    """By its attributes: a task knows no class of the runner."""
    return hasattr(value, "categories") and hasattr(value, "code")


def _category(name: str, value: Any) -> _Category:
    categories, code = value.categories, _array(name, value.code)
    if (
        not isinstance(categories, tuple)
        or not categories
        or not all(isinstance(w, str) and w.isprintable() for w in categories)
    ):
        raise TypeError(
            f"returns as {name!r} one of {categories!r}; categories are a tuple of one or more printable strings"
        )
    if code.shape or not jnp.issubdtype(code.dtype, jnp.integer) or code.dtype.itemsize > 4:  # 8 bytes would wrap
        raise TypeError(f"returns {code.dtype}{list(code.shape)} as the code of {name!r}; it is one int32 for each run")
    return _Category(code.astype(jnp.int32), categories)


def _array(name: str, value: Any) -> jax.Array:
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError):
        raise TypeError(f"returns a {type(value).__name__} as {name!r}, no array") from None
    if array.dtype == bool or jnp.issubdtype(array.dtype, jnp.integer) or jnp.issubdtype(array.dtype, jnp.floating):
        return array
    raise TypeError(f"returns {array.dtype} as {name!r}; a table holds floats, integers and booleans")


def _outputs(task: Task, info: Mapping[str, Any]) -> tuple[Output, ...]:
    """In the order of the YAML; without one, in the order of a pytree's keys."""
    return tuple(_output(name, info[name]) for name in task.outputs or info)


def _output(name: str, info: Any) -> Output:
    if isinstance(info, _Category):
        return Output(name, (), np.dtype(str), info.categories)
    return Output(name, info.shape, np.dtype(info.dtype))


def _power(number: int, most: int) -> int:
    """The largest power of two that is at most `number` and `most`, and at least 1."""
    return min(most, 1 << (max(1, number).bit_length() - 1))


def _capacity(output_bytes: int, work: int) -> int:
    return _power(min(CAPACITY_BYTES // max(1, output_bytes), CAPACITY_WORK // max(1, work)), MAX_CAPACITY)


def _inner(eqn: Any) -> list[Jaxpr]:
    """The jaxprs within an equation: of a loop's body, a branch, a called function."""
    values = [v for value in eqn.params.values() for v in (value if isinstance(value, tuple | list) else (value,))]
    closed = [value.jaxpr for value in values if isinstance(value, ClosedJaxpr)]
    return closed + [value for value in values if isinstance(value, Jaxpr)]


def _bytes(variables: Sequence[Any]) -> int:
    return sum(math.prod(v.aval.shape) * v.aval.dtype.itemsize for v in variables if hasattr(v.aval, "shape"))


def _live_bytes(jaxpr: Jaxpr) -> int:
    """The most bytes that one run's intermediate values take at once, were each equation computed in turn."""
    last = {v: i for i, eqn in enumerate(jaxpr.eqns) for v in eqn.invars if not isinstance(v, Literal)}
    own = {v for eqn in jaxpr.eqns for v in eqn.outvars} - {v for v in jaxpr.outvars if not isinstance(v, Literal)}
    alive = peak = 0
    for i, eqn in enumerate(jaxpr.eqns):
        alive += _bytes(eqn.outvars)
        peak = max(peak, alive + max((_live_bytes(inner) for inner in _inner(eqn)), default=0))
        dead = {v for v in (*eqn.invars, *eqn.outvars) if not isinstance(v, Literal) and v in own}
        alive -= _bytes([v for v in dead if last.get(v, i) == i])
    return peak


def _work(jaxpr: Jaxpr) -> int:
    """Scalar operations of one run, roughly; the body of a `while` counts once, that of a `scan` by its length."""
    return sum(_equation_work(eqn) for eqn in jaxpr.eqns)


def _equation_work(eqn: Any) -> int:
    inner = _inner(eqn)
    if inner:
        return int(eqn.params.get("length", 1)) * sum(_work(each) for each in inner)
    size = sum(math.prod(v.aval.shape) for v in eqn.outvars if hasattr(v.aval, "shape"))
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return size * math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
    if eqn.primitive.name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        return size * math.prod(kernel) // kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
    return size


def compile(traced: Traced) -> Program:
    """Compiles the program of a signature, or takes it from the cache on disk; one that is eager is as it is."""
    if traced.eager:
        return Program(traced, partial(_one_by_one, traced), 0.0, False, traced.bytes)
    _watch_cache()
    lanes, capacity = traced.lanes, traced.capacity

    def program(n: jax.Array, scalars: Arrays, inputs: Arrays) -> Arrays:
        def body(i: jax.Array, outputs: Arrays) -> Arrays:
            done = _on_lanes(traced, i * lanes, scalars, inputs)
            put = partial(lax.dynamic_update_slice_in_dim, start_index=i * lanes, axis=0)
            return {name: put(outputs[name], done[name]) for name in outputs}

        empty = {output.name: jnp.zeros((capacity, *output.shape), output.compiled) for output in traced.outputs}
        return lax.fori_loop(0, (n + lanes - 1) // lanes, body, empty)

    columns = jax.tree.map(lambda s: jax.ShapeDtypeStruct((capacity,), s.dtype), traced.scalars)
    started, _LOCAL.hits = time.perf_counter(), 0
    executable = jax.jit(program).lower(jax.ShapeDtypeStruct((), jnp.int32), columns, traced.inputs).compile()
    seconds = time.perf_counter() - started
    return Program(traced, executable, seconds, _LOCAL.hits > 0, _program_bytes(executable))


def _one_by_one(traced: Traced, n: np.int32, scalars: Mapping[str, np.ndarray], inputs: Arrays) -> Arrays:
    """What an executable gives, by calls of the task outside of any program."""
    runs = [
        traced.call({name: jnp.asarray(column[place]) for name, column in scalars.items()}, inputs)
        for place in range(int(n))
    ]
    return {name: np.stack([np.asarray(run[name]) for run in runs]) for name in runs[0]}


def _on_lanes(traced: Traced, start: jax.Array, scalars: Arrays, inputs: Arrays) -> Arrays:
    """The results of `lanes` runs from row `start` on; a single lane is the plain function, without `vmap`."""
    call, lanes = traced.call, traced.lanes
    if lanes == 1:
        one = call({name: column[start] for name, column in scalars.items()}, inputs)
        return jax.tree.map(lambda value: value[None], one)
    rows = {name: lax.dynamic_slice_in_dim(column, start, lanes) for name, column in scalars.items()}
    return jax.vmap(call, in_axes=(0, None))(rows, inputs) if rows else _repeat(call({}, inputs), lanes)


def _repeat(values: Arrays, lanes: int) -> Arrays:
    return jax.tree.map(lambda value: jnp.broadcast_to(value, (lanes, *value.shape)), values)


def _program_bytes(executable: Any) -> int:
    # peak_memory leaves the temporaries out on a CPU
    memory = executable.memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return used - memory.alias_size_in_bytes


def call(program: Program, n: int, scalars: Mapping[str, np.ndarray], inputs: Arrays) -> dict[str, np.ndarray]:
    """The outputs `(n, …)` of n runs with scalars `(n,)`; n is at most the program's capacity.

    Words are objects: strings, and None where a code is the place of none. Raises OutOfMemoryError where the device has
    no room.

    Rows beyond n repeat the last run: a lane that no run needs must not be the one whose loop never ends.
    """
    capacity = program.traced.capacity
    padded = {name: np.pad(column, (0, capacity - n), mode="edge") for name, column in scalars.items()}
    try:
        outputs = program.executable(np.int32(n), padded, inputs)
        fetched = {output: np.asarray(outputs[output.name])[:n] for output in program.traced.outputs}
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error):
            raise OutOfMemoryError(str(error)) from error
        raise
    return {output.name: _said(output, v) if output.is_categorical else v for output, v in fetched.items()}


def _said(output: Output, codes: np.ndarray) -> np.ndarray:
    # neither clipped nor counted from the end: a wrong code would read as a right word
    known = (codes >= 0) & (codes < len(output.categories))
    return np.array([*output.categories, None], dtype=object)[np.where(known, codes, -1)]


class OutOfMemoryError(Exception):
    """The device has no room for a program's arrays."""


def halved(program: Program) -> Program | None:
    """A program of half the capacity and the same lanes, or None if there is no smaller one."""
    traced = program.traced
    steps = traced.capacity // traced.lanes
    return compile(replace(traced, capacity=steps // 2 * traced.lanes)) if steps > 1 else None


def put(description: arrays.Input) -> jax.Array:
    """The input on the device."""
    return jax.device_put(arrays.build(description))


def devices() -> list[str]:
    """The devices that programs run on, by kind: `cpu`, or the name of an accelerator."""
    return [jax.local_devices()[0].device_kind]


def use_cpu() -> None:
    """Leaves accelerators alone, from now on and if none was used before."""
    jax.config.update("jax_platforms", "cpu")


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_cache() -> None:
    """Turns on JAX's cache of executables, one folder for each user, host and jaxlib.

    A folder of the user's own choice, by `JAX_COMPILATION_CACHE_DIR`, is kept. Executables of another
    host or another jaxlib may be refused or crash, hence the folder's name.
    """
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = base / "seedbed" / f"{socket.gethostname()}-jaxlib-{jaxlib.__version__}"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        _mend(folder)


TORN = "Error reading persistent compilation cache entry"
"""How JAX's warning begins that an entry cannot be read; it compiles again, and yet never replaces the entry."""


def _mend(folder: Path) -> None:
    """Empties the cache, in place of the warning, where a kill has torn an entry: so it is written anew."""
    show = warnings.showwarning
    if getattr(show, "folder", None) == folder:
        return

    def mend(message: Any, *about: Any, **more: Any) -> None:
        if not str(message).startswith(TORN):
            show(message, *about, **more)
            return
        for entry in folder.iterdir():
            entry.unlink(missing_ok=True)

    mend.folder = folder  # type: ignore[attr-defined]
    warnings.filterwarnings("always", TORN)
    warnings.showwarning = mend


_LOCAL = threading.local()


@cache
def _watch_cache() -> None:
    """Counts the hits of the cache, each in the thread that compiles; a listener cannot be taken off again."""
    jax.monitoring.register_event_listener(_count_hit)


def _count_hit(event: str, **_: Any) -> None:
    if event == "/jax/compilation_cache/cache_hits":
        _LOCAL.hits = getattr(_LOCAL, "hits", 0) + 1

"""A signature's task traced once: its shapes are checked, and its cost is known before anything is compiled."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import Jaxpr

from runner.contract.building import ConstructionError, build
from runner.contract.frames import list_own_frames
from runner.contract.task import Built, Output, Task, load_function
from runner.errors import InvalidInputError, describe_error
from runner.plan.datasets import Dataset, build_dataset
from runner.plan.inputs import Input, input_dtype
from runner.plan.segments import Segment
from runner.plan.templates import Template
from runner.plan.texts import escape_controls, shorten_reason
from runner.program.cost import (
    LARGE_RUN_WORK,
    MOST_ELEMENTS,
    choose_capacity,
    choose_lanes,
    choose_loop_capacity,
    count_live_bytes,
    count_work,
    find_longest_axis,
    find_loop_work,
    has_callback,
)
from runner.program.devices import count_device_memory, is_accelerated
from runner.program.loops import Loop, MakeLoop, has_variables, is_loop, run_loop
from runner.program.outputs import CategoryCode, Returned, list_outputs, name_outputs
from runner.program.structure import name_program

EAGER_CAPACITY = 4
"""Runs in a block of a task that is not compiled, which may take seconds each."""

LONGEST_REFUSAL = 900
"""Characters of a message about a group that cannot be traced; its reason in the table is shorter."""
MANY_VALUES = 12
"""Of more values, a message has only those that distinguish a group."""

Arrays = dict[str, Any]


@dataclass(frozen=True)
class TracedTask:
    """The traced task of a signature.

    `name` tells programs apart by their structure. `call` takes a dict of scalars and one of inputs for a single run,
    whose abstract values are `scalars`, uint32 or float32 `()`, and `inputs`. `lanes` runs are executed side by side,
    at most `capacity` in one call. `bytes` estimates what lanes and arrays of a block take; the compiled program has
    the exact figure. `work` are the scalar operations of one run, roughly. The program is compiled for the `device` of
    that number; None is the default device. `may_narrow` says that a rule has chosen the lanes, and may choose fewer if
    the compiled program exceeds an accelerator.
    """

    name: str
    call: Callable[[Arrays, Arrays], Arrays]
    scalars: Arrays
    inputs: Arrays
    outputs: tuple[Output, ...]
    lanes: int
    capacity: int
    is_eager: bool
    bytes: int
    work: int = 0
    device: int | None = None
    may_narrow: bool = False
    make_loop: MakeLoop | None = None
    """The loop of a run, if the task returns one; `finish` makes outputs of its last state."""
    finish: Callable[[Loop, Any], Arrays] | None = None
    can_save: bool = False
    """Whether the loop tells and writes its variables, so that a replay can save a run."""


def is_large(traced: TracedTask) -> bool:
    """Whether one run takes many seconds on one core of a CPU, as far as the jaxpr tells; False on an accelerator."""
    return traced.work >= LARGE_RUN_WORK and not is_accelerated()


def trace_segment(segment: Segment, *, lanes: int | None = None, block: int | None = None) -> TracedTask:
    """Traces the segment's task on abstract values; lanes and capacity follow `runner.program.cost` if not given.

    Raises InvalidInputError with the values if the task refuses them, returns something other than arrays, or has an
    array with an axis that is too long for XLA.
    """
    task, functions = segment.task, _Functions(segment)
    scalars = {name: jax.ShapeDtypeStruct((), segment.scalar_dtype(name)) for name in segment.traced}
    inputs = {name: _describe_shapes(value) for name, value in segment.inputs.items()}
    traced = _trace(segment, functions.jitted, scalars, inputs)
    outputs, jaxpr = list_outputs(task, traced.out_info), traced.jaxpr.jaxpr
    _check_axes(segment, jaxpr)
    loop, is_eager = functions.loop, functions.is_eager
    size = _choose_size(jaxpr, outputs, lanes, block, is_eager=is_eager, is_loop=loop is not None and not is_eager)
    return TracedTask(
        name_program(jaxpr, size.lanes, size.capacity),
        functions.call,
        scalars,
        inputs,
        outputs,
        size.lanes,
        size.capacity,
        is_eager,
        size.bytes + 4 * len(scalars) * size.capacity,
        count_work(jaxpr),
        may_narrow=not lanes and not is_eager,
        make_loop=functions.call_task if loop and not is_eager else None,
        finish=functions.finish,
        can_save=loop is not None and not is_eager and has_variables(loop),
    )


class _Functions:
    """The task of a segment as functions of scalars and inputs; `loop` is what it returned last, if that is a loop."""

    def __init__(self, segment: Segment) -> None:
        self.task, self._function = segment.task, load_function(segment.task)
        self._static = {n: value.value if isinstance(value, Built) else value for n, value in segment.static.items()}
        self.is_eager = any(segment.static.get(name) == value for name, value in self.task.eager)
        self.jitted = jax.jit(self.name_returned)
        self.loop: Loop | None = None

    def call_task(self, scalars: Arrays, inputs: Arrays) -> Any:
        """What the task returns."""
        return self._function(**_fill_static(self.task, self._static, scalars), **inputs)

    def name_returned(self, scalars: Arrays, inputs: Arrays) -> Returned:
        """The outputs by name; a loop is run, in the lane of the run alone."""
        returned = self.call_task(scalars, inputs)
        self.loop = returned if is_loop(returned) else None
        return name_outputs(self.task, run_loop(returned) if is_loop(returned) else returned)

    def call(self, scalars: Arrays, inputs: Arrays) -> Arrays:
        """The outputs by name, categories as their codes; traced once, also for several programs."""
        return _take_codes((self.name_returned if self.is_eager else self.jitted)(scalars, inputs))

    def finish(self, loop: Loop, state: Any) -> Arrays:
        """The outputs of the last state of a loop, as those of `call`."""
        return _take_codes(name_outputs(self.task, loop.finish(state)))


def _trace(segment: Segment, jitted: Any, scalars: Arrays, inputs: Arrays) -> Any:
    """The task traced on abstract values. Raises InvalidInputError for whatever it raises."""
    try:
        return jitted.trace(scalars, inputs)
    except Exception as error:  # whatever the task raises is a refusal of these values
        reason = _describe_refusal(segment, error)
        refusal = InvalidInputError(shorten_reason(f"{_describe_segment(segment)}: {reason}", LONGEST_REFUSAL))
        for line in list_own_frames(error)[-1:]:
            refusal.add_note(f"  {line}")  # not part of the message, which the table may get as a reason
        raise refusal from error


class _Size(NamedTuple):
    """Lanes and capacity of a program, and the bytes that lanes and outputs of a block take by estimate."""

    lanes: int
    capacity: int
    bytes: int


def _choose_size(
    jaxpr: Jaxpr, outputs: Sequence[Output], lanes: int | None, block: int | None, *, is_eager: bool, is_loop: bool
) -> _Size:
    live_bytes, memory = count_live_bytes(jaxpr), count_device_memory()
    run_bytes = sum(output.bytes for output in outputs)
    rule = partial(choose_lanes, live_bytes, loop_work=find_loop_work(jaxpr), calls_python=has_callback(jaxpr))
    lanes = 1 if is_eager else lanes or rule(memory=memory)
    if is_eager:
        most = EAGER_CAPACITY
    elif is_loop:
        most = choose_loop_capacity(run_bytes, lanes)
    else:
        most = choose_capacity(run_bytes, count_work(jaxpr), is_accelerated=memory is not None)
    capacity = math.ceil((block or most) / lanes) * lanes
    return _Size(lanes, capacity, capacity * run_bytes + lanes * live_bytes)


def _describe_refusal(segment: Segment, error: Exception) -> str:
    built = [name for name in segment.traced if "." in name or segment.task.parameter(name) is None]
    if built and isinstance(error, jax.errors.ConcretizationTypeError):
        return f"a library needs the value of a number that is traced, of: {', '.join(built)} (task.traced)"
    return describe_error(error)


def _take_codes(returned: Returned) -> Arrays:
    return {name: value.code if isinstance(value, CategoryCode) else value for name, value in returned.items()}


def _fill_static(task: Task, static: Mapping[str, Any], scalars: Arrays) -> dict[str, Any]:
    """The arguments that are no inputs: static values, scalars, and objects built with scalars in them."""
    own = {name: value for name, value in scalars.items() if name in task.names}
    built = {
        name: _build(name, value.fill(scalars)) if isinstance(value, Template) else value
        for name, value in static.items()
    }
    return built | own


def _build(name: str, description: Any) -> Any:
    try:
        return build(name, description)
    except ConstructionError as error:
        if isinstance(error.__cause__, jax.errors.ConcretizationTypeError):
            raise TypeError(
                f"{name}: {error.target} needs the value of a number, and those of {name} are traced"
            ) from error
        raise error.__cause__ or error from error


def _describe_shapes(given: Input | Dataset) -> Any:
    """The abstract value of an input, or the tree of those of a dataset."""
    if isinstance(given, Input):
        return jax.ShapeDtypeStruct(given.shape, input_dtype(given))
    tree = build_dataset(given.owner, given.text)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), np.asarray(leaf).dtype), tree)


def _check_axes(segment: Segment, jaxpr: Jaxpr) -> None:
    if (longest := find_longest_axis(jaxpr)) > MOST_ELEMENTS:
        rule = f"an array has an axis of {longest:,} elements; XLA takes at most {MOST_ELEMENTS:,}"
        raise InvalidInputError(f"{_describe_segment(segment)}: {rule}")


def _describe_segment(segment: Segment) -> str:
    values = segment.list_values()
    if len(values) > MANY_VALUES:
        values = {name: value for name, value in segment.swept.items() if name != "task"}
    listed = ", ".join(f"{name}={value}" for name, value in values.items())
    return escape_controls(f"task {segment.task.name!r}{' with ' if listed else ''}{listed}")

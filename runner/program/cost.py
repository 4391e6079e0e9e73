"""The rule that chooses lanes and capacity of a program from the jaxpr of its task, never from a clock.

The bits of a result may depend on the lanes, so they must not depend on the machine's speed or load.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

MAX_LANES = 64
"""More lanes gained nothing on two CPU cores; see benchmarks/."""
LANES_BYTES = 128 * 1024
"""What all lanes may keep alive at once; it should stay in a core's own cache."""
LANES_WORK = 10_000
"""Scalar operations that all lanes together should have in an equation of a loop; fewer cost less than calling it."""
ASSUMED_STEPS = 100
"""Iterations of a `while`, which no jaxpr tells."""
FEW_STEPS = 16
"""A `scan` of fewer iterations is no loop for the rule of the lanes."""
MAX_CAPACITY = 8192
CAPACITY_BYTES = 32 * 1024**2
"""What the outputs of a block may take."""
ACCELERATOR_LANES = 1024
"""The most lanes on an accelerator."""
ACCELERATOR_BYTES = 256 * 1024**2
"""What all lanes may keep alive at once on an accelerator: enough values to occupy all of its units.

More lanes would only lengthen a single run, which has all of them, too.
"""
ACCELERATOR_SHARE = 8
"""All lanes take at most this part of an accelerator's memory, because the compiler needs more than they keep alive."""
ACCELERATOR_WORK = 2**38
"""Scalar operations in a block on an accelerator, for the reason of `CAPACITY_WORK`."""
BLOCKS_ON_DEVICE = 2
"""Blocks that are on an accelerator at once: one is executed while the other is fetched and written."""
LOOP_ROUNDS = 32
"""Runs that each lane of a loop has in a block, one after the other."""
CALLBACKS = ("debug_callback", "debug_print", "io_callback", "pure_callback")
"""Primitives that call Python, as JAX 0.10 to 0.12 name them."""
MOST_ELEMENTS = 2**31 - 1
"""Elements along an axis of an array; XLA counts them in 32 bits, and ends the process where a product overflows."""
LARGE_RUN_WORK = 2**35
"""Scalar operations of a run that takes about ten seconds of one core, or more."""
CAPACITY_WORK = 2**31
"""Scalar operations in a block, about a second of one core: progress and Ctrl-C wait for a block."""


def choose_lanes(
    live_bytes: int, *, loop_work: int | None = None, calls_python: bool = False, memory: int | None = None
) -> int:
    """The lanes of a program: a power of two, at most 64, that keeps all lanes' live bytes within a core's cache.

    Where loops have most of the work, with `loop_work` in each of their equations, it is the one that makes equations
    large enough; wider ones are slower (benchmarks/lanes.py). With the `memory` of an accelerator, at most 1024 lanes
    that keep their live bytes within 256 MiB, and within an eighth of it. A task that calls Python gets one lane: a
    lane that no run needs would call it, too, and print or count.
    """
    if calls_python:
        return 1
    if memory is not None:
        most = min(ACCELERATOR_BYTES, memory // ACCELERATOR_SHARE)
        return _power_of_two(most // max(1, live_bytes), ACCELERATOR_LANES)
    if loop_work is not None:
        return _power_of_two(LANES_WORK // max(1, loop_work), MAX_LANES)
    return _power_of_two(LANES_BYTES // max(1, live_bytes), MAX_LANES)


def choose_capacity(output_bytes: int, work: int, *, is_accelerated: bool = False) -> int:
    """The most runs in a block, a power of two, from one run's output bytes and scalar operations."""
    most = ACCELERATOR_WORK if is_accelerated else CAPACITY_WORK
    return _power_of_two(min(CAPACITY_BYTES // max(1, output_bytes), most // max(1, work)), MAX_CAPACITY)


def choose_loop_capacity(output_bytes: int, lanes: int) -> int:
    """The most runs in a block of a task that returns a loop.

    A block has many times as many runs as lanes, because lanes without a next run are idle at its end.
    """
    return min(LOOP_ROUNDS * lanes, _power_of_two(CAPACITY_BYTES // max(1, output_bytes), MAX_CAPACITY))


def fit_size(lanes: int, capacity: int, needed: int, memory: int, *, may_narrow: bool) -> tuple[int, int] | None:
    """Smaller lanes and capacity for a program that needs more than its share of an accelerator; None if it fits.

    The capacity is halved first, on which no bits depend; the lanes follow if they were chosen by rule. None, too, if
    nothing can be halved: the device refuses the program, or has room after all.
    """
    if needed <= memory // BLOCKS_ON_DEVICE:
        return None
    if capacity > lanes:
        return lanes, max(1, capacity // lanes // 2) * lanes
    return (lanes // 2, lanes // 2) if may_narrow and lanes > 1 else None


def count_live_bytes(jaxpr: Jaxpr) -> int:
    """The most bytes that one run's intermediate values take at once, if the equations are evaluated in turn."""
    last = {v: i for i, eqn in enumerate(jaxpr.eqns) for v in eqn.invars if not isinstance(v, Literal)}
    own = {v for eqn in jaxpr.eqns for v in eqn.outvars} - {v for v in jaxpr.outvars if not isinstance(v, Literal)}
    alive = peak = 0
    for i, eqn in enumerate(jaxpr.eqns):
        alive += _bytes(eqn.outvars)
        peak = max(peak, alive + max((count_live_bytes(inner) for inner in list_inner_jaxprs(eqn)), default=0))
        dead = {v for v in (*eqn.invars, *eqn.outvars) if not isinstance(v, Literal) and v in own}
        alive -= _bytes([v for v in dead if last.get(v, i) == i])
    return peak


def count_work(jaxpr: Jaxpr) -> int:
    """Scalar operations of one run, roughly; the body of a `while` counts once, that of a `scan` by its length."""
    return sum(_count_equation_work(eqn) for eqn in jaxpr.eqns)


def find_loop_work(jaxpr: Jaxpr) -> int | None:
    """The mean scalar operations of an equation within loops, if loops have most of the work; None otherwise."""
    whole, loops = _weigh(jaxpr)
    return loops.work // max(1, loops.equations) if 2 * loops.work > whole.work else None


class _Weight(NamedTuple):
    """Scalar operations and equations, as often as they are executed."""

    work: int
    equations: int

    def add(self, other: "_Weight", times: int = 1) -> "_Weight":
        return _Weight(self.work + times * other.work, self.equations + times * other.equations)


def _weigh(jaxpr: Jaxpr) -> tuple[_Weight, _Weight]:
    """The weight of a jaxpr, and of the loops in it."""
    whole = loops = _Weight(0, 0)
    for eqn in jaxpr.eqns:
        inner = list_inner_jaxprs(eqn)
        if not inner:
            whole = whole.add(_Weight(_count_equation_work(eqn), 1))
        name, length = eqn.primitive.name, int(eqn.params.get("length", 1))
        times = ASSUMED_STEPS if name == "while" else length
        for weight, looped in map(_weigh, inner):
            whole = whole.add(weight, times)
            loops = loops.add(weight if name == "while" or length >= FEW_STEPS else looped, times)
    return whole, loops


def has_callback(jaxpr: Jaxpr) -> bool:
    """Whether a run calls back into Python, as `jax.debug.print` and `jax.pure_callback` do."""
    return any(eqn.primitive.name in CALLBACKS or any(map(has_callback, list_inner_jaxprs(eqn))) for eqn in jaxpr.eqns)


def find_longest_axis(jaxpr: Jaxpr) -> int:
    """The most elements along one axis of any array."""
    variables = [*jaxpr.invars, *(variable for eqn in jaxpr.eqns for variable in eqn.outvars)]
    sizes = [size for v in variables for size in getattr(v.aval, "shape", ())]
    inner = [find_longest_axis(each) for eqn in jaxpr.eqns for each in list_inner_jaxprs(eqn)]
    return max([*sizes, *inner], default=0)


def _count_equation_work(eqn: Any) -> int:
    inner = list_inner_jaxprs(eqn)
    if inner:
        return int(eqn.params.get("length", 1)) * sum(count_work(each) for each in inner)
    size = sum(math.prod(v.aval.shape) for v in eqn.outvars if hasattr(v.aval, "shape"))
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return size * math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
    if eqn.primitive.name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        return size * math.prod(kernel) // kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
    return size


def _power_of_two(number: int, most: int) -> int:
    """The largest power of two that is at most `number` and `most`, and at least 1."""
    return min(most, 1 << (max(1, number).bit_length() - 1))


def list_inner_jaxprs(eqn: Any) -> list[Jaxpr]:
    """The jaxprs within an equation: the body of a loop, a branch, a called function."""
    values = [v for value in eqn.params.values() for v in (value if isinstance(value, tuple | list) else (value,))]
    # in JAX 0.12 both are one class
    return [v.jaxpr if isinstance(v, ClosedJaxpr) else v for v in values if isinstance(v, ClosedJaxpr | Jaxpr)]


def _bytes(variables: Sequence[Any]) -> int:
    return sum(math.prod(v.aval.shape) * v.aval.dtype.itemsize for v in variables if hasattr(v.aval, "shape"))

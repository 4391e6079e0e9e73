"""Tasks that return a loop instead of running it: their runs share lanes, and are cut into segments of steps.

A lane whose run has ended takes the next run (lane refill), so that the cost is in proportion to the steps that are
taken. Where the loop is cut has no influence on the bits: all that a run needs to go on is in its state.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Arrays = dict[str, Any]
Tree = Any


class Loop(Protocol):
    """What a task may return: the arguments of `lax.while_loop`, and what makes outputs of the last state.

    It may also have `variables`, which selects from a state a tree of arrays that are worth keeping, and `write`, which
    writes that tree, with NumPy arrays, into a folder; see `runner.program.variables`. `write` is called outside of any
    program, so that it must not use traced arguments of the task.
    """

    state: Tree
    """The first state, a tree of arrays without typed keys."""
    proceeds: Callable[[Tree], Any]
    """Whether a state is to be advanced, bool `()`."""
    advance: Callable[[Tree], Tree]
    """Some steps of a run."""
    finish: Callable[[Tree], Mapping[str, Any]]
    """The outputs of a run by name."""


MakeLoop = Callable[[Arrays, Arrays], Loop]
"""The loop of one run, from its scalars and the inputs."""


class Lanes(NamedTuple):
    """The runs that are in the lanes, `(lanes,)` each, and the outputs of those that have ended, `(capacity, …)`.

    `next` is the first run that no lane has had. A lane that is not active repeats a run, and is not asked again.
    """

    states: Tree
    runs: Any
    is_active: Any
    is_new: Any
    next: Any
    outputs: Arrays


@dataclass(frozen=True)
class LoopProgram:
    """The function that is compiled for a loop, for so many lanes, with outputs of these abstract values."""

    make: MakeLoop
    finish: Callable[[Loop, Tree], Arrays]
    lanes: int
    outputs: Mapping[str, jax.ShapeDtypeStruct]

    def advance_lanes(self, n: jax.Array, budget: jax.Array, lanes: Lanes, scalars: Arrays, inputs: Arrays) -> Lanes:
        """The lanes after at most `budget` advances, or when all of n runs have ended."""

        def proceeds(carry: tuple[Lanes, jax.Array]) -> jax.Array:
            return carry[0].is_active.any() & (carry[1] > 0)

        def turn(carry: tuple[Lanes, jax.Array]) -> tuple[Lanes, jax.Array]:
            lanes = self._start_new(carry[0], scalars, inputs)
            states, left = self._advance(lanes, carry[1], scalars, inputs)
            return self._collect(n, lanes._replace(states=states), scalars, inputs), left

        return lax.while_loop(proceeds, turn, (lanes, budget))[0]

    def describe_lanes(self, scalars: Arrays, inputs: Arrays) -> Lanes:
        """The abstract values of the lanes, of scalars `(capacity,)`."""
        state = jax.eval_shape(lambda s, i: self.make(_select(s, 0), i).state, scalars, inputs)
        wide = partial(jax.tree.map, lambda leaf: jax.ShapeDtypeStruct((self.lanes, *leaf.shape), leaf.dtype))
        flags = jax.ShapeDtypeStruct((self.lanes,), jnp.bool)
        numbers = jax.ShapeDtypeStruct((self.lanes,), jnp.int32)
        return Lanes(wide(state), numbers, flags, flags, jax.ShapeDtypeStruct((), jnp.int32), dict(self.outputs))

    def _start_new(self, lanes: Lanes, scalars: Arrays, inputs: Arrays) -> Lanes:
        """Each lane that has a new run begins it, one after the other: nothing is computed for the other lanes."""

        def start(lane: Any, states: Tree) -> Tree:
            state = self.make(_select(scalars, lanes.runs[lane]), inputs).state
            return jax.tree.map(lambda all_, one: all_.at[lane].set(one), states, state)

        def visit(lane: Any, states: Tree) -> Tree:
            return lax.cond(lanes.is_new[lane], partial(start, lane), lambda states: states, states)

        states = lax.fori_loop(0, self.lanes, visit, lanes.states)
        return lanes._replace(states=states, is_new=jnp.zeros_like(lanes.is_new))

    def _advance(self, lanes: Lanes, budget: Any, scalars: Arrays, inputs: Arrays) -> tuple[Tree, Any]:
        """Advances all lanes until a run ends, or the budget does."""

        def advance(run: Any, state: Tree) -> Tree:
            return self.make(_select(scalars, run), inputs).advance(state)

        def proceeds(carry: tuple[Tree, Any]) -> Any:
            return (self._find_running(lanes, carry[0], scalars, inputs) | ~lanes.is_active).all() & (carry[1] > 0)

        def turn(carry: tuple[Tree, Any]) -> tuple[Tree, Any]:
            return self._map(advance)(lanes.runs, carry[0]), carry[1] - 1

        return lax.while_loop(proceeds, turn, (lanes.states, budget))

    def _find_running(self, lanes: Lanes, states: Tree, scalars: Arrays, inputs: Arrays) -> Any:
        """Which lanes have a state that proceeds, bool `(lanes,)`."""
        return self._map(lambda run, state: self.make(_select(scalars, run), inputs).proceeds(state))(
            lanes.runs, states
        )

    def _collect(self, n: Any, lanes: Lanes, scalars: Arrays, inputs: Arrays) -> Lanes:
        """The outputs of each run that has ended, one after the other; its lane gets the next run."""
        has_ended = lanes.is_active & ~self._find_running(lanes, lanes.states, scalars, inputs)

        def finish(lane: Any, now: Lanes) -> Lanes:
            run = now.runs[lane]
            loop = self.make(_select(scalars, run), inputs)
            made = self.finish(loop, _select(now.states, lane))
            more = now.next < n
            return now._replace(
                outputs={name: values.at[run].set(made[name]) for name, values in now.outputs.items()},
                runs=now.runs.at[lane].set(jnp.where(more, now.next, run)),
                is_active=now.is_active.at[lane].set(more),
                is_new=now.is_new.at[lane].set(more),
                next=now.next + more.astype(jnp.int32),
            )

        def visit(lane: Any, now: Lanes) -> Lanes:
            return lax.cond(has_ended[lane], partial(finish, lane), lambda now: now, now)

        return lax.fori_loop(0, self.lanes, visit, lanes)

    def _map(self, function: Callable[..., Tree]) -> Callable[..., Tree]:
        """A function of a lane as one of all lanes; with one lane the function itself, which has other bits."""
        if self.lanes > 1:
            return jax.vmap(function)
        return lambda *lanes: jax.tree.map(lambda leaf: leaf[None], function(*_select(lanes, 0)))


def is_loop(returned: Any) -> bool:
    """Recognized by its attributes, because a task imports nothing from the runner."""
    return all(hasattr(returned, name) for name in ("state", "proceeds", "advance", "finish"))


def has_variables(loop: Loop) -> bool:
    """Whether a loop has what is worth keeping of a run, and writes it."""
    return all(getattr(loop, name, None) is not None for name in ("variables", "write"))


def run_loop(loop: Loop) -> Mapping[str, Any]:
    """The outputs of a run alone, without lanes."""
    return loop.finish(lax.while_loop(loop.proceeds, loop.advance, loop.state))


def begin_lanes(described: Lanes, n: int) -> Lanes:
    """The lanes before the first step of n runs; lanes beyond repeat the last run."""
    empty = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), described)
    numbers = np.arange(len(empty.runs), dtype=np.int32)
    return empty._replace(
        runs=np.minimum(numbers, n - 1),
        is_active=numbers < n,
        is_new=np.ones_like(empty.is_new),
        next=np.int32(min(len(numbers), n)),
    )


def _select(tree: Tree, place: Any) -> Tree:
    return jax.tree.map(lambda leaf: leaf[place], tree)

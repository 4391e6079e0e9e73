"""A task that returns a loop, as a program that returns the trained variables of its runs beside their outputs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from runner.contract.task import Output
from runner.program.cost import choose_loop_capacity
from runner.program.trace import Arrays, TracedTask

MARK = "@"
"""What begins the name of a variable among outputs; no output of a task begins so."""
WriteVariables = Callable[[Any, Path], object]


@dataclass(frozen=True)
class VariablesTask:
    """A traced task whose program returns variables, too; `write(variables, folder)` is that of the task's loop."""

    traced: TracedTask
    structure: Any
    write: WriteVariables

    def split(self, outputs: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[Any]]:
        """The outputs `(runs, …)` of the task alone, and for each run its tree of variables."""
        own = {name: values for name, values in outputs.items() if not name.startswith(MARK)}
        leaves = [outputs[f"{MARK}{i}"] for i in range(self.structure.num_leaves)]
        runs = len(next(iter(outputs.values())))
        return own, [jax.tree.unflatten(self.structure, [leaf[place] for leaf in leaves]) for place in range(runs)]


def return_variables(traced: TracedTask, runs: int) -> VariablesTask | None:
    """The task with its variables among the outputs of a program for blocks of at most `runs` runs.

    The lanes stay, because the bits depend on them, and the program of the task itself is another one. None if the
    task returns no loop, or one without `variables` and `write`.
    """
    if not traced.can_save:
        return None
    make, finish, loops = traced.make_loop, traced.finish, list[Any]()
    assert make
    assert finish

    def select(scalars: Arrays, inputs: Arrays) -> Any:
        loops.append(make(scalars, inputs))
        return loops[-1].variables(loops[-1].state)

    leaves, structure = jax.tree.flatten(jax.eval_shape(select, traced.scalars, traced.inputs))

    def finish_with_variables(loop: Any, state: Any) -> Arrays:
        values = jax.tree.leaves(loop.variables(state))
        return finish(loop, state) | {f"{MARK}{i}": value for i, value in enumerate(values)}

    extra = [Output(f"{MARK}{i}", leaf.shape, np.dtype(leaf.dtype)) for i, leaf in enumerate(leaves)]
    outputs = (*traced.outputs, *extra)
    most = min(traced.capacity, choose_loop_capacity(sum(output.bytes for output in outputs), traced.lanes))
    capacity = -(-min(runs, max(most, traced.lanes)) // traced.lanes) * traced.lanes
    name = f"{traced.name}_variables"
    changed = replace(traced, name=name, outputs=outputs, capacity=capacity, finish=finish_with_variables)
    return VariablesTask(changed, structure, loops[-1].write)

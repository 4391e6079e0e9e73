"""The loop of a training: steps, evaluations, and what stops it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from tasks.training.data import Part, Splits
from tasks.training.models import Model

Tree = Any
PerExample = Callable[[jax.Array, jax.Array], jax.Array]
RUNNING, NONFINITE, DIVERGED, REACHED, EXHAUSTED = range(5)
"""Why a run has stopped before its last step, or that it has not."""
CHUNK = 100
"""The most steps of one advance without evaluations."""
STEPS = 2**31
"""What the keys of the steps are folded with, so that they differ from those of the weights."""


class Loop(NamedTuple):
    """A loop that is not run yet: `finish(lax.while_loop(proceeds, advance, state))`.

    `state` holds arrays only. `advance` makes some steps and one evaluation, `finish` returns the outputs by name.
    """

    state: Tree
    proceeds: Callable[[Tree], jax.Array]
    advance: Callable[[Tree], Tree]
    finish: Callable[[Tree], dict[str, jax.Array]]


class Problem(NamedTuple):
    """What is trained on what: `loss` and each of `metrics` are functions of outputs and labels, per example."""

    data: Splits
    model: Model
    optimizer: optax.GradientTransformation
    loss: PerExample
    metrics: dict[str, PerExample]
    batch: int
    slice: int
    seed: Any


class Rules(NamedTuple):
    """When a run is evaluated and when it ends."""

    steps: Any
    every: int | None = None
    horizon: int | None = None
    patience: Any = None
    bound: Any = None
    target: Any = None
    best: bool = False


class Weights(NamedTuple):
    """Parameters, and the variables that the model itself changes."""

    params: Tree
    state: Tree


class Progress(NamedTuple):
    """A run after some steps; `losses` is the sum of the losses of the steps since the last evaluation."""

    weights: Weights
    optimizer: Tree
    step: jax.Array
    stopped: jax.Array
    nonfinite_step: jax.Array
    losses: jax.Array


def make_loop(problem: Problem, rules: Rules) -> Loop:
    """Returns the loop of a training."""
    key = jax.random.key(problem.seed)
    params, state = problem.model.init(key, problem.data.train.x[: problem.batch])
    first = Progress(
        Weights(params, state),
        problem.optimizer.init(params),
        jnp.int32(0),
        jnp.int32(RUNNING),
        jnp.int32(-1),
        jnp.float32(0),
    )

    def proceeds(run: Progress) -> jax.Array:
        return (run.step < rules.steps) & (run.stopped == RUNNING)

    def advance(run: Progress) -> Progress:
        end = jnp.minimum(run.step + (rules.every or CHUNK), rules.steps)
        return lax.while_loop(
            lambda run: (run.step < end) & (run.stopped == RUNNING), lambda run: take_step(problem, run), run
        )

    def finish(run: Progress) -> dict[str, jax.Array]:
        made = {}
        for name, part in zip(("train", "validation", "test"), problem.data[:3], strict=True):
            if part.x.shape[0]:
                made |= {f"{name}_{key}": value for key, value in evaluate(problem, run.weights, part).items()}
        return {**made, "steps_taken": run.step, "nonfinite_step": run.nonfinite_step}

    return Loop(first, proceeds, advance, finish)


def take_step(problem: Problem, run: Progress) -> Progress:
    """One update by the gradient of the mean loss on a minibatch."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(problem.seed), STEPS), run.step)
    part = problem.data.train
    rows = jax.random.randint(key, (problem.batch,), 0, part.x.shape[0])
    x, y = part.x[rows], part.y[rows]

    def measure(params: Tree) -> tuple[jax.Array, Tree]:
        outputs, state = problem.model.apply(params, run.weights.state, x, train=True, key=jax.random.fold_in(key, 1))
        return jnp.mean(problem.loss(outputs, y)), state

    (loss, state), gradients = jax.value_and_grad(measure, has_aux=True)(run.weights.params)
    updates, optimizer = problem.optimizer.update(gradients, run.optimizer, run.weights.params)
    params = optax.apply_updates(run.weights.params, updates)
    fine = jnp.isfinite(loss)
    return Progress(
        Weights(params, state),
        optimizer,
        run.step + 1,
        jnp.where(fine, run.stopped, NONFINITE),
        jnp.where(fine, run.nonfinite_step, run.step),
        run.losses + loss,
    )


def evaluate(problem: Problem, weights: Weights, part: Part) -> dict[str, jax.Array]:
    """The means of the loss and the metrics over all examples of a part, computed slice by slice."""
    examples = part.x.shape[0]
    size = min(problem.slice, examples)
    measures = {"loss": problem.loss, **problem.metrics}

    def measure(part: Part) -> dict[str, jax.Array]:
        outputs, _ = problem.model.apply(weights.params, weights.state, part.x, train=False, key=None)
        return {name: jnp.sum(function(outputs, part.y)) for name, function in measures.items()}

    def add(sums: Any, start: jax.Array) -> tuple[Any, None]:
        some = jax.tree.map(lambda array: lax.dynamic_slice_in_dim(array, start, size), part)
        return jax.tree.map(jnp.add, sums, measure(some)), None

    zeros = {name: jnp.float32(0) for name in measures}
    sums, _ = lax.scan(add, zeros, jnp.arange(examples // size) * size)
    if rest := examples % size:
        sums = jax.tree.map(jnp.add, sums, measure(jax.tree.map(lambda array: array[-rest:], part)))
    return {name: value / examples for name, value in sums.items()}

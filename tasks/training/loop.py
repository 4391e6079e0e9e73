"""The loop of a training: its steps, its evaluations, and what ends it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from tasks.categories import Category
from tasks.training.checkpoints import BEST, CHECKPOINT, Files
from tasks.training.data import Part, Splits
from tasks.training.evaluation import evaluate
from tasks.training.losses import Measure
from tasks.training.models import Model
from tasks.training.optimizers import find_evaluated

Tree = Any
RUNNING, NONFINITE, DIVERGED, REACHED, EXHAUSTED = range(5)
"""What has stopped a run, places in `ENDS`."""
ENDS = ("steps", "nonfinite", "diverged", "target", "patience")
"""What ends a run: its steps, what is not finite, a bound, a target, no better validation loss."""
CHUNK = 100
"""The steps of one advance where nothing is evaluated between them."""
STEPS = 2**31
"""What the run's key is folded with for its steps, beyond what models fold it with for their weights."""


class Loop(NamedTuple):
    """A loop that nobody has run: its result is `finish(lax.while_loop(proceeds, advance, state))`.

    `state` is a pytree of arrays without typed keys, so that it can be saved between advances. `advance` makes some
    steps and one evaluation; a state that does not proceed is returned as it is. `finish` returns outputs by name.
    `variables` selects from a state what is worth keeping, which `write` writes into a folder as NumPy arrays.
    """

    state: Tree
    proceeds: Callable[[Tree], jax.Array]
    advance: Callable[[Tree], Tree]
    finish: Callable[[Tree], dict[str, Any]]
    variables: Callable[[Tree], Tree] | None = None
    write: Callable[[Tree, Path], None] | None = None


class Problem(NamedTuple):
    """What is trained, on what, and from which seed; `size` is the most examples that are evaluated at once."""

    data: Splits
    model: Model
    optimizer: optax.GradientTransformationExtraArgs
    loss: Measure
    metrics: tuple[Measure, ...]
    batch: int
    size: int
    seed: Any


class Rules(NamedTuple):
    """When a run is evaluated and what ends it; `steps`, `patience`, `bound` and `target` may be tracers."""

    steps: Any
    every: int | None = None
    horizon: int = 0
    patience: Any = None
    bound: Any = None
    target: Any = None
    best: bool = False


class Weights(NamedTuple):
    """The parameters, and the state that the model changes by itself."""

    params: Tree
    state: Tree


class Progress(NamedTuple):
    """A run after `step` updates; `losses` is the sum of the minibatches' losses since the last evaluation."""

    weights: Weights
    optimizer: Tree
    step: jax.Array
    end: jax.Array
    nonfinite_step: jax.Array
    losses: jax.Array


class Record(NamedTuple):
    """What the evaluations found: the last one, the best one by the validation loss, its weights, and the curves.

    `waited` counts the evaluations since the best one.
    """

    last: dict[str, jax.Array]
    best: dict[str, jax.Array]
    best_step: jax.Array
    waited: jax.Array
    best_weights: Weights | tuple[()]
    curves: dict[str, jax.Array]


class State(NamedTuple):
    """All that a run needs to go on."""

    progress: Progress
    record: Record | tuple[()]


def make_loop(problem: Problem, rules: Rules) -> Loop:
    """Returns the loop of a training.

    A run ends after the first step whose loss is not finite, with what that step made of it: it is frozen after the
    update, not before. An update that makes parameters not finite is found by the next step's loss; where the loss
    does not depend on them, or there is no next step, after the steps of one advance. Looking at all gradients in
    each step would cost a tenth of a small model's time. The final losses and metrics of such a run are NaN.
    """

    rules = rules._replace(steps=jnp.asarray(rules.steps, jnp.int32))

    def start() -> State:
        progress = _start(problem)
        return State(progress, _start_record(problem, rules, progress.weights) if rules.every else ())

    first = start()
    kinds = jax.tree.map(_find_kind, first)

    def advance(raw: State) -> State:
        before = _wrap_keys(raw, kinds)
        until = jnp.minimum(before.progress.step + (rules.every or CHUNK), rules.steps)
        progress = lax.while_loop(
            lambda run: (run.step < until) & (run.end == RUNNING),
            partial(take_step, problem, rules.bound, make_base(problem.seed)),
            before.progress,
        )
        progress = _check_parameters(progress)
        after = State(progress._replace(losses=jnp.float32(0)), before.record)
        if isinstance(before.record, Record):
            after = _evaluate_between(problem, rules, progress, before.record, progress.step - before.progress.step)
        return _unwrap_keys(after)

    return Loop(
        _unwrap_keys(first),
        lambda state: (state.progress.step < rules.steps) & (state.progress.end == RUNNING),
        advance,
        lambda raw: _finish(problem, rules, _wrap_keys(raw, kinds)),
        _select_weights,
        partial(_write_weights, problem.model.files),
    )


def _select_weights(raw: State) -> Tree:
    """The last weights, and those of the best evaluation with its step, where they are kept."""
    last = {CHECKPOINT: raw.progress.weights}
    if not isinstance(raw.record, Record) or not isinstance(raw.record.best_weights, Weights):
        return last
    return last | {BEST: raw.record.best_weights, "best_step": raw.record.best_step}


def _write_weights(files: Files, variables: Tree, folder: Path) -> None:
    for name in (CHECKPOINT, BEST):
        if name in variables and (name == CHECKPOINT or variables["best_step"] >= 0):
            files.write(folder / name, *variables[name])


def _start(problem: Problem) -> Progress:
    params, state = problem.model.init(jax.random.key(problem.seed), problem.data.train.x[: problem.batch])
    zero = jnp.int32(0)
    weights = Weights(params, state)
    return Progress(weights, problem.optimizer.init(params), zero, zero + RUNNING, zero - 1, jnp.float32(0))


def make_base(seed: Any) -> jax.Array:
    """Returns the key of all steps of a run."""
    return jax.random.fold_in(jax.random.key(seed), STEPS)


def draw_rows(base: jax.Array, step: Any, examples: int, batch: int) -> tuple[jax.Array, jax.Array]:
    """Returns the rows of a step's minibatch, int32 `(batch,)` drawn with replacement, and a key for the model.

    They depend on the seed, of which `make_base` makes `base`, and the step alone.
    """
    key = jax.random.fold_in(base, step)
    return jax.random.randint(key, (batch,), 0, examples), jax.random.fold_in(key, 1)


def take_step(problem: Problem, bound: Any, base: jax.Array, run: Progress) -> Progress:
    """Returns a run after one update by the gradient of the mean loss on a minibatch."""
    part, update = problem.data.train, problem.optimizer.update
    rows, key = draw_rows(base, run.step, part.x.shape[0], problem.batch)
    x, y = part.x[rows], part.y[rows]

    def measure(params: Tree) -> tuple[jax.Array, Tree]:
        outputs, state = problem.model.apply(params, run.weights.state, x, train=True, key=key)
        return jnp.mean(problem.loss.function(outputs, y), dtype=jnp.float32), state

    (loss, state), gradients = jax.value_and_grad(measure, has_aux=True)(run.weights.params)
    known = {"value": loss, "grad": gradients, "value_fn": lambda params: measure(params)[0]}
    updates, optimizer = update(gradients, run.optimizer, run.weights.params, **known)
    params = optax.apply_updates(run.weights.params, updates)
    finite = jnp.isfinite(loss)
    end = RUNNING if bound is None else jnp.where(loss > bound, DIVERGED, RUNNING)
    return Progress(
        Weights(params, state),
        optimizer,
        run.step + 1,
        jnp.where(finite, end, NONFINITE).astype(jnp.int32),
        jnp.where(finite, run.nonfinite_step, run.step),
        run.losses + loss,
    )


def _check_parameters(run: Progress) -> Progress:
    """Ends a run whose parameters are not all finite; the step that would see it is the first one."""
    leaves = jax.tree.leaves(run.weights.params)
    broken = ~jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves])) & (run.nonfinite_step < 0)
    return run._replace(
        end=jnp.where(broken, NONFINITE, run.end).astype(jnp.int32),
        nonfinite_step=jnp.where(broken, run.step, run.nonfinite_step),
    )


def _find_weights(run: Progress) -> Weights:
    """The weights that are evaluated: for some optimizers not those at which they take gradients."""
    return run.weights._replace(params=find_evaluated(run.optimizer, run.weights.params))


def _measure(problem: Problem, weights: Weights, part: Part) -> dict[str, jax.Array]:
    def predict(x: jax.Array) -> Any:
        return problem.model.apply(weights.params, weights.state, x, train=False, key=None)[0]

    return evaluate(predict, [problem.loss._replace(name="loss"), *problem.metrics], part, problem.size)


def _start_record(problem: Problem, rules: Rules, weights: Weights) -> Record:
    nothing = {name: jnp.float32(jnp.nan) for name in ("loss", *(metric.name for metric in problem.metrics))}
    lines = jnp.full(rules.horizon // (rules.every or 1), jnp.nan, jnp.float32)
    curves = {"train_loss": lines} | ({f"validation_{name}": lines for name in nothing} if _validates(problem) else {})
    return Record(nothing, nothing, jnp.int32(-1), jnp.int32(0), weights if rules.best else (), curves)


def _validates(problem: Problem) -> bool:
    return bool(problem.data.validation.x.shape[0])


def _evaluate_between(problem: Problem, rules: Rules, run: Progress, record: Record, made: jax.Array) -> State:
    """Records an evaluation after `made` steps, and ends the run where it has to; without steps nothing changes."""
    every = rules.every or 1
    values = {"train_loss": run.losses / jnp.maximum(made, 1)}
    if _validates(problem):
        last = _measure(problem, _find_weights(run), problem.data.validation)
        record = _compare_with_best(rules, record, last, run, made > 0)
        run = run._replace(end=jnp.where((made > 0) & (run.end == RUNNING), _decide_end(rules, record), run.end))
        values |= {f"validation_{name}": value for name, value in last.items()}
    place = jnp.where((made > 0) & (run.step % every == 0), run.step // every - 1, rules.horizon)
    curves = {name: line.at[place].set(values[name], mode="drop") for name, line in record.curves.items()}
    return State(run._replace(losses=jnp.float32(0)), record._replace(curves=curves))


def _compare_with_best(rules: Rules, record: Record, last: Any, run: Progress, made: jax.Array) -> Record:
    """The record with another evaluation; the best one is the first with the smallest validation loss."""
    finite = run.nonfinite_step < 0
    better = made & finite & ~(last["loss"] >= record.best["loss"]) & ~jnp.isnan(last["loss"])
    choose = partial(jax.tree.map, lambda new, old: jnp.where(better, new, old))
    return record._replace(
        last=jax.tree.map(lambda new, old: jnp.where(made, new, old), last, record.last),
        best=choose(last, record.best),
        best_step=jnp.where(better, run.step, record.best_step),
        waited=jnp.where(better, 0, record.waited + made),
        best_weights=choose(_find_weights(run), record.best_weights) if rules.best else (),
    )


def _decide_end(rules: Rules, record: Record) -> jax.Array:
    end = jnp.int32(RUNNING)
    if rules.patience is not None:
        end = jnp.where(record.waited >= rules.patience, EXHAUSTED, end)
    if rules.target is not None:
        end = jnp.where(record.last["loss"] <= rules.target, REACHED, end)
    return end.astype(jnp.int32)


def _finish(problem: Problem, rules: Rules, state: State) -> dict[str, Any]:
    run, record = state
    parts = {name: part for name, part in problem.data._asdict().items() if name != "classes" and part.x.shape[0]}
    known = {"validation": record.last} if isinstance(record, Record) and _validates(problem) else {}
    made = {name: known.get(name) or _measure(problem, _find_weights(run), part) for name, part in parts.items()}
    outputs = _name_values(made, valid=run.nonfinite_step < 0)
    if isinstance(record, Record):
        outputs |= _name_best(problem, record, parts) if _validates(problem) else {}
        outputs |= {f"{name}_curve": line for name, line in record.curves.items()}
    return outputs | {"steps_taken": run.step, "nonfinite_step": run.nonfinite_step, "end": Category(run.end, ENDS)}


def _name_best(problem: Problem, record: Record, parts: dict[str, Part]) -> dict[str, jax.Array]:
    best = {"validation": record.best}
    if isinstance(record.best_weights, Weights):
        best |= {name: _measure(problem, record.best_weights, part) for name, part in parts.items() if name not in best}
    made = _name_values(best, valid=record.best_step >= 0)
    return {f"best_{name}": value for name, value in made.items()} | {"best_step": record.best_step}


def _name_values(made: dict[str, dict[str, Any]], valid: jax.Array) -> dict[str, Any]:
    """The values of each part by one name, NaN where they are not valid."""
    return {
        f"{part}_{name}": jnp.where(valid, value, jnp.nan)
        for part, values in made.items()
        for name, value in values.items()
    }


def _find_kind(leaf: jax.Array) -> Any:
    """The implementation of a typed key, an empty text for another array."""
    return jax.random.key_impl(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else ""


def _unwrap_keys(tree: Tree) -> Tree:
    """Typed keys as arrays of uint32, which files and NumPy can hold."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _find_kind(leaf) else leaf, tree)


def _wrap_keys(tree: Tree, kinds: Tree) -> Tree:
    """The inverse of `_unwrap_keys`, by the implementations of the keys."""
    return jax.tree.map(lambda leaf, kind: jax.random.wrap_key_data(leaf, impl=kind) if kind else leaf, tree, kinds)

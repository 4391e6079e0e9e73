"""Training of a model on data by an optimizer, as a loop that whoever calls it runs."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tasks.training.blocks import name_block
from tasks.training.checkpoints import start_from
from tasks.training.data import Splits
from tasks.training.descriptions import build_model
from tasks.training.loop import Loop, Problem, Rules, make_loop
from tasks.training.losses import Measure, check_outputs, find_loss, find_metric
from tasks.training.models import Model, cast_model
from tasks.training.optimizers import compose

DTYPES = ("float32", "bfloat16", "float16")
NEEDS_HORIZON = "needs horizon, the most steps of any run, which fixes the length of the curves"


def train(
    seed: int,
    data: Splits,
    model: Any,
    optimizer: optax.GradientTransformation,
    loss: Any = "cross_entropy",
    metrics: tuple[Any, ...] = ("accuracy",),
    steps: int = 300,
    batch: int = 32,
    *,
    every: int | None = None,
    horizon: int | None = None,
    patience: int | None = None,
    bound: float | None = None,
    target: float | None = None,
    best: bool = False,
    clip: optax.GradientTransformation | None = None,
    parts: Mapping[str, optax.GradientTransformation] | None = None,
    frozen: tuple[str, ...] = (),
    accumulate: int = 1,
    dtype: str = "float32",
    evaluation_batch: int = 512,
    init_from: str | None = None,
) -> Loop:
    """The loop of a training of `model` on `data.train`: `finish(jax.lax.while_loop(proceeds, advance, state))`.

    Each of `steps` updates is by the gradient of the mean `loss` on `batch` examples, which are drawn with replacement
    from `seed` and the step alone. `model` is a description (see `build_model`), initialised with
    `jax.random.key(seed)`. `optimizer`, `clip`, `parts`, `frozen` and `accumulate` are those of `compose`. With
    another `dtype` the model computes in it, on float32 parameters. `init_from` is the path of a checkpoint of such a
    model, or of the folder of a run that was saved, whose parameters and state it starts from; the optimizer is new.

    `every` evaluates the validation part each so many steps. It gives curves of `horizon // every` values, where
    `horizon` is the most steps of any run: NaN beyond a run's end, nothing of steps beyond the horizon; and the best
    evaluation, the first of the smallest validation loss, whose weights are kept and evaluated on the other parts with
    `best`. A run ends early when a loss or its parameters are not finite, when the loss of a minibatch is above
    `bound`, and, by its evaluations, when the validation loss is at most `target` or was not the best for `patience`
    of them.

    Outputs are `{train,validation,test}_loss` and one of each metric, at the last step, over whole parts; `best_…`
    of them; `best_step`, `steps_taken`, `nonfinite_step` (−1 if none), `end` (a category), and `…_curve`. `seed`,
    `steps`, `patience`, `bound`, `target` and what the optimizer holds may be tracers.

    Raises ValueError or TypeError, while it is traced, for settings that do not fit each other or the data, for
    unknown names, and for a model whose shapes do not fit, with the layer in question.
    """
    data = Splits(*jax.tree.map(jnp.asarray, tuple(data)))
    first, rest = find_loss(loss), tuple(map(find_metric, metrics))
    _check_sizes(data, batch, evaluation_batch)
    rules = Rules(steps, every, _find_horizon(steps, every, horizon), patience, bound, target, best)
    _check_rules(rules, data)
    built = _build(model, data, (first, *rest), batch, dtype)
    if init_from is not None:
        built = built._replace(init=start_from(built.init, built.files, init_from))
    whole = compose(optimizer, clip=clip, parts=parts, frozen=frozen, accumulate=accumulate)
    return make_loop(Problem(data, built, whole, first, rest, batch, evaluation_batch, seed), rules)


def check(values: Mapping[str, Any]) -> None:
    """Checks the numbers of steps of all runs, before anything is compiled. Raises ValueError.

    `values` has static values, and arrays `(values,)` of the traced ones.
    """
    every, horizon = values.get("every"), values.get("horizon")
    least, most = int(np.min(values["steps"])), int(np.max(values["steps"]))
    _check_steps(least, most, horizon if every else None)
    if every is not None and horizon is None:
        raise ValueError(f"every={every} {NEEDS_HORIZON}: horizon={most}")
    if every is not None and not 1 <= every <= least:
        raise ValueError(f"every must be from 1 to steps, {least}, got {every}")


def _check_steps(least: int, most: int, horizon: int | None) -> None:
    if least < 1:
        raise ValueError(f"steps must be at least 1, got {least}")
    if horizon is not None and most > horizon:
        raise ValueError(f"steps must be at most horizon, {horizon}, got {most}")


def _check_sizes(data: Splits, batch: int, evaluation_batch: int) -> None:
    examples = data.train.x.shape[0]
    if not 1 <= batch <= examples:
        raise ValueError(f"batch must be from 1 to the examples of the training part, {examples}, got {batch}")
    if evaluation_batch < 1:
        raise ValueError(f"evaluation_batch must be at least 1, got {evaluation_batch}")


def _find_horizon(steps: Any, every: int | None, horizon: int | None) -> int:
    """The most steps of any run, which are those of a run alone where nothing else is said; 0 without curves."""
    is_known = not isinstance(steps, jax.core.Tracer)
    if is_known:
        _check_steps(steps, steps, horizon if every else None)
    if every is None:
        return 0
    if horizon is None and not is_known:
        raise ValueError(f"every {NEEDS_HORIZON}")
    horizon = int(steps) if horizon is None else horizon
    if not 1 <= every <= horizon:
        raise ValueError(f"every must be from 1 to horizon, {horizon}, got {every}")
    return horizon


def _check_rules(rules: Rules, data: Splits) -> None:
    asked = {"patience": rules.patience, "target": rules.target, "best": rules.best or None}
    for name, value in asked.items():
        if value is None:
            continue
        if rules.every is None:
            raise ValueError(f"{name} needs evaluations between the steps; set every")
        if not data.validation.x.shape[0]:
            raise ValueError(f"{name} needs a validation part, and the data has none; set its size in data.validation")
    if isinstance(rules.patience, int) and rules.patience < 1:
        raise ValueError(f"patience must be at least 1, got {rules.patience}")


def _build(description: Any, data: Splits, measures: tuple[Measure, ...], batch: int, dtype: str) -> Model:
    """The model, whose shapes are checked on one batch: each layer, and its outputs for each measure."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    x, y = data.train.x[:batch], data.train.y[:batch]
    classes = data.classes.shape[0]
    outputs = classes or (y.shape[-1] if y.ndim > 1 else 1)
    with name_block("model"):
        model = build_model(description, jax.ShapeDtypeStruct(x.shape, x.dtype), outputs)
        model = model if dtype == "float32" else cast_model(model, jnp.dtype(dtype))
        made = jax.eval_shape(lambda x: _predict(model, x), x)
    if not hasattr(made, "shape"):
        raise TypeError(f"model must return one array, got {type(made).__name__}")
    for measure in measures:
        check_outputs(measure, made.shape, classes)
        jax.eval_shape(measure.function, made, y)
    return model


def _predict(model: Model, x: jax.Array) -> Any:
    key = jax.random.key(0)
    params, state = model.init(key, x)
    return model.apply(params, state, x, train=True, key=key)[0]

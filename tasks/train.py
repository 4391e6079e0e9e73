"""Training of a model on data, as a loop that whoever calls it runs."""

from typing import Any

import optax

from tasks.training import losses
from tasks.training.data import Splits
from tasks.training.loop import Loop, Problem, Rules, make_loop
from tasks.training.models import build_model


def train(
    seed: int,
    data: Splits,
    model: Any,
    optimizer: optax.GradientTransformation,
    loss: str = "cross_entropy",
    metrics: tuple[str, ...] = ("accuracy",),
    steps: int = 300,
    batch: int = 32,
    every: int | None = None,
    horizon: int | None = None,
    patience: int | None = None,
    bound: float | None = None,
    target: float | None = None,
    best: bool = False,
    evaluation_batch: int = 512,
) -> Loop:
    """The loop of a training of `model` on `data.train` by `optimizer`."""
    outputs = data.classes.shape[0] or data.train.y.shape[-1]
    problem = Problem(
        data,
        build_model(model, outputs),
        optimizer,
        getattr(losses, loss),
        {name: getattr(losses, name) for name in metrics},
        batch,
        evaluation_batch,
        seed,
    )
    return make_loop(problem, Rules(steps, every, horizon, patience, bound, target, best))

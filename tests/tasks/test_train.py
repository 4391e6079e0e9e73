"""The task against the same training written by hand, and what it refuses."""

import inspect
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax
from omegaconf import OmegaConf

from tasks.train import train
from tasks.training.architectures import Cnn, Mlp
from tasks.training.data import Part, Splits
from tasks.training.descriptions import Chain
from tasks.training.loop import STEPS

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("standard_promotion")


def make_part(seed, examples, features=16, classes=3):
    random = np.random.RandomState(seed)
    x = jnp.asarray(random.standard_normal((examples, features)), jnp.float32)
    return Part(x, jnp.asarray(random.randint(0, classes, examples), jnp.int32))


DATA = Splits(make_part(0, 30), make_part(1, 11), make_part(2, 7), jnp.arange(3.0))


def run_loop(loop):
    end = lax.while_loop(loop.proceeds, loop.advance, loop.state)
    return loop.finish(end), end.progress.weights


def draw_rows(seed, step, batch, examples):
    """The minibatch of a step, as the documentation says it."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), STEPS), step)
    return np.asarray(jax.random.randint(key, (batch,), 0, examples))


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Biased(nn.Module):
    """Two dense layers whose biases are not zero to begin with."""

    @nn.compact
    def __call__(self, x):
        bias = nn.initializers.normal(1.0)
        x = nn.relu(nn.Dense(5, bias_init=bias)(x))
        return nn.Dense(3, bias_init=bias)(x)


def forward(params, x):
    h = x @ params["w1"] + params["b1"]
    return h, np.maximum(h, 0) @ params["w2"] + params["b2"]


def differentiate(params, x, y):
    """The gradient of the mean cross-entropy, by the chain rule."""
    h, logits = forward(params, x)
    d = softmax(logits)
    d[np.arange(len(y)), y] -= 1
    d /= len(y)
    a = np.maximum(h, 0)
    back = (d @ params["w2"].T) * (h > 0)
    return {"w1": x.T @ back, "b1": back.sum(0), "w2": a.T @ d, "b2": d.sum(0)}


def measure(params, part):
    x, y = np.asarray(part.x, np.float64), np.asarray(part.y)
    probabilities = softmax(forward(params, x)[1])
    return -np.log(probabilities[np.arange(len(y)), y]).mean(), (probabilities.argmax(-1) == y).mean()


def test_an_mlp_by_adam_is_that_of_numpy():
    steps, batch, lr = 6, 5, 0.05
    start = Biased().init(jax.random.key(4), DATA.train.x[:1])["params"]
    names = {
        "w1": ("Dense_0", "kernel"),
        "b1": ("Dense_0", "bias"),
        "w2": ("Dense_1", "kernel"),
        "b2": ("Dense_1", "bias"),
    }
    params = {name: np.asarray(start[layer][leaf], np.float64) for name, (layer, leaf) in names.items()}
    first, second = ({name: 0 * value for name, value in params.items()} for _ in range(2))
    for step in range(steps):
        rows = draw_rows(4, step, batch, 30)
        gradients = differentiate(params, np.asarray(DATA.train.x, np.float64)[rows], np.asarray(DATA.train.y)[rows])
        for name, g in gradients.items():
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g**2
            m, v = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.999 ** (step + 1))
            params[name] = params[name] - lr * m / (np.sqrt(v) + 1e-8)

    def run(seed, lr, steps):
        return run_loop(train(seed, DATA, Biased(), optax.adam(lr), steps=steps, batch=batch))

    compiled = jax.jit(jax.vmap(run))
    outputs, weights = compiled(jnp.array([4, 5], jnp.uint32), jnp.array([lr, 0.1]), jnp.array([steps, 2]))
    for name, (layer, leaf) in names.items():
        np.testing.assert_allclose(weights.params[layer][leaf][0], params[name], rtol=1e-4, atol=1e-5)
    for split in ("train", "validation", "test"):
        loss, accuracy = measure(params, getattr(DATA, split))
        np.testing.assert_allclose(outputs[f"{split}_loss"][0], loss, rtol=1e-5)
        np.testing.assert_allclose(outputs[f"{split}_accuracy"][0], accuracy, rtol=1e-6)
    assert outputs["steps_taken"].tolist() == [steps, 2]


def convolve(x, kernel, bias):
    """A 3×3 convolution with zeros around the image."""
    wide = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    shifted = [wide[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)]
    return sum(shifted) + bias


def pool(x):
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))


@pytest.mark.matrix
def test_a_cnn_by_sgd_is_that_of_convolutions_written_out():
    outputs, weights = run_loop(
        train(1, DATA, partial(Cnn, channels=(2, 3), hidden=4), optax.sgd(0.1), steps=3, batch=4)
    )
    params = Cnn((2, 3), 3, 4).init(jax.random.key(1), DATA.train.x[:1])["params"]

    def call(params, x):
        x = x.reshape(-1, 4, 4, 1)
        for name in ("Conv_0", "Conv_1"):
            x = pool(jnp.maximum(convolve(x, params[name]["kernel"], params[name]["bias"]), 0))
        x = jnp.maximum(x.reshape(len(x), -1) @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], 0)
        return x @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]

    @jax.jit
    def take_step(params, x, y):
        gradients = jax.grad(lambda p: -jax.nn.log_softmax(call(p, x))[jnp.arange(4), y].mean())(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients)

    for step in range(3):
        rows = draw_rows(1, step, 4, 30)
        params = take_step(params, DATA.train.x[rows], DATA.train.y[rows])
    for a, b in zip(jax.tree.leaves(weights.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    accuracy = (call(params, DATA.test.x).argmax(-1) == DATA.test.y).mean()
    np.testing.assert_allclose(outputs["test_accuracy"], accuracy, rtol=1e-6)


def test_batch_statistics_are_the_moving_averages_of_the_minibatches():
    model = Chain((nn.BatchNorm(momentum=0.8), partial(nn.Dense)))
    outputs, weights = run_loop(train(2, DATA, model, optax.sgd(0.1), steps=4, batch=5, metrics=()))
    mean, variance = np.zeros(16), np.ones(16)
    for step in range(4):
        x = np.asarray(DATA.train.x, np.float64)[draw_rows(2, step, 5, 30)]
        mean, variance = 0.8 * mean + 0.2 * x.mean(0), 0.8 * variance + 0.2 * x.var(0)
    kept = weights.state["layers_0"]["batch_stats"]
    np.testing.assert_allclose(kept["mean"], mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(kept["var"], variance, rtol=1e-4)
    norm, dense = weights.params["layers_0"], weights.params["layers_1"]
    x = (np.asarray(DATA.test.x) - mean) / np.sqrt(variance + 1e-5) * norm["scale"] + norm["bias"]
    probabilities = softmax(np.asarray(x @ dense["kernel"] + dense["bias"]))
    loss = -np.log(probabilities[np.arange(7), DATA.test.y]).mean()  # by the averages, not by the batch
    np.testing.assert_allclose(outputs["test_loss"], loss, rtol=1e-4)


def test_the_data_is_an_argument_and_no_constant_of_the_program():
    def run(data, lr):
        return run_loop(train(0, data, Mlp((4,), 3), optax.sgd(lr), steps=2, batch=4))[0]

    text = jax.jit(run).lower(DATA, 0.1).as_text()
    assert "dense<" not in text or all(len(line) < 2000 for line in text.splitlines() if "dense<" in line)


LINEAR = Chain((nn.Dense(3),))


def ask(data=DATA, model=LINEAR, **given):
    return train(0, data, model, optax.sgd(0.1), **{"steps": 20, "batch": 4} | given)


EMPTY = DATA._replace(validation=jax.tree.map(lambda array: array[:0], DATA.validation))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch": 31}, "batch must be from 1 to the examples of the training part, 30, got 31"),
        ({"batch": 0}, "batch must be from 1 .* got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"evaluation_batch": 0}, "evaluation_batch must be at least 1, got 0"),
        ({"every": 21}, "every must be from 1 to horizon, 20, got 21"),
        ({"every": 0}, "every must be from 1 to horizon, 20, got 0"),
        ({"every": 5, "horizon": 10}, "steps must be at most horizon, 10, got 20"),
        ({"patience": 3}, "patience needs evaluations between the steps; set every"),
        ({"target": 0.5}, "target needs evaluations between the steps; set every"),
        ({"best": True}, "best needs evaluations between the steps; set every"),
        ({"every": 5, "patience": 0}, "patience must be at least 1, got 0"),
        ({"every": 5, "patience": 2, "data": EMPTY}, "patience needs a validation part, and the data has none"),
        ({"loss": "crossentropy"}, "there is no loss 'crossentropy'; there are: cross_entropy"),
        ({"metrics": ("acuracy",)}, "there is no metric 'acuracy'; there are: "),
        ({"dtype": "int8"}, "dtype must be one of float32, bfloat16, float16, got 'int8'"),
        ({"model": Chain((nn.Dense(2),))}, "the model must have an output for each class, got 2 for 3 classes"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(given, message):
    with pytest.raises(ValueError, match=message):
        ask(**given)


def test_curves_of_traced_steps_need_a_horizon():
    with pytest.raises(ValueError, match="every needs horizon, the most steps of any run"):
        jax.eval_shape(lambda steps: ask(steps=steps, every=2).state, jnp.int32(4))


class Inner(nn.Module):
    """A Linen layer that adds what does not fit."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(x) + jnp.ones(5)


class Outer(nn.Module):
    """A Linen model with a block within a block."""

    @nn.compact
    def __call__(self, x):
        return Inner(name="inner")(x)


class Blocks(nnx.Module):
    """An NNX model whose second layer does not fit the first."""

    def __init__(self, rngs):
        self.blocks = nnx.List([nnx.Linear(16, 5, rngs=rngs), nnx.Linear(7, 3, rngs=rngs)])

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Outer(), r"model: inner \(Inner\) with an input of shape \(4, 16\): .*\(4, 4\).*\(5,\)"),
        (Blocks, r"model: blocks_1 \(Linear\) with an input of shape \(4, 5\): .*\(5,\).*\(7,\)"),
        (
            Chain((nn.Dense(8), partial(nnx.Linear, in_features=9, out_features=3))),
            r"model: layers_1 \(Linear\) with an input of shape \(4, 8\): .*\(8,\).*\(9,\)",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_told_with_the_layer_and_both(model, message):
    with pytest.raises(ValueError, match=message):
        ask(model=model)


def test_a_rate_that_flax_cannot_trace_is_refused_with_what_can():
    def run(rate):
        return ask(model=Chain((partial(nnx.Dropout, rate=rate), nn.Dense(3)))).state

    with pytest.raises(ValueError, match=r"layers_0 \(Dropout\) .* the dropouts of tasks\.training\.dropout take"):
        jax.eval_shape(run, jnp.float32(0.5))


def test_the_yaml_has_every_parameter():
    groups = {"data", "model", "optimizer", "clip"}
    given = set(OmegaConf.load(ROOT / "conf" / "task" / "train.yaml")) - {"defaults", "task", "lr"}
    assert given | groups == set(inspect.signature(train).parameters)

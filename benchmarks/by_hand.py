"""The runs of `+experiment=digits_optimizers` as they are written by hand, in a process with XLA's default settings.

    python benchmarks/by_hand.py WIDTH [SEEDS]

One jitted training for each optimizer, of scans over the steps between evaluations. With a WIDTH of 1 it is called for
each run; otherwise `jit(vmap)` of it is called for so many runs at a time. The results are those of the study,
including its curves, in one CSV. Prints the seconds of the calls, and the CPU seconds, without imports and
compilations.
"""

import sys
import time
from itertools import product

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

RATES = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
OPTIMIZERS = {
    "sgd": optax.sgd, "adagrad": optax.adagrad, "rmsprop": optax.rmsprop, "adam": optax.adam, "lion": optax.lion
}  # fmt: skip
STEPS, EVERY, BATCH = 300, 50, 32
MODEL = nn.Sequential([nn.Dense(128), nn.relu, nn.Dense(10)])


def load_parts():
    """The parts of the digits: 60 % for training, 20 % for validation, 20 % for the test."""
    x, y = load_digits(return_X_y=True)
    x, y = x.astype(np.float32), y.astype(np.int32)
    rest, test, rest_y, test_y = train_test_split(x, y, test_size=359, random_state=0, stratify=y)
    train, validation, train_y, validation_y = train_test_split(
        rest, rest_y, test_size=359, random_state=0, stratify=rest_y
    )
    mean, deviation = train.mean(), train.std()
    parts = (("train", train, train_y), ("validation", validation, validation_y), ("test", test, test_y))
    return {name: (jnp.asarray((x - mean) / deviation), jnp.asarray(y)) for name, x, y in parts}


def measure(params, part):
    x, y = part
    logits = MODEL.apply(params, x)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
    return loss, (logits.argmax(-1) == y).mean()


def make_run(make_optimizer):
    """A function that trains one model and returns what a row of the study has."""

    def run(seed, rate, parts):
        x, y = parts["train"]
        key, optimizer = jax.random.key(seed), make_optimizer(rate)
        params = MODEL.init(key, x[:1])

        def step(carry, number):
            params, state = carry
            rows = jax.random.randint(jax.random.fold_in(key, number), (BATCH,), 0, len(x))

            def loss(params):
                logits = MODEL.apply(params, x[rows])
                return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

            value, gradients = jax.value_and_grad(loss)(params)
            updates, state = optimizer.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), value

        def train_between(carry, numbers):
            carry, losses = jax.lax.scan(step, carry, numbers)
            return carry, (losses.mean(), *measure(carry[0], parts["validation"]))

        numbers = jnp.arange(STEPS).reshape(-1, EVERY)
        (params, _), curves = jax.lax.scan(train_between, (params, optimizer.init(params)), numbers)
        final = {f"{name}_{kind}": value for name in parts for kind, value in zip(
            ("loss", "accuracy"), measure(params, parts[name]), strict=True)}  # fmt: skip
        names = ("train_loss_curve", "validation_loss_curve", "validation_accuracy_curve")
        return final | dict(zip(names, curves, strict=True))

    return run


def execute(run, parts, seeds, rates, width):
    """The results of all runs, by calls for `width` of them, and the seconds and CPU seconds without compilation."""
    call = jax.jit(run) if width == 1 else jax.jit(jax.vmap(run, in_axes=(0, 0, None)))
    cuts = range(len(seeds)) if width == 1 else [slice(i, i + width) for i in range(0, len(seeds), width)]
    compiled = call.lower(seeds[cuts[0]], rates[cuts[0]], parts).compile()
    started = np.array([time.perf_counter(), time.process_time()])
    made = jax.device_get([compiled(seeds[cut], rates[cut], parts) for cut in cuts])
    ended = time.perf_counter(), time.process_time()
    join = np.stack if width == 1 else np.concatenate
    return {name: join([each[name] for each in made]) for name in made[0]}, np.array(ended) - started


def main():
    width, seeds = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20
    parts, tables, seconds = load_parts(), [], np.zeros(2)
    rates, numbers = map(np.array, zip(*product(RATES, range(seeds)), strict=True))
    for name, make_optimizer in OPTIMIZERS.items():
        run = make_run(make_optimizer)
        made, taken = execute(run, parts, numbers.astype(np.uint32), rates.astype(np.float32), width)
        columns = {key: list(map(str, values.tolist())) if values.ndim > 1 else values for key, values in made.items()}
        tables.append(pd.DataFrame({"optimizer": name, "lr": rates, "seed": numbers, **columns}))
        seconds += taken
    pd.concat(tables).to_csv("by_hand.csv", index=False)
    print(*seconds)


if __name__ == "__main__":
    main()

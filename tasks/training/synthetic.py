"""Data with known answers, drawn by `numpy.random.RandomState`, whose stream is the same everywhere and for ever.

`sample_seed` decides what is drawn; the other keywords are those of `make_splits`, whose `seed` decides how it is
divided.
"""

from typing import Any, Literal

import numpy as np

from tasks.training.splits import Array, Splits, make_splits


def make_linear(
    examples: int = 512, features: int = 8, outputs: int = 1, noise: float = 0.1, sample_seed: int = 0, **split: Any
) -> Splits:
    """A linear regression whose weights are `draw_weights(features, outputs, sample_seed)`.

    `x` is standard normal, `y = x @ weights + bias + noise * normal`; the least expected squared error is `noise ** 2`.
    """
    weights, bias = draw_weights(features, outputs, sample_seed)
    random = np.random.RandomState(sample_seed)
    x = random.standard_normal((examples, features))
    clean = np.sum(x[:, :, None] * weights[None], axis=1) + bias  # a product by BLAS has other bits on other machines
    y = clean + noise * random.standard_normal((examples, outputs))
    return make_splits(x, y, kind="regression", **split)


def draw_weights(features: int, outputs: int, sample_seed: int) -> tuple[Array, Array]:
    """The weights `(features, outputs)` and the bias `(outputs,)` of `make_linear`."""
    random = np.random.RandomState([sample_seed, 1])
    return random.standard_normal((features, outputs)), random.standard_normal(outputs)


def make_spirals(
    examples: int = 1000, classes: int = 2, turns: float = 1.5, noise: float = 0.02, sample_seed: int = 0, **split: Any
) -> Splits:
    """Points in the plane on spiral arms, one for each class, as often as each other."""
    random = np.random.RandomState(sample_seed)
    label = np.arange(examples) % classes
    radius = np.sqrt(random.uniform(0.01, 1, examples))
    angle = 2 * np.pi * (turns * radius + label / classes)
    x = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return make_splits(x + noise * random.standard_normal(x.shape), label, **split)


def make_moons(examples: int = 1000, noise: float = 0.1, sample_seed: int = 0, **split: Any) -> Splits:
    """Points on two half circles that reach into one another, one for each class."""
    random = np.random.RandomState(sample_seed)
    label = np.arange(examples) % 2
    angle = np.pi * random.uniform(0, 1, examples)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    x = np.where(label[:, None] == 0, upper, lower)
    return make_splits(x + noise * random.standard_normal(x.shape), label, **split)


def make_gaussians(
    examples: int = 1000, features: int = 2, distance: float = 2.0, sample_seed: int = 0, **split: Any
) -> Splits:
    """Two standard normal clouds whose means are `distance` apart.

    The best accuracy is the normal CDF of half of the distance.
    """
    random = np.random.RandomState(sample_seed)
    label = np.arange(examples) % 2
    x = random.standard_normal((examples, features))
    x[:, 0] += distance * (label - 0.5)
    return make_splits(x, label, **split)


def make_modular(
    modulus: int = 97, operation: Literal["add", "subtract", "multiply"] = "add", equals: bool = False, **split: Any
) -> Splits:
    """All pairs of numbers below `modulus` as two tokens, whose class is their sum, difference or product modulo it.

    With `equals` a third token, `modulus`, stands for the sign of equality. With half of the pairs for training,
    models memorise first and generalise much later (Power et al., Grokking, 2022).
    """
    operations = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply}
    if operation not in operations:
        raise ValueError(f"operation must be one of {', '.join(operations)}, got {operation!r}")
    a, b = (index.ravel() for index in np.indices((modulus, modulus)))
    signs = [np.full_like(a, modulus)] if equals else []
    label = operations[operation](a, b) % modulus
    return make_splits(np.stack([a, b, *signs], axis=1), label, tokens=True, classes=modulus, **split)


def make_parity(examples: int = 4096, bits: int = 20, relevant: int = 3, sample_seed: int = 0, **split: Any) -> Splits:
    """Random bits as −1 and 1; the class is the parity of how many of the first `relevant` are 1."""
    if not 1 <= relevant <= bits:
        raise ValueError(f"relevant must be 1 to bits={bits}, got {relevant}")
    ones = np.random.RandomState(sample_seed).randint(0, 2, (examples, bits))
    label = ones[:, :relevant].sum(axis=1) % 2
    return make_splits(2.0 * ones - 1, label, classes=2, **split)

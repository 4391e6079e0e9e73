"""Examples divided into training, validation and test, and standardised."""

import math
import operator
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tasks.training.examples import Array, read_classes, read_features, read_targets, read_tokens

Kind = Literal["classes", "regression"]


class Part(NamedTuple):
    """The examples of one part: `x` of shape `(examples, …)`, float32, or int32 for tokens; `y` as of `Splits`."""

    x: np.ndarray  # as it is made; within a program it is an array of JAX
    y: np.ndarray


class Splits(NamedTuple):
    """Data with its three parts, of which validation and test may have no examples.

    `y` is int32 `(examples,)` with classes 0 … k-1, or float32 `(examples, outputs)` for a regression. `classes` is
    float32 `(k,)`, the labels as they were if they were numbers, else 0 … k-1; `(0,)` for a regression.
    """

    train: Part
    validation: Part
    test: Part
    classes: np.ndarray


def make_splits(
    x: ArrayLike,
    y: ArrayLike,
    *,
    kind: Kind = "classes",
    validation: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    stratify: bool = False,
    standardize: bool | Literal["whole"] = False,
    standardize_targets: bool = False,
    shape: Sequence[int] | None = None,
    tokens: bool = False,
    classes: int | None = None,
    columns: Sequence[str] | None = None,
) -> Splits:
    """Examples `x` of shape `(examples, …)` with labels or targets `y`, divided at random by `seed`.

    `validation` and `test` are fractions of the examples, or numbers of them. The test part depends on `test` and
    `seed` alone. With `stratify` each class is divided in proportion. `standardize` subtracts the mean and divides by
    the standard deviation of the training part, of each feature or, with `whole`, of all of them at once, as suits
    images; a feature that is constant there is only shifted. `standardize_targets` does so with a regression's
    targets. `shape` is that of an example, where `x` has flat ones. `tokens` keeps integers, as int32.

    Labels of classes are texts or integers, which are numbered in their order; with `classes` they must be 0 … k-1
    already. `columns` names the features in messages. Raises ValueError, in a line, for everything that does not fit.
    """
    if kind not in ("classes", "regression"):
        raise ValueError(f"kind must be classes or regression, got {kind!r}")
    features = read_tokens(x) if tokens else read_features(x, columns)
    labels, values = read_classes(y, classes) if kind == "classes" else (read_targets(y), np.zeros(0, np.float32))
    if len(features) != len(labels):
        raise ValueError(f"x and y must have as many examples, got {len(features)} and {len(labels)}")
    counts = _count_parts(len(labels), validation, test)
    if stratify and kind != "classes":
        raise ValueError("stratify needs classes, and these data are a regression")
    order = _divide(counts, seed, labels if stratify else np.zeros(len(labels)))
    if stratify:
        _check_strata(labels, order[0])
    if standardize:
        features = _standardize_features(features, order[0], standardize)
    if standardize_targets and kind == "regression":
        labels = _standardize(labels, order[0])
    features = _reshape(features, shape)
    train, validating, testing = (Part(_finish(features[part]), _finish(labels[part])) for part in order)
    return Splits(train, validating, testing, values)


def _count_parts(examples: int, validation: float, test: float) -> tuple[int, int]:
    """How many examples validation and test have."""
    counts = _count("validation", validation, examples), _count("test", test, examples)
    if sum(counts) >= examples:
        raise ValueError(
            f"the split leaves nothing for training: validation={validation} and test={test} are {counts[0]} and "
            f"{counts[1]} of {examples} examples"
        )
    return counts


def _count(name: str, size: float, examples: int) -> int:
    if isinstance(size, bool) or not (0 <= size < 1 if isinstance(size, float) else operator.index(size) >= 0):
        raise ValueError(f"{name} must be a fraction below 1 or a whole number of examples, got {size}")
    if not isinstance(size, float):
        return operator.index(size)
    count = int(np.floor(size * examples + 0.5))
    if size and not count:
        raise ValueError(f"{name}={size} of {examples} examples leaves none for it; 0 says that none is meant")
    return count


def _divide(counts: tuple[int, int], seed: int, labels: Array) -> tuple[Array, Array, Array]:
    """The indices of training, validation and test, divided in proportion within each group of equal labels.

    `RandomState` gives the same ones on every machine and with every version of NumPy.
    """
    order = np.random.RandomState(seed).permutation(len(labels))
    test = _take(order, labels, counts[1])
    rest = order[~np.isin(order, test)]
    validation = _take(rest, labels, counts[0])
    return rest[~np.isin(rest, validation)], validation, test


def _take(order: Array, labels: Array, count: int) -> Array:
    """The first `count` of an order, in proportion to how many of each label it has."""
    groups = [order[labels[order] == label] for label in np.unique(labels[order])]
    exact = np.array([len(group) * count / len(order) for group in groups])
    quotas = np.floor(exact).astype(int)
    largest = np.argsort(quotas - exact, kind="stable")[: count - quotas.sum()]
    quotas[largest] += 1
    taken = np.concatenate([group[:quota] for group, quota in zip(groups, quotas, strict=True)])
    return order[np.isin(order, taken)]


def _check_strata(labels: Array, train: Array) -> None:
    """Raises ValueError for a class of which a stratified split leaves nothing for training."""
    if missing := sorted({*np.unique(labels).tolist()} - {*np.unique(labels[train]).tolist()}):
        sizes = np.sum(labels == missing[0])
        raise ValueError(
            f"stratify leaves no example for training of {len(missing)} of {len(np.unique(labels))} classes, "
            f"as of number {missing[0]}, which has {sizes}"
        )


def _standardize_features(features: Array, train: Array, how: bool | str) -> Array:
    if features.dtype == np.int32:
        raise ValueError("tokens cannot be standardized; standardize=false keeps them")
    if how not in (True, "whole"):
        raise ValueError(f"standardize must be true, false or whole, got {how!r}")
    return _standardize(features, train, whole=how == "whole")


def _standardize(values: Array, train: Array, *, whole: bool = False) -> Array:
    axis = None if whole else 0
    known = values[train]
    # a constant column's deviation need not be 0 in floats: the mean of three times 0.1 is not 0.1
    constant = known.max(axis=axis) == known.min(axis=axis)
    deviation = np.where(constant, 1.0, known.std(axis=axis))
    return (values - known.mean(axis=axis)) / deviation


def _reshape(features: Array, shape: Sequence[int] | None) -> Array:
    if shape is None:
        return features
    if math.prod(shape) != math.prod(features.shape[1:]):
        raise ValueError(f"shape must have as many elements as an example of {features.shape[1:]}, got {tuple(shape)}")
    return features.reshape(len(features), *shape)


def _finish(array: Array) -> Array:
    return np.ascontiguousarray(array if array.dtype == np.int32 else array.astype(np.float32))

"""Losses and metrics against NumPy, scikit-learn and optax."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tasks.training import losses
from tasks.training.losses import Measure, find_loss, find_metric

RANDOM = np.random.RandomState(0)
LOGITS = RANDOM.standard_normal((50, 5)).astype(np.float32)
LABELS = RANDOM.randint(0, 5, 50).astype(np.int32)
OUTPUTS, TARGETS = (RANDOM.standard_normal((50, 3)).astype(np.float32) for _ in range(2))
BINARY = RANDOM.randint(0, 2, 50).astype(np.int32)


def probabilities(logits):
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=-1, keepdims=True)


def own(values):
    return values[np.arange(len(LABELS)), LABELS]


def huber(difference, delta=1.0):
    size = np.abs(difference)
    return np.where(size < delta, 0.5 * size**2, delta * (size - 0.5 * delta))


SIGMOID = 1 / (1 + np.exp(-LOGITS[:, 0].astype(np.float64)))
CASES = {
    "cross_entropy": (LOGITS, LABELS, np.mean(-np.log(own(probabilities(LOGITS))))),
    "accuracy": (LOGITS, LABELS, np.mean(LOGITS.argmax(axis=1) == LABELS)),
    "top_2": (LOGITS, LABELS, np.mean((np.argsort(-LOGITS, axis=1)[:, :2] == LABELS[:, None]).any(axis=1))),
    "top_5": (LOGITS, LABELS, 1.0),
    "binary_cross_entropy": (LOGITS[:, :1], BINARY, -np.mean(np.log(np.where(BINARY == 1, SIGMOID, 1 - SIGMOID)))),
    "squared_error": (OUTPUTS, TARGETS, np.mean((OUTPUTS - TARGETS) ** 2)),
    "absolute_error": (OUTPUTS, TARGETS, np.mean(np.abs(OUTPUTS - TARGETS))),
    "huber": (OUTPUTS, TARGETS, np.mean(huber(OUTPUTS - TARGETS))),
}


@pytest.mark.parametrize(("name", "case"), CASES.items(), ids=list(CASES))
def test_a_measure_is_the_mean_over_examples(name, case):
    outputs, y, expected = case
    value = jax.jit(lambda *arrays: find_metric(name)(*arrays))(outputs, y)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize(("name", "case"), CASES.items(), ids=list(CASES))
def test_a_measure_has_a_value_for_each_example(name, case):
    """Evaluations in slices add them up."""
    outputs, y, expected = case
    values = find_metric(name).function(outputs, y)
    assert values.shape == (50,)
    np.testing.assert_allclose(np.mean(values), expected, rtol=1e-6)


def test_r2_is_that_of_scikit_learn_over_all_examples():
    metrics = pytest.importorskip("sklearn.metrics")
    near = TARGETS + 0.3 * OUTPUTS
    value = find_metric("r2")(near, jnp.asarray(TARGETS))
    np.testing.assert_allclose(value, metrics.r2_score(TARGETS, near), rtol=1e-5)
    assert np.isnan(find_metric("r2")(near, jnp.full_like(near, 0.1)))


def test_accuracy_of_one_output_is_by_its_sign():
    expected = np.mean((LOGITS[:, 0] > 0) == BINARY)
    assert find_metric("accuracy")(LOGITS[:, :1], BINARY) == pytest.approx(expected)
    assert find_metric("accuracy")(LOGITS[:, 0], BINARY) == pytest.approx(expected)


def test_sequences_have_labels_at_each_position():
    logits, labels = LOGITS.reshape(10, 5, 5), LABELS.reshape(10, 5)
    for name in ("cross_entropy", "accuracy", "top_2"):
        assert find_metric(name)(logits, labels) == pytest.approx(float(find_metric(name)(LOGITS, LABELS)), rel=1e-6)


def test_a_tie_counts_the_first_of_the_largest():
    tied = jnp.zeros((5, 5), jnp.float32)
    assert find_metric("accuracy")(tied, jnp.arange(5)) == pytest.approx(1 / 5)
    assert find_metric("top_2")(tied, jnp.arange(5)) == pytest.approx(2 / 5)


@pytest.mark.parametrize("name", list(CASES))
def test_bfloat16_outputs_are_computed_in_float32(name):
    outputs, y, _ = CASES[name]
    low = jnp.asarray(outputs, jnp.bfloat16)
    assert find_metric(name)(low, y) == find_metric(name)(low.astype(jnp.float32), y)
    assert find_metric(name)(low, y).dtype == jnp.float32


def test_extreme_logits_stay_finite():
    far = jnp.array([[1e4, -1e4], [-1e4, 1e4]], jnp.float32)
    assert find_loss("cross_entropy")(far, jnp.array([0, 0])) == pytest.approx(1e4)
    assert find_loss("binary_cross_entropy")(far[:, 0], jnp.array([1, 1])) == pytest.approx(5e3)


def test_a_function_may_take_options_that_are_traced():
    smooth = jax.jit(lambda s: find_loss(partial(losses.cross_entropy, smoothing=s))(LOGITS, jnp.asarray(LABELS)))
    logarithms = np.log(probabilities(LOGITS))
    expected = np.mean(-0.9 * own(logarithms) - 0.1 * logarithms.mean(axis=1))
    np.testing.assert_allclose(smooth(jnp.float32(0.1)), expected, rtol=1e-6)
    wide = jax.jit(lambda d: find_loss(partial(losses.huber, delta=d))(OUTPUTS, jnp.asarray(TARGETS)))
    np.testing.assert_allclose(wide(jnp.float32(0.5)), np.mean(huber(OUTPUTS - TARGETS, 0.5)), rtol=1e-6)


def test_a_function_of_ones_own_is_averaged():
    measure = find_loss(optax.losses.softmax_cross_entropy_with_integer_labels)
    assert measure.direction == "minimize"
    assert measure.name == "softmax_cross_entropy_with_integer_labels"
    assert measure(LOGITS, jnp.asarray(LABELS)) == pytest.approx(CASES["cross_entropy"][2], rel=1e-6)


def test_each_measure_says_which_direction_is_better():
    directions = {name: find_metric(name).direction for name in [*losses.METRICS, "top_3"]}
    better = {name for name, direction in directions.items() if direction == "maximize"}
    assert better == {"accuracy", "r2", "top_3"}
    assert set(directions.values()) == {"minimize", "maximize"}
    assert find_metric(optax.losses.log_cosh).direction is None
    mine = Measure("gain", lambda outputs, y: outputs, "maximize")
    assert find_metric(mine) is mine


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: find_loss("hinge"), "there is no loss 'hinge'; there are: cross_entropy, binary_cross_entropy, "),
        (lambda: find_metric("f1"), "there is no metric 'f1'; there are: .* accuracy, r2, top_2, top_3"),
        (lambda: find_metric(lambda outputs, y: y), r"a metric names a column, got '<lambda>'"),
        (lambda: find_loss("accuracy"), "there is no loss 'accuracy'"),
        (lambda: find_loss("cross_entropy")(OUTPUTS, TARGETS), "labels that are integers, got float32 of shape"),
        (lambda: find_loss("squared_error")(LOGITS, LABELS), "targets that are floats, got int32 of shape"),
        (lambda: find_loss("squared_error")(LOGITS, TARGETS), r"the targets' shape \(50, 3\), got \(50, 5\)"),
        (lambda: find_loss("squared_error")(OUTPUTS[:, 0], TARGETS), r"the targets' shape \(50, 3\), got \(50,\)"),
        (lambda: find_loss("cross_entropy")(LOGITS[:9], LABELS), r"outputs of shape \(50,\) and an axis of classes"),
        (lambda: find_loss("binary_cross_entropy")(LOGITS, LABELS), r"one output for each label of shape \(50,\)"),
        (lambda: find_metric("accuracy")(OUTPUTS, TARGETS), "labels that are integers"),
        (lambda: find_metric("top_6")(LOGITS, LABELS), "top_6 must be at most the number of outputs, 5"),
        (lambda: find_metric("top_0")(LOGITS, LABELS), "top_0"),
        (lambda: losses.check_outputs(find_loss("cross_entropy"), (8, 5), 10), "for each class, got 5 for 10 classes"),
        (lambda: losses.check_outputs(find_loss("binary_cross_entropy"), (8, 1), 3), "data of 2 classes, got 3"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_what_is_no_function_is_refused():
    with pytest.raises(TypeError, match="a loss is a name or a function of outputs and labels, got 3"):
        find_loss(3)


def test_outputs_that_fit_the_classes_are_accepted():
    losses.check_outputs(find_loss("cross_entropy"), (8, 10), 10)
    losses.check_outputs(find_loss("binary_cross_entropy"), (8, 1), 2)
    losses.check_outputs(find_loss("binary_cross_entropy"), (8,), 2)
    losses.check_outputs(find_metric("accuracy"), (8, 1), 2)
    losses.check_outputs(find_loss("squared_error"), (8, 3), 0)

"""Each task against the same steps written by hand, eager, over random seeds and inputs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.nnx import bridge
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.arguments import count, floating, integer
from tasks.bridge import nnx_inside_linen
from tasks.dense_forward import MyDense, dense_forward
from tasks.mixed_train import mixed_train_step
from tasks.port_dense import assign, port_dense

seeds = st.integers(0, 2**31 - 2)
sizes = st.integers(1, 9)
few = settings(max_examples=4, deadline=None, derandomize=True)


def normal(seed, *shape):
    return np.random.RandomState(seed % 2**32).standard_normal(shape).astype(np.float32)


def bits(array):
    return np.asarray(array).view(np.uint32)


@pytest.mark.slow
@few
@given(seeds, sizes, sizes)
def test_dense_forward_is_the_affine_map_of_its_draw(seed, size, features):
    x = normal(seed, size)
    kernel = np.float64(jax.random.normal(nnx.Rngs(seed).params(), (size, features))) / np.sqrt(size)
    np.testing.assert_allclose(dense_forward(seed, x, features), x.astype(np.float64) @ kernel, rtol=2e-5, atol=1e-6)


def test_dense_forward_takes_a_batch():
    x = normal(3, 5, 4)
    with jax.numpy_rank_promotion("allow"):  # `x @ kernel + bias` is the layer's own definition
        batch = dense_forward(1, x, 6)
    assert batch.shape == (5, 6)
    np.testing.assert_allclose(batch, np.stack([dense_forward(1, row, 6) for row in x]), rtol=1e-5, atol=1e-6)


def test_my_dense_adds_its_bias():
    layer = MyDense(3, 2, nnx.Rngs(0))
    assert (layer.kernel.shape, layer.bias.shape) == ((3, 2), (2,))
    assert (layer.bias[...] == 0).all()
    layer.bias[...] = jnp.array([5.0, -7.0])
    x = normal(1, 3)
    np.testing.assert_allclose(layer(x), x @ np.asarray(layer.kernel[...]) + [5.0, -7.0], rtol=1e-5)


@pytest.mark.slow
@few
@given(seeds, sizes, sizes)
def test_port_dense_gives_the_sum_of_the_linen_layer_twice(seed, size, features):
    x = normal(seed, size)
    dense = nn.Dense(features)
    expected = dense.apply(dense.init(jax.random.PRNGKey(seed), x), x).sum()
    sums = port_dense(seed, x, features)
    assert (bits(sums) == bits(expected)).all()


def test_a_port_of_random_weights_keeps_every_bit():
    dense, x = nn.Dense(6, bias_init=nn.initializers.normal(1.0)), normal(2, 7, 4)
    variables = dense.init(jax.random.key(5), x)
    layer = nnx.Linear(4, 6, rngs=nnx.Rngs(0))
    kernel = layer.kernel
    assign("kernel", layer.kernel, variables["params"]["kernel"])
    assign("bias", layer.bias, variables["params"]["bias"])
    assert layer.kernel is kernel
    assert (np.asarray(layer.bias[...]) != 0).all()
    assert (bits(layer(x)) == bits(dense.apply(variables, x))).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 2), np.float32), r"kernel: the NNX parameter has shape \(2, 3\), the Linen array \(3, 2\)"),
        (np.zeros((1, 3), np.float32), r"kernel: .* \(2, 3\), the Linen array \(1, 3\)"),
        (np.zeros((2, 3), np.float16), "kernel: the NNX parameter has dtype float32, the Linen array float16"),
    ],
)
def test_a_port_refuses_another_shape_or_dtype(array, message):
    layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    before = np.array(layer.kernel[...])
    with pytest.raises(ValueError, match=message):
        assign("kernel", layer.kernel, jnp.asarray(array))
    assert (np.asarray(layer.kernel[...]) == before).all()


class Affine(nnx.Module):
    def __init__(self, size, features, rngs):
        self.linear = nnx.Linear(size, features, rngs=rngs)

    def __call__(self, x):
        return self.linear(x)


@pytest.mark.slow
@few
@given(seeds, sizes, sizes)
def test_the_bridge_runs_the_layer_with_the_weights_that_linen_holds(seed, size, features):
    x = normal(seed, size)
    wrapped = bridge.to_linen(Affine, size, features)
    params = wrapped.init(jax.random.PRNGKey(seed), x)["params"]["linear"]
    assert params["kernel"].shape == (size, features)
    expected = x.astype(np.float64) @ np.float64(params["kernel"]) + np.float64(params["bias"])
    np.testing.assert_allclose(nnx_inside_linen(seed, x, features), expected, rtol=2e-5, atol=1e-6)


@pytest.mark.slow
@few
@given(seeds, sizes, sizes, sizes, st.floats(0.0, 0.5, width=32))
def test_mixed_train_is_one_step_of_gradient_descent(seed, size, out, hidden, lr):
    x, y = normal(seed, size), normal(seed + 1, out)
    linear = nnx.Linear(size, hidden, rngs=nnx.Rngs(seed))
    dense = nn.Dense(out).init(jax.random.PRNGKey(seed + 1), jnp.zeros((hidden,)))["params"]
    k1, b1, k2, b2 = map(np.float64, (linear.kernel[...], linear.bias[...], dense["kernel"], dense["bias"]))

    def forward():
        before = x @ k1 + b1
        return before, np.maximum(before, 0) @ k2 + b2 - y

    before, error = forward()
    losses = [np.mean(error**2)]
    up = 2 * error / out
    down = (up @ k2.T) * (before > 0)
    k2, b2 = k2 - lr * np.outer(np.maximum(before, 0), up), b2 - lr * up
    k1, b1 = k1 - lr * np.outer(x, down), b1 - lr * down
    losses.append(np.mean(forward()[1] ** 2))
    np.testing.assert_allclose(mixed_train_step(seed, x, y, lr, hidden), losses, rtol=2e-4, atol=1e-6)


@pytest.mark.slow
def test_mixed_train_has_four_hidden_features_unless_told():
    x, y = normal(0, 5), normal(1, 2)
    assert (bits(mixed_train_step(3, x, y, 0.1)) == bits(mixed_train_step(3, x, y, 0.1, hidden=4))).all()
    assert (bits(mixed_train_step(3, x, y, 0.1)) != bits(mixed_train_step(3, x, y, 0.1, hidden=5))).all()


def test_mixed_train_refuses_batches_that_do_not_fit():
    with pytest.raises(ValueError, match=r"all axes but the last, got \(2, 5\) and \(3, 2\)"):
        mixed_train_step(0, normal(0, 2, 5), normal(1, 3, 2), 0.1)


CASES = [
    (dense_forward, (normal(0, 6),), {"features": 3}),
    (port_dense, (normal(0, 6),), {"features": 3}),
    (nnx_inside_linen, (normal(0, 6),), {"features": 3}),
    (mixed_train_step, (normal(0, 6), normal(1, 2), np.float32(0.1)), {"hidden": 3}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "arrays", "static"), CASES)
def test_every_task_is_traceable_in_all_but_its_counts(task, arrays, static):
    eager = [task(seed, *arrays, **static) for seed in range(4)]
    traced = jax.jit(jax.vmap(lambda seed, *rest: task(seed, *rest, **static), in_axes=(0, *(None for _ in arrays))))
    np.testing.assert_allclose(traced(np.arange(4, dtype=np.uint32), *arrays), eager, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(("task", "arrays", "static"), CASES)
def test_whole_numbers_may_arrive_as_floats(task, arrays, static):
    (name, number), *_ = static.items()
    expected = task(2, *arrays, **static)
    for seed, size in [(2.0, float(number)), (np.float32(2), np.float64(number)), (jnp.array(2.0), jnp.array(number))]:
        assert (bits(task(seed, *arrays, **{name: size})) == bits(expected)).all()
    with pytest.raises(ValueError, match=r"seed must be a whole number, got 3\.5"):
        task(3.5, *arrays, **static)
    with pytest.raises(ValueError, match=rf"{name} must be a whole number, got 2\.5"):
        task(1, *arrays, **{name: 2.5})


def test_arguments_that_are_no_numbers():
    with pytest.raises(TypeError, match="seed must be an integer, got 'a'"):
        integer("seed", "a")
    with pytest.raises(ValueError, match="features must be at least 1, got 0"):
        count("features", 0)
    with pytest.raises(TypeError, match="features fixes a shape and cannot be traced"):
        jax.jit(lambda n: count("features", n))(3)
    with pytest.raises(TypeError, match="seed must be traced as an integer, got float32"):
        jax.jit(lambda s: integer("seed", s))(np.float32(3))
    with pytest.raises(ValueError, match="x must have at least one axis"):
        floating("x", 1.0)
    assert floating("x", [1, 2]).dtype == jnp.float32


@pytest.mark.slow
def test_the_largest_seeds_that_a_study_takes():
    for task, arrays, static in CASES:
        assert np.isfinite(jax.jit(lambda s, t=task, a=arrays, k=static: t(s, *a, **k))(np.uint32(2**32 - 1))).all()

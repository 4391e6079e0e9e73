"""The studies of training that ship, made very small, and the model in the maximal update parametrisation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from runner import compare_studies
from tasks.training.architectures import Mlp, MupMlp

pytestmark = pytest.mark.usefixtures("standard_promotion")
X = jax.random.normal(jax.random.key(0), (7, 5))


@pytest.mark.matrix
def test_a_study_of_training_made_small(runner):
    few = ("optimizer=sgd", "lr=0.1,0.2", "seed=0,1", "steps=4", "every=2", "horizon=4", "model.hidden=[4]")
    called = runner("-m", "+experiment=digits_optimizers", *few)
    assert called.status == 0, called.err
    assert called.folder.name == "digits_optimizers"
    assert called.frame["steps_taken"].tolist() == [4] * 4
    comparison = compare_studies([str(called.folder)], metrics=["validation_loss"])
    assert len(comparison.points) == 2


def test_mup_is_the_usual_mlp_at_its_base():
    usual, mup = Mlp([8, 8], 3), MupMlp([8, 8], 3, base=8)
    params = jax.jit(mup.init)(jax.random.key(1), X)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, params, jax.jit(usual.init)(jax.random.key(1), X)))
    np.testing.assert_array_equal(mup.apply(params, X), usual.apply(params, X))


@pytest.mark.matrix
def test_mup_scales_kernels_and_their_steps_by_the_width():
    """A step of Adam moves each weight by the rate, and the kernel that it stands for by the rate over m."""
    width, base, rate = 512, 8, 0.01
    m, model, optimizer = width / base, MupMlp([width, width], 3, base=base), optax.adam(rate, eps=0.0)
    params = model.init(jax.random.key(2), X)["params"]
    kernels = [params[name]["kernel"] / scale for name, scale in (("Dense_0", 1), ("Dense_1", m), ("Dense_2", m))]
    for kernel, variance in zip(kernels, (1 / 5, 1 / width, base / width**2), strict=True):
        np.testing.assert_allclose(jnp.std(kernel), variance**0.5, rtol=0.1)
    logits = apply_kernels(params, kernels)
    np.testing.assert_allclose(model.apply({"params": params}, X), logits, rtol=1e-3, atol=1e-4)
    gradients = jax.grad(lambda params: model.apply({"params": params}, X)[:, 0].sum())(params)
    updates, _ = optimizer.update(gradients, optimizer.init(params))
    moved = jnp.abs(updates["Dense_1"]["kernel"] / m)
    np.testing.assert_allclose(moved[gradients["Dense_1"]["kernel"] != 0], rate / m, rtol=1e-3)


def apply_kernels(params, kernels):
    """The outputs by the kernels that the multipliers make."""
    x = X
    for number, kernel in enumerate(kernels):
        x = (x if number == 0 else jax.nn.relu(x)) @ kernel + params[f"Dense_{number}"]["bias"]
    return x

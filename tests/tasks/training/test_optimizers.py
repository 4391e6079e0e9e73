"""What stands around optimizers, against the same steps by hand; and each optimizer that ships, traced whole."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tasks.training import optimizers

pytestmark = pytest.mark.usefixtures("standard_promotion")

SHIPPED = sorted((ROOT / "conf" / "optimizer").glob("*.yaml"))


def make_params(seed=0):
    random = np.random.RandomState(seed)
    draw = lambda *shape: jnp.asarray(random.standard_normal(shape), jnp.float32)  # noqa: E731
    return {
        "encoder": {"dense": {"kernel": draw(6, 4), "bias": draw(4)}, "norm": {"scale": draw(4), "bias": draw(4)}},
        "head": {"kernel": draw(4, 3), "bias": draw(3)},
    }


def loss(params, x, y):
    dense, norm, head = params["encoder"]["dense"], params["encoder"]["norm"], params["head"]
    h = jnp.tanh(x @ dense["kernel"] + dense["bias"])
    h = h * norm["scale"] + norm["bias"]
    return jnp.mean(jnp.square(h @ head["kernel"] + head["bias"] - y))


RANDOM = np.random.RandomState(1)
X, Y = (jnp.asarray(RANDOM.standard_normal(shape), jnp.float32) for shape in ((8, 6), (8, 3)))


def read(path: Path, **values):
    return OmegaConf.to_container(
        OmegaConf.merge({"lr": 0.01, "steps": 100}, {"it": OmegaConf.load(path)}, values), resolve=True
    )["it"]


def split(description):
    """Floats of a description as arrays, and how to put tracers in their places."""
    leaves, structure = jax.tree.flatten(description, is_leaf=lambda v: v is None)
    floats = [leaf for leaf in leaves if isinstance(leaf, float)]

    def join(tracers):
        rest = iter(tracers)
        return jax.tree.unflatten(structure, [next(rest) if isinstance(leaf, float) else leaf for leaf in leaves])

    return [jnp.float32(v) for v in floats], join


def build(description):
    """What the engine does with a description: `_target_` called, inner ones first."""
    if isinstance(description, list):
        return [build(value) for value in description]
    if not isinstance(description, dict):
        return description
    arguments = {name: build(value) for name, value in description.items() if name != "_target_"}
    if "_target_" not in description:
        return arguments
    return instantiate({"_target_": description["_target_"], "_partial_": True})(**arguments)


def train(optimizer, params, steps=5):
    def advance(carry, _):
        params, state = carry
        value, gradients = jax.value_and_grad(loss)(params, X, Y)
        known = {"value": value, "grad": gradients, "value_fn": lambda params: loss(params, X, Y)}
        updates, state = optimizer.update(gradients, state, params, **known)
        return (optax.apply_updates(params, updates), state), value

    return jax.lax.scan(advance, (params, optimizer.init(params)), length=steps)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_an_optimizer_that_ships_runs_with_every_float_traced(path):
    description = read(path)
    floats, join = split(description)

    def run(floats):
        return train(optimizers.compose(build(join(floats))), make_params())[1]

    lanes = jax.jit(jax.vmap(run))([jnp.stack([f, f]) for f in floats])
    plain = train(optimizers.compose(build(description)), make_params())[1]
    assert np.isfinite(lanes).all()
    np.testing.assert_allclose(lanes, np.tile(plain, (2, 1)), rtol=2e-4)

"""Checkpoints of models: written in the form of their framework, read by it, and started from."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tasks import porting
from tasks.porting import checkpoints
from tasks.porting.__main__ import main as port
from tasks.training.architectures import Encoder, Mlp
from tasks.training.checkpoints import start_from
from tasks.training.descriptions import Chain, Ported, build_model

X = jax.random.normal(jax.random.key(9), (6, 4))


class Normed(nn.Module):
    """A Linen module with statistics and dropout."""

    outputs: int

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(5)(x))
        return nn.Dense(self.outputs)(nn.Dropout(0.5, deterministic=not train)(x))


class Dropped(nnx.Module):
    """An NNX module with statistics and a stream of random numbers."""

    def __init__(self, inputs, outputs, *, rngs):
        self.first = nnx.Linear(inputs, 5, rngs=rngs)
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(5, outputs, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(self.norm(self.first(x))))


MIXED = (partial(Encoder, hidden=5), Normed)
MODELS = {
    "linen": Normed,
    "nnx": Dropped,
    "ported": Ported(Normed),
    "dicts": Chain(MIXED),
    "chain linen": Chain(MIXED, way="linen"),
    "chain nnx": Chain((partial(Dropped, outputs=5), "relu", Mlp(hidden=[3], outputs=3)), way="nnx"),
}
pytestmark = pytest.mark.usefixtures("standard_promotion")


def train_a_little(description):
    """A model, and variables that are not those of any initialization, as NumPy arrays with raw keys."""
    model = build_model(description, X, 3)
    params, state = jax.jit(model.init)(jax.random.key(1), X)
    _, state = jax.jit(partial(model.apply, train=True))(params, state, X, key=jax.random.key(2))
    params = jax.tree.map(lambda leaf: leaf + 0.5, params)
    return model, params, state


def to_numpy(tree):
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda leaf: np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf), tree)


@pytest.mark.parametrize(
    "name",
    [name if name in ("linen", "nnx", "dicts") else pytest.param(name, marks=pytest.mark.matrix) for name in MODELS],
)
def test_what_is_written_is_read_again_to_the_bit(tmp_path, name):
    model, params, state = train_a_little(MODELS[name])
    model.files.write(tmp_path / "checkpoint", to_numpy(params), to_numpy(state))
    other = model._replace(init=start_from(model.init, model.files, str(tmp_path)))
    own, fresh = jax.jit(other.init)(jax.random.key(5), X)
    assert jax.tree.structure((own, fresh)) == jax.tree.structure((params, state))
    for a, b in zip(jax.tree.leaves(to_numpy(own)), jax.tree.leaves(to_numpy(params)), strict=True):
        np.testing.assert_array_equal(a, b)
    predict = lambda *trees: model.apply(*trees, X, train=False, key=None)[0]  # noqa: E731
    np.testing.assert_array_equal(predict(own, fresh), predict(params, state))


def test_streams_of_random_numbers_are_those_of_the_seed(tmp_path):
    model, params, state = train_a_little(Dropped)
    model.files.write(tmp_path / "a", to_numpy(params), to_numpy(state))
    init = start_from(model.init, model.files, str(tmp_path / "a"))
    keys = [to_numpy(init(jax.random.key(seed), X)[1]["dropout"])["rngs"]["key"] for seed in (5, 6)]
    assert (keys[0] != keys[1]).any()
    np.testing.assert_array_equal(init(jax.random.key(5), X)[1]["norm"]["mean"], state["norm"]["mean"])


def test_a_linen_checkpoint_is_read_and_ported(tmp_path, monkeypatch):
    model, params, state = train_a_little(Mlp(hidden=[5], outputs=3))
    model.files.write(tmp_path / "linen", to_numpy(params), to_numpy(state))
    wanted = model.apply(params, state, X, train=False, key=None)[0]
    variables = checkpoints.read(tmp_path / "linen")
    np.testing.assert_array_equal(Mlp(hidden=[5], outputs=3).apply(variables, X), wanted)
    given = "--linen", "tasks.training.architectures:Mlp", "--linen-args", "{hidden: [5], outputs: 3}"
    assert port([str(tmp_path / "linen"), str(tmp_path / "nnx"), *given, "--input", "6,4", "--verify"]) == 0
    module = porting.port_model(Mlp(hidden=[5], outputs=3), variables, X).module
    checkpoints.load_nnx(tmp_path / "nnx", module)
    np.testing.assert_array_equal(module(X), wanted)


@pytest.mark.matrix
def test_nnx_checkpoints_are_read_into_their_modules(tmp_path):
    model, params, state = train_a_little(Dropped)
    model.files.write(tmp_path / "nnx", to_numpy(params), to_numpy(state))
    module = Dropped(4, 3, rngs=nnx.Rngs(7))
    checkpoints.load_nnx(tmp_path / "nnx", module)
    module.eval()
    np.testing.assert_array_equal(module(X), model.apply(params, state, X, train=False, key=None)[0])
    model, params, state = train_a_little(Ported(Normed))
    model.files.write(tmp_path / "ported", to_numpy(params), to_numpy(state))
    drawn = Normed(3).init(jax.random.key(3), X)
    ported = porting.port_model(Normed(3), drawn, X, train=True).module
    checkpoints.load_nnx(tmp_path / "ported", ported)
    np.testing.assert_array_equal(ported(X, train=False), model.apply(params, state, X, train=False, key=None)[0])


@pytest.mark.parametrize(
    ("wrote", "reads", "message"),
    [
        ("linen", Mlp(hidden=[5], outputs=3), "unexpected params/BatchNorm_0/bias, of shape (5,)"),
        ("linen", Chain(MIXED), "missing params/layers_0/linear/bias, of shape (5,)"),
        ("nnx", partial(Dropped, outputs=2), "last/kernel has shape (5, 3), and needs (5, 2)"),
        ("dicts", Chain((partial(Encoder, hidden=4), Normed)), "layers_0/linear/bias has shape (5,), and needs (4,)"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(tmp_path, wrote, reads, message):
    model, params, state = train_a_little(MODELS[wrote])
    model.files.write(tmp_path / "a", to_numpy(params), to_numpy(state))
    other = build_model(reads, X, 3)
    init = start_from(other.init, other.files, str(tmp_path / "a"))
    with pytest.raises(ValueError, match="is a checkpoint of another model: ") as caught:
        jax.eval_shape(init, jax.random.key(0), X)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    missing = start_from(other.init, other.files, str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        jax.eval_shape(missing, jax.random.key(0), X)

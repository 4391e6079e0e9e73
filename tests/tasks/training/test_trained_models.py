"""Models as pure functions: Linen, NNX, chains of both by three ways, ported ones, and dropout with a traced rate."""

import functools
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hydra import compose, initialize_config_dir
from jax import lax
from omegaconf import OmegaConf

from tasks.train import train
from tasks.training.architectures import Cnn, Encoder, Mlp, Resnet, Transformer
from tasks.training.convolutions import convolve, pool
from tasks.training.data import Part, Splits
from tasks.training.descriptions import WAYS, Chain, Ported, build_model
from tasks.training.dropout import Dropout, NnxDropout, drop
from tasks.training.loop import STEPS

ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.usefixtures("standard_promotion"), pytest.mark.matrix]
KEY = jax.random.key(7)


def draw(seed, *shape):
    return jnp.asarray(np.random.RandomState(seed).standard_normal(shape), jnp.float32)


def digits(*sizes, features=16, classes=3):
    def labels(n):
        return jnp.asarray(np.random.RandomState(n).randint(0, classes, n), jnp.int32)

    return Splits(*(Part(draw(n, n, features), labels(n)) for n in sizes), jnp.arange(float(classes)))


DATA = digits(20, 0, 0)  # each part costs the compilation of its evaluation


def same(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in leaves)


@functools.cache
def run_loop(model, make=optax.adam, steps=4, **given):
    def run():
        loop = train(3, DATA, model, make(0.01), steps=steps, batch=6, **given)
        end = lax.while_loop(loop.proceeds, loop.advance, loop.state)
        return loop.finish(end), end.progress

    return jax.jit(run)()


def hybrid(way):
    return Chain(("flatten", partial(Encoder, hidden=8), partial(nn.Dense)), way)


def test_a_hybrid_by_dicts_and_by_both_bridges_has_the_same_bits():
    outputs = {way: run_loop(hybrid(way))[0] for way in WAYS}
    assert np.isfinite(outputs["dicts"]["train_loss"])
    assert same(outputs["dicts"], outputs["linen"])
    assert same(outputs["dicts"], outputs["nnx"])


class Joined(nnx.Module):
    """The hybrid as somebody would write it: an NNX encoder, and Linen's head by flax's own bridge."""

    def __init__(self, encoder, head):
        self.encoder, self.head = encoder, head

    def __call__(self, x):
        return self.head(self.encoder(x))


def test_a_hybrid_is_trained_as_by_the_gradients_and_the_optimizer_of_nnx():
    _outputs, end = run_loop(hybrid("dicts"))
    key = jax.random.key(3)

    @jax.jit
    def train_by_hand():
        encoder = Encoder(16, 8, rngs=nnx.Rngs(jax.random.fold_in(key, 1)))
        head = nnx.bridge.ToNNX(nn.Dense(3)).lazy_init(jnp.zeros((6, 8)), rngs=nnx.Rngs(jax.random.key(0)))
        for name, value in nn.Dense(3).init(jax.random.fold_in(key, 2), jnp.zeros((6, 8)))["params"].items():
            getattr(head, name).set_value(value)
        model = Joined(encoder, head)
        optimizer = nnx.Optimizer(model, optax.adam(0.01), wrt=nnx.Param)
        for step in range(4):
            rows = jax.random.randint(jax.random.fold_in(jax.random.fold_in(key, STEPS), step), (6,), 0, 20)

            def loss(model, rows=rows):
                logits = model(DATA.train.x[rows])
                return optax.softmax_cross_entropy_with_integer_labels(logits, DATA.train.y[rows]).mean()

            optimizer.update(model, nnx.grad(loss)(model))
        return model.encoder.linear.kernel[...], model.head.kernel[...], model.head.bias[...]

    params = end.weights.params
    made = (params["layers_1"]["linear"]["kernel"], params["layers_2"]["kernel"], params["layers_2"]["bias"])
    for a, b in zip(made, train_by_hand(), strict=True):  # unrolled here, a loop there: XLA fuses them differently
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert np.abs(made[2]).min() > 0


class Noisy(nn.Module):
    """A Linen model with statistics, dropout, and a collection of its own."""

    outputs: int

    @nn.compact
    def __call__(self, x, train):
        calls = self.variable("counters", "calls", lambda: jnp.int32(0))
        if train:
            calls.value += 1
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(8, bias_init=nn.initializers.normal())(x))
        return nn.Dense(self.outputs)(nn.Dropout(0.3, deterministic=not train)(nn.relu(x)))


def test_a_linen_model_keeps_statistics_counters_and_draws_dropout_by_step():
    _, end = run_loop(partial(Noisy), optax.sgd)  # adam would turn the rounding of a gradient of zero into a step
    params = Noisy(3).init(jax.random.key(3), DATA.train.x[:6], train=False)
    state = {name: tree for name, tree in params.items() if name != "params"}
    params = params["params"]

    @jax.jit
    def take_step(params, state, step):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), STEPS), step)
        rows = jax.random.randint(key, (6,), 0, 20)

        def loss(params):
            variables, rngs = {"params": params, **state}, {"dropout": jax.random.fold_in(key, 1)}
            logits, new = Noisy(3).apply(variables, DATA.train.x[rows], True, rngs=rngs, mutable=list(state))
            return optax.softmax_cross_entropy_with_integer_labels(logits, DATA.train.y[rows]).mean(), new

        gradients, state = jax.grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, gradients), state

    for step in range(4):
        params, state = take_step(params, state, step)
    assert end.weights.state["counters"]["calls"] == 4
    for a, b in zip(jax.tree.leaves(end.weights), jax.tree.leaves((params, state)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)


def test_a_ported_model_trains_with_the_bits_of_the_linen_one():
    (linen, _), (ported, end) = run_loop(partial(Noisy)), run_loop(Ported(partial(Noisy)))
    assert same(linen, ported)
    assert int(end.weights.state["calls"]) == 4


class Custom(nnx.Variable):
    """A type of variable that flax does not know."""


class Everything(nnx.Module):
    """An NNX model with variables of every type, and arrays outside of variables."""

    def __init__(self, inputs, outputs, rngs):
        self.blocks = nnx.List([nnx.Linear(inputs, 8, rngs=rngs), nnx.Linear(8, outputs, rngs=rngs)])
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.drop = nnx.Dropout(0.3, rngs=rngs)
        self.calls = Custom(jnp.int32(0))
        self.shift = jnp.full(outputs, 0.1)

    def __call__(self, x):
        if not self.drop.deterministic:
            self.calls[...] += 1
        return self.blocks[1](self.drop(nnx.relu(self.norm(self.blocks[0](x))))) + self.shift


def test_an_nnx_model_keeps_variables_of_every_type():
    outputs, end = run_loop(Everything, optax.sgd)
    model = Everything(16, 3, nnx.Rngs(3))
    optimizer = nnx.Optimizer(model, optax.sgd(0.01), wrt=nnx.Param)
    for step in range(4):
        rows = jax.random.randint(jax.random.fold_in(jax.random.fold_in(jax.random.key(3), STEPS), step), (6,), 0, 20)

        def loss(model, rows=rows):
            logits = model(DATA.train.x[rows])
            return optax.softmax_cross_entropy_with_integer_labels(logits, DATA.train.y[rows]).mean()

        optimizer.update(model, nnx.grad(loss)(model))
    params, state = end.weights
    assert state["calls"] == 4
    assert state["drop"]["rngs"]["count"] == model.drop.rngs.count[...]
    np.testing.assert_allclose(state["norm"]["mean"], model.norm.mean[...], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state["norm"]["var"], model.norm.var[...], rtol=1e-4)
    np.testing.assert_allclose(params["blocks"]["1"]["kernel"], model.blocks[1].kernel[...], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(state["shift"], 0.1, rtol=1e-6)
    assert "shift" not in params
    model.eval()  # evaluations take the averages and drop nothing
    logits = model(DATA.train.x)
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, DATA.train.y).mean()
    np.testing.assert_allclose(outputs["train_loss"], expected, rtol=1e-4)


NORMS = (
    partial(nnx.Linear, out_features=8),
    partial(nnx.BatchNorm),
    "relu",
    nn.BatchNorm(),
    nn.Dense(6),
    partial(nnx.Linear),
)


def test_statistics_within_a_chain_are_the_same_by_each_way():
    outputs = {way: run_loop(Chain(NORMS, way))[0] for way in WAYS}
    assert same(outputs["dicts"], outputs["linen"])
    assert same(outputs["dicts"], outputs["nnx"])


class Attention(nnx.Module):
    """Embedding and attention of NNX."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(5, 8, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)

    def __call__(self, x):
        return self.attend(self.embed(x))


def test_a_chain_goes_from_tokens_through_nnx_and_linen():
    chain = Chain((Attention, nn.LayerNorm(), "mean", partial(nn.Dense)))
    x = jnp.asarray(np.random.RandomState(0).randint(0, 5, (4, 6)), jnp.int32)
    model = build_model(chain, x, 3)
    params, state = model.init(KEY, x)
    outputs, _ = model.apply(params, state, x, train=True, key=KEY)
    assert outputs.shape == (4, 3)
    assert set(params) == {"layers_0", "layers_1", "layers_3"}


CONFIGS = sorted(path.stem for path in (ROOT / "conf" / "model").glob("*.yaml"))


def instantiate(config):
    """What the engine makes of a description: `_target_`, `_partial_`, and lists."""
    if isinstance(config, dict) and "_target_" in config:
        made = {name: instantiate(value) for name, value in config.items() if not name.startswith("_")}
        module, _, name = config["_target_"].rpartition(".")
        target = getattr(__import__(module, fromlist=[name]), name)
        return partial(target, **made) if config.get("_partial_") else target(**made)
    return [instantiate(value) for value in config] if isinstance(config, list) else config


@pytest.mark.parametrize("name", CONFIGS)
def test_every_model_that_ships_has_an_output_for_each_class(name):
    with initialize_config_dir(str(ROOT / "conf" / "model"), version_base="1.3"):
        config = OmegaConf.to_container(compose(name))
    shapes = {"transformer": (2, 8, 8), "tokens": (2, 3)}
    x = jax.ShapeDtypeStruct(shapes.get(name, (2, 64)), jnp.int32 if name == "tokens" else jnp.float32)
    model = build_model(instantiate(config), x, 10)

    def call(x):
        params, state = model.init(KEY, x)
        return model.apply(params, state, x, train=True, key=KEY)[0]

    assert jax.eval_shape(call, x).shape == (2, 10)


@pytest.mark.parametrize("kind", [Mlp, Cnn, Transformer])
def test_a_rate_may_be_traced_in_every_model_with_dropout(kind):
    sizes = {Mlp: {"hidden": (4,)}, Cnn: {"channels": (2,)}, Transformer: {"width": 4, "heads": 1, "blocks": 1}}[kind]
    x = draw(0, 2, 4, 4)

    def call(rate):
        model = build_model(partial(kind, dropout=rate, **sizes), x, 3)
        return model.apply(*model.init(KEY, x), x, train=True, key=KEY)[0]

    assert jax.eval_shape(call, jax.ShapeDtypeStruct((), jnp.float32)).shape == (2, 3)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.75])
def test_dropout_has_the_masks_of_flax(rate):
    x, rngs = draw(0, 5, 7), {"dropout": KEY}
    theirs = nn.Dropout(rate, deterministic=False).apply({}, x, rngs=rngs)
    ours = jax.jit(lambda rate: Dropout(rate, deterministic=False).apply({}, x, rngs=rngs))(rate)
    assert ((theirs == 0) == (ours == 0)).all()
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    theirs = nnx.Dropout(rate, rngs=nnx.Rngs(KEY))(x)
    ours = jax.jit(lambda rate: NnxDropout(rate, rngs=nnx.Rngs(KEY))(x))(rate)
    assert ((theirs == 0) == (ours == 0)).all()
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_dropout_of_everything_is_zero_and_has_no_gradient():
    out, gradient = jax.value_and_grad(lambda x: drop(x, jnp.float32(1), KEY).sum())(draw(0, 4))
    assert out == 0
    assert (gradient == 0).all()


def test_dropout_is_nothing_outside_of_training():
    x = draw(0, 4)
    assert (Dropout(0.5, deterministic=True).apply({}, x) == x).all()
    module = NnxDropout(0.5, rngs=nnx.Rngs(0))
    module.eval()
    assert (module(x) == x).all()


def test_a_traced_rate_is_one_program_for_all_rates():
    def run(rate):
        loop = train(
            3, DATA, Chain((nn.Dense(8), partial(NnxDropout, rate=rate), nn.Dense(3))), optax.sgd(0.1), steps=1, batch=4
        )
        return loop.finish(lax.while_loop(loop.proceeds, loop.advance, loop.state))["train_loss"]

    losses = jax.jit(jax.vmap(run))(jnp.array([0.0, 0.5, 0.5, 0.9]))
    assert losses[1] == losses[2]
    assert len(set(losses.tolist())) == 3


def test_bfloat16_computes_on_float32_parameters():
    x = DATA.train.x[:6]
    seen = []

    class Watched(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = nn.Dense(3, bias_init=nn.initializers.normal())(x)
            seen.append((x.dtype, y.dtype))
            return y

    outputs, end = run_loop(Watched(), dtype="bfloat16")
    assert (jnp.bfloat16, jnp.bfloat16) in seen
    assert {leaf.dtype.name for leaf in jax.tree.leaves((end.weights, end.optimizer))} == {"float32", "int32"}
    exact, _ = run_loop(Watched(), dtype="float32")
    assert outputs["train_loss"] != exact["train_loss"]
    np.testing.assert_allclose(outputs["train_loss"], exact["train_loss"], rtol=0.02)
    assert x.dtype == jnp.float32


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nnx.Linear(4, 3, rngs=nnx.Rngs(0)), "the weights of Linear are drawn already; add _partial_: true"),
        (3, "model must be a Linen module, a partial of an NNX module or a chain, got 3"),
        (Chain(("relu", 3)), "a layer of a chain must be a module, a function or a name, got 3"),
        (Ported(nnx.Linear), "Ported takes a Linen module"),
    ],
)
def test_what_is_no_model_is_refused(model, message):
    with pytest.raises(TypeError, match=message):
        build_model(model, jnp.zeros((2, 4)), 3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Chain(("rleu",)), "a chain has no layer 'rleu'; by name it has: flatten, mean, relu"),
        (Chain(("relu",), "torch"), "way must be one of dicts, linen, nnx, got 'torch'"),
    ],
)
def test_unknown_names_are_refused_with_those_that_there_are(model, message):
    with pytest.raises(ValueError, match=message):
        build_model(model, jnp.zeros((2, 4)), 3)


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 0), (0, 2))])
@pytest.mark.parametrize(("strides", "size"), [((1, 1), (3, 3)), ((2, 2), (3, 3)), ((2, 1), (1, 2))])
def test_a_convolution_by_products_is_that_of_xla(padding, strides, size):
    images, kernel = draw(0, 2, 7, 6, 3), draw(1, *size, 3, 4)
    numbers = ("NHWC", "HWIO", "NHWC")
    expected = lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=numbers)
    np.testing.assert_allclose(convolve(images, kernel, strides, padding), expected, rtol=1e-5, atol=1e-5)


def test_a_convolution_by_products_refuses_groups():
    with pytest.raises(ValueError, match="no dilations and no groups"):
        convolve(draw(0, 1, 4, 4, 2), draw(1, 3, 3, 1, 2), (1, 1), "SAME", feature_group_count=2)


def test_pooling_is_that_of_flax():
    images = draw(0, 2, 7, 6, 3)
    assert (pool(images) == nn.max_pool(images, (2, 2), (2, 2))).all()


@pytest.mark.parametrize("model", [partial(Cnn, channels=(2, 3)), partial(Resnet, channels=(2, 4))])
def test_models_of_images_can_be_ported(model):
    x = draw(0, 2, 64)
    linen, ported = build_model(model, x, 3), build_model(Ported(model), x, 3)
    outputs = [each.apply(*each.init(KEY, x), x, train=True, key=KEY)[0] for each in (linen, ported)]
    assert same(*outputs)


def test_a_resnet_reduces_images_and_keeps_statistics():
    model = build_model(partial(Resnet, channels=(2, 4)), draw(0, 2, 64), 3)
    params, state = jax.eval_shape(model.init, KEY, draw(0, 2, 64))
    assert params["Dense_0"]["kernel"].shape == (4, 3)
    assert len(state["batch_stats"]) == 4

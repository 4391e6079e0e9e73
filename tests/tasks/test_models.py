"""Whole Linen models in NNX: the same outputs, statistics, masks and losses, to the bit."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from tasks import porting
from tasks.parity.cases import ResNet, Transformer
from tasks.porting.variables import same_bits

pytestmark = [pytest.mark.usefixtures("standard_promotion"), pytest.mark.slow]

KEY = jax.random.key(0)
DRAW = np.random.default_rng(1)
IMAGES = jnp.asarray(DRAW.normal(size=(4, 8, 8, 2)), "float32")
TOKENS = jnp.asarray(DRAW.integers(0, 11, (3, 5)), "int32")
MODELS = {"resnet": (ResNet(), IMAGES, jnp.array([0, 1, 2, 1])), "transformer": (Transformer(), TOKENS, TOKENS)}


def variables_of(linen, x):
    """Random variables, none of them zero or one; variances stay positive."""
    made = linen.init({"params": KEY, "dropout": KEY}, x)
    return jax.tree.map(lambda leaf: leaf + 0.1 * jnp.abs(jax.random.normal(KEY, leaf.shape, leaf.dtype)), dict(made))


def loss_of(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@pytest.mark.matrix
@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_same_bits_in_evaluation(name):
    linen, x, _ = MODELS[name]
    variables = variables_of(linen, x)
    module = porting.port_model(linen, variables, x, train=True).module
    assert same_bits(module.variables(), variables)
    if name == "resnet":  # eager, where it is quick
        assert same_bits(module(x), linen.apply(variables, x))
        assert same_bits(nnx.jit(lambda module: module(x))(module), jax.jit(linen.apply)(variables, x))
    graph, state = nnx.split(module)
    assert same_bits(jax.jit(lambda state: nnx.merge(graph, state)(x))(state), jax.jit(linen.apply)(variables, x))


@pytest.mark.matrix
@pytest.mark.parametrize("name", MODELS)
def test_a_model_trains_to_the_same_losses(name):
    linen, x, labels = MODELS[name]
    variables, tx = variables_of(linen, x), optax.adamw(1e-2)
    module = porting.port_model(linen, variables, x, train=True).module
    optimizer = nnx.Optimizer(module, tx, wrt=nnx.Param)

    @jax.jit
    def linen_step(variables, state, key):
        def loss(params):
            given = {**variables, "params": params}
            keys = {"dropout": key}
            out, changed = linen.apply(given, x, train=True, rngs=keys, mutable=["batch_stats"])
            return loss_of(out, labels), changed

        (value, changed), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        updates, state = tx.update(gradients, state, variables["params"])
        return {**variables, **changed, "params": optax.apply_updates(variables["params"], updates)}, state, value

    @nnx.jit
    def step(module, optimizer, key):
        def loss(module):
            return loss_of(module(x, train=True, rngs={"dropout": key}), labels)

        value, gradients = nnx.value_and_grad(loss)(module)
        optimizer.update(module, gradients)
        return value

    state, losses = tx.init(variables["params"]), []
    for number in range(50):
        key = jax.random.key(number)
        variables, state, expected = linen_step(variables, state, key)
        losses.append((float(expected), float(step(module, optimizer, key))))
    assert all(a == b for a, b in losses)
    assert sum(a for a, _ in losses[-10:]) < sum(a for a, _ in losses[:10])
    assert same_bits(module.variables(), variables)


@pytest.mark.matrix
def test_the_report_names_each_layer_and_why_it_is_what_it_is():
    linen, x, _ = MODELS["resnet"]
    ported = porting.port_model(linen, variables_of(linen, x), x, train=True)
    entries = {entry.path: (entry.layer, entry.kind) for entry in ported.report}
    assert entries == {
        "Conv_0": ("Conv", "native"),
        "shared/Conv_0": ("Conv", "native"),
        "shared/BatchNorm_0": ("BatchNorm", "adjusted"),
        "Residual_0/Conv_0": ("Conv", "native"),
        "Residual_0/BatchNorm_0": ("BatchNorm", "adjusted"),
        "Dropout_0": ("Dropout", "native"),
        "LayerNorm_0": ("LayerNorm", "adjusted"),
        "CheckpointDense_0": ("Dense", "native"),
        "Dense_0": ("Dense", "native"),
        "": ("ResNet", "own"),
    }
    assert isinstance(ported.module.shared.Conv_0, nnx.Conv)
    assert isinstance(ported.module.CheckpointDense_0, nnx.Linear)
    params = nnx.state(ported.module, nnx.Param)
    assert len(jax.tree.leaves(params)) == len(jax.tree.leaves(variables_of(linen, x)["params"]))


class Odd(nn.Module):
    """A reparametrized layer, a recurrent one over a scan, tied weights that are read."""

    @nn.compact
    def __call__(self, x):
        x = nn.WeightNorm(nn.Dense(8))(x)
        x = nn.RNN(nn.GRUCell(8))(x)
        embed = nn.Embed(8, 8)
        return nn.Sequential([nn.Dense(8), nn.relu, nn.PReLU()])(x) @ embed.embedding + embed(jnp.arange(1))


@pytest.mark.matrix
def test_layers_around_layers_are_exact_too():
    x = jax.random.normal(KEY, (2, 4, 8))
    linen = Odd()
    variables = variables_of(linen, x)
    ported = porting.port_model(linen, variables, x)
    assert same_bits(ported.module.variables(), variables)
    assert same_bits(ported.module(x), linen.apply(variables, x))
    kinds = {entry.path: entry.kind for entry in ported.report}
    assert kinds == {
        "Dense_0": "native",
        "GRUCell_0": "exact",
        "Dense_1": "native",
        "PReLU_0": "native",
        "Embed_0": "native",
        "WeightNorm_0": "exact",
    }

    def gradients(params):
        return jax.grad(lambda params: (linen.apply({**variables, "params": params}, x) ** 2).sum())(params)

    graph, params, rest = nnx.split(ported.module, nnx.Param, ...)
    own = jax.grad(lambda params: (nnx.merge(graph, params, rest)(x) ** 2).sum())(params)
    assert same_bits(nnx.merge(graph, own, rest).variables()["params"], gradients(variables["params"]))


class Block(nn.Module):
    train: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=not self.train)(nn.Dense(8)(x))
        return nn.Dropout(0.3, deterministic=not self.train)(x)


class Step(nn.Module):
    train: bool

    @nn.compact
    def __call__(self, x, _):
        return Block(self.train)(x), None


class Lifted(nn.Module):
    """Layers with parameters, statistics and dropout within each of Linen's transforms."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.jit(Block)(train)(nn.remat(Block)(train)(x))
        axes, split = {"params": 1, "batch_stats": 0}, {"params": True, "dropout": True}
        x, _ = nn.scan(Step, variable_axes=axes, split_rngs=split, length=3)(train)(x, None)
        split = {"params": True}
        x = nn.vmap(nn.Dense, variable_axes={"params": 0}, split_rngs=split, in_axes=None, axis_size=3)(8)(x).sum(0)
        x = nn.SpectralNorm(nn.Dense(8))(x, update_stats=train)
        x = nn.RNN(nn.OptimizedLSTMCell(8))(x)
        return nn.SelfAttention(2)(x, jnp.tril(jnp.ones((4, 4), bool))[None, None])


@pytest.mark.matrix
@pytest.mark.filterwarnings("ignore:SelfAttention will be deprecated:DeprecationWarning")
def test_layers_within_transforms_are_nnxs_and_exact():
    x, linen = jax.random.normal(KEY, (2, 4, 8)), Lifted()
    variables = variables_of(linen, x)
    ported = porting.port_model(linen, variables, x, train=True)
    assert not [entry for entry in ported.report if entry.kind in ("linen", "own")]
    module = ported.module
    assert same_bits(module.variables(), variables)
    assert module.ScanStep_0.Block_0.Dense_0.kernel.shape == (8, 3, 8)
    assert same_bits(nnx.jit(lambda module: module(x))(module), jax.jit(linen.apply)(variables, x))
    train = {"train": True, "rngs": {"dropout": jax.random.key(5)}}
    out, changed = jax.jit(lambda given: linen.apply(given, x, **train, mutable=["batch_stats"]))(variables)
    assert same_bits(nnx.jit(lambda module: module(x, **train))(module), out)
    assert same_bits(module.variables(), {**variables, **changed})

    def loss(params):
        return (linen.apply({**variables, "params": params}, x) ** 2).sum()

    module = porting.port_model(linen, variables, x).module
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    own = jax.jit(jax.grad(lambda params: (nnx.merge(graph, params, rest, copy=True)(x) ** 2).sum()))(params)
    assert same_bits(nnx.merge(graph, own, rest).variables()["params"], jax.jit(jax.grad(loss))(variables["params"]))


class Decoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.MultiHeadDotProductAttention(2, qkv_features=12, decode=True)(nn.Dense(8)(x))
        return nn.Dense(8)(x)


@pytest.mark.matrix
def test_a_cache_goes_along():
    x, linen = jax.random.normal(KEY, (2, 5, 8)), Decoder()
    variables = linen.init(KEY, x)
    module = porting.port_model(linen, variables, x[:, :1]).module
    assert isinstance(module.MultiHeadDotProductAttention_0, nnx.MultiHeadAttention)
    for place in range(5):
        token = x[:, place : place + 1]
        out, changed = linen.apply(variables, token, mutable=["cache"])
        variables = {**variables, **changed}
        assert same_bits(module(token), out)
        assert same_bits(module.variables(), variables)
    assert int(module.MultiHeadDotProductAttention_0.cache_index[...]) == 5


@pytest.mark.matrix
def test_variables_that_are_not_the_models_are_told():
    linen, x, _ = MODELS["resnet"]
    variables = variables_of(linen, x)
    variables["params"]["Dense_0"]["more"] = jnp.ones(3)
    with pytest.raises(porting.VariableMismatchError, match="unexpected params/more, of shape"):
        porting.port_model(linen, variables, x, train=True)


class Changing(nn.Module):
    """Layers that are lifted, or configured otherwise, in training only; flags and numbers that are positional."""

    @nn.compact
    def __call__(self, x, train, size, options):
        norm = nn.remat(nn.BatchNorm) if train else nn.BatchNorm
        x = norm(use_running_average=not train, name="norm")(nn.Dense(size)(x))
        again = nn.BatchNorm(use_running_average=not train, name="again")
        x = again(x) if self.is_initializing() else nn.remat(lambda module, x: module(x))(again, x)
        return nn.LayerNorm(epsilon=0.1 if train else 1e-6, name="last")(x) * options["scale"]


@pytest.mark.matrix
@pytest.mark.parametrize("traced", [True, False])
def test_a_call_need_not_be_the_one_that_was_traced(traced):
    x, linen, more = jax.random.normal(KEY, (3, 4)), Changing(), (6, {"scale": 2, "quiet": True})
    made = linen.init(KEY, x, False, *more)
    variables = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.abs(jax.random.normal(KEY, leaf.shape)), dict(made))
    module = porting.port_model(linen, variables, x, traced, *more).module
    assert same_bits(module(x, False, *more), linen.apply(variables, x, False, *more))
    out, changed = linen.apply(variables, x, True, *more, mutable=["batch_stats"])
    assert same_bits(module(x, True, *more), out)
    assert same_bits(module.variables()["batch_stats"], changed["batch_stats"])


def rounding(a, b, numbers, precision=None, preferred_element_type=None):
    return jnp.round(jax.lax.dot_general(a, b, numbers, precision=precision), 1)


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4, name="in_")(x)


class Awkward(nn.Module):
    """Settings and names that NNX does not have, in what is ported otherwise."""

    mean: jax.Array

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4, dot_general=rounding)(x - self.mean)
        x = nn.Dense(4, dot_general_cls=lambda: rounding)(x)
        x = nn.LayerNorm(reduction_axes=(1, 2), feature_axes=(1, 2))(x)
        x = nn.Einsum((4, 4))(x, "...c,cd->...d") + nn.Einsum((4, 4))(x, "abc,cd->abd")
        x = nn.Conv(4, (3,), mask=np.tril(np.ones((3, 4, 4))))(x)
        x = nn.Conv(4, (3,), mask=jnp.tril(jnp.ones((3, 4, 4))))(x)
        x = nn.MultiHeadDotProductAttention(2)(x, inputs_k=x, inputs_v=jnp.concatenate([x, x], -1))
        x = nn.Dense(4, name="variables")(nn.Dense(4, name="train")(Inner(name="eval")(x)))
        self.sow("losses", "squares", (x**2).sum())
        return nn.DenseGeneral(5, axis=(-1, 1))(x) * self.param("sow", nn.initializers.normal(), (5,))


@pytest.mark.matrix
def test_settings_and_names_that_nnx_does_not_have():
    x, linen = jax.random.normal(KEY, (2, 6, 4)), Awkward(jnp.ones(4))
    variables = {"params": variables_of(linen, x)["params"]}
    ported = porting.port_model(linen, variables, x)
    kept = {entry.path: entry.why for entry in ported.report if entry.kind == "linen"}
    assert kept["Dense_1"] == "its dot_general_cls is not translated"
    assert {entry.path: entry.kind for entry in ported.report}["LayerNorm_0"] == "adjusted"
    assert {entry.path: entry.kind for entry in ported.report}[""] == "own"
    assert kept["Conv_1"] == "its mask is computed in the call"
    assert kept["MultiHeadDotProductAttention_0"] == "its keys and values have different widths"
    assert set(kept) == {"Dense_1", "Conv_1", "MultiHeadDotProductAttention_0"}
    module = ported.module
    assert isinstance(module.eval_.in_, nnx.Linear)
    assert same_bits(module.variables(), variables)
    call = nnx.jit(lambda module: module(x, mutable=["losses"]))
    assert same_bits(call(module), call(module))
    assert same_bits(call(module), jax.jit(lambda given: linen.apply(given, x, mutable=["losses"]))(variables))


class Heads(nn.Module):
    def setup(self):
        self.body, self.extra = nn.Dense(3), nn.Dense(2)

    def __call__(self, x, train=False):
        return (self.body(x), self.extra(x)) if train else self.body(x)


@pytest.mark.matrix
def test_what_cannot_be_ported_is_told():
    x, linen = jnp.ones((2, 4)), Heads()
    variables = linen.init(KEY, x, train=True)
    entries = {entry.path: entry for entry in porting.port_model(linen, variables, x).report}
    assert (entries["extra"].kind, "is not called" in entries["extra"].why) == ("linen", True)
    with pytest.raises(ValueError, match="Dense is a single layer; use port_layer"):
        porting.port_model(nn.Dense(3), nn.Dense(3).init(KEY, x), x)
    with pytest.raises(porting.VariableMismatchError, match="missing params/body/kernel, of shape"):
        porting.port_model(linen, {"params": {}}, x)
    with pytest.raises(ValueError, match="losses/l is a tuple"):
        porting.port_model(linen, {**variables, "losses": {"l": (jnp.ones(1),)}}, x)

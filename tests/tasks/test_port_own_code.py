"""Modules with parameters of their own, and what else of a Linen model becomes NNX: wrappers, streams, sharding."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.linen import partitioning
from linen_variables import KEY, variables_of

from tasks import porting
from tasks.porting import checkpoints
from tasks.porting.variables import same_bits

pytestmark = [pytest.mark.usefixtures("standard_promotion"), pytest.mark.matrix]

X = jnp.asarray(np.random.default_rng(1).normal(size=(3, 5, 4)), "float32")


def gradients_of(linen, variables, *inputs, **given):
    def loss(params):
        return (linen.apply({**variables, "params": params}, *inputs, **given) ** 2).sum()

    return jax.jit(jax.grad(loss))(variables["params"])


def own_gradients_of(module, *inputs, **given):
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    def loss(params):
        return (nnx.merge(graph, params, rest, copy=True)(*inputs, **given) ** 2).sum()

    return nnx.merge(graph, jax.jit(jax.grad(loss))(params), rest).variables()["params"]


class RootMeanSquare(nn.Module):
    """A norm with a parameter of its own, as in T5."""

    @nn.compact
    def __call__(self, x):
        weight = self.param("weight", nn.initializers.ones, (x.shape[-1],))
        return weight * x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)


class StandardizedConv(nn.Conv):
    """A convolution that standardizes its kernel, as in BiT."""

    def param(self, name, init_fn, *args, **kwargs):
        value = super().param(name, init_fn, *args, **kwargs)
        return value - value.mean((0, 1)) if name == "kernel" else value


class Statistics(nn.Module):
    """A norm with statistics of its own."""

    @nn.compact
    def __call__(self, x, train):
        mean = self.variable("batch_stats", "mean", jnp.zeros, x.shape[-1:])
        if train and not self.is_initializing():
            mean.value = 0.9 * mean.value + 0.1 * x.mean((0, 1))
        return (x - mean.value) * self.param("scale", nn.initializers.ones, x.shape[-1:])


class Table(nn.Module):
    """An embedding with a field that only `setup` sets, as in T5X."""

    size: int
    table: jax.Array = dataclasses.field(init=False)

    def setup(self):
        self.table = self.param("table", nn.initializers.normal(1.0), (self.size, 4))

    def __call__(self, tokens):
        return self.table[tokens]

    def attend(self, x):
        return x @ self.table.T


class Tied(nn.Module):
    def setup(self):
        self.shared = Table(7)
        self.inner = nn.Dense(4)

    def __call__(self, tokens):
        return self.shared.attend(self.inner(self.shared(tokens)))


def test_a_field_that_setup_sets_is_no_setting():
    linen, tokens = Tied(), jnp.asarray([[1, 2], [3, 6]])
    variables = variables_of(linen, tokens)
    ported = porting.port_model(linen, variables, tokens)
    assert {entry.path: str(entry.kind) for entry in ported.report} == {"inner": "native", "shared": "own"}
    assert same_bits(jax.jit(ported.module)(tokens), jax.jit(linen.apply)(variables, tokens))
    assert same_bits(ported.module.shared(tokens), variables["params"]["shared"]["table"][tokens])


class Block(nn.Module):
    """A block of all three, with dropout and a layer of Linen."""

    @nn.compact
    def __call__(self, x, train=False):
        x = StandardizedConv(4, (3,), name="conv")(RootMeanSquare(name="norm")(x))
        x = Statistics(name="statistics")(nn.Dense(4)(x), train)
        return nn.Dropout(0.3, deterministic=not train)(x)


class Whole(nn.Module):
    """Blocks, one of them in a transform."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.remat(Block, static_argnums=(2,))(name="again")(Block(name="block")(x, train), train)
        return RootMeanSquare(name="last")(x)


def test_nothing_of_ones_own_is_kept_as_linens_code():
    linen = Whole()
    ported = porting.port_model(linen, variables_of(linen, X), X, train=True)
    kinds = {entry.path: str(entry.kind) for entry in ported.report}
    assert kinds == {
        **{f"{block}/{name}": "own" for block in ("block", "again") for name in ("norm", "conv", "statistics")},
        **{f"{block}/{name}": "native" for block in ("block", "again") for name in ("Dense_0", "Dropout_0")},
        "last": "own",
    }
    assert isinstance(ported.module.block.norm.weight, nnx.Param)
    assert isinstance(ported.module.block.statistics.mean, nnx.BatchStat)


def test_each_module_of_a_model_can_be_called_alone():
    linen, block = Whole(), Block()
    variables = variables_of(linen, X)
    module = porting.port_model(linen, variables, X, train=True).module
    own = {name: tree["block"] for name, tree in variables.items()}
    assert isinstance(module.block.Dense_0, nnx.Linear)
    norm = nnx.jit(lambda norm, x: norm(x))(module.block.norm, X)
    assert same_bits(norm, jax.jit(RootMeanSquare().apply)({"params": own["params"]["norm"]}, X))
    out, changed = block.apply(own, X, True, rngs={"dropout": KEY}, mutable=["batch_stats"])
    assert same_bits(module.block(X, True, rngs={"dropout": KEY}), out)
    assert same_bits(module.block.variables(), {**own, **changed})
    assert same_bits(module.variables()["batch_stats"]["block"], changed["batch_stats"])


def test_code_of_ones_own_trains_and_is_saved_as_any_module(tmp_path):
    linen, tx = Whole(), optax.adamw(1e-2)
    variables = variables_of(linen, X)
    module = porting.port_model(linen, variables, X, train=True).module
    optimizer = nnx.Optimizer(module, tx, wrt=nnx.Param)

    @jax.jit
    def linen_step(variables, state, key):
        def loss(params):
            given = {**variables, "params": params}
            out, changed = linen.apply(given, X, True, rngs={"dropout": key}, mutable=["batch_stats"])
            return (out**2).sum(), changed

        (value, changed), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        updates, state = tx.update(gradients, state, variables["params"])
        return {**changed, "params": optax.apply_updates(variables["params"], updates)}, state, value

    @nnx.jit
    def step(module, optimizer, key):
        def loss(module):
            return (module(X, True, rngs={"dropout": key}) ** 2).sum()

        value, gradients = nnx.value_and_grad(loss)(module)
        optimizer.update(module, gradients)
        return value

    state = tx.init(variables["params"])
    for number in range(5):
        key = jax.random.key(number)
        variables, state, expected = linen_step(variables, state, key)
        assert same_bits(step(module, optimizer, key), expected)
    assert same_bits(module.variables(), variables)
    checkpoints.save_nnx(tmp_path / "saved", module, optimizer)
    again = porting.port_model(linen, jax.tree.map(jnp.zeros_like, variables), X).module
    checkpoints.load_nnx(tmp_path / "saved", again)
    assert same_bits(again.variables(), variables)


class Normalized(nn.Module):
    """Layers within wrappers: made in the call, made in `setup`, with a name after the wrapper's, and called twice."""

    def setup(self):
        self.zone = nn.Dense(4)
        self.around = nn.WeightNorm(self.zone)
        self.inside = nn.SpectralNorm(nn.Conv(4, (3,)))

    def __call__(self, x, train=False):
        x = self.inside(self.around(self.around(x)), update_stats=train)
        return self.zone(x)


class Compact(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.WeightNorm(nn.Conv(4, (3,)), variable_filter={"kernel", "bias"})(x)
        return nn.SpectralNorm(nn.Dense(4))(x, update_stats=train)


@pytest.mark.parametrize("linen", [Normalized(), Compact()], ids=["setup", "compact"])
def test_weight_and_spectral_norms_within_models_are_exact(linen):
    variables = variables_of(linen, X)
    ported = porting.port_model(linen, variables, X)
    wrappers = {entry.layer: str(entry.kind) for entry in ported.report if "Norm" in entry.layer}
    assert wrappers == {"WeightNorm": "exact", "SpectralNorm": "exact"}
    assert same_bits(ported.module.variables(), variables)
    graph, state = nnx.split(ported.module)
    assert same_bits(nnx.merge(graph, state).variables(), variables)
    assert same_bits(own_gradients_of(ported.module, X), gradients_of(linen, variables, X))
    out, changed = jax.jit(lambda v, x: linen.apply(v, x, True, mutable=["batch_stats"]))(variables, X)
    assert same_bits(nnx.jit(lambda module, x: module(x, True))(ported.module, X), out)
    assert same_bits(ported.module.variables()["batch_stats"], changed["batch_stats"])


class QueryScale(nn.Module):
    @nn.compact
    def __call__(self, query):
        return query * jax.nn.softplus(self.param("scale", nn.initializers.normal(), query.shape[-1:]))


def attend_scaled(query, key, value, bias=None, mask=None, dropout_rng=None, dropout_rate=0.0, deterministic=False):
    """An attention function that makes modules of its own, as AlgoPerf's Conformer has."""
    query = nn.Dense(query.shape[-1], name="before")(QueryScale(name="scaler")(query))
    given = {"dropout_rng": dropout_rng, "dropout_rate": dropout_rate, "deterministic": deterministic}
    return nn.dot_product_attention(query, key, value, bias, mask, **given)


def attend_to_squares(query, key, value, mask=None):
    """An attention function that takes few of the arguments."""
    return nn.dot_product_attention(query, key**2, value, mask=mask)


class Attending(nn.Module):
    attend: object
    scanned: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        given = {"dropout_rate": 0.3, "deterministic": not train, "attention_fn": self.attend}
        if not self.scanned:
            return nn.MultiHeadDotProductAttention(2, name="attention", **given)(x)
        axes = {"variable_axes": {"params": 0}, "split_rngs": {"params": True, "dropout": True}, "length": 2}
        attention = nn.MultiHeadDotProductAttention(2, name="attention", **given)
        return nn.scan(lambda layer, x, _: (layer(x), None), **axes)(attention, x, None)[0]


@pytest.mark.parametrize("scanned", [False, True], ids=["plain", "scan"])
@pytest.mark.parametrize("attend", [attend_scaled, attend_to_squares])
def test_an_attention_with_a_function_of_ones_own_is_nnxs(attend, scanned):
    linen = Attending(attend, scanned)
    variables = variables_of(linen, X)
    ported = porting.port_model(linen, variables, X, train=True)
    kinds = {entry.path: str(entry.kind) for entry in ported.report}
    inner = {"attention/before": "native", "attention/scaler": "own"} if attend is attend_scaled else {}
    assert kinds == {"attention": "adjusted", **inner}
    assert same_bits(ported.module.variables(), variables)
    assert isinstance(ported.module.attention, nnx.MultiHeadAttention)
    given = {"train": True, "rngs": {"dropout": KEY}}
    expected = jax.jit(lambda v, x: linen.apply(v, x, **given))(variables, X)
    assert same_bits(nnx.jit(lambda module, x: module(x, **given))(ported.module, X), expected)
    assert same_bits(own_gradients_of(ported.module, X, **given), gradients_of(linen, variables, X, **given))


class Step(nn.Module):
    """A layer of a stack: wrappers around layers that are stored beside them."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.WeightNorm(nn.Dense(4), variable_filter={"kernel", "bias"})(x)
        return nn.SpectralNorm(nn.Dense(4))(x, update_stats=train), None


class Stacked(nn.Module):
    transform: str

    @nn.compact
    def __call__(self, x, train=False):
        if self.transform == "remat":
            return nn.remat(Step, static_argnums=(2,))()(x, train)[0]
        axes = {"variable_axes": {"params": 0, "batch_stats": 0}, "split_rngs": {"params": True}}
        return nn.scan(Step, in_axes=nn.broadcast, length=3, **axes)()(x, train)[0]


@pytest.mark.parametrize("transform", ["scan", "remat"])
def test_weight_and_spectral_norms_within_transforms_are_exact(transform):
    linen = Stacked(transform)
    variables = variables_of(linen, X)
    ported = porting.port_model(linen, variables, X, train=True)
    assert {str(entry.kind) for entry in ported.report} == {"native", "exact"}
    assert same_bits(ported.module.variables(), variables)
    assert same_bits(own_gradients_of(ported.module, X), gradients_of(linen, variables, X))
    out, changed = jax.jit(lambda v, x: linen.apply(v, x, True, mutable=["batch_stats"]))(variables, X)
    assert same_bits(nnx.jit(lambda module, x: module(x, True))(ported.module, X), out)
    assert same_bits(ported.module.variables()["batch_stats"], changed["batch_stats"])
    assert not same_bits(changed["batch_stats"], variables["batch_stats"])


@pytest.mark.parametrize("axes", [(1, 2), (-2, -1), 1])
def test_norms_over_other_axes_are_ported(axes):
    layer = nn.LayerNorm(reduction_axes=axes, feature_axes=axes)
    variables = variables_of(layer, X)
    ported = porting.port_layer(layer, variables, X)
    assert same_bits(jax.jit(ported.module)(X), jax.jit(layer.apply)(variables, X))


class Noisy(nn.Module):
    """Streams beside dropout."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dropout(0.5, deterministic=False)(nn.Dense(4)(x))
        noise = jax.random.normal(self.make_rng("noise"), x.shape)
        return x + noise * jax.random.normal(self.make_rng("latent"), x.shape)


def test_the_default_stream_feeds_any_stream():
    linen = Noisy()
    variables = {"params": linen.init({"params": KEY, "dropout": KEY}, X)["params"]}
    keys = {"dropout": KEY, "noise": KEY, "latent": KEY}
    module = porting.port_model(linen, variables, X, rngs=keys).module
    rngs = nnx.Rngs(0)
    first, second = module(X, rngs=rngs), module(X, rngs=rngs)
    assert not same_bits(first, second)
    assert same_bits(first, module(X, rngs=nnx.Rngs(0)))
    partly = porting.port_model(linen, variables, X, rngs={"dropout": KEY, "noise": KEY, "params": KEY}).module
    assert partly(X, rngs=nnx.Rngs(0)).shape == X.shape
    with pytest.raises(ValueError, match=r'needs a random stream that rngs= does not have: .*"noise"'):
        porting.port_model(linen, variables, X)


def test_an_attention_takes_a_key_or_rngs_for_its_dropout():
    layer = nn.MultiHeadDotProductAttention(2, dropout_rate=0.5, deterministic=False)
    variables = variables_of(layer, X)
    module = porting.port_layer(layer, variables, X).module
    expected = layer.apply(variables, X, dropout_rng=KEY)
    assert same_bits(module(X, rngs=KEY), expected)
    key = nnx.Rngs(dropout=KEY).dropout()
    assert same_bits(module(X, rngs=nnx.Rngs(dropout=KEY)), layer.apply(variables, X, dropout_rng=key))
    assert not same_bits(module(X, rngs=nnx.Rngs(dropout=KEY)), expected)


class Sharded(nn.Module):
    """Names of axes in boxes, of a layer and of a parameter of one's own, and within `nn.scan`."""

    @nn.compact
    def __call__(self, x):
        init = nn.with_partitioning(nn.initializers.normal(), ("embed", "mlp"))
        x = nn.Dense(4, kernel_init=init)(x) @ self.param("own", init, (4, 4))
        axes = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        more = {"metadata_params": {nn.PARTITION_NAME: "layers"}, "length": 2}
        return nn.scan(lambda layer, x, _: (layer(x), None), **axes, **more)(nn.Dense(4, kernel_init=init), x, None)[0]


class Axes(nn.Module):
    """Names of axes in a collection of their own, as in T5X."""

    @nn.compact
    def __call__(self, x):
        return x @ partitioning.param_with_axes("kernel", nn.initializers.normal(), (4, 4), axes=("embed", "mlp"))


class AxesWithin(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Axes(name="inner")(x)


def test_sharding_names_go_along():
    linen = Sharded()
    variables = linen.init(KEY, X)
    module = porting.port_model(linen, variables, X).module
    assert module.Dense_0.kernel.out_sharding == ("embed", "mlp")
    assert module.own.out_sharding == ("embed", "mlp")
    assert module.Dense_1.kernel.out_sharding == ("layers", "embed", "mlp")
    specs = nnx.to_pure_dict(nnx.get_partition_spec(nnx.state(module)))
    assert specs["own"] == jax.sharding.PartitionSpec("embed", "mlp")
    assert same_bits(module(X), linen.apply(variables, X))
    linen = AxesWithin()
    variables = linen.init(KEY, X)
    module = porting.port_model(linen, variables, X).module
    assert module.inner.kernel.out_sharding == ("embed", "mlp")
    assert same_bits(module.variables(), {"params": variables["params"]})
    assert same_bits(module(X), linen.apply(variables, X))


class Across(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(2)(nn.BatchNorm(use_running_average=not train, axis_name="batch")(x))


def test_a_model_with_a_mapped_axis_is_traced_without_it():
    linen = Across()
    variables = variables_of(linen, X)
    with pytest.raises(NameError, match="batch"):
        porting.port_model(linen, variables, X[0], train=True)
    module = porting.port_model(linen, variables, X[0], train=True, axis_names=["batch"]).module
    graph, state = nnx.split(module)

    def old(variables, x):
        return linen.apply(variables, x, True, mutable=["batch_stats"])[0]

    def new(state, x):
        return nnx.merge(graph, state, copy=True)(x, True)

    expected = jax.jit(jax.vmap(old, (None, 0), axis_name="batch"))(variables, X)
    assert same_bits(jax.jit(jax.vmap(new, (None, 0), axis_name="batch"))(state, X), expected)


class Modal(nn.Module):
    """A mode that is an argument of the constructor."""

    deterministic: bool = False

    @nn.compact
    def __call__(self, tokens, *, weights):
        x = nn.Dropout(0.5)(nn.Dense(4)(tokens), deterministic=self.deterministic)
        return nn.BatchNorm(use_running_average=self.deterministic)(x) * weights


def test_a_model_is_ported_by_keyword_and_switched():
    linen = Modal()
    variables = variables_of(linen, X, weights=X)
    shapes = {"tokens": jax.ShapeDtypeStruct(X.shape, X.dtype), "weights": jax.ShapeDtypeStruct(X.shape, X.dtype)}
    module = porting.port_model(linen, variables, **shapes).module
    quiet = module.with_settings(deterministic=True)
    assert quiet.Dense_0 is module.Dense_0
    assert same_bits(quiet(X, weights=X), Modal(deterministic=True).apply(variables, X, weights=X))
    out, changed = linen.apply(variables, X, weights=X, rngs={"dropout": KEY}, mutable=["batch_stats"])
    assert same_bits(module(tokens=X, weights=X, rngs={"dropout": KEY}), out)
    assert same_bits(quiet.variables()["batch_stats"], changed["batch_stats"])


def test_variables_that_do_not_fit_are_all_told():
    linen = Whole()
    variables = variables_of(linen, X)
    del variables["params"]["block"]["norm"]
    del variables["params"]["again"]["Dense_0"]["bias"]
    with pytest.raises(porting.VariableMismatchError) as told:
        porting.port_model(linen, variables, X)
    assert [mismatch.message for mismatch in told.value.mismatches] == [
        "missing params/again/Dense_0/bias, of shape (4,)",
        "missing params/block/norm/weight, of shape (4,)",
    ]
    variables = variables_of(linen, X)
    del variables["batch_stats"]["block"]
    with pytest.raises(porting.VariableMismatchError, match=r"missing batch_stats/block/statistics/mean, of shape \(4"):
        porting.port_model(linen, variables, X)
    variables = variables_of(linen, X)
    variables["params"]["extra"] = {"kernel": jnp.ones((2, 2), jnp.int32)}
    variables["params"]["last"]["weight"] = variables["params"]["last"]["weight"].astype(jnp.float16)
    assert {mismatch.message for mismatch in porting.port_model(linen, variables, X).mismatches} == {
        "unexpected params/extra/kernel, of shape (2, 2)",
        "params/last/weight is float16, the model's is float32",
    }

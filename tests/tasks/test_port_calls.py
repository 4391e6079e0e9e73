"""Calls of ported models other than the traced one, and Linen modules that are applied within a model."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from linen_variables import KEY, variables_of

from tasks import porting
from tasks.porting.variables import same_bits

pytestmark = [pytest.mark.usefixtures("standard_promotion"), pytest.mark.matrix]

X = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)), "float32")


def round_products(a, b, numbers, precision=None, preferred_element_type=None):
    return jnp.round(jax.lax.dot_general(a, b, numbers, precision=precision), 1)


class Scaled:
    """A function that is an object, and that only its identity tells from others."""

    def __init__(self, by):
        self.by = by

    def __call__(self, x):
        return nn.sigmoid(self.by * x)


def scale(x, by):
    return nn.sigmoid(by * x)


class Setting(nn.Module):
    """A layer with a setting that a flag of the call decides."""

    kind: str

    @nn.compact
    def __call__(self, x, flag=False):
        return getattr(self, self.kind)(x, flag)

    def dtype(self, x, flag):
        return nn.Dense(4, dtype=jnp.bfloat16 if flag else jnp.float32)(x).astype("float32")

    def missing_dtype(self, x, flag):
        return nn.LayerNorm(dtype=jnp.bfloat16 if flag else None)(x).astype("float32")

    def dot_general(self, x, flag):
        return nn.Dense(4, dot_general=round_products if flag else None)(x)

    def gate_fn(self, x, flag):
        return nn.GRUCell(4, gate_fn=nn.tanh if flag else nn.sigmoid)(x, x)[1]

    def closure(self, x, flag):
        by = 2.0 if flag else 1.0
        return nn.GRUCell(4, gate_fn=lambda x: nn.sigmoid(by * x))(x, x)[1]

    def partial(self, x, flag):
        return nn.GRUCell(4, gate_fn=partial(scale, by=2.0 if flag else 1.0))(x, x)[1]

    def object(self, x, flag):
        return nn.GRUCell(4, gate_fn=Scaled(2.0 if flag else 1.0))(x, x)[1]

    def mask(self, x, flag):
        mask = np.tril(np.ones((3, 4, 4), "float32"))
        return nn.Conv(4, (3,), mask=mask if flag else 1 - mask)(x)

    def normalized(self, x, flag):
        dense = nn.Dense(4)
        return nn.WeightNorm(dense)(x) if flag or self.is_initializing() else dense(x)

    def attention_fn(self, x, flag):
        def attend(query, key, value, **given):
            return nn.dot_product_attention(query, key, value, **given) * (2.0 if flag else 1.0)

        return nn.MultiHeadDotProductAttention(2, attention_fn=attend)(x)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(
    "kind",
    [
        "dtype", "missing_dtype", "dot_general", "gate_fn", "closure", "partial", "object", "mask", "normalized",
        "attention_fn",
    ],
)  # fmt: skip
def test_a_setting_that_a_flag_decides_is_that_of_each_call(kind, traced):
    linen = Setting(kind)
    variables = variables_of(linen, X)
    module = porting.port_model(linen, variables, X, flag=traced).module
    outputs = [jax.jit(partial(linen.apply, flag=flag))(variables, X) for flag in (False, True)]
    assert not same_bits(*outputs)
    for flag, expected in enumerate(outputs):
        assert same_bits(nnx.jit(lambda module, x, flag=flag: module(x, flag=bool(flag)))(module, X), expected)


class Ranks(nn.Module):
    """Layers that are called with arrays of another rank."""

    @nn.compact
    def __call__(self, x):
        return nn.LayerNorm()(nn.DenseGeneral(4, axis=-1)(x))


@pytest.mark.parametrize("traced", [0, 1])
def test_a_layer_counts_its_axes_from_the_end_in_each_call(traced):
    inputs, linen = (X[:, :3], jnp.stack([X[:, :3]] * 3)), Ranks()
    square = [jnp.concatenate([x, x[..., :1]], -1) for x in inputs]
    variables = variables_of(linen, square[0])
    module = porting.port_model(linen, variables, square[traced]).module
    for x in square:
        assert same_bits(module(x), linen.apply(variables, x))


class Compiled(nn.Module):
    """A layer within `nn.jit`, which keeps what it has traced."""

    @nn.compact
    def __call__(self, x):
        return nn.jit(Inner)(name="inner")(x)


def test_what_is_traced_once_is_not_taken_for_another_port():
    linen = Compiled()
    variables = variables_of(linen, X)
    expected = linen.apply(variables, X)
    for exact in (True, False):
        ported = porting.port_model(linen, variables, X, exact=exact)
        assert [entry.path for entry in ported.report] == ["inner/Dense_0"]
        assert same_bits(ported.module(X), expected)


class Plain(nn.Module):
    """Settings that are made anew in each call, and are the same in each; one that is not."""

    @nn.compact
    def __call__(self, x):
        by = 2.0
        x = nn.GRUCell(4, gate_fn=lambda x: nn.sigmoid(by * x))(x, x)[1]
        x = nn.Conv(4, (3,), mask=np.tril(np.ones((3, 4, 4), "float32")))(x)
        return nn.GRUCell(4, gate_fn=Scaled(2.0))(x, x)[1]


def test_the_report_tells_a_setting_that_is_made_anew_in_each_call():
    linen = Plain()
    ported = porting.port_model(linen, variables_of(linen, X), X)
    kinds = {entry.path: (entry.kind, entry.why) for entry in ported.report}
    assert [kinds[name][0] for name in ("GRUCell_0", "Conv_0", "GRUCell_1")] == ["exact", "native", "linen"]
    assert kinds["GRUCell_1"][1] == "its gate_fn is made anew in each call"


class Shared(nn.Module):
    """Statistics that a layer of NNX and Linen's code update in turn."""

    @nn.compact
    def __call__(self, x, train):
        norm = nn.BatchNorm(use_running_average=not train)
        x = norm(norm(x))
        return norm.clone(momentum=0.5)(x) if train is None else nn.remat(lambda norm, x: norm(x))(norm, norm(x))


def test_statistics_are_updated_in_the_order_of_the_calls():
    linen = Shared()
    variables = variables_of(linen, X, True)
    module = porting.port_model(linen, variables, X, True).module
    out, changed = linen.apply(variables, X, True, mutable=["batch_stats"])
    assert same_bits(module(X, True), out)
    assert same_bits(module.variables()["batch_stats"], changed["batch_stats"])


class Tied(nn.Module):
    """A head with the embedding's weights, as in language models."""

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(7, 4)
        x = nn.Dense(4)(embed(tokens))
        return nn.Dense(7, use_bias=False).apply({"params": {"kernel": embed.embedding.T}}, x)


class Generator(nn.Module):
    """A hypernetwork: layers with the names of its own are applied to weights that it generates."""

    @nn.compact
    def __call__(self, x):
        net = nn.Sequential([nn.Dense(4, parent=None), nn.tanh, nn.Dense(4, parent=None)], parent=None)
        shapes = jax.eval_shape(net.init, KEY, x)
        size = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        flat = nn.Dense(size)(nn.Dense(4)(x).mean(0))
        leaves, tree = jax.tree.flatten(shapes)
        parts = jnp.split(flat, np.cumsum([leaf.size for leaf in leaves])[:-1])
        made = jax.tree.unflatten(tree, [p.reshape(s.shape) for p, s in zip(parts, leaves, strict=True)])
        return net.apply(made, x)


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(x)


class Colliding(nn.Module):
    """A module that is applied to other weights has a layer of the same path as the model's own."""

    @nn.compact
    def __call__(self, x):
        y = nn.Dense(4)(x)
        twice = jax.tree.map(lambda leaf: 2 * leaf, {"params": {"Dense_0": dict(self.variables["params"]["Dense_0"])}})
        return y + Inner(parent=None).apply(twice, x)


@pytest.mark.parametrize("linen", [Tied(), Generator(), Colliding()], ids=lambda linen: type(linen).__name__)
def test_a_module_that_is_applied_within_a_model_has_its_own_weights(linen):
    x = jnp.array([[1, 3], [0, 6]]) if isinstance(linen, Tied) else X
    variables = variables_of(linen, x)
    ported = porting.port_model(linen, variables, x)
    assert {entry.kind for entry in ported.report} == {"native"}
    assert same_bits(ported.module(x), linen.apply(variables, x))
    graph, params, rest = nnx.split(ported.module, nnx.Param, ...)
    own = jax.jit(jax.grad(lambda params: (nnx.merge(graph, params, rest)(x) ** 2).sum()))(params)
    expected = jax.jit(jax.grad(lambda variables: (linen.apply(variables, x) ** 2).sum()))(variables)
    assert same_bits(nnx.merge(graph, own, rest).variables(), expected)


class Closing(nn.Module):
    """A product that closes over an input."""

    @nn.compact
    def __call__(self, x, mask):
        def multiply(a, b, numbers, precision=None, preferred_element_type=None):
            return jax.lax.dot_general(a * mask, b, numbers, precision=precision)

        x = nn.Dense(4, dot_general=multiply)(x)
        return nn.Dense(3)(x)


def test_a_product_that_closes_over_an_input_keeps_linens_code():
    linen, mask = Closing(), jnp.array([1.0, 0.0, 1.0, 1.0])
    variables = variables_of(linen, X, mask)
    ported = porting.port_model(linen, variables, X, mask)
    kinds = {entry.path: (entry.kind, entry.why) for entry in ported.report}
    assert kinds["Dense_0"] == ("linen", "its dot_general is computed in the call")
    assert kinds["Dense_1"] == ("native", "")
    assert same_bits(ported.module(X, mask), linen.apply(variables, X, mask))

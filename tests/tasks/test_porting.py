"""Linen's layers in NNX: the same bits forward and in the gradients, and each kind of misfit told."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.core import freeze

from tasks import porting
from tasks.porting.variables import same_bits

pytestmark = [pytest.mark.usefixtures("standard_promotion"), pytest.mark.slow]

KEY = jax.random.key(0)
DRAW = np.random.default_rng(1)
X, IMAGE, H, C = (jnp.asarray(DRAW.normal(size=size), "float32") for size in [(2, 5, 8), (2, 6, 6, 4), (2, 6), (2, 6)])
LOCAL_MASK = jnp.asarray(DRAW.random((7, 7, 16, 3)) < 0.5, "float32")
MASK = jnp.asarray(np.tril(np.ones((5, 5), dtype=bool))[None, None])

CASES = {
    "Dense": (lambda d: nn.Dense(6, dtype=d), (X,)),
    "Dense without bias": (lambda d: nn.Dense(6, use_bias=False, dtype=d), (jnp.asarray(np.asarray(X)[0, 0]),)),
    "DenseGeneral": (lambda d: nn.DenseGeneral((3, 2), axis=(1, 2), dtype=d), (X,)),
    "DenseGeneral batched": (lambda d: nn.DenseGeneral(7, axis=-1, batch_dims=0, dtype=d), (X,)),
    "Einsum": (lambda d: nn.Einsum((5, 8, 3), "bti,tio->bto", dtype=d), (X,)),
    "Conv": (lambda d: nn.Conv(8, (3, 3), strides=2, feature_group_count=2, dtype=d), (IMAGE,)),
    "Conv circular": (lambda d: nn.Conv(5, (3, 3), padding="CIRCULAR", kernel_dilation=2, dtype=d), (IMAGE,)),
    "ConvTranspose": (lambda d: nn.ConvTranspose(5, (3, 3), strides=(2, 2), dtype=d), (IMAGE,)),
    "ConvLocal": (lambda d: nn.ConvLocal(3, (3, 3), strides=2, dtype=d), (IMAGE,)),
    "ConvLocal padded": (lambda d: nn.ConvLocal(3, (3, 2), padding=((2, 1), 1), dtype=d), (IMAGE,)),
    "ConvLocal circular": (lambda d: nn.ConvLocal(3, (3, 2), padding="CIRCULAR", kernel_dilation=2, dtype=d), (IMAGE,)),
    "ConvLocal causal": (lambda d: nn.ConvLocal(3, (3,), padding="CAUSAL", kernel_dilation=2, dtype=d), (X,)),
    "ConvLocal masked": (lambda d: nn.ConvLocal(3, (2, 2), padding=1, mask=LOCAL_MASK, dtype=d), (IMAGE,)),
    "LayerNorm": (lambda d: nn.LayerNorm(dtype=d), (X,)),
    "RMSNorm": (lambda d: nn.RMSNorm(dtype=d), (X,)),
    "GroupNorm": (lambda d: nn.GroupNorm(num_groups=2, dtype=d), (IMAGE,)),
    "InstanceNorm": (lambda d: nn.InstanceNorm(dtype=d), (IMAGE,)),
    "LSTMCell": (lambda d: nn.LSTMCell(6, dtype=d), ((C, H), X[:, 0])),
    "OptimizedLSTMCell": (lambda d: nn.OptimizedLSTMCell(6, dtype=d), ((C, H), X[:, 0])),
    "GRUCell": (lambda d: nn.GRUCell(6, dtype=d), (H, X[:, 0])),
    "MGUCell": (lambda d: nn.MGUCell(6, dtype=d), (H, X[:, 0])),
    "MGUCell without gate": (lambda d: nn.MGUCell(6, reset_gate=False, dtype=d), (H, X[:, 0])),
    "SimpleCell": (lambda d: nn.SimpleCell(6, dtype=d), (H, X[:, 0])),
    "ConvLSTMCell": (lambda d: nn.ConvLSTMCell(3, (3, 3), dtype=d), ((IMAGE[..., :3], IMAGE[..., 1:]), IMAGE)),
    "attention": (lambda d: nn.MultiHeadDotProductAttention(2, qkv_features=12, dtype=d), (X, X[:, :3])),
    "attention normalized": (lambda d: nn.MultiHeadDotProductAttention(2, normalize_qk=True, dtype=d), (X,)),
    "PReLU": (lambda d: nn.PReLU(), (X,)),
    "RNN": (lambda d: nn.RNN(nn.GRUCell(6, dtype=d)), (X,)),
    "RNN of fused gates, reversed": (
        lambda d: nn.RNN(nn.OptimizedLSTMCell(6, dtype=d), reverse=True, keep_order=True),
        (X,),
        {"seq_lengths": jnp.array([3, 5])},
    ),
    "RNN of images, time first": (
        lambda d: nn.RNN(nn.ConvLSTMCell(3, (3, 3), dtype=d), time_major=True, return_carry=True),
        (jnp.asarray(np.stack([IMAGE, IMAGE[::-1], -np.asarray(IMAGE)])),),
    ),
    "Bidirectional": (
        lambda d: nn.Bidirectional(nn.RNN(nn.LSTMCell(6, dtype=d)), nn.RNN(nn.MGUCell(6, dtype=d))),
        (X,),
    ),
    "Sequential": (lambda d: nn.Sequential([nn.Dense(6, dtype=d), nn.relu, nn.LayerNorm(dtype=d)]), (X,)),
    "WeightNorm": (lambda d: nn.WeightNorm(nn.Dense(6, dtype=d), dtype=d), (X,)),
    "WeightNorm of all, over two axes": (
        lambda d: nn.WeightNorm(nn.DenseGeneral((3, 2), dtype=d), feature_axes=None, variable_filter=None, dtype=d),
        (X,),
    ),
    "SpectralNorm": (
        lambda d: nn.SpectralNorm(nn.Conv(6, (3, 3), dtype=d), n_steps=2, dtype=d),
        (IMAGE,),
        {"update_stats": True},
    ),
    "SpectralNorm in evaluation": (
        lambda d: nn.SpectralNorm(nn.Dense(6, dtype=d), dtype=d),
        (X,),
        {"update_stats": False},
    ),
}


KINDS = ("Dense", "LayerNorm", "Conv", "ConvLocal", "GRUCell", "OptimizedLSTMCell", "attention", "RNN", "WeightNorm")
"""One layer for each way of porting; the others belong to the matrix."""
EAGER = ("Dense", "LayerNorm", "Einsum", "Conv", "GRUCell", "OptimizedLSTMCell", "attention", "WeightNorm")
"""Layers that are also compared eagerly; docs/parity.py does so for all."""


def variables_of(layer, inputs, given=None):
    """Random variables: no bias is zero, and no scale one."""
    shapes = jax.eval_shape(lambda: layer.init(KEY, *inputs, **(given or {})))
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.fold_in(KEY, 9), len(leaves))
    drawn = [0.5 * jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, drawn)


def forth_and_back(call, params, inputs):
    """The outputs, the gradients of half the sum of their squares, and the state after the call."""
    out, pull, state = jax.vjp(call, params, inputs, has_aux=True)
    return out, *pull(out), state


def both(layer, variables, ported, inputs, given, run):
    """Outputs, gradients of the parameters (as Linen has them) and of the inputs, and state, of Linen and of NNX."""
    graph, params, rest = nnx.split(ported, nnx.Param, ...)
    state = {name: tree for name, tree in variables.items() if name != "params"}

    def linen(params, inputs):
        out, changed = layer.apply({**state, "params": params}, *inputs, mutable=list(state), **given)
        return out, {**state, **changed}

    def native(params, inputs):
        module = nnx.merge(graph, params, rest, copy=True)
        out, made = module(*inputs, **given), porting.dump(module)
        return out, {name: tree for name, tree in made.items() if name != "params"}

    expected = run(partial(forth_and_back, linen))(variables["params"], inputs)
    out, gradients, own, after = run(partial(forth_and_back, native))(params, inputs)
    made = porting.dump(nnx.merge(graph, gradients, rest), like=variables)["params"]
    return (expected[0], dict(expected[1]), *expected[2:]), (out, made, own, after)


def list_layer_runs():
    for name in CASES:
        yield pytest.param(name, "float32", "jit", marks=[] if name in KINDS else [pytest.mark.matrix])
        yield pytest.param(name, "bfloat16", "jit", marks=[pytest.mark.matrix])
    for name in EAGER:
        yield pytest.param(name, "float32", "eager", marks=[] if name in KINDS[:2] else [pytest.mark.matrix])


@pytest.mark.matrix
@pytest.mark.parametrize(("name", "dtype", "mode"), list(list_layer_runs()))
def test_a_ported_layer_has_the_bits_of_linens(name, dtype, mode):
    dtype, run = {"float32": None, "bfloat16": jnp.bfloat16}[dtype], jax.jit if mode == "jit" else lambda f: f
    make, inputs, *more = CASES[name]
    layer, given = make(dtype), more[0] if more else {}
    variables = variables_of(layer, inputs, given)
    ported = porting.port_layer(layer, variables, *inputs)
    linen, native = both(layer, variables, ported.module, inputs, given, run)
    assert same_bits(linen[0], native[0]), "outputs"
    assert same_bits(linen[1], native[1]), "gradients of the parameters"
    assert same_bits(linen[2], native[2]), "gradients of the inputs"
    assert same_bits(linen[3], native[3]), "state"
    assert same_bits(porting.dump(ported.module, like=variables), variables)


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_has_the_same_statistics(train, dtype):
    layer = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=dtype)
    variables = variables_of(layer, (X,))
    variables["batch_stats"]["var"] = variables["batch_stats"]["var"] ** 2 + 0.1
    ported = porting.port_layer(layer, variables, X).module
    out, changed = layer.apply(variables, X, mutable=["batch_stats"])
    assert same_bits(ported(X), out)
    assert same_bits(porting.dump(ported)["batch_stats"], dict(changed["batch_stats"]))


def test_embeddings_and_dropout():
    layer, tokens = nn.Embed(10, 4), jnp.array([[1, 9], [0, 3]])
    variables = variables_of(layer, (tokens,))
    ported = porting.port_layer(layer, variables, tokens).module
    assert same_bits(ported(tokens), layer.apply(variables, tokens))
    assert same_bits(ported.attend(X[..., :4]), layer.apply(variables, X[..., :4], method="attend"))
    layer = nn.Dropout(0.5, deterministic=False)
    dropped = porting.port_layer(layer, {}, X).module
    key = jax.random.key(3)
    made = []
    with nn.intercept_methods(
        lambda call, args, kwargs, about: made.append(about.module.make_rng("dropout")) or args[0]
    ):
        layer.apply({}, X, rngs={"dropout": key})
    assert same_bits(dropped(X, rngs=made[0]), layer.apply({}, X, rngs={"dropout": key}))


def test_a_masked_attention_is_the_same():
    layer = nn.MultiHeadDotProductAttention(2, qkv_features=12)
    variables = variables_of(layer, (X,))
    ported = porting.port_layer(layer, variables, X).module
    assert same_bits(ported(X, mask=MASK), layer.apply(variables, X, mask=MASK))


class Own(nn.Module):
    """A layer that only its author knows."""


def test_the_report_says_what_was_taken_and_why():
    def ported(layer, *inputs, **more):
        return porting.port_layer(layer, variables_of(layer, inputs), *inputs, **more)

    assert (ported(nn.Dense(3), X).kind, ported(nn.Dense(3), X).why) == ("native", "")
    assert ported(nn.LayerNorm(), X).kind == "adjusted"
    assert "issue 5594" in ported(nn.GRUCell(6), H, X[:, 0]).why
    with pytest.raises(LookupError, match="no bias at the recurrent candidate"):
        ported(nn.GRUCell(6), H, X[:, 0], exact=False)
    with pytest.raises(KeyError, match="Own is not a known layer; known are: Dense, "):
        porting.port_layer(Own(), {}, X)
    layer = nn.LayerNorm(dtype=jnp.bfloat16)
    variables = variables_of(layer, (X,))
    own = porting.port_layer(layer, variables, X, exact=False).module
    assert not same_bits(own(X), layer.apply(variables, X))


class Block(nnx.Module):
    """What a user has written by hand, with lists, dicts, a shared layer and a layer with state."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(8, 8, rngs=rngs), nnx.Linear(8, 8, rngs=rngs)])
        self.heads = nnx.Dict(a=nnx.Linear(8, 2, rngs=rngs))
        self.norm = nnx.BatchNorm(8, use_running_average=True, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.again = self.layers[0]


def tree_of(module):
    return jax.tree.map(lambda leaf: jax.random.normal(KEY, leaf.shape, leaf.dtype), porting.dump(module))


def test_variables_go_in_and_out_by_structure():
    block = Block(nnx.Rngs(1))
    given = tree_of(block)
    assert set(given["params"]) == {"layers_0", "layers_1", "heads_a", "norm"}
    assert set(given["batch_stats"]["norm"]) == {"mean", "var"}
    porting.load(block, freeze(given))
    assert same_bits(porting.dump(block), given)
    assert block.again is block.layers[0]
    # a shared layer under its other name, a lifted one, boxed metadata, and a mapping
    other = {**given, "params": {**given["params"], "again": given["params"]["layers_0"]}}
    del other["params"]["layers_0"]
    other["params"]["CheckpointHead_0"] = other["params"].pop("heads_a")
    box = nn.Partitioned(other["params"]["norm"]["scale"], ("a",))
    other["params"]["norm"] = {**other["params"]["norm"], "scale": box}
    fresh = Block(nnx.Rngs(2))
    porting.load(fresh, other, mapping={"CheckpointHead_0": "heads_a"})
    assert same_bits(porting.dump(fresh), given)
    back = porting.dump(fresh, like=other, mapping={"CheckpointHead_0": "heads_a"})
    assert set(back["params"]) == set(other["params"])


def test_every_misfit_is_told_and_nothing_is_assigned():
    block = Block(nnx.Rngs(1))
    before = porting.dump(block)
    given = jax.tree.map(np.asarray, tree_of(block))
    given["params"]["layers_0"]["kernel"] = np.ones((8, 9), np.float32)
    given["params"]["layers_1"]["bias"] = np.ones(8, np.float16)
    given["params"]["norm"]["scale"] = np.ones(1, np.float32)
    del given["params"]["heads_a"]["bias"]
    given["params"]["extra"] = {"kernel": np.ones((2, 2), np.float32)}
    with pytest.raises(porting.VariableMismatchError) as told:
        porting.load(block, given)
    lines = str(told.value).splitlines()
    assert lines[0] == "5 variables do not fit:"
    assert {line.strip() for line in lines[1:]} == {
        "params/layers_0/kernel has shape (8, 9), layers/0/kernel needs (8, 8)",
        "params/layers_1/bias is float16, layers/1/bias is float32; dtype='cast' casts",
        "params/norm/scale has shape (1,), norm/scale needs (8,)",
        "missing params/heads_a/bias, of shape (2,) for heads/a/bias",
        "unexpected params/extra/kernel, of shape (2, 2)",
    }
    assert same_bits(porting.dump(block), before)
    with pytest.raises(porting.VariableMismatchError, match="the module has no params/other"):
        porting.dump(block, like={"params": {"other": jnp.ones(1)}})
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), before)
    porting.load(block, half, dtype="cast")
    assert porting.dump(block)["params"]["layers_0"]["kernel"].dtype == jnp.float32
    porting.load(block, {**before, "intermediates": {"x": jnp.ones(1)}}, ignore=["intermediates"])

"""The parity of modules, as a task: against the same differences taken by hand, and against eager JAX."""

import runpy

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from conftest import ROOT
from flax import nnx

from tasks import porting
from tasks.parity import cases, parity
from tasks.porting.differences import find_worst, measure_difference

pytestmark = [pytest.mark.usefixtures("standard_promotion"), pytest.mark.matrix]


def by_hand(seed):
    """A LayerNorm in bfloat16 of Linen and of NNX with its defaults: outputs, and losses of three steps of adamw."""
    key = jax.random.key(seed)
    layer, x = nn.LayerNorm(dtype=jnp.bfloat16), cases.draw_inputs(jax.random.fold_in(key, 0), (cases.SEQUENCE,))[0]
    variables = cases.draw_variables(jax.random.fold_in(key, 1), layer, (x,))
    native = porting.port_layer(layer, variables, x, exact=False).module
    outputs = np.asarray(layer.apply(variables, x)), np.asarray(native(x))
    params, tx, losses = variables["params"], optax.adamw(1e-2), []
    state = tx.init(params)

    def loss(params):
        return (layer.apply({"params": params}, x).astype(jnp.float32) ** 2).sum() / 2

    for _ in range(3):
        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = tx.update(gradients, state, params)
        params, losses = optax.apply_updates(params, updates), [*losses, float(value)]
    return *outputs, losses


@pytest.mark.parametrize("seed", [0, 7])
def test_differences_are_those_taken_by_hand(seed):
    found = parity(seed, "LayerNorm", "bfloat16", "eager", exact=False, steps=3)
    a, b, losses = by_hand(seed)
    gap = np.abs(a.astype(np.float32) - b.astype(np.float32)).max()
    assert gap > 0
    assert found["outputs_absolute"] == gap
    assert found["outputs_relative"] == gap / np.abs(a.astype(np.float32)).max()
    bits = np.unpackbits((a.view(np.uint16) ^ b.view(np.uint16)).view(np.uint8)).sum()
    assert found["outputs_bits"] == bits
    assert str(found["verdict"]) in ("close", "different")
    assert str(found["first"]) == "LayerNorm"
    np.testing.assert_allclose(found["linen_losses"], losses, rtol=1e-6)
    assert (found["linen_losses"] != found["nnx_losses"]).any()
    assert found["steps_bits"] > 0
    assert found["state_bits"] == 0


@pytest.mark.matrix
@pytest.mark.matrix
def test_exact_ports_are_identical_and_nnxs_own_are_not(runner):
    sweep = ("-m", "task=parity", "dtype=bfloat16", "seed=0,1")
    exact = runner(*sweep, "layer=RMSNorm").frame
    assert (exact["verdict"] == "identical").all()
    assert exact["first"].isna().all()
    assert (exact.filter(regex="_bits|_absolute|_relative") == 0).all(axis=None)
    assert (exact["linen_losses"] == exact["nnx_losses"]).all()
    native = runner(*sweep, "layer=RMSNorm", "exact=false").frame
    assert (native["verdict"] != "identical").all()
    assert (native["first"] == "RMSNorm").all()


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.LayerNorm(name="norm")(nn.Dense(6, name="first")(x))
        return nn.Dense(3, name="last")(nn.Dropout(0.5, deterministic=not train)(x))


class Same(nnx.Module):
    def __init__(self, epsilon=1e-6, *, rngs):
        self.first = nnx.Linear(4, 6, rngs=rngs)
        self.norm = nnx.LayerNorm(6, epsilon=epsilon, rngs=rngs)
        self.last = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x, train):
        return self.last(self.norm(self.first(x)))


def test_modules_of_ones_own_and_the_first_layer_that_differs(runner):
    call = "call={_target_: builtins.dict, train: false}"
    own = ("task=parity", "linen={_target_: test_parity.Net}", "inputs=[[2,4]]", "steps=1", call)
    same = runner(*own, "nnx={_target_: test_parity.Same, _partial_: true}").frame
    assert same["verdict"].tolist() == ["identical"]
    wrong = runner(*own, "nnx={_target_: test_parity.Same, _partial_: true, epsilon: 0.1}").frame
    assert (wrong["verdict"].tolist(), wrong["first"].tolist()) == (["different"], ["norm"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("layer=Dence",), "layer must be one of Dense, DenseGeneral"),
        (("dtype=int8",), "dtype must be one of float32, bfloat16, got 'int8'"),
        (("mode=pmap",), "mode must be one of jit, eager, got 'pmap'"),
        (("steps=0",), "steps must be at least 1, got 0"),
        (("layer=GRUCell", "exact=false"), "no bias at the recurrent candidate"),
        (("linen={_target_: test_parity.Net}",), "needs inputs, the shapes that it is called with"),
    ],
)
def test_what_there_is_not_is_refused(runner, arguments, words):
    called = runner("task=parity", *arguments)
    assert (called.status, called.folder) == (2, None)
    assert words in called.err


def test_the_cases_have_every_layer_that_is_ported():
    kinds = {type(case.make(None)) for case in cases.CASES.values()}
    assert set(porting.PORTS) - kinds == {nn.MultiHeadAttention, nn.SelfAttention}
    models = {cases.ResNet, cases.Transformer, cases.Within, cases.Steps}
    assert kinds - set(porting.PORTS) == models


def test_differences_of_what_is_not_finite():
    x = jnp.array([1.0, jnp.nan, jnp.inf])
    assert measure_difference(x, x).verdict == 0
    found = measure_difference(x, jnp.array([1.0, 2.0, jnp.inf]))
    assert (found.absolute, found.verdict) == (jnp.inf, 2)
    assert measure_difference(jnp.ones(3), jnp.ones(3, jnp.bfloat16)).bits == 96
    assert measure_difference(jnp.zeros(3), jnp.zeros(3) + 1e-3, within=1e-2).verdict == 2
    assert measure_difference(jnp.ones(3), jnp.ones(3) + 1e-3, within=1e-2).verdict == 1
    assert measure_difference(jnp.array([True, False]), jnp.array([True, True])).bits == 1
    near = measure_difference(jnp.ones(3), jnp.ones(3) + jnp.float32(2e-7))
    assert (near.verdict, near.bits > 0) == (1, True)
    assert find_worst(near, found).verdict == 2
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(2,\)"):
        measure_difference(jnp.ones(3), jnp.ones(2))


def test_the_page_of_the_documentation_has_the_worst_verdict_of_each_layer(tmp_path):
    page = runpy.run_path(str(ROOT / "docs" / "parity.py"))
    cells = [
        ("Dense", "float32", 0, "identical", 0.0),
        ("Dense", "float32", 1, "identical", 0.0),
        ("LayerNorm", "float32", 0, "identical", 0.0),
        ("LayerNorm", "float32", 1, "close", 0.5),
        ("Conv", "float32", 0, "different", 0.25),
        ("Conv", "float32", 1, "close", 0.125),
    ]
    frame = pd.DataFrame(cells, columns=["layer", "dtype", "seed", "verdict", "outputs_relative"]).assign(mode="jit")
    frame = frame.assign(**{f"{name}_relative": 0.0 for name in ("params", "inputs", "state", "steps")})
    table = page["matrix"](frame)
    words = table[("float32", "jit")]
    assert (words["Dense"], words["LayerNorm"], words["Conv"]) == ("identical", "close", "different")
    assert words["GRUCell"] == "none"
    assert "| Conv | different |" in page["markdown"](table)
    assert page["gaps"](frame).splitlines()[2:] == [
        "| LayerNorm float32 jit | 5.0e-01 | 0 | 0 | 0 | 0 |",
        "| Conv float32 jit | 2.5e-01 | 0 | 0 | 0 | 0 |",
    ]
    assert "`GRUCell` (exact): nnx.GRUCell has no bias" in page["reasons"]()
    page["picture"](table, "title", tmp_path / "matrix.png")
    assert (tmp_path / "matrix.png").stat().st_size > 5000


class Tied(nn.Module):
    """A head that is applied to the embedding's weights."""

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(7, 4)
        return nn.Dense(7, use_bias=False).apply({"params": {"kernel": embed.embedding.T}}, nn.Dense(4)(embed(tokens)))


def test_a_layer_that_is_applied_within_a_model_is_not_one_of_its_own():
    found = parity(seed=0, linen=Tied(), inputs=((2, 3),), tokens=7, steps=1)
    assert (int(found["verdict"].code), int(found["first"].code)) == (0, 0)

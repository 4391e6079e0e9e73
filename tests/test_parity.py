"""The parity of layers, as a task: against the same differences taken by hand, eager."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tasks import porting
from tasks.parity import layer_parity
from tasks.porting import zoo

pytestmark = pytest.mark.usefixtures("standard_promotion")


def by_hand(seed):
    """Outputs of a LayerNorm in bfloat16, of Linen and of NNX with its defaults."""
    key = jax.random.key(seed)
    layer, x = nn.LayerNorm(dtype=jnp.bfloat16), zoo.drawn(jax.random.fold_in(key, 0), (zoo.SEQUENCE,))[0]
    variables = zoo.variables(jax.random.fold_in(key, 1), layer, (x,))
    native = porting.port_layer(layer, variables, x, exact=False).module
    return np.asarray(layer.apply(variables, x)), np.asarray(native(x))


@pytest.mark.parametrize("seed", [0, 7])
def test_differences_are_those_taken_by_hand(seed):
    found, (a, b) = layer_parity(seed, "LayerNorm", "bfloat16", exact=False), by_hand(seed)
    gap = np.abs(a.astype(np.float32) - b.astype(np.float32)).max()
    assert gap > 0
    assert found["outputs_absolute"] == gap
    assert found["outputs_relative"] == gap / np.abs(a.astype(np.float32)).max()
    bits = np.unpackbits((a.view(np.uint16) ^ b.view(np.uint16)).view(np.uint8)).sum()
    assert found["outputs_bits"] == bits
    assert found["verdict"] == 1


def test_an_exact_port_is_identical_and_natives_own_are_not(runner):
    sweep = ("-m", "task=parity", "dtype=bfloat16", "seed=0,1")
    exact = runner(*sweep, "layer=Dense,GroupNorm,MultiHeadDotProductAttention").frame
    assert (exact.filter(regex="verdict|_bits|_absolute|_relative") == 0).all(axis=None)
    native = runner(*sweep, "layer=Dense,GroupNorm", "exact=false").frame.groupby("layer")["verdict"].max()
    assert native["Dense"] == 0
    assert native["GroupNorm"] > 0


def test_what_is_not_in_the_zoo_is_refused(runner):
    for arguments, words in (
        (("layer=Dence",), "layer must be one of Dense, DenseGeneral"),
        (("dtype=int8",), "dtype must be one of float32, bfloat16, got 'int8'"),
        (("layer=GRUCell", "exact=false"), "no bias at the recurrent candidate"),
    ):
        called = runner("task=parity", *arguments)
        assert (called.status, called.folder) == (2, None)
        assert words in called.err


def test_the_zoo_has_every_layer_that_is_ported():
    kinds = {type(make(None)) for make, _ in zoo.ZOO.values()}
    others = {nn.Embed, nn.Dropout, nn.MultiHeadAttention, nn.SelfAttention}
    assert kinds == set(porting.PORTS) - others

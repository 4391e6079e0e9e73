"""`python -m tasks.porting`, and the guide that uses it: each of its blocks is executed."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from tasks import porting
from tasks.porting import checkpoints
from tasks.porting.__main__ import main
from tasks.porting.variables import same_bits

pytestmark = pytest.mark.usefixtures("standard_promotion")


class Small(nn.Module):
    size: int = 2

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.size, name="only")(x)


class Native(nnx.Module):
    def __init__(self, size=2, *, rngs):
        self.only = nnx.Linear(3, size, rngs=rngs)

    def __call__(self, x):
        return self.only(x)


class Wrong(Native):
    def __call__(self, x):
        return self.only(x) * 1.5


HERE = "test_port_command"
PAIR = ("--linen", f"{HERE}:Small", "--nnx", f"{HERE}:Native", "--input", "4,3")


@pytest.fixture
def source(tmp_path):
    variables = Small().init(jax.random.key(0), jnp.ones((1, 3)))
    checkpoints.write(tmp_path / "linen", jax.tree.map(lambda leaf: leaf + 0.5, variables))
    return "linen"


def test_what_is_written_is_the_module(source, tmp_path, capsys):
    assert main([source, "out", *PAIR, "--verify", "--seeds", "2"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == ["reading", "porting", "verifying", "writing"]
    assert "identical to the bit" in lines[2]
    module = nnx.eval_shape(lambda: Native(rngs=nnx.Rngs(0)))
    checkpoints.load_nnx("out", module)
    assert same_bits(porting.dump(module), checkpoints.read(source))
    assert main(["out", "again.safetensors", "--to", "linen", "--nnx", f"{HERE}:Native"]) == 0
    assert same_bits(jax.tree.map(jnp.asarray, checkpoints.read("again.safetensors")), checkpoints.read(source))


def test_a_module_that_computes_something_else_is_not_written(source, tmp_path, capsys):
    wrong = ("--linen", f"{HERE}:Small", "--nnx", f"{HERE}:Wrong", "--input", "4,3")
    assert main([source, "out", *wrong, "--verify"]) == 1
    said = capsys.readouterr().err
    assert "different (" in said
    assert "nothing was written" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere", "out", *PAIR), "there is no checkpoint"),
        (("linen", "linen", *PAIR), "linen exists already"),
        (("linen", "out"), "give --nnx, or --linen with --input"),
        (("linen", "out", "--nnx", f"{HERE}:Native", "--verify"), "--verify compares with the Linen module"),
        (("linen", "out", "--nnx", f"{HERE}:Nativ"), "cannot import 'test_port_command:Nativ'"),
        (("linen", "out", "--nnx", f"{HERE}:Native", "--nnx-args", "{sise: 2}"), "refuses these arguments: TypeError"),
        (("linen", "out", "--nnx", f"{HERE}:Native", "--nnx-args", "[2]"), "takes a YAML of names and values"),
        (("linen", "out", "--nnx", f"{HERE}:Native", "--nnx-args", "{size: 5}"), "has shape (3, 2), only/kernel needs"),
        (("linen", "out", "--linen", f"{HERE}:Small", "--input", "4;3"), "--input takes a shape, 8,28,28"),
        (
            ("linen", "out", *PAIR, "--optimizer", "optax:adam", "--optimizer-args", "{learning_rate: 1.0}"),
            "no opt_state",
        ),
        (("linen", "out", *PAIR[:-1], "2,9", "--verify"), "calling the modules failed: ScopeParamShapeError"),
        (("linen", "out", *PAIR, "--verify", "--call", "{trian: true}"), "calling the modules failed: TypeError"),
        (("linen", "out", *PAIR, "--verify", "--seeds", "0"), "--seeds must be at least 1, got 0"),
        (("bad.msgpack", "out", *PAIR), "bad.msgpack cannot be read"),
        (("linen", "out", "--to", "linen"), "--to linen needs --nnx"),
        (("linen", "out", "--to", "linen", "--nnx", f"{HERE}:Native"), "missing only/kernel, of shape (3, 2)"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(source, tmp_path, capsys, arguments, words):
    (tmp_path / "bad.msgpack").write_bytes(b"not a checkpoint")
    assert main(list(arguments)) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

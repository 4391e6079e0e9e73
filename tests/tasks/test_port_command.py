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


class Modal(nn.Module):
    """A setting that the mode decides, dropout, statistics, and a stream of its own."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(4, dtype=jnp.bfloat16 if train else jnp.float32, name="only")(x)
        x = nn.BatchNorm(use_running_average=not train)(nn.Dropout(0.5, deterministic=not train)(x))
        return x + jax.random.normal(self.make_rng("noise"), x.shape) if train else x


class Unmodal(nnx.Module):
    """A rewrite that is right in evaluation only."""

    def __init__(self, *, rngs):
        self.only, self.BatchNorm_0 = nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)

    def __call__(self, x, train=False):
        return self.BatchNorm_0(self.only(x), use_running_average=True)


class Kinds(nn.Module):
    """Inputs of each kind: a tree, integers, a key, a dtype."""

    @nn.compact
    def __call__(self, batch, key, *, weights):
        image, tokens = batch["image"], batch["tokens"]
        x = nn.Dense(4)(image.astype(jnp.float32)) + nn.Embed(300, 4)(tokens)
        return x * weights + jax.random.normal(key, x.shape)


class Noisy(nn.Module):
    """A module with a stream of random numbers beside dropout."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x) + jax.random.normal(self.make_rng("noise"), (2,))


class Across(nn.Module):
    """A norm over a mapped axis."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(2)(nn.BatchNorm(use_running_average=not train, axis_name="batch")(x))


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


@pytest.mark.matrix
def test_a_model_is_verified_in_each_call(tmp_path, capsys):
    variables = Modal().init(jax.random.key(0), jnp.ones((1, 3)))
    checkpoints.write(tmp_path / "linen", jax.tree.map(lambda leaf: leaf + 0.5, variables))
    call = ("--call", "train=false", "--call", "{train: true}", "--rng", "noise", "--seeds", "1")
    assert main(["linen", "out", "--linen", f"{HERE}:Modal", "--input", "4,3", *call, "--verify"]) == 0
    said = capsys.readouterr().err
    assert "1 random inputs in each of 2 calls: identical to the bit" in said
    pair = ("--linen", f"{HERE}:Modal", "--nnx", f"{HERE}:Unmodal", "--input", "4,3", "--verify")
    assert main(["linen", "evaluated", *pair]) == 0
    assert main(["linen", "both", *pair, *call]) == 1


@pytest.mark.matrix
def test_a_module_is_tried_without_a_checkpoint(tmp_path, capsys):
    call = ("--call", "train=false", "--call", "train=true", "--rng", "noise", "--seeds", "1")
    assert main(["--try", f"{HERE}:Modal", "--input", "4,3", *call]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0].split() == ["path", "layer", "becomes", "why"]
    assert [line.split()[:3] for line in said.out.splitlines()[1:3]] == [
        ["only", "Dense", "native"],
        ["Dropout_0", "Dropout", "native"],
    ]
    assert "identical to the bit" in said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.matrix
def test_inputs_are_trees_integers_keys_and_named(capsys):
    tree = "{image: '8,3:uint8:256', tokens: '8:300'}"
    given = ("--input", tree, "--input", "key", "--input", "weights=8,4:bfloat16")
    assert main(["--try", f"{HERE}:Kinds", *given, "--seeds", "1"]) == 0
    assert "identical to the bit" in capsys.readouterr().err
    assert main(["--try", f"{HERE}:Across", "--input", "4,3", "--call", "train=true", "--axis-name", "batch"]) == 0


def test_a_model_that_was_ported_unchanged_goes_back(source, tmp_path):
    linen = ("--linen", f"{HERE}:Small", "--input", "4,3")
    assert main([source, "out", *linen]) == 0
    assert main(["out", "again.msgpack", "--to", "linen", *linen]) == 0
    assert same_bits(jax.tree.map(jnp.asarray, checkpoints.read("again.msgpack")), checkpoints.read(source))


def change(variables, kind):
    if kind == "unexpected":
        return {"params": {**variables["params"], "more": {"kernel": jnp.ones((2, 2))}}}
    dtype = {"halved": jnp.float16, "whole": jnp.int32}[kind]
    return jax.tree.map(lambda leaf: leaf.astype(dtype), variables)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("unexpected", ["unexpected params/more/kernel, of shape (2, 2)"]),
        ("halved", ["params/only/bias is float16, the model's is float32", "params/only/kernel is float16"]),
        ("whole", ["params/only/bias is int32, the model's is float32", "params/only/kernel is int32"]),
    ],
)
def test_misfits_are_told_and_refused_unless_allowed(source, capsys, kind, words):
    checkpoints.write("changed", change(checkpoints.read(source), kind))
    linen = ("--linen", f"{HERE}:Small", "--input", "4,3")
    assert main(["changed", "out", *linen]) == 2
    said = capsys.readouterr().err
    assert all(each in said for each in words)
    assert main(["changed", "allowed", *linen, "--allow-misfits"]) == 0
    if kind != "unexpected":
        assert main(["changed", "cast", *linen, "--cast", "--verify", "--seeds", "1"]) == 0


# a read that fails leaves callbacks of tensorstore behind, for which the event loop of orbax is closed
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damaged_checkpoints_are_told_in_one_line(source, tmp_path, capsys, caplog):
    tree = checkpoints.read(source)
    names = ("data", "metadata", "details", "flat.safetensors")
    for name in names:
        checkpoints.write(tmp_path / name, tree)
    arrays = [file for file in (tmp_path / "data").rglob("d/*") if file.is_file()]
    for file in [*arrays, tmp_path / "flat.safetensors"]:
        file.write_bytes(file.read_bytes()[:-7])
    (tmp_path / "metadata" / "_METADATA").write_text("{")
    (tmp_path / "details" / "manifest.ocdbt").write_bytes(b"\x0c")
    for name in names:
        assert main([name, "out", *PAIR]) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert f"{name} cannot be read: " in said[0]
        assert "NoneType" not in said[0]
    assert not [record for record in caplog.records if record.name == "absl"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--call", "trian=true", "--input", "4,3"), "calling test_port_command:Small failed: TypeError"),
        (("--input", "weights=4,3"), "failed: TypeError"),
        (("--input", "key"), "failed: "),
        (("--input", "4,3", "--call", "[1]"), "--call takes keyword arguments, 'train=true'"),
        (("--input", "4,3:flaot32"), "--input takes a shape, 8,28,28"),
        (("--input", "4,3:float32:5"), "only integers are below a number"),
        ((), "--linen with --input"),
    ],
)
def test_calls_that_a_model_refuses_are_told_in_one_line(source, capsys, arguments, words):
    assert main([source, "out", "--linen", f"{HERE}:Small", *arguments]) == 2
    said = capsys.readouterr().err.splitlines()
    assert words in said[-1]
    assert len([line for line in said if line.startswith("error")]) == 1
    assert main(["--try", f"{HERE}:Across", "--input", "4,3", "--call", "train=true"]) == 2
    said = capsys.readouterr().err
    assert "failed: NameError: " in said
    assert said.endswith("(give the axis by --axis-name NAME)\n")
    assert main(["--try", f"{HERE}:Noisy", "--input", "4,3"]) == 2
    assert capsys.readouterr().err.endswith("(give the stream by --rng NAME)\n")


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


def test_an_unexpected_error_has_a_status_of_its_own(source, tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise RuntimeError("the disk is gone\nand more")

    monkeypatch.setattr(checkpoints, "save_nnx", fail)
    assert main([source, "out", *PAIR]) == 3
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: RuntimeError: the disk is gone (")

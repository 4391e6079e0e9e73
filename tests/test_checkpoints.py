"""Linen checkpoints into shaped NNX models, and back, in every format."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx, serialization
from flax.training.train_state import TrainState

from tasks import porting
from tasks.porting import checkpoints
from tasks.porting.variables import same_bits

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (3, 4))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True, name="norm")(nn.Dense(5, name="first")(x))
        return nn.Dense(2, name="last", param_dtype=jnp.bfloat16)(x)


class Native(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(4, 5, rngs=rngs)
        self.norm = nnx.BatchNorm(5, use_running_average=True, rngs=rngs)
        self.last = nnx.Linear(5, 2, param_dtype=jnp.bfloat16, rngs=rngs)

    def __call__(self, x):
        return self.last(self.norm(self.first(x)))


@pytest.fixture(scope="module")
def variables():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        made = Linen().init(KEY, X)
        return jax.tree.map(
            lambda leaf: leaf + 0.1 * jnp.abs(jax.random.normal(KEY, leaf.shape, leaf.dtype)), dict(made)
        )


def standard(path, variables):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, variables)


def pytree(path, variables):
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path, variables)


def manager(path, variables):
    with ocp.CheckpointManager(path) as steps:
        steps.save(1, args=ocp.args.StandardSave(jax.tree.map(jnp.zeros_like, variables)))
        steps.save(20, args=ocp.args.StandardSave(variables))


def train_state(path, variables):
    state = TrainState.create(apply_fn=Linen().apply, params=variables["params"], tx=optax.adamw(0.1))
    with ocp.StandardCheckpointer() as checkpointer:
        tree = {
            "params": state.params,
            "opt_state": state.opt_state,
            "step": 3,
            "batch_stats": variables["batch_stats"],
        }
        checkpointer.save(path, tree)


def msgpack(path, variables):
    path.write_bytes(serialization.to_bytes(variables))


FORMATS = {
    "standard": standard,
    "pytree": pytree,
    "manager": manager,
    "train_state": train_state,
    "flax.msgpack": msgpack,
    "written": checkpoints.write,
    "written.msgpack": checkpoints.write,
    "written.safetensors": checkpoints.write,
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_checkpoint_goes_into_a_model_that_was_only_shaped_and_back(tmp_path, variables, name):
    FORMATS[name](tmp_path / name, variables)
    read = checkpoints.read(tmp_path / name)
    assert same_bits(jax.tree.map(jnp.asarray, read), variables)
    model = nnx.eval_shape(lambda: Native(nnx.Rngs(0)))
    porting.load(model, read)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert same_bits(model(X), Linen().apply(variables, X))
    checkpoints.write(tmp_path / "back", porting.dump(model))
    with ocp.StandardCheckpointer() as checkpointer:
        assert same_bits(checkpointer.restore(tmp_path / "back", variables), variables)


def test_what_is_no_checkpoint_is_told(tmp_path, variables):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        checkpoints.read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no folder that orbax has finished"):
        checkpoints.read(tmp_path)
    (tmp_path / "x.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"ends neither in \.msgpack nor in \.safetensors"):
        checkpoints.read(tmp_path / "x.bin")
    with pytest.raises(FileExistsError, match="is there already"):
        checkpoints.write(tmp_path / "x.bin", variables)

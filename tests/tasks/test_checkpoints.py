"""Linen checkpoints into shaped NNX models, and back, in every format."""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
from flax import nnx, serialization
from flax.training import checkpoints as training_checkpoints
from flax.training.train_state import TrainState

from tasks import porting
from tasks.porting import checkpoints
from tasks.porting.variables import same_bits

pytestmark = [pytest.mark.usefixtures("standard_promotion"), pytest.mark.matrix]

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


class Trained(TrainState):
    batch_stats: dict


LABELS = jax.random.normal(jax.random.fold_in(KEY, 1), (3, 2))
TX = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(0.1, 100)))


class Twin(nn.Module):
    """The float32 half of `Linen`, trained with statistics."""

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=False, name="norm")(nn.Dense(5, name="first")(x))
        return nn.Dense(2, name="last")(x)


class Own(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(4, 5, rngs=rngs)
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.head = nnx.Linear(5, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(self.norm(self.first(x)))


MAPPING = {"last": "head"}


@jax.jit
def linen_step(state):
    def loss(params):
        out, changed = state.apply_fn({"params": params, "batch_stats": state.batch_stats}, X, mutable=["batch_stats"])
        return ((out - LABELS) ** 2).mean(), changed

    (value, changed), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
    return state.apply_gradients(grads=gradients, batch_stats=changed["batch_stats"]), value


@nnx.jit
def nnx_step(module, optimizer):
    value, gradients = nnx.value_and_grad(lambda module: ((module(X) - LABELS) ** 2).mean())(module)
    optimizer.update(module, gradients)
    return value


def trained(steps):
    variables = Twin().init(KEY, X)
    state = Trained.create(
        apply_fn=Twin().apply, params=variables["params"], tx=TX, batch_stats=variables["batch_stats"]
    )
    for _ in range(steps):
        state, _ = linen_step(state)
    return state


def as_standard(path, state):
    standard(path, state)


def as_manager(path, state):
    with ocp.CheckpointManager(path) as steps:
        steps.save(5, args=ocp.args.StandardSave(state))


def as_msgpack(path, state):
    path.write_bytes(serialization.to_bytes(state))


@pytest.mark.parametrize("save", [as_standard, as_manager, as_msgpack])
def test_a_training_goes_on_with_the_same_numbers_and_back(tmp_path, save):
    state = trained(5)
    save(tmp_path / "linen.msgpack", state)
    read = checkpoints.read_train_state(tmp_path / "linen.msgpack")
    module = nnx.eval_shape(lambda: Own(nnx.Rngs(0)))
    optimizer = nnx.eval_shape(lambda: nnx.Optimizer(Own(nnx.Rngs(0)), TX, wrt=nnx.Param))
    porting.load(module, read.variables, mapping=MAPPING)
    porting.load_optimizer(optimizer, module, read.opt_state, step=read.step, mapping=MAPPING)
    assert int(optimizer.step[...]) == 5
    for _ in range(20):
        state, expected = linen_step(state)
        assert same_bits(nnx_step(module, optimizer), expected)
    # on disk as NNX has it, and again as Linen has it
    checkpoints.save_nnx(tmp_path / "nnx", module, optimizer)
    again = nnx.eval_shape(lambda: Own(nnx.Rngs(0)))
    kept = nnx.eval_shape(lambda: nnx.Optimizer(Own(nnx.Rngs(0)), TX, wrt=nnx.Param))
    checkpoints.load_nnx(tmp_path / "nnx", again, kept)
    like = {"params": state.params, "batch_stats": state.batch_stats}
    back = porting.dump(again, like=like, mapping=MAPPING)
    moments = porting.dump_optimizer(kept, again, TX.init(state.params), mapping=MAPPING)
    checkpoints.write(tmp_path / "back", back, moments, int(kept.step[...]))
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(tmp_path / "back", {**like, "opt_state": state.opt_state, "step": 0})
    assert restored.pop("step") == 25
    assert same_bits(restored, {**like, "opt_state": state.opt_state})


def test_each_misfit_of_an_optimizer_is_told():
    state, module = trained(1), Own(nnx.Rngs(0))
    optimizer = nnx.Optimizer(module, TX, wrt=nnx.Param)
    before = nnx.to_pure_dict(nnx.state(optimizer))
    moments = jax.tree.map(lambda leaf: leaf, serialization.to_state_dict(state.opt_state))
    del moments["1"]["0"]["mu"]["first"]["bias"]
    moments["1"]["0"]["nu"]["norm"]["scale"] = jnp.ones(4)
    with pytest.raises(porting.VariableMismatchError) as told:
        porting.load_optimizer(optimizer, module, moments, mapping=MAPPING)
    assert [line.strip() for line in str(told.value).splitlines()] == [
        "2 variables do not fit:",
        "missing opt_state/1/0/mu/first/bias, of shape (5,) for opt_state/1/0/mu/first/bias",
        "opt_state/1/0/nu/norm/scale has shape (4,), opt_state/1/0/nu/norm/scale needs (5,)",
    ]
    assert same_bits(nnx.to_pure_dict(nnx.state(optimizer)), before)
    like = (*TX.init(state.params), optax.trace(0.9).init(jnp.ones(1)))
    with pytest.raises(porting.VariableMismatchError, match="the optimizer has no opt_state/2/trace"):
        porting.dump_optimizer(optimizer, module, like, mapping=MAPPING)


def test_an_optimizer_that_leaves_parameters_out():
    state = trained(1)
    chosen = {"first": True, "norm": False, "last": False}
    tx = optax.masked(optax.adam(0.1), lambda params: nnx.State(chosen) if isinstance(params, nnx.State) else chosen)
    grown = jax.tree.map(lambda leaf: leaf + 1, tx.init(state.params))
    module = porting.port_model(Twin(), {"params": state.params, "batch_stats": state.batch_stats}, X).module
    optimizer = nnx.Optimizer(module, tx, wrt=nnx.Param)
    porting.load_optimizer(optimizer, module, grown)
    assert same_bits(porting.dump_optimizer(optimizer, module, tx.init(state.params)), grown)


def test_fused_gates_of_an_optimizer_are_taken_apart():
    layer, x = nn.OptimizedLSTMCell(3), jnp.ones((2, 4))
    carry = layer.initialize_carry(KEY, x.shape)
    params = layer.init(KEY, carry, x)["params"]
    tx = optax.sgd(0.1, momentum=0.9)
    grown = jax.tree.map(lambda leaf: leaf + jax.random.normal(KEY, leaf.shape), tx.init(params))
    module = porting.port_layer(layer, {"params": params}, carry, x, exact=False).module
    optimizer = nnx.Optimizer(module, tx, wrt=nnx.Param)
    porting.load_optimizer(optimizer, module, grown)
    assert same_bits(porting.dump_optimizer(optimizer, module, tx.init(params)), grown)


def test_what_is_no_checkpoint_is_told(tmp_path, variables):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        checkpoints.read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="not a complete orbax checkpoint"):
        checkpoints.read(tmp_path)
    (tmp_path / "x.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"neither an orbax folder nor a \.msgpack or \.safetensors"):
        checkpoints.read(tmp_path / "x.bin")
    with pytest.raises(FileExistsError, match="exists already"):
        checkpoints.write(tmp_path / "x.bin", variables)


@pytest.mark.parametrize("name", ["cls.msgpack", "cls.safetensors", "cls"])
def test_parameters_alone_may_have_an_array_at_their_root(tmp_path, name):
    params = {"cls": jnp.ones((1, 1, 4)), "head": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)}}
    checkpoints.write(tmp_path / name, params)
    read = checkpoints.read(tmp_path / name)
    assert same_bits(jax.tree.map(jnp.asarray, read), {"params": params})


def test_names_of_safetensors_may_have_dots(tmp_path):
    arrays = {"cls": np.ones((1, 4), np.float32), "head.layer_0.kernel": np.ones((4, 2), np.float32)}
    safetensors.numpy.save_file(arrays, tmp_path / "dots.safetensors")
    read = checkpoints.read(tmp_path / "dots.safetensors")
    assert jax.tree.map(jnp.shape, read) == {"params": {"cls": (1, 4), "head": {"layer_0": {"kernel": (4, 2)}}}}


def test_a_named_item_of_a_manager_is_read_and_several_are_listed(tmp_path, variables):
    for place, names in {"one": ["weights"], "two": ["ema", "weights"]}.items():
        with ocp.CheckpointManager(tmp_path / place) as steps:
            args = {name: ocp.args.StandardSave(variables) for name in names}
            steps.save(3, args=ocp.args.Composite(**args))
    assert same_bits(checkpoints.read(tmp_path / "one"), variables)
    with pytest.raises(ValueError, match="has several items; give the path of one: ema, weights"):
        checkpoints.read(tmp_path / "two")
    assert same_bits(checkpoints.read(tmp_path / "two" / "3" / "ema"), variables)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"it has no _METADATA; it has notes\.txt"):
        checkpoints.read(tmp_path / "other")


@pytest.mark.parametrize("orbax", [True, False])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_latest_step_of_flaxs_own_checkpoints_is_read(tmp_path, variables, orbax):
    with flax.config.temp_flip_flag("use_orbax_checkpointing", orbax):
        for step in (9, 10):
            tree = jax.tree.map(lambda leaf, step=step: leaf * step, variables)
            training_checkpoints.save_checkpoint(tmp_path / "steps", tree, step, keep=2)
    expected = jax.tree.map(lambda leaf: leaf * 10, variables)
    assert same_bits(jax.tree.map(jnp.asarray, checkpoints.read(tmp_path / "steps")), expected)

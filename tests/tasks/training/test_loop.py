"""The loop of a training, on models with a closed form: what ends a run, lanes, and loops that are cut."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax

from tasks.train import train
from tasks.training.data import Part, Splits
from tasks.training.evaluation import evaluate
from tasks.training.loop import STEPS
from tasks.training.losses import Measure
from tasks.training.models import Model

pytestmark = pytest.mark.usefixtures("standard_promotion")


def run_loop(loop):
    """The outputs of a whole run, compiled at once: op by op it takes five times as long."""
    return jax.jit(lambda state: loop.finish(lax.while_loop(loop.proceeds, loop.advance, state)))(loop.state)


def same(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


# one parameter w, from 1 down by lr each step; the validation loss is (w - 0.5)², that of the test part w


def descend(outputs, y):
    return jnp.where(y == 0, outputs, (outputs - 0.5) ** 2)[:, 0]


def constant_part(y, examples=5):
    return Part(jnp.zeros((examples, 1)), jnp.full((examples, 1), float(y)))


SLOPE = Model(
    lambda key, x: ({"w": jnp.float32(1)}, {}),
    lambda params, state, x, *, train, key: (params["w"] + jnp.zeros((x.shape[0], 1)), state),
)
FALL = Splits(constant_part(0), constant_part(1, 3), constant_part(0, 2), jnp.zeros(0))


def fall(lr=0.1, steps=10, data=FALL, **rules):
    return train(0, data, SLOPE, optax.sgd(lr), descend, (), steps, 2, **rules)


def test_a_run_takes_its_steps_and_no_more():
    out = run_loop(fall(steps=7))
    assert (out["steps_taken"], out["nonfinite_step"], str(out["end"])) == (7, -1, "steps")
    np.testing.assert_allclose([out["train_loss"], out["test_loss"]], 0.3, rtol=1e-5)
    np.testing.assert_allclose(out["validation_loss"], 0.04, rtol=1e-4)
    assert "best_step" not in out


def test_curves_have_the_mean_training_loss_between_evaluations_and_the_validation_loss_at_them():
    out = run_loop(fall(steps=7, every=2, horizon=11))
    nan = np.nan
    np.testing.assert_allclose(out["train_loss_curve"], [0.95, 0.75, 0.55, nan, nan], rtol=1e-5)
    np.testing.assert_allclose(out["validation_loss_curve"], [0.09, 0.01, 0.01, nan, nan], rtol=1e-4, atol=1e-6)
    assert out["steps_taken"] == 7
    np.testing.assert_allclose(out["validation_loss"], 0.04, rtol=1e-4)


def test_the_best_evaluation_is_the_first_of_the_smallest_validation_loss():
    out = run_loop(fall(steps=10, every=1, best=True))
    assert out["best_step"] == 5
    np.testing.assert_allclose(out["best_validation_loss"], 0, atol=1e-6)
    np.testing.assert_allclose([out["best_train_loss"], out["best_test_loss"]], 0.5, rtol=1e-5)
    np.testing.assert_allclose(out["test_loss"], 0, atol=1e-6)


def test_of_equal_evaluations_the_first_is_the_best():
    assert run_loop(fall(lr=0.0, steps=4, every=2))["best_step"] == 2


def test_the_last_evaluation_counts_although_it_is_no_point_of_the_curves():
    out = run_loop(fall(steps=5, every=3))
    assert out["best_step"] == 5
    assert out["validation_loss_curve"].shape == (1,)


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("rules", "end", "steps"),
    [
        ({"patience": 3}, "patience", 8),
        ({"patience": 3, "every": 2}, "patience", 10),  # at 4 and 6 alike: the first is the best
        ({"target": 0.041}, "target", 3),
        ({"bound": 0.75}, "diverged", 1),
    ],
)
def test_what_ends_a_run_early(rules, end, steps):
    out = run_loop(fall(steps=20, **{"every": 1, "horizon": 20} | rules))
    assert (str(out["end"]), out["steps_taken"]) == (end, steps)
    assert np.isfinite(out["train_loss"])


def test_a_bound_ends_a_run_within_the_steps_of_an_advance():
    out = run_loop(fall(lr=-0.1, steps=50, bound=1.35))  # the loss of step t is 1 + t / 10
    assert (str(out["end"]), out["steps_taken"]) == ("diverged", 5)


def square(outputs, y):
    return outputs[:, 0] ** 2


def explode(steps=100, lr=1e3, **rules):
    """w is multiplied by 1 − 2 lr each step, so that w² is not finite from the seventh step on."""
    return train(0, FALL, SLOPE, optax.sgd(lr), square, (), steps, 2, **rules)


def test_a_run_ends_after_the_first_step_whose_loss_is_not_finite():
    out = run_loop(explode(every=2, horizon=100))
    assert (str(out["end"]), out["nonfinite_step"], out["steps_taken"]) == ("nonfinite", 6, 7)
    assert all(np.isnan(out[f"{part}_loss"]) for part in ("train", "validation", "test"))
    assert out["best_step"] == 2
    np.testing.assert_allclose(out["best_validation_loss"], 1999.0**4, rtol=1e-4)
    assert np.isnan(out["validation_loss_curve"][3:]).all()


def test_parameters_that_the_last_step_made_infinite_are_found():
    out = run_loop(explode(steps=1, lr=3e38))
    assert (str(out["end"]), out["nonfinite_step"], out["steps_taken"]) == ("nonfinite", 1, 1)
    assert np.isnan(out["train_loss"])


# a linear regression with statistics that the model keeps

SIZES = (31, 9, 6)


def draw(seed, *shape):
    return jnp.asarray(np.random.RandomState(seed).standard_normal(shape), jnp.float32)


LINE = Splits(*(Part(draw(n, n, 3), draw(n + 1, n, 2)) for n in SIZES), jnp.zeros(0))


def start_line(key, x):
    return {"w": jax.random.normal(key, (3, 2)), "b": jnp.array([0.3, -0.2])}, {"seen": jnp.zeros(3), "key": key}


def apply_line(params, state, x, *, train, key):
    outputs = x @ params["w"] + params["b"][None]
    if not train:
        return outputs, state
    new = jax.random.fold_in(state["key"], 1)
    noise = 0.1 * jax.random.normal(new, outputs.shape) + 0.1 * jax.random.normal(key, outputs.shape)
    return outputs + noise, {"seen": state["seen"] + x.sum(0), "key": new}


REGRESSION = Model(start_line, apply_line)


def regress(seed, lr, steps, make=optax.adam, **rules):
    return train(seed, LINE, REGRESSION, make(lr), "squared_error", (), steps, 4, **rules)


def test_steps_are_those_of_a_loop_written_by_hand():
    loop = regress(5, 0.1, 3)
    params, state = start_line(jax.random.key(5), None)
    moments = jax.tree.map(lambda p: (np.zeros(p.shape), np.zeros(p.shape)), params)

    @jax.jit
    def differentiate(params, state, step):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(5), STEPS), step)
        rows = jax.random.randint(key, (4,), 0, SIZES[0])
        x, y = LINE.train.x[rows], LINE.train.y[rows]

        def loss(params):
            outputs, new = apply_line(params, state, x, train=True, key=jax.random.fold_in(key, 1))
            return ((outputs - y) ** 2).mean(), new

        return jax.grad(loss, has_aux=True)(params)

    for step in range(3):
        gradients, state = differentiate(params, state, step)
        for name, g in gradients.items():
            m, v = moments[name]
            moments[name] = (0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2)
            m, v = moments[name]
            unbiased = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
            params[name] = params[name] - 0.1 * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    end = lax.while_loop(loop.proceeds, loop.advance, loop.state)
    for name, value in params.items():
        np.testing.assert_allclose(end.progress.weights.params[name], value, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(end.progress.weights.state["seen"], state["seen"], rtol=1e-5, atol=1e-6)
    assert same(end.progress.weights.state["key"], jax.random.key_data(state["key"]))
    outputs = np.asarray(LINE.test.x @ params["w"] + params["b"][None])
    np.testing.assert_allclose(jax.jit(loop.finish)(end)["test_loss"], ((outputs - LINE.test.y) ** 2).mean(), rtol=1e-4)


LANES = {
    "seed": jnp.array([0, 1, 1, 2], jnp.uint32),
    "lr": jnp.array([0.1, 0.01, 1e30, 0.03], jnp.float32),
    "steps": jnp.array([3, 20, 20, 11], jnp.int32),
}


def take_lane(number):
    return {name: values[number] for name, values in LANES.items()}


@pytest.fixture(scope="module")
def lanes():
    """Outputs and last states of four runs of different length: as lanes, in another order of lanes, and alone."""

    def run(seed, lr, steps):
        loop = regress(seed, lr, steps, optax.sgd, every=3, horizon=20, patience=4, best=True)
        end = lax.while_loop(loop.proceeds, loop.advance, loop.state)
        return loop.finish(end), end

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        alone, program = jax.jit(run), jax.jit(jax.vmap(run))
        moved = program(**jax.tree.map(lambda array: array[::-1], LANES))
        return program(**LANES), moved, [alone(**take_lane(number)) for number in range(4)]


@pytest.mark.matrix
def test_lanes_that_end_at_different_steps_have_what_they_have_alone(lanes):
    (outputs, ends), _, alone = lanes
    assert outputs["nonfinite_step"].tolist()[2] >= 0
    assert len(set(outputs["steps_taken"].tolist())) == 4
    for number, single in enumerate(alone):
        together = jax.tree.map(lambda array, number=number: array[number], (outputs, ends))
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(single), strict=True):
            if jnp.issubdtype(a.dtype, jnp.floating):  # sums of a batched product may be in another order
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
            else:
                np.testing.assert_array_equal(a, b)


@pytest.mark.matrix
def test_a_lane_has_the_same_bits_whatever_the_others_do(lanes):
    together, moved, _ = lanes
    assert same(together, jax.tree.map(lambda array: array[::-1], moved))


@pytest.mark.matrix
def test_a_run_that_has_ended_is_returned_as_it_is(lanes):
    (_, ends), _, _ = lanes

    def advance(seed, lr, steps, state):
        return regress(seed, lr, steps, optax.sgd, every=3, horizon=20, patience=4, best=True).advance(state)

    assert same(jax.jit(jax.vmap(advance))(**LANES, state=ends), ends)


@pytest.mark.matrix
def test_a_loop_that_is_cut_and_saved_has_the_same_bits():
    def prepare(state=None):
        loop = regress(3, jnp.float32(0.05), jnp.int32(11), every=2, horizon=11, best=True)
        return loop.state if state is None else loop.advance(state)

    advance = jax.jit(prepare)
    loop = regress(3, jnp.float32(0.05), jnp.int32(11), every=2, horizon=11, best=True)
    whole, state = advance(advance()), advance()
    assert not any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(state))
    for _ in range(4):
        whole = advance(whole)
        assert loop.proceeds(whole)
    for _ in range(5):
        state = advance(jax.tree.map(lambda leaf: jnp.asarray(np.array(leaf)), state))
    assert same(state, whole)
    assert not loop.proceeds(advance(whole))
    assert same(advance(whole), lax.while_loop(loop.proceeds, advance, loop.state))


@pytest.mark.matrix
def test_minibatches_depend_on_the_seed_and_the_step_alone():
    def see(seed, lr, make):
        loop = regress(seed, lr, 3, make)
        return loop.advance(loop.state).progress.weights.state["seen"].tolist()

    first = see(0, 0.1, optax.sgd)
    assert first == see(0, 1e-3, optax.adam)
    assert first != see(1, 0.1, optax.sgd)


@pytest.mark.parametrize("size", [1, 4, 9, 31, 100])
def test_means_are_over_all_examples_whatever_the_slices(size):
    def variance(outputs, y):
        return jnp.var(outputs)

    def double(x):
        return 2 * x

    measures = [Measure("distance", lambda outputs, y: (outputs[:, :2] - y) ** 2), Measure("variance", variance)]
    part = LINE.train
    made = evaluate(double, measures, part, size)
    np.testing.assert_allclose(made["distance"], ((2 * part.x[:, :2] - part.y) ** 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(made["variance"], np.var(2 * part.x), rtol=1e-5)


def test_slices_bound_what_is_predicted_at_once():
    seen = []

    def watch(x):
        seen.append(x.shape[0])
        return x

    evaluate(watch, [Measure("mean", lambda outputs, y: outputs[:, 0])], LINE.train._replace(y=LINE.train.x), 7)
    assert max(seen[1:]) == 7  # the first is a trace of shapes


def test_an_optimizer_may_look_at_the_loss():
    def make(lr):
        return optax.chain(optax.sgd(lr), optax.contrib.reduce_on_plateau(patience=1, accumulation_size=1))

    assert run_loop(regress(0, 0.01, 3, make))["steps_taken"] == 3


def test_streams_of_an_nnx_module_are_saved_as_numbers():
    class Noisy(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(3, 2, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.drop(self.linear(x))

    loop = train(0, LINE, Noisy, optax.sgd(0.1), "squared_error", (), 2, 4)
    end = loop.advance(loop.state)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(end)} == {"float32", "int32", "uint32"}
    counts = [
        end.progress.weights.state["drop"]["rngs"]["count"],
        loop.state.progress.weights.state["drop"]["rngs"]["count"],
    ]
    assert counts[0] == counts[1] + 2

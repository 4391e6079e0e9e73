"""What stands around optimizers, against the same steps by hand; and each optimizer that ships, traced whole."""

import inspect
import runpy
from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from tasks.training import optimizers

pytestmark = pytest.mark.usefixtures("standard_promotion")

PAGE = runpy.run_path(str(ROOT / "docs" / "reference.py"))
SHIPPED = sorted((ROOT / "conf" / "optimizer").glob("*.yaml"))


def make_params(seed=0):
    random = np.random.RandomState(seed)
    draw = lambda *shape: jnp.asarray(random.standard_normal(shape), jnp.float32)  # noqa: E731
    return {
        "encoder": {"dense": {"kernel": draw(6, 4), "bias": draw(4)}, "norm": {"scale": draw(4), "bias": draw(4)}},
        "head": {"kernel": draw(4, 3), "bias": draw(3)},
    }


def loss(params, x, y):
    dense, norm, head = params["encoder"]["dense"], params["encoder"]["norm"], params["head"]
    h = jnp.tanh(x @ dense["kernel"] + dense["bias"])
    h = h * norm["scale"] + norm["bias"]
    return jnp.mean(jnp.square(h @ head["kernel"] + head["bias"] - y))


differentiate = jax.jit(jax.value_and_grad(loss))
RANDOM = np.random.RandomState(1)
X, Y = (jnp.asarray(RANDOM.standard_normal(shape), jnp.float32) for shape in ((8, 6), (8, 3)))


def read(path: Path, **values):
    return OmegaConf.to_container(
        OmegaConf.merge({"lr": 0.01, "steps": 100}, {"it": OmegaConf.load(path)}, values), resolve=True
    )["it"]


def locate(target):
    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)


def split(description):
    """Floats of a description as arrays, and how to put tracers in their places."""
    leaves, structure = jax.tree.flatten(description, is_leaf=lambda v: v is None)
    floats = [leaf for leaf in leaves if isinstance(leaf, float)]

    def join(tracers):
        rest = iter(tracers)
        return jax.tree.unflatten(structure, [next(rest) if isinstance(leaf, float) else leaf for leaf in leaves])

    return [jnp.float32(v) for v in floats], join


def build(description):
    """What the engine does with a description: `_target_` called, inner ones first."""
    if isinstance(description, list):
        return [build(value) for value in description]
    if not isinstance(description, dict):
        return description
    arguments = {name: build(value) for name, value in description.items() if name != "_target_"}
    if "_target_" not in description:
        return arguments
    return locate(description["_target_"])(**arguments)


def train(optimizer, params, steps=5):
    def advance(carry, _):
        params, state = carry
        value, gradients = jax.value_and_grad(loss)(params, X, Y)
        known = {"value": value, "grad": gradients, "value_fn": lambda params: loss(params, X, Y)}
        updates, state = optimizer.update(gradients, state, params, **known)
        return (optax.apply_updates(params, updates), state), value

    return jax.lax.scan(advance, (params, optimizer.init(params)), length=steps)


def make_lanes(description):
    """A training with each float of the description as a tracer of two lanes, and those floats."""
    floats, join = split(description)
    run = jax.vmap(lambda floats: train(optimizers.compose(build(join(floats))), make_params())[1])
    return run, [jnp.stack([f, f]) for f in floats]


shipped = pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)


@shipped
def test_an_optimizer_that_ships_takes_tracers_and_keeps_dtypes(path):
    """`scan` refuses a state whose dtypes change."""
    run, floats = make_lanes(read(path))
    assert jax.eval_shape(run, floats).shape == (2, 5)


@pytest.mark.matrix
@shipped
def test_an_optimizer_that_ships_gives_the_numbers_of_plain_values(path):
    description = read(path)
    run, floats = make_lanes(description)
    lanes = jax.jit(run)(floats)
    plain = train(optimizers.compose(build(description)), make_params())[1]
    assert np.isfinite(lanes).all()
    assert lanes[0, -1] < lanes[0, 0]
    np.testing.assert_allclose(lanes, np.tile(plain, (2, 1)), rtol=2e-4)


@shipped
def test_an_optimizer_that_ships_has_optax_defaults(path):
    """But for the learning rate, and for masks of the decay, which are ours."""
    description = read(path)
    defaults = inspect.signature(locate(description["_target_"])).parameters
    ours = {"_target_", "learning_rate", "max_learning_rate", "base_optimizer", "linesearch", "key"}
    for name in set(description) - ours:
        if not name.endswith("mask"):
            default = defaults[name].default
            assert description[name] == (list(default) if isinstance(default, tuple) else _name_dtype(default)), name
    left = set(defaults) - set(description)
    assert left <= {"clip_value_fn", "seed", "state_dtype", "weight_dimension_numbers"}, left


def _name_dtype(default):
    return default.dtype.name if hasattr(default, "dtype") else default


@pytest.mark.matrix
@shipped
def test_schedules_fit_where_the_page_says_so(path):
    if PAGE["find_rate"](read(path)) is None:
        pytest.skip("has no learning rate of its own")
    description = {**read(path), "learning_rate": 0.1}
    description["learning_rate"] = {"_target_": "tasks.training.schedules.cosine", "init_value": 0.1, "decay_steps": 3}
    run, floats = make_lanes(description)
    if path.stem in PAGE["NO_SCHEDULE"]:
        with pytest.raises(TypeError):
            jax.eval_shape(run, floats)
    else:
        assert jax.eval_shape(run, floats).shape == (2, 5)


def step_by_hand(optimizer, params, gradients):
    """Updates one after another, without a scan."""
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def draw_gradients(count):
    return [jax.tree.map(lambda p, s=s: 3 * p, make_params(s + 10)) for s in range(count)]


def to_numpy(tree):
    return {"/".join(k.key for k in path): np.asarray(v, np.float64) for path, v in jax.tree.leaves_with_path(tree)}


def assert_close(params, expected):
    for path, value in to_numpy(params).items():
        np.testing.assert_allclose(value, expected[path], rtol=1e-5, atol=1e-6, err_msg=path)


def test_a_global_norm_does_not_see_frozen_parts():
    gradients = draw_gradients(3)
    optimizer = optimizers.compose(optax.sgd(0.1), clip=optax.clip_by_global_norm(1.0), frozen=["encoder/dense"])
    params, _ = step_by_hand(optimizer, make_params(), gradients)
    expected = to_numpy(make_params())
    for gradient in map(to_numpy, gradients):
        free = {path: g for path, g in gradient.items() if not path.startswith("encoder/dense/")}
        norm = np.sqrt(sum(np.sum(g**2) for g in free.values()))
        assert norm > 1
        for path, g in free.items():
            expected[path] -= 0.1 * g / norm
    assert_close(params, expected)


def test_frozen_parameters_keep_their_bits_and_have_no_state():
    params = make_params()
    params["head"]["bias"] = jnp.array([-0.0, 0.0, jnp.inf], jnp.float32)
    params["head"]["kernel"] = jnp.full((4, 3), -0.0, jnp.float32)
    optimizer = optimizers.compose(optax.adam(0.1), frozen=("head",), accumulate=2)
    after, state = step_by_hand(optimizer, params, draw_gradients(4))
    for name, value in params["head"].items():
        assert np.asarray(after["head"][name]).tobytes() == np.asarray(value).tobytes()
    sizes = [leaf.size for leaf in jax.tree.leaves(state)]
    free = sum(leaf.size for leaf in jax.tree.leaves(params["encoder"]))
    assert sum(size for size in sizes if size > 1) == 3 * free  # two moments and a mean of gradients


def test_each_part_has_its_optimizer_and_the_longest_path_counts():
    gradients = draw_gradients(2)
    parts = {"encoder": optax.sgd(0.5), "encoder/norm/scale": optax.sgd(0.25)}
    params, _ = step_by_hand(optimizers.compose(optax.sgd(0.1), parts=parts), make_params(), gradients)
    expected = to_numpy(make_params())
    for gradient in map(to_numpy, gradients):
        for path, g in gradient.items():
            rate = 0.25 if path == "encoder/norm/scale" else 0.5 if path.startswith("encoder/") else 0.1
            expected[path] -= rate * g
    assert_close(params, expected)


def test_parts_clip_and_frozen_together():
    """The norm is that of all parts that train."""
    (gradient,) = draw_gradients(1)
    optimizer = optimizers.compose(
        optax.sgd(0.1), clip=optax.clip_by_global_norm(1.0), parts={"head": optax.sgd(1.0)}, frozen="encoder/norm"
    )
    params, _ = step_by_hand(optimizer, make_params(), [gradient])
    expected, known = to_numpy(make_params()), to_numpy(gradient)
    free = {path: g for path, g in known.items() if "norm" not in path}
    norm = np.sqrt(sum(np.sum(g**2) for g in free.values()))
    for path, g in free.items():
        expected[path] -= (1.0 if path.startswith("head") else 0.1) * g / norm
    assert_close(params, expected)


def test_accumulation_equals_one_step_on_the_large_batch():
    """With Adam, a clipped norm and a schedule, whose lengths are steps."""

    def grad(start, end):
        return differentiate(make_params(), X[start:end], Y[start:end])[1]

    small, large = [grad(0, 4), grad(4, 8)] * 2, [grad(0, 8)] * 2
    clip = optax.clip_by_global_norm(0.5)
    rate = optax.linear_schedule(0.1, 0.0, 4)
    accumulated = optimizers.compose(optax.adam(rate), clip=clip, accumulate=2)
    whole = optimizers.compose(optax.adam(lambda count: rate(2 * count)), clip=clip)
    params, _ = step_by_hand(accumulated, make_params(), small)
    expected, _ = step_by_hand(whole, make_params(), large)
    assert_close(params, to_numpy(expected))


def test_an_optimizer_that_needs_the_loss_sees_its_average():
    both = [differentiate(make_params(), X[start:end], Y[start:end]) for start, end in ((0, 4), (4, 8), (0, 8))]
    finals = []
    for accumulate, steps in ((2, both[:2]), (1, both[2:])):
        optimizer, params = optimizers.compose(optax.polyak_sgd(1.0), accumulate=accumulate), make_params()
        state, update = optimizer.init(params), jax.jit(optimizer.update)
        for value, gradient in steps:
            updates, state = update(gradient, state, params, value=value)
            params = optax.apply_updates(params, updates)
        finals.append(params)
    assert_close(finals[0], to_numpy(finals[1]))


def test_nothing_changes_before_the_last_of_the_accumulated_steps():
    optimizer = optimizers.compose(optax.adamw(0.1), accumulate=3)
    params, _ = step_by_hand(optimizer, make_params(), draw_gradients(2))
    assert_close(params, to_numpy(make_params()))


def test_the_norm_of_each_part_is_clipped_by_itself():
    (gradient,) = draw_gradients(1)
    clipped, _ = optimizers.clip_by_part_norm(2.0).update(gradient, optax.EmptyState())
    for part in ("encoder", "head"):
        norm = optax.tree.norm(gradient[part])
        assert norm > 2
        expected = to_numpy(jax.tree.map(lambda g, n=norm: g * (2 / n), gradient[part]))
        assert_close(clipped[part], expected)
    deep, _ = optimizers.clip_by_part_norm(2.0, depth=2).update(gradient, optax.EmptyState())
    norm = optax.tree.norm(gradient["encoder"]["dense"])
    assert_close(
        deep["encoder"]["dense"], to_numpy(jax.tree.map(lambda g: g * (2 / norm), gradient["encoder"]["dense"]))
    )


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "clip").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_clipping_that_ships_takes_tracers(path):
    description = OmegaConf.to_container(OmegaConf.load(path))
    if path.stem == "none":
        assert description == {"clip": None}
        return
    floats, join = split(description)

    def run(floats):
        return train(
            optimizers.compose(optax.adam(0.01), clip=build(join(floats)), frozen=["head/bias"]), make_params()
        )[1]

    assert jax.eval_shape(jax.vmap(run), [jnp.stack([f, f]) for f in floats]).shape == (2, 5)
    plain, _ = jax.jit(build(description).update)(make_params(), optax.EmptyState(), make_params(1))
    assert float(optax.tree.norm(plain)) < float(optax.tree.norm(make_params()))


def test_decay_leaves_out_biases_and_norms():
    params = make_params() | {
        "attention": {"bias": jnp.ones((2, 3)), "kernel": jnp.ones((2, 3, 4)), "gate": jnp.ones(3)}
    }
    decayed = {path for path, chosen in to_numpy(optimizers.decay_mask()(params)).items() if chosen}
    assert decayed == {"encoder/dense/kernel", "head/kernel", "attention/kernel"}
    gradient = jax.tree.map(jnp.zeros_like, params)
    optimizer = optimizers.compose(build(read(ROOT / "conf/optimizer/adamw.yaml", lr=0.1)))
    after, _ = step_by_hand(optimizer, params, [gradient])
    expected = {
        path: value * (1 - 0.1 * 1e-4) if path in decayed else value for path, value in to_numpy(params).items()
    }
    assert_close(after, expected)


def test_schedule_free_parameters_are_evaluated_at_their_average():
    optimizer = optimizers.compose(optax.contrib.schedule_free_sgd(0.1), frozen=["head/bias"])
    params, state = step_by_hand(optimizer, make_params(), draw_gradients(3))
    y = z = x = to_numpy(make_params())
    for t, gradient in enumerate(map(to_numpy, draw_gradients(3))):
        z = {path: z[path] - (0 if path == "head/bias" else 0.1 * gradient[path]) for path in z}
        x = {path: (1 - 1 / (t + 1)) * x[path] + z[path] / (t + 1) for path in x}
        y = {path: 0.9 * x[path] + 0.1 * z[path] for path in x}
    assert_close(params, y)
    assert_close(optimizers.find_evaluated(state, params), x)
    plain = optimizers.compose(optax.adam(0.1))
    assert optimizers.find_evaluated(plain.init(params), params) is params


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frozen": ["enc"]}, "frozen: no parameter belongs to 'enc'; there are: encoder/dense/bias, "),
        ({"parts": {"tail": optax.sgd(0.1)}}, "parts: no parameter belongs to 'tail'; there are: encoder/dense/bias, "),
        ({"frozen": ["encoder", "head"]}, "frozen: nothing is left to train"),
    ],
)
def test_what_does_not_fit_the_parameters_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        optimizers.compose(optax.sgd(0.1), **options).init(make_params())


@pytest.mark.parametrize("options", [{"frozen": ["head"]}, {"parts": {"head": optax.sgd(0.1)}}, {"accumulate": 2}])
def test_a_line_search_fits_nothing_that_cuts_the_model(options):
    optimizer = optimizers.compose(build(read(ROOT / "conf/optimizer/lbfgs_zoom.yaml")), **options)
    with pytest.raises(ValueError, match="a line search evaluates the whole model: it fits neither"):
        optimizer.init(make_params())


def test_an_accumulation_of_no_steps_is_refused():
    with pytest.raises(ValueError, match="accumulate must be at least 1, got 0"):
        optimizers.compose(optax.sgd(0.1), accumulate=0)


def test_every_optimizer_of_optax_ships_or_the_page_says_why_not():
    made = (optax.GradientTransformation, optax.GradientTransformationExtraArgs)
    known = {
        name
        for module, within in ((optax, "optax._src.alias"), (optax.contrib, "optax.contrib"))
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__.startswith(within)
        and inspect.signature(function).return_annotation in made
        and not name.startswith("scale_by_")
    }
    ships = {path.stem for path in SHIPPED}
    assert known - ships == set(PAGE["LEFT_OUT"])
    assert ships - known == {"lbfgs_zoom", "dog", "dowg"}  # the latter two have no annotation

"""NNX in Linen and Linen in NNX: the bits of the steps by hand, and nothing missing or left over in silence."""

import functools
import json
import re
from functools import partial
from itertools import pairwise

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.core import freeze
from flax.errors import ModifyScopeVariableError
from flax.nnx import bridge as upstream

from tasks import bridge
from tasks.porting.bridges import ToLinen, linen_variables, to_linen, to_nnx
from tasks.porting.variables import VariableMismatchError, same_bits

pytestmark = [pytest.mark.usefixtures("standard_promotion"), pytest.mark.slow]

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(1).normal(size=(5, 4)), "float32")
KEYS = {"params": KEY, "dropout": jax.random.key(7)}


def draw_inputs(make, *inputs):
    """Random variables in the shapes of what `make` returns: no bias is zero, and no scale one."""
    source = np.random.default_rng(9)
    return jax.tree.map(
        lambda leaf: jnp.asarray(source.uniform(0.5, 1.5, leaf.shape), leaf.dtype), jax.eval_shape(make, *inputs)
    )


def outputs_and_gradients(call, *inputs):
    out, pull = jax.vjp(call, *inputs)
    return out, *pull(out)


class Temperature(nnx.Variable):
    pass


class Mlp(nnx.Module):
    """Several types of variables, a list of layers, an array that is no variable, and keys for dropout."""

    def __init__(self, sizes, options=None, *, rngs):
        self.layers = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in pairwise(sizes)])
        self.norm = nnx.BatchNorm(sizes[-1], **(options or {}), rngs=rngs)
        self.temperature = Temperature(jnp.float32(1))
        self.shift = jnp.arange(sizes[-1], dtype=jnp.float32)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        x = self.first(x)
        for layer in self.layers[1:]:
            x = layer(jnp.tanh(x))
        return self.dropout(self.norm(x)) * self.temperature[...] + self.shift

    def first(self, x):
        return self.layers[0](x)


@functools.cache
def wrapped():
    module = to_linen(Mlp, [4, 6, 3])
    return module, draw_inputs(module.init, KEYS, X)


def by_hand(variables, dropout=None):
    """The module itself with those variables, and with the keys that Linen would give it."""

    class Keys(nn.Module):
        @nn.compact
        def __call__(self):
            return self.make_rng("dropout")

    key = Keys().apply({}, rngs={"dropout": dropout if dropout is not None else KEY})
    module = Mlp((4, 6, 3), rngs=nnx.Rngs(params=0, dropout=key))
    for i, layer in enumerate(module.layers):
        layer.kernel.set_value(variables["params"]["layers"][i]["kernel"])
        layer.bias.set_value(variables["params"]["layers"][i]["bias"])
    module.norm.scale.set_value(variables["params"]["norm"]["scale"])
    module.norm.bias.set_value(variables["params"]["norm"]["bias"])
    module.norm.mean.set_value(variables["batch_stats"]["norm"]["mean"])
    module.norm.var.set_value(variables["batch_stats"]["norm"]["var"])
    module.temperature.set_value(variables["Temperature"]["temperature"])
    return module


def test_variables_are_in_a_collection_for_each_type():
    shapes = jax.tree.map(jnp.shape, wrapped()[1])
    norm = {"scale": (3,), "bias": (3,)}
    layers = {0: {"kernel": (4, 6), "bias": (6,)}, 1: {"kernel": (6, 3), "bias": (3,)}}
    assert shapes == {
        "params": {"layers": layers, "norm": norm},
        "batch_stats": {"norm": {"mean": (3,), "var": (3,)}},
        "Temperature": {"temperature": ()},
    }


def test_a_module_of_nnx_in_linen_has_its_bits_statistics_and_masks():
    module, variables = wrapped()
    key = jax.random.key(3)
    out, updates = module.apply(variables, X, rngs={"dropout": key}, mutable=["batch_stats"])
    native = by_hand(variables, key)
    assert same_bits(out, native(X))
    assert ((out - native.shift) == 0).any()
    stats = {"mean": native.norm.mean[...], "var": native.norm.var[...]}
    assert same_bits(updates, {"batch_stats": {"norm": stats}})
    assert not same_bits(stats["mean"], variables["batch_stats"]["norm"]["mean"])
    assert not same_bits(out, module.apply(variables, X, rngs={"dropout": jax.random.key(4)}))


def test_gradients_are_those_of_the_module_itself():
    module, variables = wrapped()
    rngs = {"dropout": jax.random.key(3)}
    graph, params, rest = nnx.split(by_hand(variables, rngs["dropout"]), nnx.Param, ...)
    theirs = outputs_and_gradients(
        lambda p, x: module.apply({**variables, "params": p}, x, rngs=rngs), variables["params"], X
    )
    own = outputs_and_gradients(lambda p, x: nnx.merge(graph, p, rest, copy=True)(x), params, X)
    assert same_bits(theirs, (own[0], nnx.to_pure_dict(own[1]), own[2]))


def test_it_runs_jitted_and_vectorized_and_frozen():
    module, variables = wrapped()
    rngs = {"dropout": jax.random.key(3)}
    apply = partial(module.apply, rngs=rngs)
    eager = apply(variables, X)
    assert np.allclose(jax.jit(apply)(variables, X), eager, rtol=1e-5, atol=1e-5)
    assert same_bits(apply(freeze(variables), X), eager)
    many = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), variables)
    twice = jax.jit(jax.vmap(apply, in_axes=(0, None)))(many, X)
    assert np.allclose(twice[0], eager, rtol=1e-5, atol=1e-5)
    wrong = {**many, "Temperature": {"temperature": jnp.ones((2, 3))}}
    with pytest.raises(
        VariableMismatchError, match=r"Temperature/temperature has shape \(3,\), temperature needs \(\)"
    ):
        jax.vmap(apply, in_axes=(0, None))(wrong, X)


def test_another_method_is_called_by_its_name():
    module, variables = wrapped()
    expected = by_hand(variables).first(X)
    assert same_bits(module.apply(variables, X, nnx_method="first"), expected)
    assert same_bits(module.apply(variables, X, method=lambda m, x: m.first(x)), expected)


def test_lists_and_dicts_among_the_arguments_can_be_hashed():
    module, again = (to_linen(Mlp, [4, (6, [3])], options={"axis": [-1], "more": {"a": {1, 2}}}) for _ in range(2))
    assert module.args == ((4, (6, (3,))),)
    assert module.kwargs == {"options": {"axis": (-1,), "more": {"a": frozenset((1, 2))}}}
    assert hash(module) == hash(again)
    assert hash(module) != hash(to_linen(Mlp, [4, 6]))
    with pytest.raises(TypeError, match="Failed to hash"):
        hash(upstream.to_linen(Mlp, [4, 6, 3]))


def test_options_reach_the_constructor():
    module = to_linen(Mlp, [4, 3], options={"momentum": 0.5})
    variables = draw_inputs(module.init, KEYS, X)
    updates = module.apply(variables, X, rngs=KEYS, mutable=["batch_stats"])[1]
    expected = 0.5 * variables["batch_stats"]["norm"]["mean"] + 0.5 * module.apply(
        variables, X, nnx_method="first"
    ).mean(0)
    assert np.allclose(updates["batch_stats"]["norm"]["mean"], expected, rtol=1e-5)


def test_a_module_without_keys_and_with_an_array_that_is_no_variable():
    class Scaled(nnx.Module):
        def __init__(self, size):
            self.scale, self.shift = nnx.Param(jnp.full((size,), 3.0)), jnp.arange(size, dtype=jnp.float32)

        def __call__(self, x):
            return x * self.scale[...] + self.shift

    module = to_linen(Scaled, 4, skip_rng=True)
    variables = module.init({}, X)
    assert set(variables) == {"params"}
    assert set(upstream.to_linen(Scaled, 4, skip_rng=True).init({}, X)) == {"params", "ArrayImpl"}
    assert same_bits(module.apply(variables, X), X * 3 + jnp.arange(4.0))


def changed(**parts):
    variables = jax.tree.map(lambda a: a, wrapped()[1])
    for path, array in parts.items():
        *outer, last = (int(name) if name.isdigit() else name for name in path.split("/"))
        tree = variables
        for name in outer:
            tree = tree[name]
        if array is None:
            del tree[last]
        else:
            tree[last] = array
    return variables


MISFITS = [
    ({"params/layers/1/bias": None}, ["missing params/layers/1/bias, of shape (3,) for layers/1/bias"]),
    ({"batch_stats": None}, ["missing batch_stats/norm/mean, of shape (3,)", "missing batch_stats/norm/var"]),
    (
        {"params/layers/0/kernel": jnp.ones((6, 4))},
        ["params/layers/0/kernel has shape (6, 4), layers/0/kernel needs (4, 6)"],
    ),
    ({"params/norm/bias": jnp.ones(3, jnp.bfloat16)}, ["params/norm/bias is bfloat16, norm/bias is float32"]),
    (
        {"params/gate": jnp.ones((2, 2)), "cache": {"a": X}},
        ["unexpected params/gate, of shape (2, 2)", "unexpected cache/a"],
    ),
    ({"Temperature/temperature": jnp.ones(1)}, ["Temperature/temperature has shape (1,), temperature needs ()"]),
    (
        {"params/layers/0/bias": jnp.ones(1), "params/norm/scale": None, "params/b": jnp.ones(())},
        ["3 variables do not fit", "0/bias has shape (1,)", "missing params/norm/scale", "unexpected params/b"],
    ),
]


@pytest.mark.parametrize(("parts", "lines"), MISFITS, ids=lambda value: "-".join(value)[:40])
@pytest.mark.parametrize("where", ["to_linen", "to_nnx"])
def test_each_misfit_is_told(where, parts, lines):
    variables, module = changed(**parts), wrapped()[0]
    call = partial(module.apply, rngs=KEYS) if where == "to_linen" else partial(to_nnx, module, rngs=nnx.Rngs(**KEYS))
    with pytest.raises(VariableMismatchError) as caught:
        call(variables, X)
    for line in lines:
        assert line in str(caught.value)


def test_numbers_that_a_checkpoint_made_texts_are_told_from_numbers():
    variables = changed()
    variables["params"]["layers"] = {str(i): layer for i, layer in variables["params"]["layers"].items()}
    with pytest.raises(
        VariableMismatchError, match=r"missing params/layers/0/bias[^']*unexpected params/layers/'0'/bias"
    ):
        wrapped()[0].apply(variables, X)


class Nested(nn.Module):
    make: type = ToLinen

    @nn.compact
    def __call__(self, x):
        x = self.make(nnx.Linear, args=(4, 4), name="inner")(nn.Dense(4)(x))
        return nn.Dense(2)(x)


@pytest.mark.parametrize("lift", [lambda c: c, nn.jit, nn.remat])
def test_it_nests_in_a_linen_module_with_the_weights_that_upstream_draws(lift):
    model = Nested(lift(ToLinen))
    assert same_bits(model.init(KEY, X), Nested(lift(upstream.ToLinen)).init(KEY, X))
    variables = draw_inputs(model.init, KEY, X)
    params = variables["params"]
    x = X
    for name in ("Dense_0", "inner", "Dense_1"):
        x = x @ params[name]["kernel"] + params[name]["bias"]
    out, seen = model.apply(variables, X, capture_intermediates=True, mutable=["intermediates"])
    assert np.allclose(out, x, rtol=1e-5)
    assert len(seen["intermediates"]["inner"]["__call__"]) == 1
    with pytest.raises(VariableMismatchError, match="missing params/bias"):
        model.apply({"params": {**params, "inner": {"kernel": params["inner"]["kernel"]}}}, X)


def test_boxes_are_seen_through():
    module = to_linen(nnx.Linear, 4, 3, kernel_metadata={"note": "mine"})
    variables = draw_inputs(module.init, KEY, X)
    assert isinstance(variables["params"]["kernel"], upstream.NNXMeta)
    plain = nn.meta.unbox(variables)
    assert same_bits(module.apply(variables, X), module.apply(plain, X))
    named = {"params": {**plain["params"], "bias": nn.Partitioned(plain["params"]["bias"], ("out",))}}
    assert same_bits(module.apply(named, X), module.apply(plain, X))
    with pytest.raises(VariableMismatchError, match=r"params/kernel has shape \(2, 3\), kernel needs \(4, 3\)"):
        module.apply({"params": {**variables["params"], "kernel": nn.Partitioned(X[:2, :3], (None, "out"))}}, X)


def test_a_constructor_may_make_linen_modules():
    class Inner(nnx.Module):
        def __init__(self, rngs):
            self.dense = to_nnx(nn.Dense(3), None, X, key=rngs.params())

        def __call__(self, x):
            return self.dense(x)

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(to_linen(Inner)(x))

    variables = draw_inputs(Outer().init, KEY, X)
    assert jax.tree.map(jnp.shape, variables["params"]["ToLinen_0"]) == {"dense": {"kernel": (4, 3), "bias": (3,)}}
    x = nn.Dense(3).apply({"params": variables["params"]["ToLinen_0"]["dense"]}, X)
    assert same_bits(Outer().apply(variables, X), nn.Dense(2).apply({"params": variables["params"]["Dense_0"]}, x))


class Net(nn.Module):
    """A Linen model with statistics and dropout."""

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(6)(x))
        return nn.Dense(2)(nn.Dropout(0.5, deterministic=not train)(x))


def test_a_linen_module_in_nnx_holds_the_variables_that_it_is_given():
    variables = draw_inputs(partial(Net().init, train=False), KEY, X)
    for given in (variables, freeze(variables), jax.device_get(variables)):
        module = to_nnx(Net(), given, X)
        assert same_bits(linen_variables(module), variables)
        assert same_bits(module(X, train=False), Net().apply(variables, X, train=False))
    params = nnx.state(module, nnx.Param)
    assert same_bits(nnx.to_pure_dict(params), variables["params"])


@pytest.mark.parametrize("key", [jax.random.PRNGKey(5), KEYS], ids=["one", "by name"])
def test_a_linen_module_in_nnx_draws_the_variables_of_init(key):
    assert same_bits(linen_variables(to_nnx(Net(), None, X, key=key)), Net().init(key, X))


def test_training_updates_statistics_and_draws_the_masks_of_linen():
    variables = draw_inputs(partial(Net().init, train=False), KEY, X)
    module = to_nnx(Net(), variables, X, rngs=nnx.Rngs(dropout=KEYS["dropout"]))
    stream = nnx.Rngs(dropout=KEYS["dropout"]).fork()
    for _ in range(2):
        out, updates = Net().apply(variables, X, rngs={"dropout": stream.dropout()}, mutable=["batch_stats"])
        variables = {**variables, **updates}
        assert same_bits(module(X), out)
        assert same_bits(linen_variables(module), variables)
    explicit = Net().apply(variables, X, rngs={"dropout": nnx.Rngs(dropout=3).dropout()}, mutable=["batch_stats"])[0]
    assert same_bits(module(X, rngs=nnx.Rngs(dropout=3)), explicit)


def test_mutable_is_everything_but_params_unless_a_call_says_so():
    variables = draw_inputs(partial(Net().init, train=False), KEY, X)
    module = to_nnx(Net(), variables, X, rngs=nnx.Rngs(0))
    module(X, train=False)
    assert same_bits(linen_variables(module), variables)
    with pytest.raises(ModifyScopeVariableError, match=r'Cannot update variable "mean"'):
        module(X, mutable=False)
    split = nnx.merge(*nnx.split(module))
    nnx.jit(lambda m: m(X))(split)
    assert not same_bits(linen_variables(split)["batch_stats"], variables["batch_stats"])
    assert same_bits(linen_variables(split)["params"], variables["params"])


def test_gradients_of_a_linen_module_in_nnx():
    variables = draw_inputs(partial(Net().init, train=False), KEY, X)
    graph, params, rest = nnx.split(to_nnx(Net(), variables, X), nnx.Param, ...)
    own = outputs_and_gradients(lambda p, x: nnx.merge(graph, p, rest)(x, train=False), params, X)
    theirs = outputs_and_gradients(
        lambda p, x: Net().apply({**variables, "params": p}, x, train=False), variables["params"], X
    )
    assert same_bits((own[0], nnx.to_pure_dict(own[1]), own[2]), theirs)


def test_partitioned_variables_need_no_mesh():
    dense = nn.Dense(3, kernel_init=nn.with_partitioning(nn.initializers.lecun_normal(), (None, "out")))
    variables = draw_inputs(dense.init, KEY, X)
    module = to_nnx(dense, variables, X)
    assert linen_variables(module)["params"]["kernel"].names == (None, "out")
    assert same_bits(linen_variables(module), variables)
    assert same_bits(module(X), dense.apply(variables, X))
    assert same_bits(to_nnx(dense, nn.meta.unbox(variables), X)(X), dense.apply(variables, X))


class Twice(nn.Module):
    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, ())
        return x * scale * self.variable("state", "scale", jnp.ones, ()).value


class Taken(nn.Module):
    def setup(self):
        self.train, self.module = nn.Dense(3), nn.Dense(2)

    def __call__(self, x):
        return self.module(self.train(x))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Twice(), "scale is in params and in state, NNX has one name space"),
        (Taken(), "module is an attribute that every ToNNX has\n  train is an attribute"),
    ],
)
def test_names_that_nnx_cannot_have_are_refused(module, message):
    with pytest.raises(VariableMismatchError, match=re.escape(message)):
        to_nnx(module, None, X, key=KEY)


def test_variables_or_a_key_and_not_both():
    with pytest.raises(ValueError, match="takes either variables or a key, got neither"):
        to_nnx(nn.Dense(3), None, X)
    with pytest.raises(ValueError, match="takes either variables or a key, got both"):
        to_nnx(nn.Dense(3), {}, X, key=KEY)


def test_there_and_back_again():
    module, variables = wrapped()
    key = jax.random.key(3)
    inside = to_nnx(module, variables, X, rngs=nnx.Rngs(**KEYS))
    assert same_bits(linen_variables(inside), variables)
    assert same_bits(linen_variables(by_hand(variables)), variables)
    expected = module.apply(variables, X, rngs={"dropout": nnx.Rngs(dropout=key).dropout()})
    assert same_bits(inside(X, rngs=nnx.Rngs(dropout=key)), expected)
    assert int(nnx.state(inside, nnx.BatchStat)["norm"]["mean"][...].size) == 3


def linear_itself(seed, x, features):
    return nnx.Linear(x.shape[-1], features, rngs=nnx.Rngs(seed))(x)


def dense_itself(seed, x, features):
    dense = nn.Dense(features)
    return dense.apply(dense.init(jax.random.PRNGKey(seed), x), x)


@pytest.mark.parametrize(
    ("way", "itself", "x"), [("round_trip", linear_itself, X), ("linen_inside_nnx", dense_itself, X[0])]
)
def test_the_tasks_have_the_bits_of_the_layer_itself(way, itself, x):
    assert same_bits(bridge.bridge(5, x, 6, way), itself(5, x, 6))
    assert same_bits(bridge.bridge(5.0, x, 6, way), itself(5, x, 6))


@pytest.mark.matrix
def test_the_ways_of_the_task(runner):
    assert same_bits(bridge.bridge(3, X, 6), bridge.nnx_inside_linen(3, X, 6))
    with pytest.raises(ValueError, match="one of nnx_inside_linen, linen_inside_nnx, round_trip, got 'both'"):
        bridge.bridge(3, X, 6, "both")
    called = runner(
        "-m", "task=bridge", f"way={','.join(bridge.WAYS)}", "seed=0,1", "x.values=[1.0,-2.0]", "features=3"
    )
    assert called.status == 0, called.err
    for row in called.frame.itertuples():
        expected = bridge.bridge(row.seed, jnp.array([1.0, -2.0]), 3, row.way)
        np.testing.assert_allclose(json.loads(row.y), expected, rtol=1e-5, atol=1e-6)

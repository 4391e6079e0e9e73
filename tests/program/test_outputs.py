"""What a task returns becomes named outputs, or a TypeError that says what was returned."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from runner.contract.task import Output
from runner.program.outputs import CategoryCode, list_outputs, name_outputs


def task(*outputs):
    return SimpleNamespace(outputs=outputs, metrics=())


def category(code, *categories):
    return SimpleNamespace(code=code, categories=categories)


@pytest.mark.parametrize(
    ("outputs", "returned", "shapes"),
    [
        ((), 1.5, {"output": ()}),
        (("loss",), jnp.ones((2, 3)), {"loss": (2, 3)}),
        (("a", "b"), (1.0, jnp.ones(3)), {"a": (), "b": (3,)}),
        (("a", "b"), jnp.ones((2, 4)), {"a": (4,), "b": (4,)}),
        ((), {"b": 1, "a": True}, {"b": (), "a": ()}),
        (("a", "b"), {"b": 1.0, "a": jnp.ones(2)}, {"b": (), "a": (2,)}),
    ],
)
def test_outputs_are_named(outputs, returned, shapes):
    named = name_outputs(task(*outputs), returned)
    assert {name: value.shape for name, value in named.items()} == shapes


def test_the_yaml_decides_the_order_and_a_dict_without_it():
    info = name_outputs(task("a", "b"), {"b": 1, "a": 2.0})
    described = [Output("a", (), np.dtype("float32")), Output("b", (), np.dtype("int32"))]
    assert list(list_outputs(task("a", "b"), info)) == described
    assert list(list_outputs(task(), info)) == described[::-1]


def test_a_category_keeps_its_names():
    named = name_outputs(task("verdict"), category(jnp.int8(1), "good", "bad"))
    assert isinstance(named["verdict"], CategoryCode)
    assert (named["verdict"].categories, named["verdict"].code.dtype) == (("good", "bad"), jnp.int32)
    (described,) = list_outputs(task("verdict"), named)
    assert (described.shape, described.categories) == ((), ("good", "bad"))


@pytest.mark.parametrize(
    ("outputs", "returned", "message"),
    [
        (("a", "b"), (1.0,), "returns 1 values"),
        (("a", "b"), jnp.ones(3), r"returns an array of shape \(3,\)"),
        (("a",), {"b": 1.0}, r"returns \['b'\]"),
        (("a",), "text", "returns a str as 'a'"),
        (("a",), jnp.ones(2, jnp.complex64), "returns complex64 as 'a'"),
        (("a", "b"), category(0, "x"), "returns a category"),
        (("a",), category(0), "one or more printable strings"),
        (("a",), category(0, "line\nbreak"), "one or more printable strings"),
        (("a",), category(jnp.ones(2, jnp.int32), "x"), r"int32\[2\] as the code"),
        (("a",), category(0.5, "x"), r"float32\[\] as the code"),
    ],
)
def test_what_is_no_output_is_refused(outputs, returned, message):
    with pytest.raises(TypeError, match=message):
        name_outputs(task(*outputs), returned)

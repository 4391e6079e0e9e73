"""Python values as override strings: Hydra reads each of them as the value that it was."""

import enum
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.config.keywords import format_override, is_swept
from runner.errors import InvalidInputError


def parse(name, value):
    (override,) = OverridesParser.create().parse_overrides([format_override(name, value)])
    return override


def read_back(value):
    return Override._convert_value(parse("key", value).value())


def expand(values):
    return [Override._convert_value(each) for each in parse("key", values).sweep_iterator()]


def as_plain(value):
    """What a YAML has for a member of a list: of a float32 its shortest digits."""
    if isinstance(value, tuple | list):
        return list(value)
    return float(str(value)) if isinstance(value, np.float32) else getattr(value, "tolist", lambda: value)()


class Color(enum.Enum):
    RED = "red"


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12).filter(
    lambda t: "${" not in t
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS)
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True).filter(
    lambda t: t not in ("null", "true", "false", "nan")
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3).map(tuple), st.dictionaries(NAMES, inner, max_size=3))
)


def as_yaml(value):
    if isinstance(value, tuple):
        return [as_yaml(each) for each in value]
    return {key: as_yaml(each) for key, each in value.items()} if isinstance(value, dict) else value


@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_a_value_is_read_back(value):
    assert repr(read_back(value)) == repr(as_yaml(value))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("adam", "adam"),
        ("null", '"null"'),
        ("True", '"True"'),
        ("3", '"3"'),
        ("", '""'),
        ("two words", '"two words"'),
        (Path("data/x.npy"), "data/x.npy"),
        (Color.RED, "red"),
        (np.float32(0.1), "0.1"),
        (np.int64(3), "3"),
        (np.bool_(True), "true"),
        (1e-5, "1e-05"),
        (math.inf, "inf"),
        (np.array(2.5), "2.5"),
        (jnp.float32(0.5), "0.5"),
        ((8,), "[8]"),
        ({"shape": (4, 2), "fill": "ones"}, "{shape:[4,2],fill:ones}"),
        (True, "true"),
    ],
    ids=repr,
)
def test_texts(value, text):
    assert format_override("key", value) == f"key={text}"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (range(100), "range(0,100)"),
        (range(10, 0, -3), "range(10,0,-3)"),
        (list(range(20)), "range(0,20)"),
        (np.arange(5, 25, 2), "range(5,25,2)"),
        ([*range(7), 8], "0,1,2,3,4,5,6,8"),
        ([0.1, 0.2], "0.1,0.2"),
        ([0.5], "0.5"),
        ([True, False], "true,false"),
        ([(8,), (16,)], "[8],[16]"),
        ([[8], [16]], "[8],[16]"),
        (["adam", "sgd"], "adam,sgd"),
        ([None, "a,b"], 'null,"a,b"'),
        (np.float32([0.1, 0.2]), "0.1,0.2"),
        (pd.Series([1, 2]), "1,2"),
        (jnp.arange(3), "0,1,2"),
    ],
    ids=repr,
)
def test_lists_ranges_and_arrays_are_swept(values, text):
    assert is_swept("key", values)
    assert format_override("key", values) == f"key={text}"
    if len(values) > 1:
        assert repr(expand(values)) == repr([as_plain(each) for each in values])


def test_a_setting_has_one_value_for_the_whole_study():
    assert format_override("tags", ["a", "b"]) == "tags=[a,b]"
    assert format_override("hydra.sweeper.zip", ["lr", "hidden"]) == "hydra.sweeper.zip=[lr,hidden]"
    assert not is_swept("devices", [0, 1])


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ([], "key has no values, got []"),
        (object, "key takes numbers, texts, None, and tuples or mappings of them, got type"),
        ([1, {2}], "key takes numbers, texts, None, and tuples or mappings of them, got set {2}"),
        ({1: 2}, "key: the keys of a mapping must be names, got 1"),
        ({"a b": 2}, "key: the keys of a mapping must be names, got 'a b'"),
    ],
    ids=repr,
)
def test_what_a_yaml_cannot_have_is_refused(value, rule):
    with pytest.raises(InvalidInputError) as refused:
        format_override("key", value)
    assert rule in str(refused.value)

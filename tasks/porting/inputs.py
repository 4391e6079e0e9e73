"""Inputs and keyword arguments of a call as texts: shapes with dtypes, keys, pytrees of them, and flags."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import yaml

FORM = "a shape, 8,28,28; one of integers below a number, 8,16:11; of a dtype, 8,16:uint8:256; key; or YAML of these"


@dataclass(frozen=True)
class Spec:
    """An array of a shape and dtype, of integers from 0 to below a number; `dtype` is None for a key."""

    shape: tuple[int, ...]
    dtype: Any
    below: int = 2

    @property
    def abstract(self) -> jax.ShapeDtypeStruct:
        return jax.eval_shape(lambda: self.draw(jax.random.key(0)))

    def draw(self, key: jax.Array) -> jax.Array:
        """A random array: floats are normal, integers and booleans uniform."""
        if self.dtype is None:
            return jax.random.split(key, self.shape) if self.shape else key
        if jnp.issubdtype(self.dtype, jnp.floating):
            return jax.random.normal(key, self.shape, self.dtype)
        return jax.random.randint(key, self.shape, 0, self.below).astype(self.dtype)


@dataclass(frozen=True)
class Inputs:
    """The array arguments of a call as pytrees of `Spec`: positional ones, and keywords."""

    positional: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.positional or self.named)

    @property
    def abstract(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and the named arguments as `jax.ShapeDtypeStruct`."""
        return jax.tree.map(lambda spec: spec.abstract, (self.positional, dict(self.named)))

    def draw(self, seed: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Random positional and named arguments."""
        tree = (self.positional, dict(self.named))
        keys = iter(jax.random.split(jax.random.key(seed), max(1, len(jax.tree.leaves(tree)))))
        return jax.tree.map(lambda spec: spec.draw(next(keys)), tree)


def parse_inputs(texts: Sequence[str]) -> Inputs:
    """Parses the values of `--input`, `NAME=` before one makes it a keyword. Raises ValueError for other forms."""
    positional, named = [], {}
    for text in texts:
        name, equals, rest = text.partition("=")
        if equals and name.isidentifier():
            named[name] = _parse_tree(rest)
        else:
            positional.append(_parse_tree(text))
    return Inputs(tuple(positional), named)


def _parse_tree(text: str) -> Any:
    if not text.lstrip().startswith(("[", "{")):
        return _parse_spec(text)
    try:
        return _convert(yaml.safe_load(text))
    except yaml.YAMLError:
        raise _make_error(text) from None


def _convert(value: Any) -> Any:
    """A YAML tree with specifications for its texts; lists become tuples."""
    if isinstance(value, dict):
        return {name: _convert(child) for name, child in value.items()}
    if isinstance(value, list):
        return tuple(_convert(child) for child in value)
    return _parse_spec(str(value))


def _parse_spec(text: str) -> Spec:
    shape, *more = (part.strip() for part in text.split(":"))
    if shape == "key" or more == ["key"]:
        return Spec(() if shape == "key" else _parse_shape(text, shape), None)
    below = int(more.pop()) if more and more[-1].isdecimal() else None
    if len(more) > 1 or (below is not None and below < 1):
        raise _make_error(text)
    dtype = _parse_dtype(text, more[0]) if more else jnp.dtype("int32" if below else "float32")
    if below is not None and jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"--input: only integers are below a number, got {text!r}")
    return Spec(_parse_shape(text, shape), dtype, below or 2)


def _parse_shape(text: str, shape: str) -> tuple[int, ...]:
    sizes = [size.strip() for size in shape.split(",") if size.strip()]
    if not all(size.isdecimal() for size in sizes):
        raise _make_error(text)
    return tuple(map(int, sizes))


def _parse_dtype(text: str, name: str) -> Any:
    try:
        dtype = jnp.dtype(name)
    except TypeError:
        raise _make_error(text) from None
    if dtype.kind not in "biuf" and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"--input takes integers, booleans and floats, got {text!r}")
    return jax.dtypes.canonicalize_dtype(np.dtype(dtype))


def _make_error(text: str) -> ValueError:
    return ValueError(f"--input takes {FORM}; got {text!r}")


def parse_call(text: str) -> dict[str, Any]:
    """Parses keyword arguments: a YAML mapping, `{train: true}`, or `train=true,size=3`. Raises ValueError."""
    try:
        values = yaml.safe_load(text)
        if isinstance(values, dict):
            return values
        pairs = [pair.partition("=") for pair in text.split(",")]
        if all(equals and name.strip().isidentifier() for name, equals, _ in pairs):
            return {name.strip(): yaml.safe_load(value) for name, _, value in pairs}
    except yaml.YAMLError as error:
        raise ValueError(f"--call is not YAML: {str(error).splitlines()[0]}") from error
    raise ValueError(f"--call takes keyword arguments, 'train=true' or '{{train: true}}', got {text!r}")

"""Tasks with a closed form, as a user would write them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

CALLS: list[int] = []
"""The seeds that a task's callback received."""
TRACES: list[str] = []
"""A mark for each time that a task's Python code ran: once for each program, if all is well."""


def line(seed: int, x: jax.Array, slope: float, shift: int = 0) -> jax.Array:
    """`[slope * sum(x) + shift, seed]`."""
    TRACES.append("line")
    return jnp.stack([slope * x.sum() + shift, seed.astype(jnp.float32)])


def divide(seed: int, slope: float) -> dict[str, jax.Array]:
    """Not finite where the slope is zero; a dict of a scalar, an integer and a matrix."""
    quotient = 1.0 / slope
    return {"quotient": quotient, "half": (seed // 2).astype(jnp.int32), "matrix": jnp.full((2, 2), quotient)}


def only_even(seed: int, size: int) -> jax.Array:
    """Cannot be built for odd sizes."""
    if size % 2:
        raise ValueError(f"size must be even, got {size}")
    return jnp.arange(size, dtype=jnp.float32).sum() + seed.astype(jnp.float32)


def untyped(seed, x, rate, count):
    """No annotations: the values of the YAML tell what is what."""
    return rate * x.sum() * count


def apply(seed: int, x: jax.Array, act: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """A static value that a `_target_` builds."""
    return act(x).sum()


def constant(size: int) -> jax.Array:
    """Nothing traced at all."""
    return jnp.ones(size)


def words(seed: int, mode: str = "sum", sizes: tuple[int, ...] = (1,)) -> jax.Array:
    return jnp.float32(len(mode) + sum(sizes)) + seed.astype(jnp.float32)


def weigh(seed: int, place: str) -> jax.Array:
    """The bytes of a file, or of the files in a folder."""
    files = [path for path in (Path(place), *Path(place).rglob("*")) if path.is_file()]
    return jnp.float32(sum(path.stat().st_size for path in files)) + 0 * seed.astype(jnp.float32)


def loops(seed: int, start: float) -> jax.Array:
    """Counts down to zero; from a negative start it would never end."""
    return jax.lax.while_loop(lambda value: value != 0.0, lambda value: value - 1.0, start)


def text(seed: int) -> str:
    return "no array"


def refuses(seed: int, mode: str) -> jax.Array:
    """Fails with its mode as the message, but for the mode `ok`."""
    if mode != "ok":
        raise ValueError(mode)
    return seed.astype(jnp.float32)


def pair(seed: int) -> tuple[jax.Array, jax.Array]:
    value = seed.astype(jnp.float32)
    return value, -value


def noisy(seed: int, level: float, steps: int = 5) -> dict[str, jax.Array]:
    """A score around a level, and a curve that falls towards it; not finite where the level is negative."""
    noise = jax.random.normal(jax.random.key(seed))
    score = jnp.where(level < 0, jnp.nan, level + noise)
    return {"score": score, "curve": score + 1.0 / (1.0 + jnp.arange(steps, dtype=jnp.float32))}


def noisier(seed: int, level: float) -> dict[str, jax.Array]:
    """The same score on another data set."""
    return {"score": level + 2.0 * jax.random.normal(jax.random.key(seed + 1000))}


@partial(jax.tree_util.register_dataclass, data_fields=["code"], meta_fields=["categories"])
@dataclass(frozen=True)
class Category:
    """What stands for `categories[code]`."""

    code: jax.Array
    categories: tuple[str, ...]


def grade(seed: int, slope: float, modulus: int, shift: int = 0, among: tuple[str, ...] = ()) -> dict:
    """`among[seed % modulus + shift]`, and `slope * seed`."""
    TRACES.append("grade")
    code = (seed % jnp.uint32(modulus)).astype(jnp.int32) + shift
    return {"verdict": Category(code, among), "score": slope * seed.astype(jnp.float32)}


def only_categories(seed: int, kind: str = "even") -> Category | jax.Array:
    """One word alone, or what is none."""
    code = seed % jnp.uint32(2)
    if kind == "number":
        return code
    wrong = {"several": jnp.stack([code, code]), "float": jnp.float32(0), "text": "even"}
    words = {"no": (), "list": ["even", "odd"], "mixed": ("even", 1), "lines": ("even", "o\ndd")}
    return Category(wrong.get(kind, code), words.get(kind, ("even", "odd")))


def whether(seed: int, slope: float, mode: str = "jit") -> dict[str, jax.Array]:
    """Whether the call is traced, and `slope * seed`."""
    return {"traced": jnp.asarray(isinstance(slope, jax.core.Tracer)), "value": slope * seed.astype(jnp.float32)}


BROKEN: set[int] = set()
"""Seeds for which the surroundings of `fragile` do not work at the moment."""


def when_called(seed: int) -> None:
    """What a test does in the middle of a run of `fragile`."""


def fragile(seed: int, slope: float, size: int = 1) -> jax.Array:
    """`slope * seed`, by a call to the host, which raises for the seeds in `BROKEN`."""

    def host(seed: np.ndarray) -> np.ndarray:
        when_called(int(seed))
        if int(seed) in BROKEN:
            raise ValueError(f"seed {seed} is broken\nsaid on two lines")
        return np.float32(seed)

    value = jax.pure_callback(host, jax.ShapeDtypeStruct((), jnp.float32), seed, vmap_method="sequential")
    return slope * value * size


def calls(seed: int, by: str = "debug") -> jax.Array:
    """The seed, which Python is told in the middle of the run."""

    def hear(value: np.ndarray) -> np.ndarray:
        CALLS.append(int(value))
        return np.float32(value)

    result = jax.ShapeDtypeStruct((), jnp.float32)
    if by in ("pure", "io"):
        return {"pure": jax.pure_callback, "io": io_callback}[by](hear, result, seed)
    if by == "print":
        jax.debug.print("seed {}", seed)
    else:
        jax.debug.callback(hear, seed)
    return seed.astype(jnp.float32)


def typed(seed: int, dtype: str = "float32", shape: tuple[int, ...] = (2,)) -> dict[str, jax.Array]:
    """`1.5 - seed`, which is a whole number for integers, as a scalar and as an array."""
    value = jnp.asarray(1.5 - seed.astype(jnp.float32)).astype(dtype)
    return {"scalar": value, "array": jnp.full(shape, value)}


def recurrent(seed: int, x: jax.Array) -> jax.Array:
    """A network of LSTM cells, which hangs in XLA's pool of several threads with jaxlib 0.10."""
    from flax import linen

    model = linen.RNN(linen.LSTMCell(32))
    return model.apply(model.init(jax.random.key(seed), x), x).mean()


def reduce(x: jax.Array, side: int = 300) -> dict[str, jax.Array]:
    """Reductions that XLA's pool divides, and a decomposition for which SciPy's BLAS has threads of its own."""
    tall = jnp.resize(jnp.sin(1.7 * x), (60_000, 4))
    square = jnp.resize(jnp.sin(2.3 * x), (side, side))
    factor = jnp.linalg.cholesky(square @ square.T + side * jnp.eye(side))
    return {"product": (tall.T @ tall).reshape(-1), "sum": tall.sum(), "factor": factor.sum(axis=0)}


class Walk(NamedTuple):
    """A loop that a task returns: `while_loop(proceeds, advance, state)`, and the outputs of the last state."""

    state: Any
    proceeds: Callable[[Any], jax.Array]
    advance: Callable[[Any], Any]
    finish: Callable[[Any], dict[str, Any]]
    variables: Callable[[Any], Any] | None = None
    write: Callable[[Any, Any], None] | None = None


def walk(seed: int, rate: float, steps: int, burden: int = 0, fails: bool = False) -> Walk:
    """Adds `rate * i` for the first `steps + seed % 5` numbers i, where no sum of them is rounded.

    `burden` is the side of a matrix that each step multiplies, so that it takes time.
    """
    TRACES.append("walk")
    wanted = steps + (seed % 5).astype(jnp.int32)
    side = max(1, burden)

    def advance(state):
        i, total, matrix = state
        matrix = jnp.tanh(matrix @ matrix) + 0.01
        return i + 1, total + rate * i.astype(jnp.float32), matrix

    def finish(state):
        i, total, _ = state
        return {"total": jnp.log(-total) if fails else total, "taken": i}

    start = jnp.int32(0), jnp.float32(0), jnp.full((side, side), 0.1)
    return Walk(start, lambda state: state[0] < wanted, advance, finish)


def keep(seed: int, rate: float, steps: int, way: str = "up") -> Walk:
    """The sum and the count of `walk` as variables, and outputs of every kind, one of them minus zero or not a number.

    The loss is smallest at rate 2; from 8 on it is not finite.
    """
    loop = walk(seed, rate, steps)
    sign = {"up": 1.0, "down": -1.0}[way]

    def finish(state):
        i, total, _ = state
        loss = jnp.where(rate >= 8, jnp.nan, jnp.abs(rate - 2)) + 0.0 * total
        curve = jnp.where(jnp.arange(3) < i - 4, -0.0 * total, jnp.nan)
        word = Category((seed % 2).astype(jnp.int32), ("even", "odd"))
        return {"loss": loss, "gain": sign * total, "curve": curve, "word": word, "taken": i, "flag": i > 5}

    def write(variables, folder):
        np.savez(folder / "variables.npz", total=variables["total"], steps=variables["steps"])

    select = lambda state: {"total": state[1], "steps": state[0], "wide": jnp.full((2, 3), state[1])}  # noqa: E731
    return loop._replace(finish=finish, variables=select, write=write)


class Rule(NamedTuple):
    """What a `_target_` builds within a program."""

    factor: Any
    power: int
    schedule: Any


def scale(factor: float = 1.0, power: int = 1, schedule: Any = None) -> Rule:
    return Rule(factor, power, schedule)


def ramp(start: float, length: int) -> dict[str, Any]:
    return {"start": start, "length": length}


class Sample(NamedTuple):
    """A tree of arrays."""

    x: np.ndarray
    y: np.ndarray


def draw(seed: int = 0, size: int = 3, word: str = "") -> Sample:
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    return Sample(
        np.arange(size, dtype=np.float32) + seed, np.array([seed], np.int32) if not word else np.array([word])
    )


def fit(seed: int, data: Sample, rule: Rule, count: int, limit: int | None = None) -> dict[str, jax.Array]:
    """`(factor ** power + start) * (sum(x) + y)`, and what has reached the program of the other values."""
    TRACES.append("fit")
    start = rule.schedule["start"] if rule.schedule else jnp.float32(0)
    length = rule.schedule["length"] if rule.schedule else 0
    value = (rule.factor**rule.power + start) * (data.x.sum() + data.y[0].astype(jnp.float32))
    outputs = {"value": value, "counted": jnp.asarray(count, jnp.int32), "length": jnp.asarray(length, jnp.int32)}
    return outputs if limit is None else outputs | {"limited": jnp.asarray(limit, jnp.int32)}


def check_fit(values: dict[str, Any]) -> None:
    """Sees the values of all runs: static ones, and traced numbers as arrays."""
    if values["count"].min() < 0:
        raise ValueError(f"count must not be negative, got {values['count'].min()}")

"""Learning rates over steps, with optax's names and values, whose heights, rates and lengths may all be tracers.

A schedule is a function from the number of the step (from 0) to a float32 scalar, as in `optax.schedules`. Optax's
own compare some of their arguments in Python and refuse tracers there. Here every number may be a Python number or a
tracer, lengths may be integers or floats, and only flags are static.

`warmup_steps` is a number of steps; if it is None, the warm-up takes `warmup_fraction` of `decay_steps`, so that
budgets of different length have warm-ups in proportion. The first step of a warm-up has the rate `init_value`.
"""

from collections.abc import Callable, Sequence
from typing import TypeGuard

import jax
import jax.numpy as jnp

Number = float | jax.Array
Schedule = Callable[[Number], jax.Array]


def constant(value: Number) -> Schedule:
    """The same rate at each step."""
    return lambda count: jnp.asarray(value, jnp.float32)


def polynomial(
    init_value: Number,
    end_value: Number = 0.0,
    power: Number = 1.0,
    transition_steps: Number = 1,
    transition_begin: Number = 0,
) -> Schedule:
    """From `init_value` to `end_value` as `(1 - t / transition_steps) ** power`; `optax.polynomial_schedule`."""
    _check_length("transition_steps", transition_steps)

    def rate(count: Number) -> jax.Array:
        remaining = 1 - _progress(count, transition_begin, transition_steps)
        return _between(end_value, init_value, jnp.power(remaining, _float(power)))

    return rate


def linear(
    init_value: Number, end_value: Number = 0.0, transition_steps: Number = 1, transition_begin: Number = 0
) -> Schedule:
    """A straight line from `init_value` to `end_value`; `optax.linear_schedule`."""
    _check_length("transition_steps", transition_steps)
    return lambda count: _between(end_value, init_value, 1 - _progress(count, transition_begin, transition_steps))


def cosine(init_value: Number, decay_steps: Number, alpha: Number = 0.0, exponent: Number = 1.0) -> Schedule:
    """Half a cosine from `init_value` to `alpha * init_value`; `optax.cosine_decay_schedule`."""
    _check_length("decay_steps", decay_steps)

    def rate(count: Number) -> jax.Array:
        shape = _cosine_shape(_progress(count, 0, decay_steps), exponent)
        return _float(init_value) * _between(alpha, 1.0, shape)

    return rate


def exponential(
    init_value: Number,
    transition_steps: Number,
    decay_rate: Number,
    transition_begin: Number = 0,
    staircase: bool = False,
    end_value: Number | None = None,
) -> Schedule:
    """`init_value * decay_rate ** (t / transition_steps)`; `optax.exponential_decay`.

    `end_value` is a lower bound for a `decay_rate` below one, and otherwise an upper bound.
    """
    _check_length("transition_steps", transition_steps)

    def rate(count: Number) -> jax.Array:
        passed = jnp.maximum(_float(count) - _float(transition_begin), 0) / _float(transition_steps)
        power = jnp.floor(passed) if staircase else passed
        value = _float(init_value) * jnp.power(_float(decay_rate), power)
        return value if end_value is None else _bound(value, _float(end_value), _float(decay_rate))

    return rate


def step(
    init_value: Number,
    boundaries: Sequence[Number],
    scales: Sequence[Number],
    decay_steps: Number | None = None,
) -> Schedule:
    """`init_value` times each scale whose boundary has been reached; `optax.piecewise_constant_schedule`.

    Boundaries are numbers of steps, or fractions of `decay_steps` where that is given. Raises ValueError for a
    number of boundaries that is not that of the scales.
    """
    if len(boundaries) != len(scales):
        raise ValueError(f"boundaries and scales must be as many, got {len(boundaries)} and {len(scales)}")

    def rate(count: Number) -> jax.Array:
        value = _float(init_value)
        for boundary, scale in zip(boundaries, scales, strict=True):
            start = _float(boundary) if decay_steps is None else _fraction(boundary, decay_steps)
            value = jnp.where(_float(count) < start, value, value * _float(scale))
        return value

    return rate


def warmup_constant(
    init_value: Number,
    peak_value: Number,
    warmup_steps: Number | None = None,
    decay_steps: Number | None = None,
    warmup_fraction: Number = 0.0,
) -> Schedule:
    """A line up to `peak_value`, which stays; `optax.warmup_constant_schedule`."""
    length = _warmup_length(warmup_steps, warmup_fraction, decay_steps)
    return _warm_up(init_value, peak_value, length, lambda since: _float(peak_value))


def warmup_cosine(
    init_value: Number,
    peak_value: Number,
    warmup_steps: Number | None,
    decay_steps: Number,
    end_value: Number = 0.0,
    exponent: Number = 1.0,
    warmup_fraction: Number = 0.0,
) -> Schedule:
    """A line up to `peak_value`, then half a cosine to `end_value`; `optax.warmup_cosine_decay_schedule`.

    `decay_steps` is the length of both together.
    """
    length = _warmup_length(warmup_steps, warmup_fraction, decay_steps)
    rest = _float(decay_steps) - length

    def decay(since: jax.Array) -> jax.Array:
        return _between(end_value, peak_value, _cosine_shape(_progress(since, 0, rest), exponent))

    return _warm_up(init_value, peak_value, length, decay)


def warmup_linear(
    init_value: Number,
    peak_value: Number,
    warmup_steps: Number | None,
    decay_steps: Number,
    end_value: Number = 0.0,
    warmup_fraction: Number = 0.0,
) -> Schedule:
    """A line up to `peak_value`, then a line down to `end_value`; `decay_steps` is the length of both together."""
    length = _warmup_length(warmup_steps, warmup_fraction, decay_steps)
    rest = _float(decay_steps) - length
    return _warm_up(
        init_value, peak_value, length, lambda since: _between(end_value, peak_value, 1 - _progress(since, 0, rest))
    )


def inverse_sqrt(
    init_value: Number,
    peak_value: Number,
    warmup_steps: Number | None = None,
    decay_steps: Number | None = None,
    warmup_fraction: Number = 0.0,
) -> Schedule:
    """A line up to `peak_value`, then `peak_value * sqrt(warmup_steps / t)` (Vaswani et al., 2017, section 5.3).

    Without a warm-up, `peak_value / sqrt(t)` from the step 1 on.
    """
    length = _warmup_length(warmup_steps, warmup_fraction, decay_steps)
    start = jnp.maximum(length, 1)

    def decay(since: jax.Array) -> jax.Array:
        return _float(peak_value) * jnp.sqrt(start / jnp.maximum(since + length, start))

    return _warm_up(init_value, peak_value, length, decay)


def one_cycle(
    transition_steps: Number,
    peak_value: Number,
    pct_start: Number = 0.3,
    div_factor: Number = 25.0,
    final_div_factor: Number = 1e4,
) -> Schedule:
    """Half a cosine from `peak_value / div_factor` up, then one down; `optax.cosine_onecycle_schedule`.

    It ends at `peak_value / (div_factor * final_div_factor)` (Smith and Topin, 2017).
    """
    _check_length("transition_steps", transition_steps)
    peak = _float(peak_value)
    first = peak / _float(div_factor)
    last = first / _float(final_div_factor)
    middle, end = _fraction(pct_start, transition_steps), _float(transition_steps)

    def rate(count: Number) -> jax.Array:
        up = _between(peak, first, _cosine_shape(_progress(count, 0, middle), 1.0))
        down = _between(last, peak, _cosine_shape(_progress(count, middle, end - middle), 1.0))
        return jnp.where(_float(count) < middle, up, down)

    return rate


def linear_one_cycle(
    transition_steps: Number,
    peak_value: Number,
    pct_start: Number = 0.3,
    pct_final: Number = 0.85,
    div_factor: Number = 25.0,
    final_div_factor: Number = 1e4,
) -> Schedule:
    """Lines from `peak_value / div_factor` up, back, and down to the `final_div_factor`-th part of it.

    `optax.linear_onecycle_schedule`.
    """
    _check_length("transition_steps", transition_steps)
    peak = _float(peak_value)
    first = peak / _float(div_factor)
    last = first / _float(final_div_factor)
    middle, back = _fraction(pct_start, transition_steps), _fraction(pct_final, transition_steps)
    end = _float(transition_steps)

    def rate(count: Number) -> jax.Array:
        up = _between(first, peak, _progress(count, 0, middle))
        down = _between(peak, first, _progress(count, middle, back - middle))
        out = _between(first, last, _progress(count, back, end - back))
        return jnp.where(_float(count) < middle, up, jnp.where(_float(count) < back, down, out))

    return rate


def _warm_up(init: Number, peak: Number, length: jax.Array, then: Callable[[jax.Array], jax.Array]) -> Schedule:
    """A line from `init` to `peak` over `length` steps, and then a function of the steps since."""

    def rate(count: Number) -> jax.Array:
        line = _between(peak, init, 1 - _progress(count, 0, length))
        return jnp.where(_float(count) < length, line, then(_float(count) - length))

    return rate


def _warmup_length(steps: Number | None, fraction: Number, whole: Number | None) -> jax.Array:
    if steps is None and whole is None:
        raise ValueError("a warm-up needs warmup_steps, or warmup_fraction and decay_steps; got neither")
    if whole is not None:
        _check_length("decay_steps", whole)
    if steps is None:
        return _fraction(fraction, whole)
    if _is_plain(steps) and steps < 0:
        raise ValueError(f"warmup_steps must not be negative, got {steps}")
    if whole is not None and _is_plain(steps) and _is_plain(whole) and steps > whole:
        raise ValueError(f"warmup_steps must be at most decay_steps, got {steps} and {whole}")
    return _float(steps)


def _fraction(fraction: Number, whole: Number | None) -> jax.Array:
    """A fraction of a number of steps, in whole steps."""
    # 0.7 in float32 is a little below 0.7, of which 1000 steps have 700 all the same
    return jnp.floor(_float(fraction) * _float(whole) * _float(1 + 2**-22))


def _progress(count: Number, begin: Number, length: Number) -> jax.Array:
    """How much of `length` steps has passed since `begin`, from 0 to 1."""
    steps = jnp.maximum(_float(length), 1)  # a phase of no steps is never asked for, but must not give NaN
    return jnp.clip(_float(count) - _float(begin), 0, steps) / steps


def _cosine_shape(progress: jax.Array, exponent: Number) -> jax.Array:
    """From 1 to 0."""
    half = 0.5 * (1 + jnp.cos(jnp.float32(jnp.pi) * progress))
    return jnp.power(half, _float(exponent))


def _between(low: Number, high: Number, shape: jax.Array) -> jax.Array:
    """`low` where the shape is 0, `high` where it is 1."""
    return (_float(high) - _float(low)) * shape + _float(low)


def _bound(value: jax.Array, bound: jax.Array, rate: jax.Array) -> jax.Array:
    return jnp.where(rate < 1, jnp.maximum(value, bound), jnp.minimum(value, bound))


def _check_length(name: str, value: Number) -> None:
    if _is_plain(value) and value <= 0:
        raise ValueError(f"{name} must be positive, got {value}")


def _is_plain(value: Number) -> TypeGuard[float]:
    return isinstance(value, int | float)


def _float(value: Number | None) -> jax.Array:
    return jnp.asarray(value, jnp.float32)

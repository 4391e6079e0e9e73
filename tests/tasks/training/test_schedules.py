"""Schedules are optax's where everything is plain, and the same where everything is traced."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tasks.training import schedules

pytestmark = pytest.mark.usefixtures("standard_promotion")

LR, STEPS = 0.3, 40
COUNTS = np.arange(50, dtype=np.int32)

CASES = {
    "constant": (schedules.constant, {"value": LR}, lambda: optax.constant_schedule(LR)),
    "linear": (
        schedules.linear,
        {"init_value": LR, "end_value": 0.01, "transition_steps": STEPS, "transition_begin": 5},
        lambda: optax.linear_schedule(LR, 0.01, STEPS, 5),
    ),
    "polynomial": (
        schedules.polynomial,
        {"init_value": LR, "end_value": 0.01, "power": 2.5, "transition_steps": STEPS, "transition_begin": 3},
        lambda: optax.polynomial_schedule(LR, 0.01, 2.5, STEPS, 3),
    ),
    "cosine": (
        schedules.cosine,
        {"init_value": LR, "decay_steps": STEPS, "alpha": 0.1, "exponent": 1.5},
        lambda: optax.cosine_decay_schedule(LR, STEPS, 0.1, 1.5),
    ),
    "exponential": (
        schedules.exponential,
        {"init_value": LR, "transition_steps": 7, "decay_rate": 0.5, "transition_begin": 3},
        lambda: optax.exponential_decay(LR, 7, 0.5, 3),
    ),
    "exponential, in stairs to a bound": (
        partial(schedules.exponential, staircase=True),
        {"init_value": LR, "transition_steps": 7, "decay_rate": 0.5, "end_value": 0.05},
        lambda: optax.exponential_decay(LR, 7, 0.5, 0, True, 0.05),
    ),
    "exponential, growing to a bound": (
        schedules.exponential,
        {"init_value": LR, "transition_steps": 7, "decay_rate": 1.5, "end_value": 2.0},
        lambda: optax.exponential_decay(LR, 7, 1.5, end_value=2.0),
    ),
    "step": (
        schedules.step,
        {"init_value": LR, "boundaries": [10, 20], "scales": [0.1, 0.5]},
        lambda: optax.piecewise_constant_schedule(LR, {10: 0.1, 20: 0.5}),
    ),
    "step, in parts of the whole": (
        schedules.step,
        {"init_value": LR, "boundaries": [0.25, 0.7], "scales": [0.1, 0.5], "decay_steps": STEPS},
        lambda: optax.piecewise_constant_schedule(LR, {10: 0.1, 28: 0.5}),
    ),
    "warmup_constant": (
        schedules.warmup_constant,
        {"init_value": 0.01, "peak_value": LR, "warmup_steps": 10},
        lambda: optax.warmup_constant_schedule(0.01, LR, 10),
    ),
    "warmup_cosine": (
        schedules.warmup_cosine,
        {"init_value": 0.01, "peak_value": LR, "warmup_steps": 10, "decay_steps": STEPS, "end_value": 0.02},
        lambda: optax.warmup_cosine_decay_schedule(0.01, LR, 10, STEPS, 0.02),
    ),
    "warmup_cosine, in parts of the whole": (
        partial(schedules.warmup_cosine, warmup_steps=None),
        {"init_value": 0.0, "peak_value": LR, "warmup_fraction": 0.1, "decay_steps": STEPS, "exponent": 2.0},
        lambda: optax.warmup_cosine_decay_schedule(0.0, LR, 4, STEPS, 0.0, 2.0),
    ),
    "warmup_cosine without a warm-up": (
        schedules.warmup_cosine,
        {"init_value": 0.0, "peak_value": LR, "warmup_steps": 0, "decay_steps": STEPS},
        lambda: optax.cosine_decay_schedule(LR, STEPS),
    ),
    "warmup_linear": (
        schedules.warmup_linear,
        {"init_value": 0.01, "peak_value": LR, "warmup_steps": 10, "decay_steps": STEPS, "end_value": 0.02},
        lambda: optax.join_schedules(
            [optax.linear_schedule(0.01, LR, 10), optax.linear_schedule(LR, 0.02, STEPS - 10)], [10]
        ),
    ),
    "inverse_sqrt": (
        schedules.inverse_sqrt,
        {"init_value": 0.01, "peak_value": LR, "warmup_steps": 10},
        lambda: lambda t: 0.01 + (LR - 0.01) * t / 10 if t < 10 else LR * (10 / t) ** 0.5,
    ),
    "inverse_sqrt without a warm-up": (
        schedules.inverse_sqrt,
        {"init_value": 0.0, "peak_value": LR, "warmup_steps": 0},
        lambda: lambda t: LR / max(t, 1) ** 0.5,
    ),
    "one_cycle": (
        schedules.one_cycle,
        {"transition_steps": STEPS, "peak_value": LR, "pct_start": 0.3, "div_factor": 20.0, "final_div_factor": 100.0},
        lambda: optax.cosine_onecycle_schedule(STEPS, LR, 0.3, 20.0, 100.0),
    ),
    "linear_one_cycle": (
        schedules.linear_one_cycle,
        {"transition_steps": STEPS, "peak_value": LR, "pct_start": 0.3, "pct_final": 0.8, "div_factor": 20.0},
        lambda: optax.linear_onecycle_schedule(STEPS, LR, 0.3, 0.8, 20.0),
    ),
}
cases = pytest.mark.parametrize(("make", "values", "expected"), CASES.values(), ids=list(CASES))


@cases
def test_plain_values_give_optax(make, values, expected):
    schedule, reference = make(**values), expected()
    ours = jax.vmap(schedule)(COUNTS)
    theirs = np.array([reference(t) for t in COUNTS], np.float32)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


@cases
def test_all_values_may_be_tracers_in_lanes(make, values, expected):
    """Under strict promotion, as a task with dtypes of its own would have it."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        lanes = jax.tree.map(lambda v: jnp.stack([jnp.asarray(v, _dtype(v))] * 2), values)
        rates = jax.jit(jax.vmap(lambda v: jax.lax.map(make(**v), jnp.asarray(COUNTS, jnp.int32))))(lanes)
    plain = jax.vmap(make(**values))(COUNTS)
    assert rates.dtype == jnp.float32
    np.testing.assert_allclose(rates, np.tile(plain, (2, 1)), rtol=1e-5, atol=1e-7)


def _dtype(value):
    return jnp.int32 if isinstance(value, int) else jnp.float32


@pytest.mark.parametrize("steps", [7, 10, 300, 1000, 12345, 100_000])
def test_a_part_of_the_steps_is_whole_steps_as_in_decimal_numbers(steps):
    """0.29 of 100 steps are 29, though 0.29 in floats is a little below."""
    hundredths = np.arange(1, 100)
    expected = jnp.asarray(hundredths * steps // 100, jnp.int32)
    rate = jax.vmap(lambda part, count: schedules.step(1.0, [part], [0.0], jnp.int32(steps))(count))
    parts = jnp.asarray(hundredths / 100, jnp.float32)
    assert (rate(parts, expected) == 0).all()
    assert (rate(parts, jnp.maximum(expected, 1) - 1) == (expected > 0)).all()


@pytest.mark.parametrize("name", [name for name in CASES if "warmup" in name or "cycle" in name])
def test_a_height_of_zero_is_no_division_by_it(name):
    make, values, _ = CASES[name]
    rates = [make(**{**values, "peak_value": jnp.float32(0)})(t) for t in (0, 5, 45)]
    assert np.isfinite(rates).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schedules.cosine(0.1, 0), "decay_steps must be positive, got 0"),
        (lambda: schedules.linear(0.1, transition_steps=-1), "transition_steps must be positive, got -1"),
        (lambda: schedules.step(0.1, [1], [0.1, 0.1]), "boundaries and scales must be as many, got 1 and 2"),
        (
            lambda: schedules.warmup_constant(0.0, 0.1),
            "a warm-up needs warmup_steps, or warmup_fraction and decay_steps",
        ),
        (lambda: schedules.warmup_cosine(0.0, 0.1, 9, 8), "warmup_steps must be at most decay_steps, got 9 and 8"),
        (lambda: schedules.warmup_cosine(0.0, 0.1, -1, 8), "warmup_steps must not be negative, got -1"),
    ],
)
def test_lengths_that_make_no_sense_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

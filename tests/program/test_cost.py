"""The rule that chooses lanes and capacity, on jaxprs whose sizes are counted by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import io_callback

from runner.program.cost import (
    ACCELERATOR_BYTES,
    ACCELERATOR_LANES,
    CAPACITY_BYTES,
    CAPACITY_WORK,
    LANES_BYTES,
    LANES_WORK,
    MAX_CAPACITY,
    MAX_LANES,
    choose_capacity,
    choose_lanes,
    count_live_bytes,
    count_work,
    find_longest_axis,
    find_loop_work,
    has_callback,
)


def trace(function, *shapes):
    return jax.make_jaxpr(function)(*(jnp.zeros(shape, jnp.float32) for shape in shapes)).jaxpr


@pytest.mark.parametrize(
    ("live_bytes", "lanes"),
    [
        (0, MAX_LANES),
        (LANES_BYTES // MAX_LANES, MAX_LANES),
        (LANES_BYTES // MAX_LANES + 1, MAX_LANES // 2),
        (LANES_BYTES // 3, 2),
        (LANES_BYTES, 1),
        (10 * LANES_BYTES, 1),
    ],
)
def test_lanes_are_a_power_of_two_that_keeps_live_bytes_in_the_cache(live_bytes, lanes):
    assert choose_lanes(live_bytes) == lanes


@pytest.mark.parametrize(
    ("loop_work", "lanes"), [(0, MAX_LANES), (LANES_WORK // 16, 16), (LANES_WORK // 16 + 1, 8), (2 * LANES_WORK, 1)]
)
def test_lanes_of_a_loop_make_its_equations_large(loop_work, lanes):
    assert choose_lanes(10 * LANES_BYTES, loop_work=loop_work) == lanes


def scan(length):
    return lambda x, w: jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=length)[0]


@pytest.mark.parametrize(
    ("function", "work"),
    [
        (scan(100), (4 * 8 * 8 + 4 * 8) // 2),
        (scan(3), None),
        (lambda x, w: scan(100)(x[:1, :1], w[:1, :1]).sum() * (x @ w @ w @ w @ w @ w), None),
        (lambda x, w: x @ w, None),
    ],
)
def test_work_within_loops_is_that_of_an_equation_if_they_have_most_of_it(function, work):
    assert find_loop_work(trace(function, (4, 8), (8, 8))) == work


def test_iterations_that_no_jaxpr_tells_are_assumed_to_be_many():
    def loop(x, w):
        return jax.lax.while_loop(lambda x: x[0, 0] < 1, lambda x: x @ w, x + (w @ w @ w)[:4])

    assert 0 < find_loop_work(trace(loop, (4, 8), (8, 8))) < 4 * 8 * 8


@pytest.mark.parametrize(
    ("live_bytes", "memory", "lanes"),
    [
        (0, 2**36, ACCELERATOR_LANES),
        (ACCELERATOR_BYTES // 100, 2**36, 64),
        (2 * ACCELERATOR_BYTES, 2**36, 1),
        (2**20, 2**26, 8),
    ],
)
def test_lanes_of_an_accelerator_keep_live_bytes_within_a_share_of_its_memory(live_bytes, memory, lanes):
    assert choose_lanes(live_bytes, memory=memory) == lanes


@pytest.mark.parametrize(
    ("output_bytes", "work", "capacity"),
    [
        (4, 1, MAX_CAPACITY),
        (CAPACITY_BYTES // 100, 1, 64),
        (4, CAPACITY_WORK // 5, 4),
        (2 * CAPACITY_BYTES, 1, 1),
        (4, 2 * CAPACITY_WORK, 1),
    ],
)
def test_capacity_follows_output_bytes_and_work(output_bytes, work, capacity):
    assert choose_capacity(output_bytes, work) == capacity


def test_live_bytes_are_the_peak_and_not_the_sum():
    def chain(x):  # at most two arrays of 1000 floats at once; the result is not counted after its last use
        for _ in range(5):
            x = x * 2.0
        return x.sum()

    assert count_live_bytes(trace(chain, (1000,))) == 2 * 4000

    def keep(x):  # the first product is used last, so that three are alive
        first = x * 2.0
        second = first * 3.0
        third = second * 4.0
        return (first + third).sum()

    assert count_live_bytes(trace(keep, (1000,))) == 3 * 4000


def test_work_counts_matrix_products_convolutions_and_loops():
    assert count_work(trace(lambda a, b: a @ b, (3, 5), (5, 7))) == 3 * 5 * 7
    assert count_work(trace(lambda x: x * 2.0, (3, 5))) == 15

    def convolve(x, kernel):  # 6 x 6 positions, 3 x 3 kernels, 2 input and 4 output channels
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert count_work(trace(convolve, (1, 8, 8, 2), (3, 3, 2, 4))) == 6 * 6 * 4 * 9 * 2

    def scan(x):
        return jax.lax.scan(lambda carry, _: (carry * 2.0, None), x, length=10)[0]

    assert count_work(trace(scan, (8,))) == 10 * 8


@pytest.mark.parametrize(
    "call",
    [
        lambda x: jax.debug.print("{}", x),
        lambda x: jax.debug.callback(print, x),
        lambda x: jax.pure_callback(lambda v: v, x, x),
        lambda x: io_callback(lambda v: v, x, x),
    ],
)
def test_callbacks_are_found_at_any_depth(call):
    assert has_callback(trace(lambda x: (call(x), x)[1], ()))
    assert has_callback(trace(lambda x: jax.lax.fori_loop(0, 3, lambda i, v: (jax.jit(call)(v), v)[1], x), ()))
    assert not has_callback(trace(lambda x: jax.lax.fori_loop(0, 3, lambda i, v: v + 1.0, x), ()))
    assert choose_lanes(4, calls_python=True) == 1


def test_the_longest_axis_is_that_of_any_array_within_a_task():
    def inner(x):
        return jax.lax.fori_loop(0, 3, lambda i, v: v + jnp.zeros((2, 7)).sum(), x)

    assert find_longest_axis(trace(inner, ())) == 7
    assert find_longest_axis(trace(lambda x: x.sum(), (3, 9))) == 9
    assert find_longest_axis(trace(lambda x: x, ())) == 0

"""The best of many: its corrected estimate and interval."""

import math

import numpy as np
import pytest

from runner.analysis.selection import correct_best, estimate_correlation, moderate_errors

LEVEL = 0.95


def correct(values, **options):
    count = values.shape[1]
    errors = values.std(axis=1, ddof=1) / math.sqrt(count)
    return correct_best(values.mean(axis=1), errors, np.full(len(values), count - 1), LEVEL, **options)


def simulate(means, seeds, studies, shared=0.0):
    """How often the interval covers, the bias of the estimate, and that of the largest mean."""
    rng, inside, bias, naive = np.random.default_rng(0), [], [], []
    for _ in range(studies):
        noise = np.sqrt(1 - shared) * rng.normal(size=(len(means), seeds)) + np.sqrt(shared) * rng.normal(size=seeds)
        values = means[:, None] + noise
        true, best = means[values.mean(axis=1).argmax()], values.mean(axis=1).max()
        estimate, low, high, method = correct(values, correlation=estimate_correlation(values))
        assert method == "winner"
        assert low <= estimate <= high
        inside.append(low <= true <= high)
        bias.append(estimate - true)
        naive.append(best - true)
    return np.mean(inside), np.mean(bias), np.mean(naive)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("means", "shared"),
    [(np.zeros(50), 0.0), (np.zeros(20), 0.5), (np.linspace(0, 2, 20), 0.0)],
)
def test_the_interval_covers_and_the_estimate_has_little_bias(means, shared):
    inside, bias, naive = simulate(means, 5, 120, shared)
    assert inside > 0.89
    assert abs(bias) < 0.2
    assert naive > 0.3


def test_a_clear_winner_is_left_as_it_is():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(20, 10))
    values[7] += 20
    estimate, low, high, _ = correct(values)
    assert estimate == pytest.approx(values[7].mean(), abs=0.05)
    half = (high - low) / 2
    assert half == pytest.approx(
        1.96 * moderate_errors(values.std(axis=1, ddof=1) / 10**0.5, np.full(20, 9)).errors[7], rel=0.2
    )


def test_the_correction_moves_and_scales_with_the_values():
    values = np.random.default_rng(2).normal(size=(8, 6))
    plain, moved = correct(values), correct(3 * values + 100)
    np.testing.assert_allclose(np.array(moved[:3]), 3 * np.array(plain[:3]) + 100, rtol=1e-4)


def test_points_without_a_spread_or_an_error():
    nothing = correct_best(np.array([1.0, 2.0]), np.array([math.nan, math.nan]), np.array([0, 0]), LEVEL)
    assert nothing[0] == 2.0
    assert math.isnan(nothing[1])
    assert correct_best(np.array([1.0, 2.0]), np.zeros(2), np.array([2, 2]), LEVEL) == (2.0, 2.0, 2.0, "constant")


def test_equal_variances_are_shared_and_unequal_ones_are_not():
    rng = np.random.default_rng(3)
    equal = moderate_errors(rng.normal(size=(40, 5)).std(axis=1, ddof=1) / 5**0.5, np.full(40, 4))
    assert equal.degrees.min() > 20
    assert equal.errors.std() < 0.1
    spreads = np.geomspace(0.01, 100, 40)
    unequal = moderate_errors(spreads * rng.normal(size=(40, 5)).std(axis=1, ddof=1) / 5**0.5, np.full(40, 4))
    assert unequal.degrees.max() < 6


def test_the_correlation_of_points_is_that_of_their_common_part():
    rng = np.random.default_rng(4)
    common = rng.normal(size=400)
    values = np.sqrt(0.7) * common + np.sqrt(0.3) * rng.normal(size=(10, 400)) + np.arange(10)[:, None]
    assert estimate_correlation(values) == pytest.approx(0.7, abs=0.06)
    assert estimate_correlation(rng.normal(size=(1, 5))) == 0.0


def test_values_far_from_normal_have_no_corrected_estimate():
    """Losses of 32 rates on five seeds, one of which is a hundred times as hard: the best one cannot be corrected."""
    difficulty, rates = np.array([0.1, 0.2, 0.1, 0.3, 30.0]), np.geomspace(0.01, 1, 32)
    values = -np.outer(0.05 + (np.log(rates) - np.log(0.2)) ** 2, difficulty)
    estimate, low, high, method = correct(values, correlation=estimate_correlation(values))
    best = values[values.mean(axis=1).argmax()]
    error = best.std(ddof=1) / 5**0.5
    assert (math.isnan(estimate) and math.isnan(low) and method == "") or high > best.mean() - 5 * error

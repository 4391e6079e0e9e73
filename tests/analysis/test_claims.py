"""Intervals, tests and families on arrays: exact values by scipy, agreement of interval and p-value, simulations."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from runner.analysis import intervals, statistics
from runner.analysis.claims import Against, compare_samples
from runner.analysis.contrasts import (
    bound_contrasts,
    compute_p_values,
    contrast_samples,
    fisher_bounds,
    fisher_p,
    mcnemar_bounds,
    mcnemar_p,
)
from runner.analysis.metrics import Metric
from runner.analysis.replicates import Failures, make_sample
from runner.analysis.shapes import describe_shapes

LOSS = Metric("loss", "minimize")


def compare(arms, metric=LOSS, **options):
    """The claims of one metric, from an array of each arm."""
    samples = {metric.name: [make_sample(np.asarray(arm, dtype=float)) for arm in arms]}
    return compare_samples(samples, {metric.name: metric}, **options)


def contrast(a, b, *, is_binary=False):
    return contrast_samples(make_sample(a), make_sample(b), is_binary=is_binary, resolution=2.0**-23)


def test_means_have_students_interval_and_shares_the_exact_one():
    values = np.random.default_rng(0).normal(size=7)
    found = intervals.mean_bounds(
        np.array([values.mean(), 1.0]), np.array([values.std(ddof=1), 0.0]), np.array([7, 3]), 0.05
    )
    expected = stats.t.interval(0.95, 6, values.mean(), stats.sem(values))
    assert [found[0][0], found[1][0]] == pytest.approx(expected)
    assert np.isnan(found[0][1])  # no interval without a variance
    low, high = intervals.share_bounds(np.array([0, 7, 10]), np.array([3, 10, 10]), 0.1)
    for place, (hits, count) in enumerate(((0, 3), (7, 10), (10, 10))):
        exact = stats.binomtest(hits, count).proportion_ci(0.9, method="exact")
        assert (low[place], high[place]) == pytest.approx((exact.low, exact.high))
    ordered = np.sort(np.random.default_rng(1).normal(size=20))
    assert intervals.median_bounds(ordered, 0.05) == (ordered[5], ordered[14])
    assert math.isnan(intervals.median_bounds(ordered[:5], 0.05)[0])


def test_tolerance_and_exceedance():
    """Howe's factor is within half a percent of the tabulated exact one, 2.839 for ten values, 90 % and 95 %."""
    assert intervals.tolerance_factor(np.array([10]), 0.9, 0.95)[0] == pytest.approx(2.839, rel=0.005)
    assert intervals.exceedance_bound(59, 0.95) == pytest.approx(0.05, abs=5e-4)


def test_pairs_are_tested_by_t_and_the_interval_agrees():
    rng = np.random.default_rng(2)
    a, b = rng.normal(0.6, size=9), rng.normal(size=9)
    found = [contrast(a, b)]
    p = compute_p_values(found, np.zeros(1)).p
    test = stats.ttest_rel(a, b)
    assert p[0] == pytest.approx(test.pvalue)
    low, high = bound_contrasts(found, p, 0.1)
    assert (low[0], high[0]) == pytest.approx(tuple(test.confidence_interval(0.9)))
    # two one-sided tests: the larger p-value of both
    beyond = compute_p_values(found, np.array([5.0])).p_beyond
    sides = [stats.ttest_1samp(a - b, side, alternative=way).pvalue for side, way in ((5, "less"), (-5, "greater"))]
    assert beyond[0] == pytest.approx(max(sides))


def test_samples_that_share_some_seeds_use_all_values():
    """The statistic and degrees of freedom of Derrick et al. (2017), written out."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=12), rng.normal(1, 2, size=10)
    a, b = make_sample(x), make_sample(y, np.arange(5, 15))
    found = contrast_samples(a, b, is_binary=False, resolution=0.0)
    r = np.corrcoef(x[5:], y[:7])[0, 1]
    s, t = x.std(ddof=1), y.std(ddof=1)
    assert found.kind.value == "partly paired"
    assert found.error == pytest.approx(math.sqrt(s**2 / 12 + t**2 / 10 - 2 * r * s * t * 7 / 120))
    welch = (s**2 / 12 + t**2 / 10) ** 2 / ((s**2 / 12) ** 2 / 11 + (t**2 / 10) ** 2 / 9)
    assert found.degrees == pytest.approx(6 + (welch - 6) / 22 * 8)
    four = contrast_samples(a, make_sample(y, np.arange(8, 18)), is_binary=False, resolution=0.0)
    assert four.error == pytest.approx(
        math.sqrt(s**2 / 12 + t**2 / 10 - 2 * min(0, np.corrcoef(x[8:], y[:4])[0, 1]) * s * t * 4 / 120)
    )
    assert four.degrees == pytest.approx(welch)
    one = contrast_samples(a, make_sample(y, np.arange(11, 21)), is_binary=False, resolution=0.0)
    p = compute_p_values([one], np.zeros(1)).p[0]
    assert (one.kind.value, one.method.value) == ("partly paired", "Welch")
    assert p == pytest.approx(stats.ttest_ind(x, y, equal_var=False).pvalue)


def test_paired_shares_have_mcnemars_test_with_an_interval_that_agrees_and_covers():
    """Over all tables of so many pairs: exact agreement, and exact coverage by the multinomial distribution."""
    for pairs in (3, 10, 20):
        more, less = (np.array(side) for side in zip(*_tables(pairs), strict=True))
        low, high = mcnemar_bounds(more, less, np.full(len(more), pairs), 0.05)
        p = mcnemar_p(more, less)
        assert (((low > 0) | (high < 0)) == (p < 0.05)).all()
        for first, second in ((0.25, 0.25), (0.4, 0.1), (0.02, 0.02), (0.6, 0.05)):
            law = stats.multinomial(pairs, [first, second, 1 - first - second])
            chance = law.pmf(np.stack([more, less, pairs - more - less], axis=1))
            inside = (low <= first - second + 1e-12) & (first - second - 1e-12 <= high)
            assert chance[inside].sum() >= 0.95
    assert mcnemar_p(np.array([1]), np.array([8]))[0] == pytest.approx(stats.binomtest(1, 9).pvalue)


def _tables(pairs):
    return [(more, less) for more in range(pairs + 1) for less in range(pairs + 1 - more)]


@pytest.mark.slow
def test_independent_shares_have_fishers_test_with_an_interval_that_agrees_and_covers():
    for count, other in ((4, 4), (8, 5)):
        tables = list(itertools.product(range(count + 1), range(other + 1)))
        found = {table: fisher_bounds(table[0], count, table[1], other, 0.05) for table in tables}
        for (hits, others), (low, high) in found.items():
            assert (low > 0 or high < 0) == (fisher_p(hits, count, others, other) < 0.05)
        for p, q in ((0.5, 0.5), (0.9, 0.5), (0.95, 0.05), (0.99, 0.9)):
            inside = [table for table, (low, high) in found.items() if low <= p - q <= high]
            law, other_law = stats.binom(count, p), stats.binom(other, q)
            assert sum(law.pmf(hits) * other_law.pmf(others) for hits, others in inside) >= 0.95
    assert fisher_p(0, 6, 6, 6) == pytest.approx(2 / math.comb(12, 6))


def test_differences_without_a_variance_are_no_proof():
    three = compare([[0.5, 0.5, 0.5], [1.5, 1.5, 1.5]]).differences[0]
    assert (three["conclusion"], three["p"]) == ("no variance", 0.25)
    assert math.isnan(three["low"])
    coins = compare([[0, 0, 0], [1, 1, 1]]).differences[0]
    assert (coins["interval"], coins["p"], coins["conclusion"]) == ("McNemar", 0.25, "not shown")
    assert coins["low"] < 0 < coins["high"]
    eight = compare([np.full(8, 0.5), np.full(8, 1.5)]).differences[0]
    assert (eight["conclusion"], eight["low"], eight["p"]) == ("worse", 1.0, 2 / 2**8)
    constant = compare([np.full(5, 0.2), np.full(5, 0.2)])
    assert constant.differences[0]["verdict"] == "the same at all seeds"
    assert [(row["std"], row["interval"]) for row in constant.points] == [(0.0, "constant")] * 2


def test_differences_by_rounding_are_none_and_a_margin_shows_equality():
    rng = np.random.default_rng(4)
    base = rng.normal(1, 0.1, size=30)
    nearly = compare([base, base + 2e-6 + 1e-6 * rng.normal(size=30)]).differences[0]
    assert nearly["p_adjusted"] < 0.05
    assert nearly["conclusion"] == "same"
    other = base + 0.01 * rng.normal(size=30)
    assert compare([base, other]).differences[0]["conclusion"] == "not shown"
    huge = compare([base, other, np.full(30, 1e30) * rng.uniform(1, 2, 30)]).differences
    assert [row["margin"] < 1e-5 for row in huge] == [True, False]  # a point of another size changes no other margin
    wide = Metric("loss", "minimize", margin=0.05)
    row = compare([base, other], wide).differences[0]
    assert (row["conclusion"], row["verdict"]) == ("same", "the same within 0.05")
    assert row["p_same"] < 0.05


def test_the_best_is_compared_with_all_others_and_the_family_is_all_pairs():
    rng = np.random.default_rng(5)
    arms = [rng.normal(shift, 0.1, size=8) for shift in (2.0, 1.0, 3.0)]
    found = compare(arms)
    assert found.best == {"loss": {0: 1}}
    assert [(row["point"], row["partner"], row["conclusion"]) for row in found.differences] == [
        (0, 1, "worse"),
        (2, 1, "worse"),
    ]
    for row in found.differences:
        assert row["p_adjusted"] == pytest.approx(min(1, 3 * row["p"]))
    every = compare(arms, against=Against.ALL)
    assert [(row["point"], row["partner"]) for row in every.differences] == [(1, 0), (2, 0), (2, 1)]
    assert every.families[True] == found.families[True] == 3
    named = compare(arms, against=[0, 0, 0])
    assert [(row["point"], row["conclusion"]) for row in named.differences] == [(1, "better"), (2, "worse")]
    assert named.families[True] == 2
    assert compare(arms, Metric("loss")).differences[0]["partner"] == 0  # no direction, no best


def test_the_family_is_all_metrics_or_the_primary_ones():
    rng = np.random.default_rng(6)
    samples = {name: [make_sample(rng.normal(size=5)) for _ in range(3)] for name in ("loss", "time", "size")}
    together = compare_samples(samples, {name: Metric(name, "minimize") for name in samples})
    assert together.families == {True: 9, False: 0}
    metrics = {name: Metric(name, "minimize", name == "loss") for name in samples}
    apart = compare_samples(samples, metrics)
    assert apart.families == {True: 3, False: 6}
    assert [row["exploratory"] for row in apart.differences] == [False] * 2 + [True] * 4


@pytest.mark.parametrize("against", [Against.BEST, Against.ALL])
def test_intervals_agree_with_adjusted_p_values(against):
    rng = np.random.default_rng(7)
    for draw in (rng.normal(size=(6, 5)) + np.arange(6)[:, None], rng.integers(0, 2, (6, 12)).astype(float)):
        for row in compare(draw, against=against).differences:
            excludes_zero = row["low"] > 0 or row["high"] < 0
            assert excludes_zero == (row["p_adjusted"] < 0.05)


def test_a_point_with_failures_does_not_win_in_silence():
    rng = np.random.default_rng(8)
    whole, other = rng.normal(size=(2, 60))
    survivors = np.where(other > 0, np.nan, other)
    found = compare([whole, survivors])
    assert found.best["loss"] == {0: 0}  # the survivors do not compete
    row = found.differences[0]
    assert row["conclusion"] == "fails more"
    assert row["p_failures"] < 0.05
    assert row["verdict"].startswith(f"fails more ({np.isnan(survivors).sum()} of 60 against 0 of 60)")
    few = np.where(np.arange(60) == 0, np.nan, whole - 2)
    assert compare([whole, few]).differences[0]["conclusion"] == "fails less"  # the best one has a failure
    worst = compare([whole, survivors], failures=Failures.WORST)
    assert worst.points[1]["mean"] > whole.mean()
    gone = compare([whole, np.full(60, np.nan)])
    assert [row["failed_high"] for row in gone.points][1] == 1.0
    assert math.isnan(gone.points[1]["mean"])
    row = gone.differences[0]
    assert (row["conclusion"], row["verdict"][:39]) == ("fails more", "fails more (60 of 60 against 0 of 60); ")
    assert math.isnan(row["difference"])


def test_skewed_values_are_told():
    rng = np.random.default_rng(9)
    skewed = {"loss": [make_sample(values) for values in rng.lognormal(size=(5, 20))]}
    assert "skewed" in describe_shapes(skewed, 0.95)[0]
    normal = {"loss": [make_sample(values) for values in rng.normal(size=(5, 20))]}
    assert describe_shapes(normal, 0.95) == []


def test_seeds_are_counted_as_one_by_one():
    sizes = np.array([0.5, 0.8, 1.0, -1.0, 3.0, 0.0, np.nan])
    expected = [statistics.seeds_needed(size, 0.001) for size in sizes[:5]]
    found = statistics.count_seeds(sizes, 0.001)
    assert np.abs(found[:5] - expected).max() <= 1
    assert found[5:].tolist() == [-1, -1]


@pytest.mark.slow
def test_equal_arms_are_rarely_told_apart():
    """Of 150 studies in each cell at most 5 % and what chance adds; seeds fixed."""
    rng = np.random.default_rng(10)
    for draw in (
        lambda: rng.integers(0, 2, (8, 3)).astype(float),
        lambda: rng.normal(size=(8, 3)) + rng.normal(size=3),
        lambda: rng.normal(size=(8, 10)),
    ):
        found = [compare(draw()) for _ in range(60)]
        claims = sum(any(row["p_adjusted"] < 0.05 for row in each.differences) for each in found)
        assert claims <= stats.binom.ppf(0.999, 60, 0.05)

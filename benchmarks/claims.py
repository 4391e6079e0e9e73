"""How often what a comparison says is true: coverage, false claims, power and the best of many, by simulation.

    python benchmarks/claims.py [--studies 400] [--only NAME]

Each row has what the methods of earlier versions gave (written out below), what `runner.analysis` gives on the same
simulated studies, and what is to be reached. Seeds are fixed: equal calls print equal numbers.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from runner.analysis import statistics
from runner.analysis.claims import Claims, compare_samples
from runner.analysis.looks import spend
from runner.analysis.metrics import Metric
from runner.analysis.power import plan_seeds
from runner.analysis.replicates import make_sample
from runner.analysis.selection import correct_best, estimate_correlation
from runner.analysis.shapes import describe_shapes
from runner.analysis.statistics import power

LEVEL, ALPHA = 0.95, 0.05
CLAIMS = ("better", "worse", "differs")


@dataclass(frozen=True)
class Row:
    """One line of the table: shares in percent, or biases in standard deviations; `goal` says what holds afterwards."""

    name: str
    before: float
    after: float
    goal: str
    is_reached: bool


def make_samples(values: np.ndarray) -> list:
    """The samples of points from values `(points, seeds)`; NaN are runs without a finite value."""
    return [make_sample(own) for own in values]


def compare(values: np.ndarray, direction: str = "maximize", alpha: float | None = None, **options) -> Claims:
    """The claims of a study with one metric."""
    return compare_samples(
        {"m": make_samples(values)}, {"m": Metric("m", direction)}, level=LEVEL, alpha=alpha, **options
    )


def has_claim(claims: Claims) -> bool:
    return any(row["conclusion"] in CLAIMS for row in claims.differences)


def covers(row, true: float) -> bool:
    return row["low"] <= true <= row["high"]


# the methods of earlier versions


def old_t(values: np.ndarray, alpha: float = ALPHA) -> tuple[float, float]:
    """Student's interval; of values without a spread their own value."""
    half = stats.t.isf(alpha / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean() - half, values.mean() + half


def old_mean(values: np.ndarray) -> tuple[float, float]:
    """Student's t, from 30 values on the BCa bootstrap."""
    if len(values) < 30 or values.std() == 0:
        return old_t(values)
    rng = np.random.default_rng(20220101)
    found = stats.bootstrap((values,), np.mean, n_resamples=1999, rng=rng).confidence_interval
    return found.low, found.high


def old_p(values: np.ndarray) -> np.ndarray:
    """The smaller of the p-values by t and by rank of each point against the first, each adjusted by Holm."""
    gaps = values[1:] - values[0]
    spread = gaps.std(axis=1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(gaps.mean(axis=1)) / spread * np.sqrt(gaps.shape[1])
    p = np.where(spread > 0, 2 * stats.t.sf(t, gaps.shape[1] - 1), np.where(gaps.any(axis=1), 0.0, 1.0))
    return holm(p)


def holm(p: np.ndarray) -> np.ndarray:
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


# section by section


def simulate_means(studies: int) -> Iterator[Row]:
    """Coverage of intervals of one mean."""
    kinds: dict[str, tuple[Callable, float]] = {
        "normal": (lambda rng, n: rng.normal(size=n), 0.0),
        "t with 3 degrees": (lambda rng, n: rng.standard_t(3, size=n), 0.0),
        "paired, correlation -0.5": (lambda rng, n: np.sqrt(3) * rng.normal(size=n), 0.0),
    }
    for name, (draw, true) in kinds.items():
        rng, before, after = np.random.default_rng(1), [], []
        for _ in range(studies):
            values = draw(rng, 30)
            low, high = old_mean(values)
            before.append(low <= true <= high)
            after.append(covers(compare(values[None]).points[0], true))
        yield coverage(f"{name}, 30 seeds", before, after, 0.94)


def coverage(name: str, before, after, least: float) -> Row:
    """A row of shares that should be at least `least`, but for what chance does to so many studies."""
    slack = 2 * np.sqrt(least * (1 - least) / len(after))
    reached = bool(np.mean(after) >= least - slack)
    return Row(f"covers: {name}", 100 * np.mean(before), 100 * np.mean(after), f"≥ {100 * least:g} %", reached)


def false_claims(name: str, before, after) -> Row:
    slack = 2 * np.sqrt(ALPHA * (1 - ALPHA) / len(after))
    reached = bool(np.mean(after) <= ALPHA + slack)
    return Row(f"false claims: {name}", 100 * np.mean(before), 100 * np.mean(after), "≤ 5 %", reached)


def simulate_shapes(studies: int) -> Iterator[Row]:
    """Skewed values and outliers: the mean's coverage before; afterwards it covers, or the shape is named."""
    kinds = {
        "lognormal": (lambda rng, n: rng.lognormal(size=n), np.exp(0.5)),
        "5 % outliers": (lambda rng, n: rng.normal(size=n) + 20 * (rng.random(n) < 0.05), 1.0),
    }
    for name, (draw, true) in kinds.items():
        for seeds in (10, 30, 50):
            rng, before, after = np.random.default_rng(2), [], []
            for _ in range(studies):
                values = draw(rng, (10, seeds))
                low, high = old_mean(values[0])
                before.append(low <= true <= high)
                is_named = bool(describe_shapes({"m": make_samples(values)}, LEVEL))
                row = compare(values[:1]).points[0]
                after.append(is_named or covers(row, true))
            yield coverage(f"{name}, {seeds} seeds (10 points), or the shape is named", before, after, 0.93)


def simulate_successes(studies: int) -> Iterator[Row]:
    """Success rates."""
    for seeds in (2, 5, 10, 20):
        rng, before, after = np.random.default_rng(3), [], []
        for _ in range(studies):
            values = (rng.random(seeds) < 0.9).astype(float)
            low, high = old_t(values)
            before.append(low <= 0.9 <= high)
            # a column of booleans is known to be binary, also where all of them are true
            metric = {"m": Metric("m", "maximize", is_binary=True)}
            after.append(covers(compare_samples({"m": [make_sample(values)]}, metric, level=LEVEL).points[0], 0.9))
        yield coverage(f"success rate 0.9, {seeds} seeds", before, after, 0.93)


def simulate_coins(studies: int) -> Iterator[Row]:
    """20 equal arms of coins."""
    for seeds in (2, 3):
        rng, before, after = np.random.default_rng(4), [], []
        for _ in range(studies):
            values = (rng.random((20, seeds)) < 0.5).astype(float)
            before.append((old_p(values) < ALPHA).any())
            after.append(has_claim(compare(values)))
        yield false_claims(f"20 equal coins, {seeds} seeds", before, after)


def simulate_metrics(studies: int) -> Iterator[Row]:
    """12 metrics of 5 equal arms."""
    for seeds in (5, 10):
        rng, before, after = np.random.default_rng(5), [], []
        for _ in range(studies):
            values = rng.normal(size=(12, 5, seeds))
            before.append(any((old_p(own) < ALPHA).any() for own in values))
            samples = {f"m{i}": make_samples(own) for i, own in enumerate(values)}
            metrics = {name: Metric(name, "maximize") for name in samples}
            after.append(has_claim(compare_samples(samples, metrics, level=LEVEL)))
        yield false_claims(f"12 metrics, 5 equal arms, {seeds} seeds", before, after)


def simulate_marks(studies: int) -> Iterator[Row]:
    """Intervals of 20 equal arms in the picture that exclude zero."""
    for seeds in (3, 5, 10):
        rng, before, after = np.random.default_rng(6), [], []
        for _ in range(studies):
            values = rng.normal(size=(20, seeds))
            bounds = [old_t(own - values[0]) for own in values[1:]]
            before.append(any(low > 0 or high < 0 for low, high in bounds))
            after.append(any(row["low"] > 0 or row["high"] < 0 for row in compare(values).differences))
        yield false_claims(f"marks of 20 equal arms, {seeds} seeds", before, after)


def simulate_looks(studies: int) -> Iterator[Row]:
    """Two equal arms, compared again and again."""
    plans = {"5, 10, 20, 40": (5, 10, 20, 40), "one seed more at a time, 3 to 50": tuple(range(3, 51))}
    for name, looks in plans.items():
        rng, before, after = np.random.default_rng(7), [], []
        for _ in range(studies):
            values = rng.normal(size=(2, max(looks)))
            before.append(any(old_p(values[:, :seeds])[0] < ALPHA for seeds in looks))
            after.append(
                any(
                    has_claim(compare(values[:, :seeds], alpha=spend(number, ALPHA)))
                    for number, seeds in enumerate(looks, 1)
                )
            )
        yield false_claims(f"looks at {name}", before, after)


def simulate_power(studies: int) -> Iterator[Row]:
    """The true power of plans for the true difference, from pilots; the share of pilots that reach 80 %."""
    for arms in (2, 20):
        for pilot in (3, 5, 10):
            rng, before, after = np.random.default_rng(8), [], []
            alpha, comparisons, size = spend(2, ALPHA), arms * (arms - 1) // 2, 1.0
            for _ in range(studies):
                gaps = rng.normal(size=pilot)
                spread = float(gaps.std(ddof=1))
                old = statistics.seeds_needed(size / spread, ALPHA)
                new = plan_seeds(spread, pilot, size, alpha, comparisons=comparisons)
                before.append(power(size, old or 2, alpha / comparisons) >= 0.8)
                after.append(new is not None and power(size, new.seeds, alpha / comparisons) >= 0.8)
            yield coverage(f"power of 80 % from a pilot of {pilot}, {arms} arms", before, after, 0.8)


def draw_equal(rng, points, seeds):
    """Equal points."""
    return np.zeros(points), rng.normal(size=(points, seeds))


def draw_shared(rng, points, seeds):
    """Normal means; half of the variance around them is the seed's, and common to all points."""
    means = 0.7 * rng.normal(size=points)
    return means, means[:, None] + np.sqrt(0.5) * (rng.normal(size=seeds) + rng.normal(size=(points, seeds)))


def draw_unequal(rng, points, seeds):
    """Equal points with unequal spreads."""
    return np.zeros(points), np.exp(0.5 * rng.normal(size=(points, 1))) * rng.normal(size=(points, seeds))


def draw_one(rng, points, seeds):
    """One point is better than the others by a standard deviation."""
    means = np.eye(points)[0]
    return means, means[:, None] + rng.normal(size=(points, seeds))


def simulate_best(studies: int) -> Iterator[Row]:
    """The best of some points: coverage and bias."""
    cases = [(10, draw_equal), (50, draw_equal), (200, draw_equal)]
    for points, draw in [*cases, (50, draw_shared), (50, draw_unequal), (50, draw_one)]:
        rng = np.random.default_rng(9)
        found = [_choose_best(*draw(rng, points, 5)) for _ in range(studies)]
        naive, corrected, old, new = (np.array(column) for column in zip(*found, strict=True))
        name = f"best of {points}, {draw.__name__.removeprefix('draw_')}"
        yield coverage(f"{name}, 5 seeds", old, new, 0.93)
        yield Row(f"bias: {name}, 5 seeds", naive.mean(), corrected.mean(), "", True)


def _choose_best(true: np.ndarray, values: np.ndarray) -> tuple[float, float, bool, bool]:
    """The errors of the best mean and of its corrected estimate, and whether each of their intervals covers."""
    means, seeds = values.mean(axis=1), values.shape[1]
    errors, best = values.std(axis=1, ddof=1) / np.sqrt(seeds), int(means.argmax())
    corrected, low, high, _ = correct_best(
        means, errors, np.full(len(means), seeds - 1), LEVEL, correlation=estimate_correlation(values)
    )
    old = old_t(values[best])
    return means[best] - true[best], corrected - true[best], old[0] <= true[best] <= old[1], low <= true[best] <= high


def simulate_confirmation(studies: int) -> Iterator[Row]:
    """The best of 50 equal points by all of its seeds, and by 20 fresh ones alone."""
    rng, before, after = np.random.default_rng(12), [], []
    for _ in range(studies):
        values = rng.normal(size=(50, 5))
        best = int(values.mean(axis=1).argmax())
        fresh = rng.normal(size=20)
        low, high = old_t(np.concatenate([values[best], fresh]))
        before.append(low <= 0 <= high)
        after.append(covers(compare(fresh[None]).points[0], 0.0))
    yield coverage("best of 50 with 20 more seeds; 20 fresh seeds alone", before, after, 0.93)


def simulate_survivors(studies: int) -> Iterator[Row]:
    """Two equal arms, one of which loses the runs of its bad half: “better” without a word about failures."""
    for seeds in (20, 50, 100):
        rng, before, after = np.random.default_rng(10), [], []
        for _ in range(studies):
            values = rng.normal(size=(2, seeds))
            values[1, values[1] < 0] = np.nan
            kept = ~np.isnan(values[1])
            before.append(old_p(values[:, kept])[0] < ALPHA)
            after.append(has_claim(compare(values)))
        yield false_claims(f"a half that diverges, {seeds} seeds", before, after)


def simulate_aggregates(studies: int) -> Iterator[Row]:
    """The interquartile mean over two tasks; no interval covers, too."""
    for seeds in (2, 3):
        rng, before, after = np.random.default_rng(11), [], []
        for _ in range(studies):
            scores = [rng.normal(size=seeds), rng.normal(size=seeds)]
            drawn = np.concatenate([own[rng.integers(0, seeds, (999, seeds))] for own in scores], axis=1)
            low, high = np.quantile(stats.trim_mean(drawn, 0.25, axis=1), [0.025, 0.975])
            before.append(low <= 0 <= high)
            found = statistics.aggregate(scores, LEVEL).iqm_interval
            after.append(not found.method or found.low <= 0 <= found.high)
        yield coverage(f"interquartile mean of 2 tasks, {seeds} seeds, or no interval", before, after, 0.93)


PARTS = {
    "means": simulate_means,
    "shapes": simulate_shapes,
    "successes": simulate_successes,
    "coins": simulate_coins,
    "metrics": simulate_metrics,
    "marks": simulate_marks,
    "looks": simulate_looks,
    "power": simulate_power,
    "best": simulate_best,
    "confirmation": simulate_confirmation,
    "survivors": simulate_survivors,
    "aggregates": simulate_aggregates,
}


def print_widths() -> None:
    """What looks cost: half widths of intervals, in those of a single look at 95 %, by ways to spend the level."""
    ways = {
        "alpha / (k (k + 1))": lambda k, n: stats.norm.isf(spend(k, ALPHA) / 2),
        "alpha / 2^k": lambda k, n: stats.norm.isf(ALPHA / 2**k / 2),
        "6 alpha / (pi k)^2": lambda k, n: stats.norm.isf(6 * ALPHA / (np.pi * k) ** 2 / 2),
        "confidence sequence": lambda k, n: mixture_bound(n),
    }
    looks = ((1, 5), (2, 10), (3, 20), (4, 40), (5, 80), (10, 14), (48, 50))
    print("\nwidth, in that of one look; columns: look (seeds at it)")
    print(f"{'':24}" + "".join(f"{f'{k} ({n})':>10}" for k, n in looks))
    for name, width in ways.items():
        print(f"{name:24}" + "".join(f"{width(k, n) / stats.norm.isf(ALPHA / 2):10.2f}" for k, n in looks))


def mixture_bound(seeds: int, best_at: int = 20) -> float:
    """Robbins' normal mixture for a known spread: the bound of |z| for all seeds, narrowest near `best_at`."""
    rate = 1 / best_at * (2 * np.log(1 / ALPHA) + np.log(1 + 2 * np.log(1 / ALPHA)))
    shrink = 1 + seeds * rate
    return float(np.sqrt(shrink / (seeds * rate) * (2 * np.log(1 / ALPHA) + np.log(shrink))))


def simulate(studies: int, only: str | None = None) -> Iterator[Row]:
    """The rows of the table, of all parts or of one."""
    for name, part in PARTS.items():
        if only in (None, name):
            yield from part(studies)


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulates what comparisons claim.")
    parser.add_argument("--studies", type=int, default=400, help="simulated studies for each row")
    parser.add_argument("--only", choices=list(PARTS), help="one part of the table")
    given = parser.parse_args()
    begun, missed = time.perf_counter(), 0
    print(f"{'':66}{'before':>8}{'after':>8}   to reach")
    for row in simulate(given.studies, given.only):
        mark = "" if row.is_reached else "   missed"
        missed += not row.is_reached
        print(f"{row.name:66}{row.before:8.3g}{row.after:8.3g}   {row.goal}{mark}", flush=True)
    print_widths()
    print(f"\n{given.studies} studies for each row, {time.perf_counter() - begun:.0f} s")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()

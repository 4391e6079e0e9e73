"""How many seeds a comparison needs, allowing for what a pilot of few seeds does not know of the spread.

The standard deviation of a few seeds is too small in more than half of all pilots, and whoever plans with it gets less
power than asked for. The plans here take its upper confidence limit instead (Browne, 1995, Statistics in Medicine 14):
with `ASSURANCE` 0.8, at least 80 % of all pilots lead to a power of at least 80 %.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import optimize, stats

POWER = 0.8
ASSURANCE = 0.8
"""The share of pilots whose plan reaches the power."""
MOST_SEEDS = 10**6
"""More seeds than these are not proposed."""


@dataclass(frozen=True)
class SeedPlan:
    """The seeds that show a difference: all of them together, and those that are to be added to the pilot's."""

    seeds: int
    more: int


def power(size: float, seeds: int, alpha: float) -> float:
    """The power of the two-sided paired t-test at an effect size d_z."""
    if seeds < 2:
        return 0.0
    bound, shift = float(stats.t.ppf(1 - alpha / 2, seeds - 1)), abs(size) * math.sqrt(seeds)
    found = float(stats.nct.sf(bound, seeds - 1, shift) + stats.nct.cdf(-bound, seeds - 1, shift))
    if math.isfinite(found):
        return found
    # the noncentral distribution is lost at large shifts: averaged over the sample's own standard deviation instead
    spread = np.sqrt(stats.chi2.ppf((np.arange(20000) + 0.5) / 20000, seeds - 1) / (seeds - 1))
    return float(np.mean(stats.norm.sf(bound * spread - shift) + stats.norm.cdf(-bound * spread - shift)))


@cache
def detectable(seeds: int, alpha: float) -> float:
    """The smallest effect size d_z that a paired t-test shows with 80 % power; NaN for fewer than two seeds."""
    if seeds < 2:
        return math.nan
    high = 1.0
    while power(high, seeds, alpha) < POWER:
        high *= 2
    return float(optimize.brentq(lambda size: power(size, seeds, alpha) - POWER, 0.0, high, rtol=1e-12))


def seeds_needed(size: float, alpha: float, most: int = MOST_SEEDS) -> int | None:
    """The fewest seeds at which a paired t-test shows an effect size d_z with 80 % power; None beyond `most`."""
    if not math.isfinite(size) or size == 0 or power(size, most, alpha) < POWER:
        return None
    normal = float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(POWER))
    seeds = max(2, min(most, math.ceil((normal / size) ** 2)))  # never too many, and by a few too few
    while power(size, seeds, alpha) < POWER:
        seeds += 1
    return seeds


def limit_spread(spread: float, degrees: float, assurance: float = ASSURANCE) -> float:
    """The upper confidence limit of a normal standard deviation that was estimated with so many degrees of freedom."""
    return spread * math.sqrt(degrees / float(stats.chi2.ppf(1 - assurance, degrees)))


def plan_seeds(
    spread: float, pilot: int, difference: float, alpha: float, *, comparisons: int = 1, assurance: float = ASSURANCE
) -> SeedPlan | None:
    """The seeds at which a mean difference of `difference` is shown with 80 % power, in most cases.

    `spread` is the standard deviation of the paired differences of the `pilot` seeds; of unpaired points, the root of
    the sum of both variances. `alpha` is the level of the next look, and is divided among as many `comparisons` as are
    made then. None if a spread of the pilot is not known or zero, and beyond `MOST_SEEDS`.
    """
    if pilot < 2 or not math.isfinite(spread) or spread <= 0 or not difference > 0:
        return None
    limit = limit_spread(spread, pilot - 1, assurance)
    seeds = seeds_needed(difference / limit, alpha / comparisons)
    return None if seeds is None else SeedPlan(seeds, max(0, seeds - pilot))

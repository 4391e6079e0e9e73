"""How many seeds a comparison needs, allowing for what a pilot of few seeds does not know of the spread.

The standard deviation of a few seeds is too small in more than half of all pilots, and whoever plans with it gets less
power than asked for. The plans here take its upper confidence limit instead (Browne, 1995, Statistics in Medicine 14):
with `ASSURANCE` 0.8, at least 80 % of all pilots lead to a power of at least 80 %.
"""

import math
from dataclasses import dataclass

from scipy import stats

from runner.analysis.statistics import seeds_needed

ASSURANCE = 0.8
"""The share of pilots whose plan reaches the power."""


@dataclass(frozen=True)
class SeedPlan:
    """The seeds that show a difference: all of them together, and those that are to be added to the pilot's."""

    seeds: int
    more: int


def limit_spread(spread: float, degrees: float, assurance: float = ASSURANCE) -> float:
    """The upper confidence limit of a normal standard deviation that was estimated with so many degrees of freedom."""
    return spread * math.sqrt(degrees / float(stats.chi2.ppf(1 - assurance, degrees)))


def plan_seeds(
    spread: float, pilot: int, difference: float, alpha: float, *, comparisons: int = 1, assurance: float = ASSURANCE
) -> SeedPlan | None:
    """The seeds at which a mean difference of `difference` is shown with 80 % power, in most cases.

    `spread` is the standard deviation of the paired differences of the `pilot` seeds; of unpaired points, the root of
    the sum of both variances. `alpha` is the level of the next look, and is divided among as many `comparisons` as are
    made then. None if the spread of the pilot is not known or zero, and for more than a million seeds.
    """
    if pilot < 2 or not math.isfinite(spread) or spread <= 0 or not difference > 0:
        return None
    limit = limit_spread(spread, pilot - 1, assurance)
    seeds = seeds_needed(difference / limit, alpha / comparisons)
    return None if seeds is None else SeedPlan(seeds, max(0, seeds - pilot))

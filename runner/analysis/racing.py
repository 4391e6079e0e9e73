"""Racing: which points may still be the best, and how many seeds those get next.

A point leaves the race once the leader is better than it by a one-sided test over their common seeds. With the level
of a look divided among the `points - 1` rivals that the best point has, it loses its place at that look with at most
that level: only its own comparisons can do it harm (as in comparisons with the best, Hsu, 1984). Levels that sum to
`alpha` over all looks therefore keep it in the race with a probability of at least `1 - alpha`.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

FIRST_SEEDS = 5
"""Seeds that each point has before any leaves the race."""
GROWTH = 1.4
"""By which factor the seeds of the points in contention grow in a round: each round is a look, and spends level."""


@dataclass(frozen=True)
class Standing:
    """What a look at a race shows: the leader, and which points are in contention, bool `(points,)`.

    `lead` is the largest amount by which a point in contention may be better than the leader, at the look's level; 0
    if there is none.
    """

    leader: int
    contenders: np.ndarray
    lead: float


def judge(values: np.ndarray, contenders: np.ndarray, alpha: float) -> Standing:
    """The standing of a race from values `(points, seeds)`, of which larger ones are better.

    NaN stands for seeds that a point does not have; what has failed must have been given a value. `contenders` are
    the points that have not left before. `alpha` is the level of this look.
    """
    rivals = max(1, len(values) - 1)
    leader = _find_leader(values, contenders)
    left, lead = contenders.copy(), 0.0
    for point in np.flatnonzero(contenders):
        if point != leader:
            gaps = values[leader] - values[point]
            gaps = gaps[~np.isnan(gaps)]
            left[point] = one_sided_p(gaps) >= alpha / rivals
            if left[point]:
                lead = max(lead, -lower_limit(gaps, alpha / rivals))
    return Standing(leader, left, lead)


def _find_leader(values: np.ndarray, contenders: np.ndarray) -> int:
    """The contender with the largest mean over the seeds that all contenders have, or else over its own."""
    chosen = np.flatnonzero(contenders)
    common = ~np.isnan(values[chosen]).any(axis=0)
    means = values[chosen][:, common].mean(axis=1) if common.any() else np.nanmean(values[chosen], axis=1)
    return int(chosen[np.argmax(means)])


def one_sided_p(gaps: np.ndarray) -> float:
    """The p-value of gaps `(seeds,)` against a mean of at most zero; 1 for fewer than two.

    Student's t. Gaps of -1, 0 and 1 are those of binary values, for which it is the exact test of McNemar; gaps that are
    all equal have no spread, and are judged by their signs.
    """
    if len(gaps) < 2:
        return 1.0
    spread = float(gaps.std(ddof=1))
    if spread <= 1e-12 * float(np.abs(gaps).max(initial=0.0)) or np.isin(gaps, (-1.0, 0.0, 1.0)).all():
        wins, losses = int((gaps > 0).sum()), int((gaps < 0).sum())
        return float(stats.binom.sf(wins - 1, wins + losses, 0.5)) if wins + losses else 1.0
    return float(stats.t.sf(gaps.mean() / spread * math.sqrt(len(gaps)), len(gaps) - 1))


def lower_limit(gaps: np.ndarray, alpha: float) -> float:
    """The lower confidence limit of a mean gap at level `1 - alpha` by Student's t; minus infinity below two seeds."""
    if len(gaps) < 2:
        return -math.inf
    half = float(stats.t.isf(alpha, len(gaps) - 1)) * float(gaps.std(ddof=1)) / math.sqrt(len(gaps))
    return float(gaps.mean()) - half


def impute_worst(values: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """Values `(points, seeds)`, larger ones better, with the worst finite one where a run has failed, bool alike.

    A point does not get into the lead by runs that diverge. Without a finite value there is nothing to impute, and
    failed runs have 0, all of them alike.
    """
    finite = values[np.isfinite(values) & ~failed]
    return np.where(failed, finite.min() if len(finite) else 0.0, values)


def next_seeds(seeds: int, contenders: int, budget: int) -> int:
    """How many seeds each contender gets next, having `seeds`: as many as the growth asks and the budget of runs permits.

    0 if the budget does not suffice for one seed each.
    """
    wanted = max(FIRST_SEEDS - seeds, math.ceil(seeds * (GROWTH - 1)), 1)
    return min(wanted, budget // contenders)

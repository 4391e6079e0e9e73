"""Racing: which points may still be the best, and how many seeds those get next.

A point leaves the race once the leader is better than it by a one-sided test over their common seeds. With the level
of a look divided among the `points - 1` rivals that the best point has, it loses its place at that look with at most
that level: only its own comparisons can do it harm (as in comparisons with the best, Hsu, 1984). Levels that sum to
`alpha` over all looks therefore keep it in the race with a probability of at least `1 - alpha`.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

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
    leader = _find_leader(values, contenders)
    rivals = np.flatnonzero(contenders & (np.arange(len(values)) != leader))
    gaps = values[leader] - values[rivals]
    level = alpha / max(1, len(values) - 1)
    stay = one_sided_p(gaps) >= level
    left = contenders.copy()
    left[rivals] = stay
    lead = float((-lower_limits(gaps[stay], level)).max(initial=0.0))
    return Standing(leader, left, lead)


def _find_leader(values: np.ndarray, contenders: np.ndarray) -> int:
    """The contender with the largest mean over the seeds that all contenders have, or else over its own."""
    chosen = np.flatnonzero(contenders)
    common = ~np.isnan(values[chosen]).any(axis=0)
    means = values[chosen][:, common].mean(axis=1) if common.any() else np.nanmean(values[chosen], axis=1)
    return int(chosen[np.argmax(means)])


def one_sided_p(gaps: np.ndarray) -> np.ndarray:
    """The p-value of each row of gaps `(rows, seeds)` against a mean of at most zero; 1 for fewer than two.

    NaN are no gaps. Student's t. Gaps of -1, 0 and 1 are those of binary values, for which it is the exact test of
    McNemar; gaps that are all equal have no spread, and are judged by their signs.
    """
    count, mean, spread = _describe_gaps(gaps)
    largest = np.where(np.isnan(gaps), 0.0, np.abs(gaps)).max(axis=1, initial=0.0)
    is_exact = (spread <= 1e-12 * largest) | (np.isnan(gaps) | np.isin(gaps, (-1.0, 0.0, 1.0))).all(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        by_t = special.stdtr(count - 1, -mean / spread * np.sqrt(count))
    wins, losses = (gaps > 0).sum(axis=1), (gaps < 0).sum(axis=1)
    by_signs = stats.binom.sf(wins - 1, wins + losses, 0.5)
    return np.where(count < 2, 1.0, np.where(is_exact, by_signs, by_t))


def lower_limits(gaps: np.ndarray, alpha: float) -> np.ndarray:
    """The lower confidence limit of each mean gap at `1 - alpha` by Student's t; minus infinity below two seeds."""
    count, mean, spread = _describe_gaps(gaps)
    with np.errstate(invalid="ignore"):
        half = special.stdtrit(np.maximum(count - 1, 1), 1 - alpha) * spread / np.sqrt(count)
    return np.where(count < 2, -math.inf, mean - half)


def _describe_gaps(gaps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, mean and standard deviation of each row, NaN left out; NaN where there are too few."""
    known = ~np.isnan(gaps)
    count = known.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, gaps, 0.0).sum(axis=1) / count
        squares = (np.where(known, gaps - mean[:, None], 0.0) ** 2).sum(axis=1)
        return count, mean, np.sqrt(squares / (count - 1))


def impute_worst(values: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """Values `(points, seeds)`, larger ones better, with the worst finite one where a run has failed, bool alike.

    A point does not get into the lead by runs that diverge. Without a finite value there is nothing to impute, and
    failed runs have 0, all of them alike.
    """
    finite = values[np.isfinite(values) & ~failed]
    return np.where(failed, finite.min() if len(finite) else 0.0, values)


def next_seeds(seeds: int, contenders: int, budget: int) -> int:
    """How many seeds each contender gets next, having `seeds`: what the growth asks and the budget of runs permits.

    0 if the budget does not suffice for one seed each.
    """
    wanted = max(FIRST_SEEDS - seeds, math.ceil(seeds * (GROWTH - 1)), 1)
    return min(wanted, budget // contenders)

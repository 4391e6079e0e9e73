"""The runs that are shown as dots: all of them, or some of each point where there are many."""

from dataclasses import dataclass

import numpy as np

from runner.analysis.formats import count_things
from runner.analysis.load import Runs

MOST_DOTS = 3000
"""Dots of a picture, unless there are more points; with 12 metrics they take half a megabyte."""


@dataclass(frozen=True)
class Shown:
    """Which runs are shown: `runs` has their places in the table of runs; `left_out` says which are not, or nothing.

    The same runs are shown in all pictures, so that one that is marked is found in each of them.
    """

    runs: np.ndarray
    left_out: str

    def __len__(self) -> int:
        return len(self.runs)


def choose_shown(runs: Runs, most: int = MOST_DOTS) -> Shown:
    """All runs, or of each point the same number, evenly spaced by seed."""
    points = max(1, len(runs.points))
    if len(runs) <= max(most, points):
        return Shown(np.arange(len(runs)), "")
    each = max(1, most // points)
    order = np.lexsort((runs.seed, runs.point))
    counts = np.bincount(runs.point, minlength=points)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.arange(len(order)) - np.repeat(starts, counts)
    count = np.repeat(counts, counts)
    # the run at which a multiple of count / each is passed: `each` of them, or all of fewer
    is_kept = (rank * each) // count != ((rank - 1) * each) // count
    kept = np.sort(order[is_kept | (count <= each)])
    dots = f"{count_things(len(kept), 'run')} of {len(runs):,} are dots"
    return Shown(kept, f"{dots}, up to {each:,} of each point, evenly spaced by seed")

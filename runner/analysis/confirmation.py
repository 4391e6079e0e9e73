"""Confirmed points: the runs that a point was given after it was chosen, apart from those that have chosen it."""

from dataclasses import replace

import numpy as np

from runner.analysis.load import Runs
from runner.storage.confirmations import read_confirmations


def split_confirmations(runs: Runs) -> tuple[Runs, Runs]:
    """The runs that points are chosen and compared by, and those that confirm a point.

    Both have the same points. A confirmation whose first run is left out by a filter is not known as one.
    """
    confirming = np.zeros(len(runs), dtype=bool)
    for study, folder in enumerate(runs.studies):
        for confirmation in read_confirmations(folder):
            confirming |= _find_runs(runs, study, confirmation.points, confirmation.seeds)
    count = int(confirming.sum())
    if not count:
        return runs, select_runs(runs, confirming)
    line = f"{count:,} runs of fresh seeds confirm a point; they are reported alone, and are not among the others"
    planned = runs.planned.copy()
    for point in np.unique(runs.point[confirming]):
        planned[point] -= len(np.unique(runs.seed[confirming & (runs.point == point)]))
    kept = replace(select_runs(runs, ~confirming), planned=planned, exclusions=(*runs.exclusions, line))
    return kept, select_runs(runs, confirming)


def _find_runs(runs: Runs, study: int, points: tuple[int, ...], seeds: range) -> np.ndarray:
    """Which runs have these seeds at the points of some runs, which are given by their numbers: bool `(runs,)`."""
    own = runs.study == study
    fresh = own & (runs.seed >= seeds.start) & (runs.seed < seeds.stop)
    found = np.zeros(len(runs), dtype=bool)
    for row in np.flatnonzero(own & np.isin(runs.number, points)):
        found |= fresh & (runs.point == runs.point[row]) & (runs.variant == runs.variant[row])
    return found


def select_runs(runs: Runs, kept: np.ndarray) -> Runs:
    """Some of the runs, bool `(runs,)`, with the points of all of them."""
    columns = ("study", "number", "point", "seed", "replicate", "variant", "status")
    chosen = {name: getattr(runs, name)[kept] for name in columns}
    return replace(runs, **chosen, values={name: column[kept] for name, column in runs.values.items()})


def list_variants(runs: Runs, point: int) -> tuple[int, ...]:
    """The number of the first run of each variant of a point, ascending."""
    own = runs.point == point
    return tuple(sorted(int(runs.number[own & (runs.variant == v)].min()) for v in np.unique(runs.variant[own])))

"""Replicates: how the runs of a point become the values that intervals and tests are made of.

The seed is the replicate. Runs of one seed that differ in pooled axes share what the seed has drawn, so they are
averaged to one value; counted one by one they would make every interval too narrow. A run without a finite value is an
outcome of its own, and stays in the sample as a lost replicate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise

import numpy as np

from runner.analysis.load import STATUS_CODES, Runs
from runner.plan.status import Status


class Failures(Enum):
    """What is done with a replicate that has no finite value."""

    DROP = "drop"
    """It is counted and tested as a failure; means are of the others."""
    WORST = "worst"
    """It gets the worst finite value that any point has."""
    LAST = "last"
    """A reduction of an array is that of the array's finite elements, such as the last one; see `load.py`."""


@dataclass(frozen=True)
class Sample:
    """The replicates of one metric at one point.

    `values`, `replicate` (equal for values that are paired) and `seed` are of those with a finite value, `(seeds,)`, in
    ascending replicate order; `lost` are the replicates without one, ascending. `finished` counts replicates with a
    result, `nonfinite` those of them without a finite value, `failed` those without a result, and `left_out` seeds that
    do not have all values of the pooled axes.
    """

    values: np.ndarray
    replicate: np.ndarray
    seed: np.ndarray
    finished: int
    nonfinite: int
    failed: int
    lost: np.ndarray
    left_out: int = 0


def make_sample(values: np.ndarray, replicate: np.ndarray | None = None) -> Sample:
    """The sample of values `(seeds,)`, of which those that are not finite are lost; the replicates are the places."""
    replicate = np.arange(len(values)) if replicate is None else replicate
    finite = np.isfinite(values)
    kept, lost = replicate[finite], replicate[~finite]
    return Sample(values[finite], kept, kept, len(values), len(lost), 0, lost)


def group_samples(runs: Runs, points: int) -> dict[str, list[Sample]]:
    """For each metric the sample of each of the first points; the runs are sorted once for all metrics."""
    order = np.lexsort((runs.replicate, runs.point))
    bounds = np.searchsorted(runs.point[order], np.arange(points + 1))
    rows = [order[start:stop] for start, stop in pairwise(bounds)]
    if not runs.pooled:
        return {name: [_take_sample(runs, values, own) for own in rows] for name, values in runs.values.items()}
    return {name: [_average_sample(runs, values, own) for own in rows] for name, values in runs.values.items()}


def _find_given(runs: Runs, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which rows have an outcome: an empty cell of a run that is ok belongs to a task without this output."""
    return rows[~np.isnan(values[rows]) | (runs.status[rows] != STATUS_CODES[Status.OK])]


def _take_sample(runs: Runs, values: np.ndarray, rows: np.ndarray) -> Sample:
    """The sample of runs that are a replicate each."""
    rows = _find_given(runs, values, rows)
    has_failed = runs.status[rows] == STATUS_CODES[Status.FAILED]
    finite = np.isfinite(values[rows]) & ~has_failed
    failed, kept, lost = int(has_failed.sum()), rows[finite], rows[~finite]
    return Sample(
        values[kept],
        runs.replicate[kept],
        runs.seed[kept],
        len(rows) - failed,
        len(lost) - failed,
        failed,
        runs.replicate[lost],
    )


def _average_sample(runs: Runs, values: np.ndarray, rows: np.ndarray) -> Sample:
    """The sample of the seeds' averages over the pooled axes; of a seed without all of their values there is none."""
    rows = _find_given(runs, values, rows)
    if not len(rows):
        return _take_sample(runs, values, rows)
    replicate, first, size = np.unique(runs.replicate[rows], return_index=True, return_counts=True)
    failed = np.add.reduceat((runs.status[rows] == STATUS_CODES[Status.FAILED]).astype(int), first) > 0
    with np.errstate(invalid="ignore"):  # inf - inf
        mean = np.add.reduceat(values[rows], first) / size
    whole = size == len(np.unique(runs.variant[rows]))
    finite = np.isfinite(mean) & ~failed
    kept, lost = whole & finite, whole & ~finite
    return Sample(
        mean[kept],
        replicate[kept],
        runs.seed[rows][first][kept],
        int((whole & ~failed).sum()),
        int((lost & ~failed).sum()),
        int((whole & failed).sum()),
        replicate[lost],
        int((~whole).sum()),
    )


def impute_worst(samples: Sequence[Sample], direction: str) -> list[Sample]:
    """The samples of a metric, in which each lost replicate has the worst finite value that any of them has."""
    found = [sample.values for sample in samples if len(sample.values)]
    if not found:
        return list(samples)
    worst = float(np.concatenate(found).max() if direction == "minimize" else np.concatenate(found).min())
    return [_impute(sample, worst) for sample in samples]


def _impute(sample: Sample, value: float) -> Sample:
    if not len(sample.lost):
        return sample
    replicate = np.concatenate([sample.replicate, sample.lost])
    order = np.argsort(replicate, kind="stable")
    values = np.concatenate([sample.values, np.full(len(sample.lost), value)])[order]
    seed = np.concatenate([sample.seed, np.full(len(sample.lost), -1)])[order]
    return replace(sample, values=values, replicate=replicate[order], seed=seed)


def share_lost(sample: Sample) -> float:
    """The share of the replicates that have no finite value; 0 for an empty sample."""
    total = sample.finished + sample.failed
    return (sample.nonfinite + sample.failed) / total if total else 0.0


Samples = Mapping[str, Sequence[Sample]]
"""For each metric the sample of each point."""

"""How much of the variance of a metric each axis explains, and how much the seed."""

from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.load import Runs


def divide_variance(runs: Runs) -> list[dict[str, Any]]:
    """For each metric the shares of its variance over all runs with a finite value.

    Of each axis the variance between the means of its values (eta squared), of the points together what is left to the
    interactions of axes, of the seed the variance between the means of seeds that several points share, and the rest.
    In a study in which every point has the same seeds they add up to one; in another one they may overlap. Empty for
    metrics that do not vary.
    """
    rows = []
    for name, values in runs.values.items():
        finite = np.isfinite(values)
        own = values[finite]
        total = float(own.var()) if len(own) else 0.0
        if total > 0 and np.isfinite(total) and len(runs.points.columns):
            rows += [{"metric": name, **row} for row in _divide(runs, own, finite, total)]
    return rows


def _divide(runs: Runs, values: np.ndarray, kept: np.ndarray, total: float) -> list[dict[str, Any]]:
    point = runs.point[kept]
    groups = {axis: pd.factorize(runs.points[axis], use_na_sentinel=False)[0] for axis in runs.points.columns}
    shares = {axis: _explain(values, group[point]) / total for axis, group in groups.items()}
    between = _explain(values, point) / total
    rows = [{"source": axis, "share": share} for axis, share in shares.items()]
    if len(shares) > 1:
        rows.append({"source": "interactions", "share": max(0.0, between - sum(shares.values()))})
    seed, size = np.unique(runs.seed[kept], return_inverse=True, return_counts=True)[1:]
    by_seed = _explain(values, seed) / total if np.max(size) > 1 else 0.0
    rows.append({"source": "seed", "share": by_seed})
    rows.append({"source": "rest", "share": max(0.0, 1 - between - by_seed)})
    return rows


def _explain(values: np.ndarray, group: np.ndarray) -> float:
    """The variance between the means of groups, weighted by their sizes."""
    count = np.bincount(group)
    mean = np.bincount(group, values) / np.maximum(count, 1)
    return float((count * (mean - values.mean()) ** 2).sum() / len(values))

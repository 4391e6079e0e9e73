"""Comparisons for the tests of pictures and page: of a small study, and simulated ones of any size."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest

from runner.analysis import comparison as comparisons
from runner.analysis.comparison import Comparison, compare_studies
from runner.analysis.load import load_runs


@pytest.fixture
def study(toy):
    """Three points with eight seeds each."""
    return toy("-m", "task=noisy", "level=1,2,1.5", "seed=range(0,8)", "study=mine").folder


Simulate = Callable[..., Comparison]


@pytest.fixture
def simulate(study, monkeypatch) -> Simulate:
    """A comparison of simulated runs: `simulate({"lr": [0.1, 0.2]}, seeds=8, metrics={"loss": "minimize"})`.

    The mean of a metric falls and rises along the axes; `spoil` may change the values `(runs,)` of a metric by the
    points of the runs.
    """
    load = load_runs

    def make(axes, seeds=8, metrics=None, spoil=None, **options):
        metrics = {"loss": "minimize"} if metrics is None else metrics
        points = pd.DataFrame(list(product(*axes.values())), columns=list(axes))
        place = np.array([[list(axes[n]).index(v) for n, v in row.items()] for row in points.to_dict("records")])
        base = ((place - np.array([len(v) // 2 for v in axes.values()])) ** 2).sum(axis=1) + 1.0
        point, seed = np.repeat(np.arange(len(points)), seeds), np.tile(np.arange(seeds), len(points))
        rng = np.random.default_rng(0)
        values = {name: base[point] + rng.normal(0, 0.3, len(point)) for name in metrics}
        if spoil is not None:
            values = {name: spoil(own, point) for name, own in values.items()}
        status = np.zeros(len(point), dtype=np.int8)
        for own in values.values():
            status[~np.isfinite(own)] = 1
        runs = replace(
            load([study], ["score"]),
            points=points,
            study=np.zeros(len(point), dtype=np.int64),
            number=np.arange(len(point)),
            point=point,
            seed=seed,
            replicate=seed,
            status=status,
            values=values,
            directions={name: way for name, way in metrics.items() if way},
            planned=np.full(len(points), seeds),
            resolutions=dict.fromkeys(metrics, 2.0**-23),
            **options,
        )
        monkeypatch.setattr(comparisons, "load_runs", lambda *_: runs)
        return compare_studies([study])

    return make

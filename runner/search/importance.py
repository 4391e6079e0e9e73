"""Which keys matter for a good result, by Optuna's PED-ANOVA.

Watanabe, Bansal and Hutter, PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces, IJCAI
2023. Optuna's fANOVA asks the same of all points instead of the best ones; its forest takes a minute for 100 points.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from runner.search.optimization import quieten

LEAST_POINTS = 4
"""Points with a value that there must be."""
MOST_POINTS = 2000
"""Points that are looked at; of more, so many evenly spaced ones."""
SPREAD = 10.0
"""The ratio of the largest to the smallest positive number from which a key is taken by its logarithm."""


def rank_by_optuna(points: Sequence[Mapping[str, Any]], costs: np.ndarray) -> dict[str, float]:
    """How much each key distinguishes the best tenth of some points from all of them, as shares of 1, largest first.

    Points have the keys that they have: what only some of them have is looked at among these. `costs` `(points,)` are
    better if they are smaller; points with NaN are left out. Empty for fewer than four points, and for equal ones.
    """
    known = [i for i in np.flatnonzero(np.isfinite(costs)).tolist() if points[i]]
    known = known[:: max(1, -(-len(known) // MOST_POINTS))]
    if len(known) < LEAST_POINTS:
        return {}
    import optuna  # half a second, which only a page of a search has to spend

    distributions = _find_distributions([points[i] for i in known])
    with quieten():
        study = optuna.create_study()
        for i in known:
            own = {name: value for name, value in points[i].items() if name in distributions}
            used = {name: distributions[name] for name in own}
            study.add_trial(optuna.trial.create_trial(value=float(costs[i]), params=own, distributions=used))
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=list(distributions))
    return {name: float(share) for name, share in sorted(found.items(), key=lambda item: -item[1])}


def _find_distributions(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The least distribution of each key that has several values: a range of numbers, or categories."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for point in points for name in point):
        values = [point[name] for point in points if name in point]
        distinct = list(dict.fromkeys(values))
        if len(distinct) < 2:
            continue
        if all(isinstance(value, int | float) and math.isfinite(value) for value in distinct):
            low, high = float(min(distinct)), float(max(distinct))
            found[name] = FloatDistribution(low, high, log=low > 0 and high / low >= SPREAD)
        else:
            found[name] = CategoricalDistribution(distinct)
    return found

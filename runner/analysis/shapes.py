"""Whether the values of a metric look normal, because intervals of means are exact for normal values only."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from runner.analysis.replicates import Sample

CHANCE = 0.01
"""How often normal values are taken for skewed or heavy-tailed ones."""
FEWEST = 8
"""Fewer residuals than so many tell nothing."""


def describe_shapes(samples: Mapping[str, Sequence[Sample]], level: float) -> list[str]:
    """A note for each metric whose values are skewed or have outliers, which says what the intervals cover then."""
    notes = []
    for name, own in samples.items():
        residuals = standardize(own)
        if len(residuals) < FEWEST or set(np.unique(np.concatenate([s.values for s in own]))) <= {0.0, 1.0}:
            continue
        what = classify(residuals)
        seeds = max(len(sample.values) for sample in own)
        if what and seeds < ENOUGH:
            notes.append(
                f"{name}: the values are {what}; intervals of its means cover the mean of such values less often than "
                f"{100 * level:g} % (in simulations of skewed values 83 to 92 % with 3 to 50 seeds). The intervals of "
                "the median (median_low, median_high) hold for values of any shape, from 6 seeds on"
            )
    return notes


ENOUGH = 200
"""With so many seeds the mean of skewed values is nearly normal itself."""


def standardize(samples: Sequence[Sample]) -> np.ndarray:
    """The residuals of all values from their point's mean, in its standard deviations."""
    parts = [np.empty(0)]
    for sample in samples:
        spread = sample.values.std() if len(sample.values) > 2 else 0.0
        if spread > 1e-7 * np.abs(sample.values).max(initial=0.0):
            parts.append((sample.values - sample.values.mean()) / spread)
    return np.concatenate(parts)


def classify(residuals: np.ndarray) -> str:
    """`skewed`, `heavy-tailed`, or nothing, by D'Agostino's test of skewness and Anscombe and Glynn's of kurtosis."""
    if stats.skewtest(residuals).pvalue < CHANCE / 2:
        return "skewed"
    if len(residuals) >= 20 and stats.kurtosistest(residuals, alternative="greater").pvalue < CHANCE / 2:
        return "heavy-tailed"
    return ""

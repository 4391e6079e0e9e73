"""Whether the values of a metric look normal, because intervals of means are exact for normal values only."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from runner.analysis.metrics import is_binary
from runner.analysis.replicates import Sample

CHANCE = 0.01
"""About how often normal values are taken for skewed or heavy-tailed ones; up to four times as often at one point."""
ENOUGH = 200
"""With so many seeds the mean of skewed values is nearly normal itself."""


def describe_shapes(samples: Mapping[str, Sequence[Sample]], level: float) -> list[str]:
    """A note for each metric whose values are skewed or have outliers, which says what the intervals cover then."""
    notes = []
    for name, own in samples.items():
        if max((len(sample.values) for sample in own), default=0) >= ENOUGH or is_binary(own):
            continue
        if what := classify([sample.values for sample in own]):
            notes.append(
                f"{name}: the values are {what}; the intervals of its means cover less than {100 * level:g} % then "
                "(with lognormal values 82 to 91 % at 95 % with 3 to 100 seeds). Those of the median (median_low, "
                "median_high) hold for values of any shape, from 6 seeds on"
            )
    return notes


def classify(groups: Sequence[np.ndarray]) -> str:
    """`skewed`, `heavy-tailed` or nothing: what groups of values `(seeds,)` have in common.

    Skewness and kurtosis of all groups are added, and compared with what they are for normal values, whose moments
    are exact for each size (Fisher, 1930).
    """
    skewness, kurtosis = np.zeros(2), np.zeros(2)
    for values in groups:
        count, spread = len(values), float(values.std()) if len(values) > 3 else 0.0
        if spread > 1e-7 * float(np.abs(values).max(initial=0.0)):
            scaled = (values - values.mean()) / spread
            skewness += (np.mean(scaled**3), 6 * (count - 2) / ((count + 1) * (count + 3)))
            excess = float(np.mean(scaled**4)) - 3 + 6 / (count + 1)
            kurtosis += (
                excess,
                24 * count * (count - 2) * (count - 3) / ((count + 1) ** 2 * (count + 3) * (count + 5)),
            )
    limit = stats.norm.isf(CHANCE / 4)
    if skewness[1] > 0 and abs(skewness[0]) > limit * math.sqrt(skewness[1]):
        return "skewed"
    return "heavy-tailed" if kurtosis[1] > 0 and kurtosis[0] > limit * math.sqrt(kurtosis[1]) else ""

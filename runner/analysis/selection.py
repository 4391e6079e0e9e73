"""The best of many points: its estimate corrected for the choice."""

import numpy as np
from scipy import stats


def correct_best(
    means: np.ndarray, standard_errors: np.ndarray, degrees: np.ndarray, level: float
) -> tuple[float, float, float, str]:
    """The estimate of the point with the largest mean, with an interval: both allow for the choice.

    `means`, `standard_errors` and `degrees` of freedom are `(points,)`. The interval is that of all points together
    (Bonferroni), which covers whichever is chosen; the estimate is shrunken towards the mean of all points by as much
    of their variance as their standard errors explain (James and Stein, 1961).
    """
    best = int(np.argmax(means))
    half = float(stats.t.isf((1 - level) / 2 / len(means), max(1, degrees[best])) * standard_errors[best])
    variance, noise = float(np.var(means, ddof=1)), float(np.mean(standard_errors**2))
    kept = max(0.0, 1 - noise / variance) if variance > 0 else 0.0
    corrected = float(means.mean() + kept * (means[best] - means.mean()))
    return corrected, float(means[best]) - half, float(means[best]) + half, "Bonferroni, shrunken"

"""What a difference shows: the conclusion of its test and of the failures at both points, and its words."""

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

from runner.analysis.contrasts import Contrast, Method
from runner.analysis.metrics import Metric
from runner.analysis.replicates import Sample, share_lost

_NO_VARIANCE = (Method.SIGN, Method.PERMUTATION)


class Conclusion(Enum):
    """What a comparison shows, as the column `conclusion` has it."""

    BETTER = "better"
    WORSE = "worse"
    DIFFERS = "differs"
    """Of a metric without a direction."""
    SAME = "same"
    """Within the margin, by two one-sided tests, or equal at all seeds."""
    NOT_SHOWN = "not shown"
    ONE_SEED = "one seed"
    """There is no variance, and so no test, with one seed."""
    NO_VARIANCE = "no variance"
    """The difference does not vary, and there are too few seeds for a test that needs no variance."""
    FAILS_MORE = "fails more"
    """More replicates have failed, which is significant, or what is left of them looks better."""
    FAILS_LESS = "fails less"
    """The same of the point that it is compared with."""


def conclude(
    row: Mapping[str, Any], metric: Metric, pair: tuple[Sample, Sample], alpha: float, contrast: Contrast
) -> Conclusion:
    """The conclusion from a row of numbers of `differences`; failures may take the place of what finite values show."""
    more = math.copysign(1.0, share_lost(pair[0]) - share_lost(pair[1])) if _differ_in_lost(pair) else 0.0
    value = _conclude_values(row, metric, alpha, contrast)
    winner = {Conclusion.BETTER: 1.0, Conclusion.WORSE: -1.0}.get(value, 0.0)
    looks_better = bool(winner) and winner == more
    if looks_better or (row["p_failures"] < alpha and winner != -more):
        return Conclusion.FAILS_MORE if more > 0 else Conclusion.FAILS_LESS
    if value is Conclusion.DIFFERS and more:
        return Conclusion.FAILS_MORE if more > 0 else Conclusion.FAILS_LESS
    return value


def _differ_in_lost(pair: tuple[Sample, Sample]) -> bool:
    return share_lost(pair[0]) != share_lost(pair[1])


def _conclude_values(row: Mapping[str, Any], metric: Metric, alpha: float, contrast: Contrast) -> Conclusion:
    """What the finite values show."""
    if contrast.method is Method.NONE:
        return Conclusion.ONE_SEED
    if _is_same(row, alpha, contrast):
        return Conclusion.SAME
    if row["p_adjusted"] < alpha:
        if not metric.direction:
            return Conclusion.DIFFERS
        return Conclusion.BETTER if metric.sign * row["difference"] > 0 else Conclusion.WORSE
    return Conclusion.NO_VARIANCE if contrast.method in _NO_VARIANCE else Conclusion.NOT_SHOWN


def _is_same(row: Mapping[str, Any], alpha: float, contrast: Contrast) -> bool:
    if contrast.method in _NO_VARIANCE:
        return abs(row["difference"]) <= row["margin"]
    return row["p_same"] < alpha or max(-row["low"], row["high"]) < row["margin"]


def describe_conclusion(
    conclusion: Conclusion, row: Mapping[str, Any], pair: tuple[Sample, Sample], alpha: float, contrast: Contrast
) -> str:
    """The conclusion in words."""
    counts = " against ".join(
        f"{sample.nonfinite + sample.failed} of {sample.finished + sample.failed}" for sample in pair
    )
    if conclusion in (Conclusion.FAILS_MORE, Conclusion.FAILS_LESS):
        is_significant = "" if row["p_failures"] < alpha else ", which may be chance"
        return f"{conclusion.value} ({counts}{is_significant}); the finite values alone do not tell"
    if conclusion is Conclusion.SAME:
        is_equal = contrast.method in _NO_VARIANCE
        return "the same at all seeds" if is_equal else f"the same within {row['margin']:.3g}"
    return {
        Conclusion.ONE_SEED: "one seed shows no difference" if contrast.pairs else "no finite value",
        Conclusion.NO_VARIANCE: f"no variance: all {contrast.pairs} seeds differ alike, which is too few to show it",
        Conclusion.NOT_SHOWN: "not shown",
    }.get(conclusion, conclusion.value)

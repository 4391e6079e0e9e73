"""Which seeds would settle what a comparison does not show, for a difference of interest and its points only."""

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runner.analysis.claims import Claims
from runner.analysis.conclusions import Conclusion
from runner.analysis.formats import AXIS
from runner.analysis.load import Runs
from runner.analysis.metrics import Metric
from runner.analysis.power import plan_seeds
from runner.analysis.replicates import Sample
from runner.storage.environment import format_command
from runner.storage.folder import shorten_path

SEEDS = "seeds"
"""The fact of searches whose points depend on the seeds."""
PLAIN = re.compile(r"[A-Za-z0-9_.+-]+")
"""Values that need no quotes in an override."""


@dataclass(frozen=True)
class ArmPlan:
    """The seeds that a row of `differences` needs, and those to add to both of its points."""

    points: tuple[int, int]
    metric: str
    difference: float
    seeds: int
    more: int


def plan_differences(
    claims: Claims,
    samples: Mapping[str, Sequence[Sample]],
    metrics: Mapping[str, Metric],
    difference: float | None,
    alpha: float,
) -> dict[int, ArmPlan]:
    """The plan of each row of `differences` that shows nothing yet and that a claim may be made of, by its place.

    `alpha` is the level of the next look. Empty without a difference of interest.
    """
    plans: dict[int, ArmPlan] = {}
    for place, row in enumerate(claims.differences):
        metric = metrics[row["metric"]]
        if difference is None or row["conclusion"] != Conclusion.NOT_SHOWN.value or not metric.is_primary:
            continue
        pair = row["point"], row["partner"]
        pilot, spread = _measure_spread(*(samples[metric.name][i] for i in pair))
        found = plan_seeds(spread, pilot, difference, alpha, comparisons=max(1, claims.families[True]))
        if found and found.more:
            plans[place] = ArmPlan(pair, metric.name, difference, found.seeds, found.more)
    return plans


def _measure_spread(a: Sample, b: Sample) -> tuple[int, float]:
    """The pairs and the standard deviation of their differences; without pairs that of independent ones."""
    _, left, right = np.intersect1d(a.replicate, b.replicate, assume_unique=True, return_indices=True)
    if len(left) > 1:
        return len(left), float((a.values[left] - b.values[right]).std(ddof=1))
    pilot = min(len(a.values), len(b.values))
    return pilot, math.sqrt(a.values.var(ddof=1) + b.values.var(ddof=1)) if pilot > 1 else math.nan


def propose_seeds(runs: Runs, plans: Mapping[int, ArmPlan]) -> str:
    """The command that gives the seeds of some plans to their points; empty if there are none.

    It is the study's own with the values of these points, where they are a product of values, and a race between
    them otherwise, as in a search, which proposes its points itself. Seeds that a point has already are not executed
    again.
    """
    folder, first = runs.studies[0], int(runs.seed.min())
    if not plans or len(runs.studies) > 1 or first < 0 or runs.pooled:
        return ""
    arms = sorted({point for plan in plans.values() for point in plan.points})
    plan = max(plans.values(), key=lambda plan: plan.seeds)
    if command := _extend_call(runs, arms, range(first, first + plan.seeds)):
        return command
    if "task" in runs.points:  # a race is within a task
        return ""
    more = max(plan.more for plan in plans.values())
    words = ["python", "-m", "runner.race", shorten_path(folder.path), "--metric", plan.metric]
    return shlex.join([*words, "--difference", f"{plan.difference:g}", "--budget", str(more * len(arms))])


def _extend_call(runs: Runs, arms: Sequence[int], seeds: range) -> str:
    """The command of the study with the values of some points and other seeds; empty where that is not possible."""
    folder, axes = runs.studies[0], runs.points.iloc[list(arms)]
    if (search := runs.manifests[0].fingerprint.search) and (SEEDS in search or len(arms) < len(runs.points)):
        return ""  # its points are its own, and those of a sampler that learns depend on the seeds
    if len(arms) == len(runs.points):  # all of them: the command as it is, but for the seeds
        axes = axes[[]]
    values = {
        name.removeprefix(AXIS): list(dict.fromkeys(map(_format_value, axes[name].tolist()))) for name in axes.columns
    }
    is_plain = all(PLAIN.fullmatch(text) for own in values.values() for text in own)
    is_product = not values or math.prod(map(len, values.values())) == len(arms)
    if "task" in values or not (is_plain and is_product):
        return ""
    command = shlex.split(format_command(folder))
    swept = ("seed", "study", "overwrite", *values)
    words = [word for word in command if word.partition("=")[0].lstrip("+") not in swept]
    if not command or any(word.startswith(("hydra.sweeper.params", "zip=", "hydra.sweeper.zip")) for word in words):
        return ""
    is_sweep = any(word in ("-m", "--multirun") or "experiment=" in word for word in words[3:])
    chosen = [f"{name}={','.join(own)}" for name, own in values.items()]
    added = [*([] if is_sweep else ["-m"]), *chosen, f"seed=range({seeds.start},{seeds.stop})"]
    return shlex.join([*words, *added, f"study={folder.path.name}"])


def _format_value(value: Any) -> str:
    return str(value)

"""Studies compared across seeds: estimates for each point, and differences to the best one or to a baseline."""

import json
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis import statistics
from runner.analysis.aggregates import aggregate_tasks
from runner.analysis.claims import Against, Claims, compare_samples, find_best
from runner.analysis.confirmation import split_confirmations
from runner.analysis.formats import AXIS, format_label
from runner.analysis.load import Runs, is_same, load_runs
from runner.analysis.looks import Look, record_looks, spend
from runner.analysis.metrics import Metric
from runner.analysis.proposals import ArmPlan, plan_differences, propose_seeds
from runner.analysis.replicates import Failures, Sample, group_samples
from runner.analysis.selection import correct_best, estimate_correlation
from runner.analysis.shapes import describe_shapes
from runner.analysis.variances import divide_variance
from runner.errors import InvalidInputError

MOST_POINTS = 100_000
"""Points that are compared; if there are more, those that come first in the tables."""
OWN_COLUMNS = (
    *("metric", "against", "command", "name", "point", "seeds", "seeds_needed"),
    *("tasks", "runs", "mean_low", "mean_high", "gap"),
)
"""Columns of a comparison beside those of its claims."""
MOST_PAIRS = 100_000
"""Rows of differences that a comparison of all pairs may have for each metric."""


@dataclass(frozen=True)
class Best:
    """The best point of a metric, a row of `runs.points`, with its estimate.

    `corrected`, `low` and `high` allow for the choice of the best among many by `method`; `confirmed` is the interval
    of seeds that were run after the choice, if there are any.
    """

    point: int
    estimate: float
    corrected: float
    low: float
    high: float
    method: str
    confirmed: statistics.Interval | None = None
    confirmed_mean: float = math.nan


@dataclass(frozen=True)
class Comparison:
    """What the seeds show; `points`, `differences` and `aggregates` have a row for each point and metric.

    `points` are estimates, `differences` those to the best point or the baseline, `aggregates` those over several tasks
    (empty if there is one), `variances` the share of each axis and of the seed in the variance of the runs. `samples`
    has for each metric the values of each point. `primary` are the metrics that share the level, `best` has the best
    point of each directed metric. `alpha` is what is left of `1 - level` for this look at the study, the `looks`-th.
    `notes` is what a reader has to know, `exclusions` which runs are left out, and `suggestion` a command that adds
    seeds, or empty. docs/reference/columns.md describes the columns.
    """

    runs: Runs
    level: float
    metrics: tuple[str, ...]
    axes: tuple[str, ...]
    points: pd.DataFrame
    differences: pd.DataFrame
    aggregates: pd.DataFrame
    samples: Mapping[str, Sequence[Sample]]
    notes: tuple[str, ...]
    suggestion: str
    primary: tuple[str, ...] = ()
    exclusions: tuple[str, ...] = ()
    best: Mapping[str, Best] = field(default_factory=dict)
    variances: pd.DataFrame = field(default_factory=pd.DataFrame)
    looks: int = 1
    alpha: float = 0.05

    def select_samples(self, metric: str, rows: pd.DataFrame) -> list[Sample]:
        """The samples of the points in some rows of `points` or `differences`."""
        if not self.axes:
            return [self.samples[metric][0]] * len(rows)
        labels = self.runs.points.itertuples(index=False, name=None)
        place = {tuple(map(str, label)): i for i, label in enumerate(labels)}
        wanted = rows[list(self.axes)].itertuples(index=False, name=None)
        return [self.samples[metric][place[tuple(map(str, label))]] for label in wanted]


def compare_studies(
    folders: Sequence[Path | str],
    *,
    metrics: Sequence[str] | None = None,
    by: Sequence[str] | None = None,
    baseline: Mapping[str, Any] | None = None,
    level: float = 0.95,
    keep: str | None = None,
    primary: Sequence[str] | None = None,
    all_pairs: bool = False,
    margin: float | Mapping[str, float] | None = None,
    failures: str = "drop",
    bounds: Mapping[str, tuple[float, float]] | None = None,
    difference: float | None = None,
) -> Comparison:
    """Compares the points of studies across their seeds.

    `metrics` are scalar outputs, or numbers of arrays such as `y.mean`; None takes all scalars. `by` are the axes that
    distinguish points; None takes all that vary. Each point is compared with the best one of its metric and task (the
    first, if the metric has no direction); `baseline` gives values of axes, and each point is compared with the one
    that has these values instead of its own; `all_pairs` compares all with all. `level` is the confidence level, at
    least 0.5 and less than 1. `keep` selects runs by an expression for `pandas.DataFrame.eval`. `primary` are the
    metrics that claims are made of; None takes those that the task declares, or else all. `margin` is the smallest
    difference of interest, for all metrics or by name; None is what rounding may do. `failures` is `drop`, `worst` or
    `last`: what stands for a run without a finite value. `bounds` are the lowest and highest possible values of
    metrics, by which tasks are brought to one scale. `difference` is the one that further seeds are proposed for.

    Each comparison of several points is a look at the study, which is recorded in its folder; see `looks.py`.

    Raises InvalidInputError for a study, metric, axis or value that does not exist, and a filter that is not valid.

    With the study of `python -m runner -m task=mixed_train lr=0.1,0.2 'seed=range(0,5)' study=lr_scan`:

    >>> comparison = compare_studies(["outputs/lr_scan"], metrics=["loss_after"], baseline={"lr": 0.1})
    >>> comparison.points["seeds"].tolist()
    [5, 5]
    >>> comparison.differences["against"].tolist()
    ['lr=0.1']
    """
    _check_options(level, baseline, all_pairs, failures)
    _check_difference(difference)
    runs, confirming = split_confirmations(
        load_runs([Path(folder) for folder in folders], metrics, by, keep, failures == "last")
    )
    _check_arrays(runs, failures)
    count = min(len(runs.points), MOST_POINTS) if len(runs.points.columns) else 1
    samples = group_samples(runs, count)
    described = _describe_metrics(runs, primary, margin)
    tasks = _list_tasks(runs, count)
    against = _choose_partners(runs, tasks, baseline, all_pairs=all_pairs)
    look = record_looks(
        runs, _describe_question(runs, described, by, baseline, keep), 1 - level, is_claimless=count < 2
    )
    alpha, imputed = look.alpha, Failures(failures)
    claims = compare_samples(
        samples, described, level=level, alpha=alpha, against=against, groups=tasks, failures=imputed
    )
    runs, baseline = _separate_axes(runs, claims, baseline)
    aggregates = aggregate_tasks(runs, samples, baseline, level, bounds)
    labels = _list_labels(runs)[:count]
    points = _build_points(runs, claims, labels)
    plans = plan_differences(claims, samples, described, difference, spend(look.number + 1, 1 - level))
    differences = _build_differences(runs, claims, labels, plans)
    notes = (*_describe_runs(runs), *_describe_claims(points, differences, claims), *aggregates.notes)
    notes = (*notes, *_describe_look(look, level))
    notes = (*notes, *_describe_samples(samples, described, imputed), *describe_shapes(samples, level))
    return Comparison(
        runs,
        level,
        tuple(runs.values),
        tuple(runs.points.columns),
        points,
        differences,
        pd.DataFrame(aggregates.rows),
        samples,
        notes,
        propose_seeds(runs, plans),
        tuple(name for name, metric in described.items() if metric.is_primary),
        (*runs.exclusions, *_describe_limit(runs)),
        _confirm_bests(_correct_bests(claims.best, samples, described, level), confirming, described, level),
        pd.DataFrame(divide_variance(runs)),
        look.number,
        alpha,
    )


def _check_options(level: float, baseline: Mapping[str, Any] | None, all_pairs: bool, failures: str) -> None:
    if not 0.5 <= level < 1:
        raise InvalidInputError(f"the confidence level must be at least 0.5 and less than 1, got {level}")
    if baseline is not None and all_pairs:
        raise InvalidInputError("a comparison of all pairs has no baseline: give one of both")
    if failures not in {each.value for each in Failures}:
        has = ", ".join(each.value for each in Failures)
        raise InvalidInputError(f"failures must be one of {has}, got {failures!r}")


def _check_arrays(runs: Runs, failures: str) -> None:
    """Refuses the last finite value of metrics that have one value."""
    outputs = {output.name for manifest in runs.manifests for output in manifest.columns.outputs}
    if failures == Failures.LAST.value and (scalars := [name for name in runs.values if name in outputs]):
        raise InvalidInputError(
            f"failures=last takes the last finite elements of arrays, as of --metric curve.last; {', '.join(scalars)}: "
            "a single value"
        )


def _check_pairs(tasks: Sequence[Hashable]) -> None:
    pairs = sum(count * (count - 1) // 2 for count in Counter(tasks).values())
    if pairs > MOST_PAIRS:
        raise InvalidInputError(
            f"all pairs of {len(tasks):,} points are {pairs:,} comparisons, at most {MOST_PAIRS:,} are made; choose "
            "points by --filter, or compare with the best"
        )


def _describe_metrics(
    runs: Runs, primary: Sequence[str] | None, margin: float | Mapping[str, float] | None
) -> dict[str, Metric]:
    """What is known of each metric; the primary ones are those that are given, or declared by the task."""
    names = list(runs.values)
    for name in [*(primary or ()), *(margin if isinstance(margin, Mapping) else ())]:
        if name not in names:
            raise InvalidInputError(f"there is no metric {name!r} to compare; there are: {', '.join(names) or 'none'}")
    margins = margin if isinstance(margin, Mapping) else {} if margin is None else dict.fromkeys(names, margin)
    for name, value in margins.items():
        if not (math.isfinite(value) and value >= 0):
            raise InvalidInputError(f"the margin of {name} must be a number of at least 0, got {value}")
    declared = [name for name in runs.primary if name in names]
    chosen = set(primary or declared or names)
    return {
        name: Metric(
            name,
            runs.directions.get(name, ""),
            name in chosen,
            margins.get(name),
            runs.resolutions.get(name, 2.0**-23),
            True if name in runs.binary else None,
        )
        for name in names
    }


def _separate_axes(
    runs: Runs, claims: Claims, baseline: Mapping[str, Any] | None
) -> tuple[Runs, Mapping[str, Any] | None]:
    """Both with other names for the axes that have that of a column of the comparison: `axis.low` for `low`."""
    taken = {*OWN_COLUMNS, *(name for row in (*claims.points[:1], *claims.differences[:1]) for name in row)}
    names = {name: f"{AXIS}{name}" for name in runs.points.columns if name in taken}
    renamed = baseline and {names.get(name, name): value for name, value in baseline.items()}
    return replace(runs, points=runs.points.rename(columns=names)), renamed


def _choose_partners(
    runs: Runs, tasks: Sequence[Hashable], baseline: Mapping[str, Any] | None, *, all_pairs: bool
) -> Against | list[int]:
    """Whom each point is compared with: the best one, all others, or for each the index of its baseline."""
    if baseline is not None:
        return _find_baselines(runs, baseline)
    if all_pairs:
        _check_pairs(tasks)
        return Against.ALL
    return Against.BEST


def _list_labels(runs: Runs) -> list[dict[Hashable, Any]]:
    return runs.points.to_dict("records") if len(runs.points.columns) else [{}]


def _list_tasks(runs: Runs, count: int) -> list[Hashable]:
    """The task of each point: tasks have different scales, so that only points of one are compared."""
    return runs.points["task"].tolist()[:count] if "task" in runs.points else [""] * count


def _find_baselines(runs: Runs, baseline: Mapping[str, Any]) -> list[int]:
    """For each point the index of the one that it is compared with."""
    count, frame = min(len(runs.points), MOST_POINTS), runs.points
    for name, value in baseline.items():
        if name not in frame:
            axes = ", ".join(frame.columns) or "none"
            raise InvalidInputError(f"the baseline names {name!r}; the axes are: {axes}")
        if not frame[name].map(lambda has, value=value: is_same(has, value)).any():
            has = ", ".join(dict.fromkeys(map(str, frame[name])))
            raise InvalidInputError(f"the baseline has {name}={value}; there are: {has}")
    keys = [tuple(row) for row in frame.itertuples(index=False, name=None)]
    place = {key: i for i, key in enumerate(keys)}
    chosen = {name: next(has for has in frame[name] if is_same(has, value)) for name, value in baseline.items()}
    partners = [tuple(chosen.get(name, own) for name, own in zip(frame, key, strict=True)) for key in keys[:count]]
    return [place.get(key, i) for i, key in enumerate(partners)]


def _build_points(runs: Runs, claims: Claims, labels: Sequence[Mapping[Hashable, Any]]) -> pd.DataFrame:
    """The table `points`; seeds that do not exist are None, not a number."""
    rows = []
    for row in claims.points:
        point = row["point"]
        own = {name: value for name, value in row.items() if name not in ("point", "metric")}
        rows.append({**labels[point], "metric": row["metric"], "seeds": int(runs.planned[point]), **own})
    frame = pd.DataFrame(rows)
    for name in ("min_seed", "max_seed", "worst_seed"):
        if len(frame):
            frame[name] = pd.Series([row[name] for row in rows], dtype=object)
    return frame


def _build_differences(
    runs: Runs, claims: Claims, labels: Sequence[Mapping[Hashable, Any]], plans: Mapping[int, ArmPlan]
) -> pd.DataFrame:
    """The table `differences`; rows with a plan have the seeds that they need, and the command that adds them."""
    axes, rows = list(runs.points.columns), []
    for place, row in enumerate(claims.differences):
        own = {name: value for name, value in row.items() if name not in ("point", "partner", "metric")}
        head = {"metric": row["metric"], "against": format_label(labels[row["partner"]], axes)}
        plan = plans.get(place)
        own["seeds_needed"] = plan.seeds if plan else None
        own["command"] = propose_seeds(runs, {place: plan}) if plan else ""
        rows.append({**labels[row["point"]], **head, **own})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class BestPoints:
    """The best point of each directed metric of a study, without comparisons, so that it is no look at the study.

    `runs` are those that it is chosen by; `rivals` has for each metric the number of points with a finite value.
    """

    runs: Runs
    best: Mapping[str, Best]
    rivals: Mapping[str, int]


def find_best_points(folder: Path, metrics: Sequence[str], level: float = 0.95) -> BestPoints:
    """The best points of a study, as its comparison has them.

    Raises InvalidInputError for a study or a metric that does not exist, and for a study without runs.
    """
    runs, confirming = split_confirmations(load_runs([folder], metrics))
    count = min(len(runs.points), MOST_POINTS) if len(runs.points.columns) else 1
    samples, described = group_samples(runs, count), _describe_metrics(runs, None, None)
    tasks = _list_tasks(runs, count)
    best = {name: find_best(own, described[name], tasks) for name, own in samples.items()}
    corrected = _confirm_bests(_correct_bests(best, samples, described, level), confirming, described, level)
    rivals = {name: sum(len(sample.values) > 0 for sample in own) for name, own in samples.items()}
    return BestPoints(runs, corrected, rivals)


def _correct_bests(
    bests: Mapping[str, Mapping[Hashable, int]],
    samples: Mapping[str, Sequence[Sample]],
    metrics: Mapping[str, Metric],
    level: float,
) -> dict[str, Best]:
    """The best point of each directed metric among at least two points; there is none over several tasks."""
    found = {}
    for name, best in bests.items():
        own = {i: sample for i, sample in enumerate(samples[name]) if len(sample.values)}
        if len(best) == 1 and len(own) > 1:
            found[name] = _correct_best(next(iter(best.values())), own, metrics[name], level)
    return found


def _correct_best(point: int, samples: Mapping[int, Sample], metric: Metric, level: float) -> Best:
    """The best point among those with values; points that look better, but fail too often, do not compete."""
    estimate = float(samples[point].values.mean())
    behind = (own for own in samples.values() if metric.sign * (own.values.mean() - estimate) <= 0)
    # points with equal values, as where an axis has no effect, are one: between them nothing was chosen
    rivals = list({(own.replicate.tobytes(), own.values.tobytes()): own for own in (samples[point], *behind)}.values())
    if min(len(own.values) for own in rivals) < 2 or len(rivals) < 2:
        return Best(point, estimate, math.nan, math.nan, math.nan, "")
    means = np.array([metric.sign * own.values.mean() for own in rivals])
    counts = np.array([len(own.values) for own in rivals])
    errors = np.array([own.values.std(ddof=1) for own in rivals]) / np.sqrt(counts)
    shared = all(np.array_equal(own.replicate, rivals[0].replicate) for own in rivals)
    correlation = estimate_correlation(np.stack([own.values for own in rivals])) if shared else 0.0
    corrected, low, high, method = correct_best(means, errors, counts - 1, level, correlation=correlation)
    low, high = (low, high) if metric.sign > 0 else (-high, -low)
    return Best(point, estimate, metric.sign * corrected, low, high, method)


def _confirm_bests(
    best: Mapping[str, Best], confirming: Runs, metrics: Mapping[str, Metric], level: float
) -> dict[str, Best]:
    """The best points with the intervals of their confirmations, where there are some."""
    if not len(confirming):
        return dict(best)
    samples = group_samples(confirming, max(1, len(confirming.points)))
    found = {}
    for name, each in best.items():
        claims = compare_samples({name: [samples[name][each.point]]}, {name: metrics[name]}, level=level)
        row = claims.points[0] if claims.points else None
        interval = statistics.Interval(row["low"], row["high"], row["interval"]) if row and row["finished"] else None
        mean = row["mean"] if row else math.nan
        found[name] = replace(each, confirmed=interval, confirmed_mean=mean)
    return found


def _check_difference(difference: float | None) -> None:
    if difference is not None and not (math.isfinite(difference) and difference > 0):
        raise InvalidInputError(f"the difference of interest must be a positive number, got {difference}")


def _describe_question(
    runs: Runs,
    metrics: Mapping[str, Metric],
    by: Sequence[str] | None,
    baseline: Mapping[str, Any] | None,
    keep: str | None,
) -> str:
    """What is asked about the runs, for people who read which looks there were."""
    names = [f"{name}{'' if metric.is_primary else ' (exploratory)'}" for name, metric in metrics.items()]
    parts = [f"{', '.join(names)} by {', '.join(by or runs.points.columns) or 'nothing'}"]
    parts += [f"against {' '.join(f'{name}={value}' for name, value in baseline.items())}"] if baseline else []
    return "; ".join([*parts, *([f"where {keep}"] if keep else [])])


def _describe_look(look: Look, level: float) -> list[str]:
    notes = []
    if look.number > 1:
        notes.append(
            f"this is look {look.number} at the study: differences have the level {look.alpha:.3g} of {1 - level:.3g}, "
            "so that all looks together keep it"
        )
    if not look.is_recorded:
        notes.append("this look cannot be recorded, because the study's folder cannot be written")
    return notes


def _describe_limit(runs: Runs) -> list[str]:
    if len(runs.points) <= MOST_POINTS:
        return []
    return [f"the first {MOST_POINTS:,} of {len(runs.points):,} points are compared; choose others by --filter"]


def _describe_runs(runs: Runs) -> list[str]:
    notes = list(runs.notes)
    if runs.pending:
        notes.append(f"{runs.pending:,} planned runs are pending; the estimates are of the {len(runs):,} that are done")
    if runs.pooled:
        notes.append(f"each value is the average of a seed over all values of {', '.join(runs.pooled)}")
    if runs.categorical:
        notes.append(f"{', '.join(runs.categorical)}: categorical outputs, which are in the table and not compared")
    if runs.values and not any(np.isfinite(values).any() for values in runs.values.values()):
        notes.append(f"no run has a finite value of {', '.join(runs.values)}")
    return notes


def _describe_samples(
    samples: Mapping[str, Sequence[Sample]], metrics: Mapping[str, Metric], failures: Failures
) -> list[str]:
    """What is left out of the samples, and what stands for values that are not finite."""
    notes = []
    left_out = max((sum(sample.left_out for sample in own) for own in samples.values()), default=0)
    if left_out:
        notes.append(f"{left_out:,} seeds that do not have all of these values are left out")
    lost = {name: sum(sample.nonfinite + sample.failed for sample in own) for name, own in samples.items()}
    total = {name: sum(sample.finished + sample.failed for sample in own) for name, own in samples.items()}
    for name, count in lost.items():
        is_worst = failures is Failures.WORST and metrics[name].direction
        what = "the worst finite value stands for them" if is_worst else "means are of the others"
        if count:
            notes.append(f"{name}: {count:,} of {total[name]:,} replicates have no finite value; {what}")
    return notes


def _describe_claims(points: pd.DataFrame, differences: pd.DataFrame, claims: Claims) -> list[str]:
    notes = []
    if len(points) and (points["finished"] <= 1).all():
        notes.append("one seed for each point: there is no variance, and so no interval and no test")
    if not len(differences):
        return notes
    primary, exploratory = claims.families[True], claims.families[False]
    if primary > 1:
        notes.append(f"p-values and intervals of differences allow for {primary:,} comparisons")
    if exploratory:
        names = ", ".join(differences.loc[differences["exploratory"], "metric"].unique())
        notes.append(f"exploratory, as a family of {exploratory:,} comparisons of their own: {names}")
    unpaired = differences["kind"].eq("unpaired").any()
    if unpaired:
        notes.append("points without a common seed are compared unpaired: common seeds show more")
    if differences["kind"].eq("partly paired").any():
        notes.append("points that share some of their seeds are compared by all of them, partly paired")
    return notes


def format_json(comparison: Comparison) -> str:
    """The comparison as JSON for programs; what is not a number is null."""
    frames = {
        "points": comparison.points,
        "differences": comparison.differences,
        "aggregates": comparison.aggregates,
        "variances": comparison.variances,
    }
    tables = {name: json.loads(frame.to_json(orient="records", double_precision=15)) for name, frame in frames.items()}
    studies = [str(folder.path) for folder in comparison.runs.studies]
    best = {name: asdict(each) for name, each in comparison.best.items()}
    data = {
        "studies": studies,
        "level": comparison.level,
        "alpha": comparison.alpha,
        "looks": comparison.looks,
        "axes": comparison.axes,
        "primary": comparison.primary,
        "best": best,
        **tables,
        "exclusions": comparison.exclusions,
        "notes": comparison.notes,
    }
    return json.dumps(_remove_nan(data), indent=1)


def _remove_nan(data: Any) -> Any:
    """JSON values in which numbers that JSON does not have are null."""
    if isinstance(data, Mapping):
        return {name: _remove_nan(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_remove_nan(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data

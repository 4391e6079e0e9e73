"""The runs of a study that are worth keeping: by their numbers, by their point, or the best by a metric."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runner.analysis.load import STATUS_CODES, Runs, is_same, load_runs
from runner.errors import InvalidInputError
from runner.plan.status import Status


@dataclass(frozen=True)
class Choice:
    """Which runs of a study are meant: those of these numbers, or the `best` of `metric` among those of a point.

    `point` has values by axis, as text. Without `best` they are all runs of the point.
    """

    numbers: tuple[int, ...] = ()
    point: Mapping[str, str] | None = None
    best: int | None = None
    metric: str | None = None


def choose_runs(study: Path, choice: Choice) -> list[int]:
    """The numbers of the chosen runs: the best one first, or ascending.

    Raises InvalidInputError for runs, axes, values and metrics that do not exist, for a metric without a direction,
    and where no run has a finite value of it.
    """
    axes = [name for name in choice.point or () if name != "seed"]
    # all scalars are read for the best runs: one that is not finite is no winner, whatever its metric is
    runs = load_runs([study], None if choice.best else _list_metrics(choice), axes)
    if choice.numbers:
        return _check_numbers(study, runs, choice.numbers)
    chosen = np.flatnonzero(_find_point(runs, choice.point or {}))
    if choice.best is None:
        return sorted(runs.number[chosen].tolist())
    return _rank(study, runs, chosen, choice)


def _list_metrics(choice: Choice) -> list[str]:
    return [choice.metric] if choice.metric else []


def _check_numbers(study: Path, runs: Runs, numbers: Collection[int]) -> list[int]:
    known = set(runs.number.tolist())
    for number in numbers:
        if number not in known:
            raise InvalidInputError(f"{study} has no run {number}; its table has {len(known):,}, from 0")
    return list(dict.fromkeys(numbers))


def _find_point(runs: Runs, point: Mapping[str, str]) -> np.ndarray:
    """Which runs have these values, bool `(runs,)`."""
    kept = np.ones(len(runs), dtype=bool)
    for name, text in point.items():
        values = runs.seed if name == "seed" else runs.points[name].to_numpy()
        distinct = list(dict.fromkeys(values.tolist()))
        same = [value for value in distinct if is_same(_as_text(value), text)]
        if not same:
            has = ", ".join(map(_as_text, distinct[:20])) + (", …" if len(distinct) > 20 else "")
            raise InvalidInputError(f"no run has {name}={text}; there are: {has}")
        own = np.array([value in same for value in values.tolist()])
        kept &= own if name == "seed" else own[runs.point]
    if not kept.any():
        raise InvalidInputError(f"no run has {' and '.join(f'{n}={v}' for n, v in point.items())}")
    return kept


def _as_text(value: object) -> str:
    return "null" if value is None else str(value)


def _rank(study: Path, runs: Runs, chosen: np.ndarray, choice: Choice) -> list[int]:
    """The best of the chosen runs, the first of equal ones before the others."""
    metric, direction = choice.metric, runs.directions.get(choice.metric or "")
    if metric is None or direction is None:
        has = ", ".join(runs.directions) or "none"
        raise InvalidInputError(
            f"--best needs a --metric with a direction in task.metrics, got {metric}; there are: {has}"
        )
    values = runs.values[metric] if metric in runs.values else load_runs([study], [metric]).values[metric]
    finite = np.isfinite(values) & (runs.status != STATUS_CODES[Status.FAILED])
    for others in runs.values.values():
        finite &= np.isfinite(others) | (runs.status == STATUS_CODES[Status.OK])
    candidates = chosen[finite[chosen]]
    if not len(candidates):
        raise InvalidInputError(f"no run of {study} has finite results and a value of {metric}")
    signed = values[candidates] if direction == "minimize" else -values[candidates]
    order = np.lexsort((runs.number[candidates], signed))
    return runs.number[candidates[order][: choice.best]].tolist()

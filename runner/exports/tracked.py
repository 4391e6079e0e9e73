"""What a tracker is told of a study: a tracker run for each point, with its seeds as a table, or for each run."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.comparison import Comparison, compare_studies
from runner.analysis.formats import format_label
from runner.analysis.load import STATUS_CODES
from runner.errors import InvalidInputError
from runner.exports.curves import Curve, average_curves, list_curves, list_series
from runner.exports.request import Request
from runner.plan.status import Status
from runner.storage.environment import format_command, read_environment
from runner.storage.manifest import Manifest
from runner.storage.rows import SavedRun, iterate_runs, read_runs

ESTIMATES = {
    "": "mean",
    "/low": "low",
    "/high": "high",
    "/median": "median",
    "/std": "std",
    "/min": "min",
    "/max": "max",
}
"""How estimates of a metric are named in a tracker, and in which column of a comparison they are."""
COUNTS = ("finished", "nonfinite", "failed")


@dataclass(frozen=True)
class SeedTable:
    """A row for each run of a point: its number, seed, status, and metrics."""

    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class TrackedRun:
    """A run of a tracker.

    `key` identifies it, and stays the same when its study is extended. `parameters` are all values but the seed of a
    point, `scalars` finite numbers by name, and `series` float64 `(steps,)` by name; `seeds` is None for a single run.
    `is_failed` says that no run has a result.
    """

    key: str
    name: str
    parameters: Mapping[str, Any]
    scalars: Mapping[str, float]
    series: Mapping[str, np.ndarray] = field(default_factory=dict)
    seeds: SeedTable | None = None
    is_failed: bool = False

    @property
    def digest(self) -> str:
        """Equal for equal content, so that a tracker need not be told again."""
        series = {name: hashlib.sha256(values.tobytes()).hexdigest() for name, values in self.series.items()}
        seeds = None if self.seeds is None else [self.seeds.header, self.seeds.rows]
        content = [self.name, dict(self.parameters), dict(self.scalars), series, seeds, self.is_failed]
        return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class TrackedStudy:
    """A study as a tracker is told of it; `key` identifies it, also after it was extended, but not renamed."""

    request: Request
    key: str
    comparison: Comparison
    command: str
    note: str
    tags: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.request.name

    @property
    def metrics(self) -> dict[str, str]:
        """The compared metrics that have a direction, with it."""
        directions = self.request.manifest.metrics
        return {name: directions[name] for name in self.comparison.metrics if name in directions}

    @property
    def facts(self) -> dict[str, str]:
        """What results depend on and no column has, as texts."""
        return {name: str(value) for name, value in self.request.manifest.fingerprint.describe().items()}

    @property
    def noun(self) -> str:
        """What a tracker run stands for."""
        return "run" if self.request.each_run else "point"

    @property
    def curves(self) -> list[str]:
        return [output.name for output in list_curves(self.request.manifest)]

    def write_report(self, folder: Path) -> Path:
        """Writes the report of its comparison into a folder."""
        from runner.analysis.page.document import write_report

        return write_report(self.comparison, folder / self.request.folder.report.name)

    def __len__(self) -> int:
        """The number of its tracker runs."""
        return len(self.comparison.runs) if self.request.each_run else max(1, len(self.comparison.runs.points))

    def __iter__(self) -> Iterator[TrackedRun]:
        return _iterate_runs(self) if self.request.each_run else _iterate_points(self)


def open_tracked(request: Request) -> TrackedStudy:
    """The study as a tracker is told of it.

    Raises InvalidInputError if it has no row yet, if a filter is not valid, and for more points than are compared.
    """
    comparison = compare_studies([request.folder.path], keep=request.keep)
    points, compared = len(comparison.runs.points), len(next(iter(comparison.samples.values()), ()))
    if points > compared > 0 and not request.each_run:
        raise InvalidInputError(
            f"{request.name} has {points:,} points, and at most {compared:,} are compared; select some with --filter"
        )
    environment = read_environment(request.folder) or {}
    note, tags = environment.get("note", ""), tuple(environment.get("tags", ()))
    study = TrackedStudy(request, _identify(request), comparison, format_command(request.folder), note, tags)
    request.announce(len(study))
    return study


def format_table(seeds: SeedTable) -> str:
    """The seeds of a point as a table in Markdown."""
    lines = [seeds.header, ["---"] * len(seeds.header), *seeds.rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _identify(request: Request) -> str:
    """By the name of a study and the first row of its table, which neither an extension nor a repetition changes."""
    with request.folder.results.open("rb") as file:
        head = file.readline() + file.readline()
    return hashlib.sha256(request.name.encode() + b"\0" + head).hexdigest()[:12]


def make_key(study: TrackedStudy, content: Any) -> str:
    """A key of something in a study."""
    text = json.dumps([study.key, content], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _iterate_points(study: TrackedStudy) -> Iterator[TrackedRun]:
    comparison, request = study.comparison, study.request
    runs = comparison.runs
    order = np.argsort(runs.point, kind="stable")
    bounds = np.searchsorted(runs.point[order], np.arange(max(1, len(runs.points)) + 1))
    members = [order[start:stop] for start, stop in pairwise(bounds)]
    wanted = [int(runs.number[rows[0]]) for rows in members]
    firsts = {number: run for source in request.sources for number, run in read_runs(*source, wanted).items()}
    ascending = np.argsort(runs.number)
    numbers, points = runs.number[ascending], runs.point[ascending]
    curves = average_curves(request.sources, numbers, points, comparison.level)
    labels, estimates = _list_labels(comparison), _group_estimates(comparison)
    for place, rows in enumerate(members):
        parameters = list_parameters(firsts[int(runs.number[rows[0]])], request.manifest)
        parameters.pop("seed", None)
        yield TrackedRun(
            make_key(study, sorted(parameters.items())),
            format_label(labels[place], comparison.axes) if comparison.axes else study.name,
            parameters,
            _list_scalars(estimates.get(_key(labels[place], comparison.axes), [])),
            _list_series(curves, place),
            _list_seeds(comparison, rows),
            bool((runs.status[rows] == STATUS_CODES[Status.FAILED]).all()),
        )


def _list_labels(comparison: Comparison) -> list[dict[str, Any]]:
    points = comparison.runs.points
    return points.to_dict("records") if len(points.columns) else [{}]


def _key(label: Mapping[str, Any], axes: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(label[name]) for name in axes)


def _group_estimates(comparison: Comparison) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """The rows of a comparison's points, one for each metric, by the texts of their axes."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in comparison.points.to_dict("records"):
        groups.setdefault(_key(row, comparison.axes), []).append(row)
    return groups


def _list_scalars(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    scalars = {f"{row['metric']}{end}": float(row[column]) for row in rows for end, column in ESTIMATES.items()}
    scalars |= {f"runs/{name}": float(max(row[name] for row in rows)) for name in COUNTS if rows}
    return {name: value for name, value in scalars.items() if math.isfinite(value)}


def _list_series(curves: Mapping[str, Mapping[int, Curve]], point: int) -> dict[str, np.ndarray]:
    return {
        name: values
        for output, own in curves.items()
        if point in own
        for name, values in list_series(output, own[point]).items()
    }


def _list_seeds(comparison: Comparison, rows: np.ndarray) -> SeedTable:
    runs, names = comparison.runs, list(Status)
    columns: list[Sequence[Any]] = [runs.number[rows].tolist(), runs.seed[rows].tolist()]
    columns.append([names[code].value for code in runs.status[rows]])
    columns += [values[rows].tolist() for values in runs.values.values()]
    return SeedTable(("run", "seed", "status", *runs.values), tuple(zip(*columns, strict=True)))


def _iterate_runs(study: TrackedStudy) -> Iterator[TrackedRun]:
    request, kept = study.request, pd.Index(study.comparison.runs.number)
    outputs = {output.name: output for output in request.manifest.columns.outputs}
    for run in chain.from_iterable(iterate_runs(*source) for source in request.sources):
        if run.number not in kept:
            continue
        numbers = {n: float(v[0]) for n, v in run.outputs.items() if v.ndim == 1 and not outputs[n].is_categorical}
        yield TrackedRun(
            make_key(study, run.number),
            f"run {run.number}",
            list_parameters(run, request.manifest),
            {name: value for name, value in numbers.items() if math.isfinite(value)},
            {name: values[0].astype(np.float64) for name, values in run.outputs.items() if values.ndim == 2},
            None,
            run.status is Status.FAILED,
        )


def list_parameters(run: SavedRun, manifest: Manifest) -> dict[str, Any]:
    """The values of a run, its task included, with the types that they have."""
    kinds = manifest.columns.parameters
    static = {name: _parse(text, kinds.get(name, "text")) for name, text in json.loads(run.key)}
    scalars = run.scalars
    return {name: static.get(name, scalars.get(name)) for name in ("task", *kinds) if name in static or name in scalars}


def _parse(text: str, kind: str) -> Any:
    if kind == "bool":
        return text == "true"
    if kind in ("int64", "float64"):
        return int(text) if kind == "int64" else float(text)
    return text

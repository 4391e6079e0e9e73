"""What a study is, in full: its values, axes and versions, its best points, its failures, and how to go on."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pandas as pd

from runner.analysis.comparison import Comparison, compare_studies
from runner.plan.status import Status
from runner.storage.catalog import Entry
from runner.storage.checkpoints import format_replay
from runner.storage.contents import Axis, list_axes, list_constants
from runner.storage.environment import format_command, read_environment
from runner.storage.folder import Folder, shorten_path
from runner.storage.manifest import Manifest, require_manifest
from runner.storage.overview import measure_bytes
from runner.storage.reader import count_reasons

SHOWN_VALUES = 12
"""Values of an axis that are shown; of more, the first ones and the last one."""


class Purpose(StrEnum):
    """What a command to go on with does."""

    RESUME = "resume it"
    RETRY = "execute the failed runs once more"
    COMPARE = "compare its points"
    REPLAY = "keep the best run"


@dataclass(frozen=True)
class BestPoint:
    """The point with the best mean of a metric: its axes, the mean over its seeds and the interval of the mean.

    It is the best of `points` points, so that its mean flatters it: `corrected` allows for the choice, with its own
    bounds. These are NaN where the seeds do not tell.
    """

    metric: str
    direction: str
    point: Mapping[str, Any]
    mean: float
    low: float
    high: float
    seeds: int
    points: int
    corrected: float = math.nan
    corrected_low: float = math.nan
    corrected_high: float = math.nan


@dataclass(frozen=True)
class Description:
    """A study in full.

    `constants` are, for each task, the values that all of its runs share, `fingerprint` what results depend on and no
    column has, `versions` and `repositories` (of the code, without its diff) those of the last call, `sizes` the bytes
    of each file and folder, `failures` the number of runs by reason, and `commands` how to go on.
    """

    name: str
    path: str
    tasks: tuple[str, ...]
    planned: int
    statuses: Mapping[str, int]
    holder: str
    called: str
    note: str
    tags: tuple[str, ...]
    sizes: Mapping[str, int]
    constants: Mapping[str, Mapping[str, Any]]
    axes: tuple[Axis, ...]
    fingerprint: Mapping[str, Any]
    versions: Mapping[str, str]
    python: str
    devices: tuple[str, ...]
    repositories: tuple[Mapping[str, Any], ...]
    command: str
    accepted: tuple[str, ...]
    best: tuple[BestPoint, ...]
    failures: Mapping[str, int]
    commands: Mapping[Purpose, str]


def describe_study(entry: Entry) -> Description:
    """The description of a study in a list. Raises InvalidInputError if it is damaged."""
    folder, overview = entry.folder, entry.overview
    manifest, environment = require_manifest(folder.manifest), read_environment(folder) or {}
    return Description(
        name=folder.path.name,
        path=shorten_path(folder.path),
        tasks=overview.tasks,
        planned=manifest.planned,
        statuses=overview.statuses or {},
        holder=entry.holder,
        called=format_time(entry.called),
        note=overview.note,
        tags=overview.tags,
        sizes=_list_sizes(folder),
        constants=list_constants(manifest.indexes),
        axes=tuple(list_axes(manifest.indexes)),
        fingerprint=manifest.fingerprint.describe(),
        versions=environment.get("versions", {}),
        python=environment.get("python", ""),
        devices=tuple(environment.get("devices", ())),
        repositories=tuple(list_commits(environment)),
        command=format_command(folder),
        accepted=manifest.accepted,
        best=tuple(_find_best_points(folder, manifest)) if overview.done else (),
        failures=_count_failures(folder, manifest) if overview.count(Status.FAILED) else {},
        commands=_list_commands(entry, manifest),
    )


def list_fields(description: Description) -> dict[str, Any]:
    """The description as JSON values."""
    return {**asdict(description), "commands": {str(name): line for name, line in description.commands.items()}}


def list_commits(environment: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The states of the Git repositories of a study's code, as far as they are recorded, without their diffs."""
    return [
        {name: value for name, value in state.items() if name != "diff"}
        for state in environment.get("repositories", ())
    ]


def format_commit(state: Mapping[str, Any]) -> str:
    """The state of a repository in words."""
    place = f" on {state['branch']}" if state.get("branch") else ""
    return f"commit {state.get('commit')}{place}{', changed since the commit' if state.get('dirty') else ''}"


def format_time(seconds: float) -> str:
    """A time since 1970 in ISO 8601, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def format_axis(axis: Axis) -> str:
    """The values of an axis, or the first ones and the last one."""
    if axis.count <= SHOWN_VALUES and len(axis.values) == axis.count:
        return ", ".join(map(str, axis.values))
    return f"{', '.join(map(str, axis.values[:3]))}, … {axis.last} ({axis.count:,} values)"


def _list_sizes(folder: Folder) -> dict[str, int]:
    paths = [path for path in folder.own_paths if path.exists()]
    return {path.name: measure_bytes(path) if path.is_dir() else path.stat().st_size for path in paths}


def _count_failures(folder: Folder, manifest: Manifest) -> dict[str, int]:
    counts: Counter[str] = count_reasons(folder, manifest)
    for part in folder.parts:
        counts.update(count_reasons(part, replace(manifest, retries=())))
    return dict(counts.most_common())


def _find_best_points(folder: Folder, manifest: Manifest) -> list[BestPoint]:
    numbers = {output.name for output in manifest.columns.outputs if output.shape == () and not output.is_categorical}
    metrics = [name for name in manifest.metrics if name in numbers]
    size = folder.results.stat().st_size if folder.results.exists() else 0
    if not metrics or size <= len(manifest.columns.header):  # all of its rows may be in parts
        return []
    comparison = compare_studies([folder.path], metrics=metrics)
    found = [_find_best_point(comparison.points, name, manifest.metrics[name], comparison.axes) for name in metrics]
    return [_correct(best, comparison) for best in found if best is not None]


def _correct(point: BestPoint, comparison: Comparison) -> BestPoint:
    """The point with its corrected estimate, unless the comparison has chosen another one, because this one fails."""
    best = comparison.best.get(point.metric)
    chosen = {} if best is None else comparison.runs.points.iloc[best.point].to_dict()
    if best is None or {name: _to_json(value) for name, value in chosen.items()} != point.point:
        return point
    return replace(point, corrected=best.corrected, corrected_low=best.low, corrected_high=best.high)


def _find_best_point(points: pd.DataFrame, metric: str, direction: str, axes: Sequence[str]) -> BestPoint | None:
    rows = points[points["metric"] == metric] if len(points) else points
    rows = rows[rows["mean"].notna()] if len(rows) else rows
    if not len(rows):
        return None
    best = rows.loc[rows["mean"].idxmax() if direction == "maximize" else rows["mean"].idxmin()]
    label = {name: _to_json(best[name]) for name in axes}
    mean, low, high = (float(best[name]) for name in ("mean", "low", "high"))
    return BestPoint(metric, direction, label, mean, low, high, int(best["finished"]), len(rows))


def _to_json(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _list_commands(entry: Entry, manifest: Manifest) -> dict[Purpose, str]:
    folder, overview, command = entry.folder, entry.overview, format_command(entry.folder)
    commands = {}
    if command and overview.done < manifest.planned and not entry.holder:
        commands[Purpose.RESUME] = command
    if command and overview.count(Status.FAILED) and not entry.holder:
        commands[Purpose.RETRY] = f"{command} retry=failed"
    if overview.done:
        commands[Purpose.COMPARE] = f"python -m runner.compare {shorten_path(folder.path)}"
    if replay := format_replay(folder, manifest):
        commands[Purpose.REPLAY] = replay
    return commands

"""Where the runs of a page come from: commands, versions and programs of studies, and runs without a finite result."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runner.analysis.comparison import Comparison
from runner.analysis.formats import count_things, format_value
from runner.analysis.load import STATUS_CODES
from runner.analysis.tables import Table
from runner.plan.status import Status
from runner.storage.environment import format_command, list_repositories, read_environment
from runner.storage.folder import Folder
from runner.storage.manifest import Manifest
from runner.storage.programs import read_programs
from runner.storage.reader import count_reasons

MOST_ROWS = 200
"""Rows of a table of runs or reasons; the study's own table has all of them."""


@dataclass(frozen=True)
class Origin:
    """A study: the command of its last call, what is recorded of it, and its programs, None if they are not known."""

    name: str
    command: str
    entries: Table
    programs: Table | None


@dataclass(frozen=True)
class Failures:
    """Runs without a finite result: how many for which reason, and the runs."""

    reasons: Mapping[str, int]
    caption: str
    table: Table


def describe_study(folder: Folder, manifest: Manifest) -> Origin:
    """What is recorded of a study."""
    environment = read_environment(folder) or {}
    entries = {**manifest.fingerprint.describe()}
    entries |= {f"accepted ({i})": line for i, line in enumerate(manifest.accepted, 1)}
    named = ("note", "tags", "started", "python", "devices")
    entries |= {name: environment[name] for name in named if environment.get(name)}
    entries |= list_repositories(environment)
    entries |= {f"devices of shard {i}": shard["devices"] for i, shard in enumerate(environment.get("shards", []), 1)}
    entries |= environment.get("versions", {})
    rows = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in entries.items()]
    command = format_command(folder) if environment else ""
    table = Table(("what", "value"), tuple(rows), (None, None))
    return Origin(folder.path.name, command, table, _list_programs(folder))


def _list_programs(folder: Folder) -> Table | None:
    rows = read_programs(folder.programs)
    if len(rows) < 2:
        return None
    columns = [[_parse_number(cell) for cell in column] for column in zip(*rows[1:], strict=True)]
    return Table(tuple(rows[0]), tuple(map(tuple, rows[1:])), tuple(map(_make_keys, columns)))


def _make_keys(cells: Sequence[Any]) -> Sequence[float] | None:
    return list(cells) if all(isinstance(cell, float) for cell in cells) else None


def _parse_number(cell: str) -> Any:
    try:
        return float(cell) if cell else math.nan
    except ValueError:
        return cell


def list_failures(comparison: Comparison) -> Failures | None:
    """The compared runs without a finite result, None if there are none."""
    runs, names = comparison.runs, list(Status)
    bad = np.flatnonzero(runs.status != STATUS_CODES[Status.OK])
    if not len(bad):
        return None
    header = (*comparison.axes, "seed", "status", *comparison.metrics)
    rows = []
    for run in bad[:MOST_ROWS]:
        label = runs.points.iloc[runs.point[run]].tolist() if comparison.axes else []
        results = [str(float(column[run])) for column in runs.values.values()]
        seed = str(int(runs.seed[run])) if runs.seed[run] >= 0 else ""
        rows.append((*map(format_value, label), seed, names[runs.status[run]].value, *results))
    caption = count_things(len(bad), "run")
    caption = f"The first {len(rows)} of {caption}" if len(rows) < len(bad) else f"The {caption}"
    return Failures(_count_reasons(comparison), caption, Table(header, tuple(rows), (None,) * len(header)))


def _count_reasons(comparison: Comparison) -> dict[str, int]:
    """How many of the compared runs failed for which reason."""
    runs, counts = comparison.runs, Counter[str]()
    if (runs.status == STATUS_CODES[Status.FAILED]).any():
        for i, folder in enumerate(runs.studies):
            counts.update(count_reasons(folder, runs.manifests[i], runs.numbers_of(i)))
    return dict(counts.most_common(MOST_ROWS))

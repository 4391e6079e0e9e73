"""The overview of a study, read from its manifest and table.

Small tables are read without pandas and pyarrow, which take longer to import than hundreds of tables to read.
"""

import csv
import io
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from runner.errors import InvalidInputError
from runner.plan.status import Status
from runner.storage.checksums import count_covered, read_records
from runner.storage.contents import list_axes, list_tasks
from runner.storage.environment import read_environment
from runner.storage.folder import Folder
from runner.storage.manifest import Manifest, require_manifest
from runner.storage.overview import BestRun, Overview

SMALL_BYTES = 1 << 20
"""Tables of at most this size are read by Python's own reader of CSV."""


def read_overview(folder: Folder) -> Overview:
    """The overview of a study. A damaged one raises nothing, because a list goes on with the next one."""
    try:
        manifest = require_manifest(folder.manifest)
        axes = {axis.name: axis.count for axis in list_axes(manifest.indexes)}
        tasks = list_tasks(manifest.indexes)
        metric = find_first_metric(manifest)
        statuses, best = _count_runs(folder, manifest, metric)
        for part in folder.parts:
            counted, other = _count_runs(part, replace(manifest, retries=()), metric)
            statuses, best = statuses + counted, _choose([best, other])
    except InvalidInputError as error:
        return Overview(problem=str(error))
    found = Overview(tasks, axes, manifest.planned, dict(statuses), best, search=describe_search(manifest))
    try:
        environment = read_environment(folder) or {}
    except InvalidInputError as error:
        return replace(found, problem=str(error))
    return replace(found, note=environment.get("note", ""), tags=tuple(environment.get("tags", ())))


def describe_search(manifest: Manifest) -> str:
    """By which methods a study proposed its points; empty if they were listed."""
    facts = manifest.fingerprint.search or {}
    told = [str(facts["sampler"])] if "sampler" in facts else []
    told += [f"halving of {facts['budget']}"] if "budget" in facts else []
    return ", ".join(told)


def find_first_metric(manifest: Manifest) -> str | None:
    """The first metric that has a direction and is a number of each run, None if there is none."""
    numbers = [output.name for output in manifest.columns.outputs if output.shape == () and output.dtype.kind != "b"]
    return next((name for name in manifest.metrics if name in numbers), None)


def _count_runs(folder: Folder, manifest: Manifest, metric: str | None) -> tuple[Counter[str], BestRun | None]:
    size = folder.results.stat().st_size if folder.results.exists() else 0
    if not size:
        return Counter(), None
    read = _read_small if size <= SMALL_BYTES else _read_large
    counts: Counter[str] = Counter()
    best: BestRun | None = None
    for counted, found in read(folder, manifest, metric):
        counts.update(counted)
        best = _choose([best, found])
    return counts, best


Counted = tuple[Mapping[str, int], BestRun | None]
"""Of some rows the number of each status, and the best run."""


def _read_small(folder: Folder, manifest: Manifest, metric: str | None) -> Iterator[Counted]:
    """A table that Python's own reader reads; of a repeated run the last row counts."""
    csv.field_size_limit(sys.maxsize)
    names = list(manifest.columns.names)
    try:
        rows = csv.reader(io.StringIO(_read_summed(folder).decode(), newline=""), strict=True)
        if (header := next(rows, names)) != names:
            raise InvalidInputError(f"{folder.results} has other columns than its study: {', '.join(header)}")
        places = [names.index("run"), names.index("status"), *([names.index(metric)] if metric else [])]
        found = {row[places[0]]: [row[place] for place in places] for row in rows}
        yield Counter(cells[1] for cells in found.values()), _find_best(manifest, metric, found.values())
    except (csv.Error, IndexError, ValueError, OSError) as error:
        raise InvalidInputError(f"{folder.results} cannot be read: {error}") from error


def _read_summed(folder: Folder) -> bytes:
    """The whole lines of a table that have checksums; others may be incomplete."""
    content, records = folder.results.read_bytes(), read_records(folder.checksums)
    size = len(content) if records is None else min(len(content), count_covered(records))
    return content[: content.rfind(b"\n", 0, size) + 1]


def _find_best(manifest: Manifest, metric: str | None, rows: Iterable[list[str]]) -> BestRun | None:
    if metric is None:
        return None
    values = [(float(cells[2]), int(cells[0])) for cells in rows if cells[1] == Status.OK and cells[2]]
    if not values:
        return None
    sign = _sign(manifest, metric)
    value, run = min(values, key=lambda item: (sign * item[0], item[1]))
    return BestRun(metric, manifest.metrics[metric], value, run)


def _read_large(folder: Folder, manifest: Manifest, metric: str | None) -> Iterator[Counted]:
    import pyarrow as pa  # with pandas half a second to import
    import pyarrow.compute as pc

    from runner.storage.reader import iterate_batches

    types: dict[str, Any] = {"run": pa.int64(), "status": pa.string()} | ({metric: pa.float64()} if metric else {})
    for batch in iterate_batches(folder, manifest, types):
        status = batch.column("status")
        counts = {each["values"]: each["counts"] for each in pc.value_counts(status.drop_null()).to_pylist()}
        ok = batch.filter(pc.equal(status, Status.OK.value))
        yield counts, _find_best_of(ok, manifest, metric) if metric else None


def _find_best_of(rows: Any, manifest: Manifest, metric: str) -> BestRun | None:
    """The best of some rows, which Arrow has."""
    given = rows.filter(rows.column(metric).is_valid())
    if not len(given):
        return None
    numbers, values = given.column("run").to_numpy(), given.column(metric).to_numpy()
    place = np.lexsort((numbers, _sign(manifest, metric) * values))[0]
    return BestRun(metric, manifest.metrics[metric], float(values[place]), int(numbers[place]))


def _sign(manifest: Manifest, metric: str) -> float:
    return -1.0 if manifest.metrics[metric] == "maximize" else 1.0


def _choose(candidates: Iterable[BestRun | None]) -> BestRun | None:
    given = [best for best in candidates if best is not None]
    if not given:
        return None
    sign = -1.0 if given[0].direction == "maximize" else 1.0
    return min(given, key=lambda best: (sign * best.value, best.run))

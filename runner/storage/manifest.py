"""What a study is: the record beside its table, by which a later call knows what is there and what contradicts it."""

import hashlib
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np

from runner.errors import InvalidInputError
from runner.execution import summary
from runner.execution.summary import Summary
from runner.plan.contract import Built, Output, Task
from runner.plan.study import Left, PendingRuns, Plan, Segment
from runner.storage import run_index as extent
from runner.storage import table
from runner.storage.run_index import RunIndex
from runner.storage.table import Columns

FORMAT = 2
DECIDING = ("jax", "jaxlib", "flax")
"""Libraries whose versions may change the bits of a result."""
NO_COLUMN = "the table has no column"

Fingerprint = Mapping[str, Any]


@dataclass(frozen=True)
class Manifest:
    """The columns of a study's table, the facts that its rows share, and the runs that its calls added.

    `planned` are the rows of the table when all of them are there; `accepted` are the differences that the user
    took into the bargain, in words; `metrics` tells of some outputs whether to `minimize` or to `maximize` them.
    """

    columns: Columns
    facts: Fingerprint
    extents: tuple[RunIndex, ...]
    planned: int
    accepted: tuple[str, ...] = ()
    metrics: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SavedStudy:
    """A study as it is found: its record, if there is one, and the rows of its table; `cut` bytes were none.

    `begun` is the product that its last call was about, and `spans` are the runs of it that shards have made
    beyond a gap.
    """

    record: Manifest | None
    path: Path
    rows: int = 0
    cut: int = 0
    begun: RunIndex | None = None
    spans: tuple[range, ...] = ()

    def left(self, plan: Plan) -> Left | None:
        """Which places of the plan's segments have no row yet; None where no run has one."""
        if self.record is None or not self.record.extents:
            return None
        parts, extents = table.extent(plan, self.record.columns).parts, self.record.extents
        return lambda segment, places: (
            ~extent.contains(extents, parts[segment].key, plan.traced(segment, places), len(places))
        )

    def is_begun(self, plan: Plan) -> bool:
        """Whether the plan is the one that the study's last call was about."""
        if self.record is None or self.begun is None:
            return False
        return extent.same_product(self.begun, table.extent(plan, self.record.columns))

    def todo(self, plan: Plan, numbers: range | None = None) -> PendingRuns:
        """The runs that have no row yet; to be made are those of these numbers, or all that no shard has made."""
        todo = plan.todo(self.left(plan), self.rows)
        return replace(todo, spans=[numbers] if numbers is not None else _gaps(todo.spans[0], self.spans))

    def summed(self, empty: Summary, plan: Plan) -> Summary:
        """The summary of those of the plan's runs that have their row."""
        if self.record is None or not self.rows:
            return empty
        columns = self.record.columns
        return summary.add_table(empty, table.extent(plan, columns), table.batches(self.path, columns))


def _gaps(whole: range, spans: Sequence[range]) -> list[range]:
    """What of the whole is in none of the spans, which are ascending."""
    bounds = [whole.start, *(bound for span in spans for bound in (span.start, span.stop)), whole.stop]
    return [range(start, stop) for start, stop in zip(bounds[::2], bounds[1::2], strict=True) if start < stop]


def past(path: Path, results: Path, *, cut: bool = True) -> SavedStudy:
    """The study that is there. Raises InvalidInputError for a table without a record, and for a damaged one.

    Without `cut` a torn row of its table is left as it is.
    """
    record = read(path)
    if record is None:
        if results.exists():
            raise InvalidInputError(
                f"{results} is there, but {path.name} beside it is not; give the study another name"
            )
        return SavedStudy(None, results)
    rows, last, torn = table.recover(results, record.columns, cut=cut)
    begun = record.extents[-1]
    extents = list(record.extents) if rows else []
    while extents and rows <= extents[-1].first:  # nothing of this call has reached the table
        extents.pop()
    if rows:
        place = table.place(extents[-1], record.columns, last)
        if place < 0:
            raise InvalidInputError(f"the last row of {results}, run {rows - 1}, is none of the study's runs")
        extents[-1] = replace(extents[-1], stop=place + 1)
    return SavedStudy(replace(record, extents=tuple(extents)), results, rows, torn, begun)


def facts(plan: Plan, devices: Sequence[str] | None) -> Fingerprint:
    """What is in no column and yet decides a result: versions, device, lanes, code, and the values of inputs.

    Without `devices` the shards will tell.
    """
    columns = table.parameters(plan)
    known: dict[str, Any] = {f"the version of {name}": metadata.version(name) for name in DECIDING}
    known |= {"lanes": plan.study.lanes or "auto"}
    known |= {"the kind of device": " ".join(devices)} if devices else {}
    for segment in plan.study.segments:
        chosen = [f"{key}={value}" for key, value in segment.swept.items() if _is_choice(key, segment)]
        of = " ".join([segment.task.name, *chosen])
        known |= {f"{of}: {name}": value for name, value in _values(segment, columns).items()}
        known[f"the code of task {segment.task.name}"] = _code(segment.task)
    return known


def _is_choice(key: str, segment: Segment) -> bool:
    """Whether a swept key is an option of a config group, which may decide values that are in no column."""
    return key != "task" and "." not in key and key not in (*segment.traced, *segment.static)


def _values(segment: Segment, columns: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {"outputs": list(segment.task.outputs)}
    values |= {"eager": dict(segment.task.eager)} if segment.task.eager else {}
    for name, given in segment.inputs.items():
        for part in ("shape", "dtype", "fill", "seed", "values", "file"):
            values[f"{name}.{part}"] = getattr(given, part)
        if given.file is not None:
            values[f"content of {name}.file={given.file}"] = _digest(Path(given.file).read_bytes())
    for name, static in segment.static.items():
        if isinstance(static, Built) and not any(column.partition(".")[0] == name for column in columns):
            values[name] = static.text
    return json.loads(json.dumps({name: value for name, value in values.items() if name not in columns}))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _code(task: Task) -> str:
    """A digest of the source of the task's module, and of the modules of its package that it uses."""
    home = inspect.getmodule(task.function)
    seen: dict[str, bytes] = {}
    if home is not None:
        _collect(home, home.__name__.partition(".")[0], seen)
    return _digest(b"\0".join(seen[name] for name in sorted(seen)))


def _collect(module: ModuleType, package: str, seen: dict[str, bytes]) -> None:
    file = getattr(module, "__file__", None)
    if module.__name__ in seen or module.__name__.partition(".")[0] != package or not file:
        return
    seen[module.__name__] = Path(file).read_bytes()
    for value in list(vars(module).values()):
        used = value if isinstance(value, ModuleType) else sys.modules.get(str(getattr(value, "__module__", "")))
        if isinstance(used, ModuleType):
            _collect(used, package, seen)


def differences(past: SavedStudy, plan: Plan, facts: Fingerprint) -> list[str]:
    """Where a call contradicts what is there, each with both sides."""
    if past.record is None:
        return []
    there, has = past.record.facts, past.record.columns.parameters
    found = [f"{n} was {there[n]!r}, is {facts[n]!r}" for n in facts if n in there and there[n] != facts[n]]
    missing = [name for name in table.parameters(plan) if name not in has]
    return [*found, *([f"{NO_COLUMN} {', '.join(missing)}; it has: {', '.join(has)}"] if missing else [])]


def accepted(past: SavedStudy, facts: Fingerprint, found: Sequence[str], *, accept: bool) -> SavedStudy:
    """The study with its differences taken into the bargain. Raises InvalidInputError where they are not, or cannot be."""
    assert past.record is not None
    can_accept = not any(line.startswith(NO_COLUMN) for line in found)
    if not (accept and can_accept):
        ways = ["study=…", "on_mismatch=fork", *(["on_mismatch=accept"] if can_accept else []), "overwrite=true"]
        raise InvalidInputError(f"{past.path.parent} is another study: {'; '.join(found)}. Ways out: {', '.join(ways)}")
    record = replace(past.record, facts={**past.record.facts, **facts}, accepted=(*past.record.accepted, *found))
    return replace(past, record=record)


def extended(past: SavedStudy, plan: Plan, missing: int, outputs: Sequence[Output], facts: Fingerprint) -> Manifest:
    """The record with the missing runs of one more call.

    The same product again takes the place of its unfinished self. Raises InvalidInputError where the table has no
    column for an output, or one of another kind.
    """
    before, planned = past.record, past.rows + missing
    metrics = dict(pair for segment in plan.study.segments for pair in segment.task.metrics)
    if before is None:
        columns = table.columns(table.parameters(plan), outputs)
        return Manifest(columns, facts, (table.extent(plan, columns),), planned, metrics=metrics)
    has = [output.name for output in before.columns.outputs]
    for output in outputs:
        if output.name not in has:
            raise InvalidInputError(
                f"{NO_COLUMN} {output.name!r}; its outputs are: {', '.join(has)}; give another name"
            )
    table.check_categories(before.columns, outputs)
    added = replace(table.extent(plan, before.columns), first=past.rows)
    if before.extents and extent.same_product(last := before.extents[-1], added):
        extents = (*before.extents[:-1], replace(added, first=last.first))
    else:
        extents = (*before.extents, added)
    facts, metrics = {**before.facts, **facts}, {**before.metrics, **metrics}
    return replace(before, facts=facts, metrics=metrics, extents=extents, planned=planned)


def text(record: Manifest) -> str:
    """`study.json`."""
    outputs = [{"name": o.name, "shape": list(o.shape), "dtype": o.dtype.name} for o in record.columns.outputs]
    data = {
        "format": FORMAT,
        "columns": {"parameters": dict(record.columns.parameters), "outputs": outputs},
        "facts": dict(record.facts),
        "planned": record.planned,
        "accepted": list(record.accepted),
        "metrics": dict(record.metrics),
        "extents": [extent.packed(each) for each in record.extents],
    }
    return json.dumps(data, indent=1) + "\n"


def read(path: Path) -> Manifest | None:
    """The record of a study, or None where there is no study yet. Raises InvalidInputError for what is no record."""
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_text())
        if data["format"] != FORMAT:
            raise InvalidInputError(f"{path} has format {data['format']}; this version of Seedbed reads {FORMAT}")
        outputs = [Output(o["name"], tuple(o["shape"]), _dtype(o["dtype"])) for o in data["columns"]["outputs"]]
        columns = Columns(data["columns"]["parameters"], tuple(outputs))
        extents = tuple(extent.unpacked(each) for each in data["extents"])
        known = data["facts"], extents, data["planned"], tuple(data["accepted"])
        return Manifest(columns, *known, metrics=data.get("metrics", {}))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"{path} is damaged ({error}); move the folder away, or give another name") from error


def required(path: Path) -> Manifest:
    """The record of a study that must be there. Raises InvalidInputError if it is not."""
    record = read(path)
    if record is None:
        raise InvalidInputError(f"{path.parent} holds no study: there is no {path.name}")
    return record


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))

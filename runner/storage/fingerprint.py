"""The fingerprint of a study: what its results depend on and no column of its table has."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from runner.contract.code import collect_sources
from runner.contract.held import is_held
from runner.contract.object_code import read_code
from runner.contract.source import find_definition
from runner.contract.task import Built, Task, find_file, load_function
from runner.plan.datasets import Dataset
from runner.plan.descriptions import leave_out
from runner.plan.segments import Plan, Segment
from runner.plan.templates import Template
from runner.storage.columns import plan_parameters

USUAL = "not set"
"""How a mismatch names a setting of JAX that has its usual value."""
LIBRARIES = ("jax", "jaxlib", "flax")
"""Libraries of which another version may give other bits."""


@dataclass(frozen=True)
class Fingerprint:
    """Versions by library, lanes (`auto` or their number), kind of device, digest of the code by task, values, cores.

    `device` and `settings`, those of JAX that are not the usual ones, are None where nothing is executed. `values` has,
    for each task with its swept config choices, the values that are in no column: parts of inputs, digests of files,
    descriptions of built objects. `cores_per_run` is None in studies of before it was recorded.
    """

    versions: Mapping[str, str]
    lanes: int | str
    device: str | None = None
    code: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Mapping[str, Any] | None = None
    cores_per_run: int | None = None
    search: Mapping[str, Any] | None = None
    """What the points of a search depend on, by labels for people; None where the points were listed."""

    def describe(self) -> dict[str, Any]:
        """All of it as one mapping from a label for people to a value."""
        values = {f"{owner}: {name}": value for owner, own in self.values.items() for name, value in own.items()}
        search = {f"search: {name}": value for name, value in (self.search or {}).items()}
        return self.describe_environment() | search | values

    def describe_environment(self) -> dict[str, Any]:
        """Versions, lanes, cores, device, settings and code as one mapping from a label for people to a value."""
        entries: dict[str, Any] = {f"version of {name}": version for name, version in self.versions.items()}
        entries |= {"lanes": self.lanes} | ({} if self.device is None else {"kind of device": self.device})
        entries |= {} if self.cores_per_run is None else {"cores_per_run": self.cores_per_run}
        entries |= {f"setting {name}": value for name, value in (self.settings or {}).items()}
        return entries | {f"code of task {task}": digest for task, digest in self.code.items()}

    def merge(self, newer: "Fingerprint") -> "Fingerprint":
        """Both together; where they disagree, the newer one holds."""
        values = {owner: {**self.values.get(owner, {}), **newer.values.get(owner, {})} for owner in self.values}
        return Fingerprint(
            {**self.versions, **newer.versions},
            newer.lanes,
            self.device if newer.device is None else newer.device,
            {**self.code, **newer.code},
            {**newer.values, **values},
            self.settings if newer.settings is None else newer.settings,
            self.cores_per_run if newer.cores_per_run is None else newer.cores_per_run,
            newer.search or self.search,
        )


@dataclass(frozen=True)
class Mismatch:
    """How a call contradicts a study: the changed entries of the fingerprint, and the columns that its table lacks."""

    changes: tuple[str, ...]
    missing_columns: tuple[str, ...]
    columns: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.changes or self.missing_columns)

    @property
    def can_be_accepted(self) -> bool:
        """The columns of a table are fixed, everything else may differ if the user accepts it."""
        return not self.missing_columns

    def __str__(self) -> str:
        lines = list(self.changes)
        if self.missing_columns:
            lines.append(
                f"the table has no column {', '.join(self.missing_columns)}; it has: {', '.join(self.columns)}"
            )
        return "; ".join(lines)


def take_fingerprint(
    plan: Plan, device: str | None, settings: Mapping[str, Any] | None, cores: int | None = None
) -> Fingerprint:
    """The fingerprint of a plan on this machine.

    `device` is the kind of device, `settings` are those of JAX, and `cores` has the threads of XLA's pool; None where
    nothing is executed in this process, or where it is not known.
    """
    parameters = plan_parameters(plan)
    tasks = {segment.task.name: segment.task for segment in plan.segments}
    values: dict[str, dict[str, Any]] = {}
    for segment in plan.segments:
        choices = [f"{key}={value}" for key, value in segment.swept.items() if _is_choice(key, segment)]
        owner = " ".join([segment.task.name, *choices])
        values[owner] = {**values.get(owner, {}), **_list_values(segment, parameters)}
    return Fingerprint(
        {name: metadata.version(name) for name in LIBRARIES},
        plan.lanes or "auto",
        device,
        {name: _digest_code(task) for name, task in tasks.items()},
        values,
        settings,
        cores or plan.cores_per_run,
        dict(plan.search) or None,
    )


def find_mismatch(known: Fingerprint, parameters: Mapping[str, str], plan: Plan, fingerprint: Fingerprint) -> Mismatch:
    """What of a plan and its fingerprint contradicts a study with these parameter columns.

    Only entries that both fingerprints have are compared.
    """
    before, after = known.describe(), fingerprint.describe()
    if known.settings is not None and fingerprint.settings is not None:
        for name in {**known.settings, **fingerprint.settings}:
            before.setdefault(f"setting {name}", USUAL)
            after.setdefault(f"setting {name}", USUAL)
    changes = [f"{n} was {before[n]!r}, is {after[n]!r}" for n in after if n in before and before[n] != after[n]]
    missing = [name for name in plan_parameters(plan) if name not in parameters]
    return Mismatch(tuple(changes), tuple(missing), tuple(parameters))


def pack_fingerprint(fingerprint: Fingerprint) -> dict[str, Any]:
    """The fingerprint as JSON values."""
    data = asdict(fingerprint)
    return data if data["search"] else {name: value for name, value in data.items() if name != "search"}


def unpack_fingerprint(data: Mapping[str, Any]) -> Fingerprint:
    """The fingerprint that `pack_fingerprint` packed."""
    return Fingerprint(**data)


def _is_choice(key: str, segment: Segment) -> bool:
    """Whether a swept key is an option of a config group, which may decide values that are in no column."""
    return key != "task" and "." not in key and key not in (*segment.traced, *segment.static)


def _list_values(segment: Segment, parameters: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {"outputs": list(segment.task.outputs)}
    values |= {"eager": dict(segment.task.eager)} if segment.task.eager else {}
    for name, given in segment.inputs.items():
        if isinstance(given, Dataset):
            values[name] = leave_out(given.text, name, parameters)
            values[f"content of {name}"] = given.digest
            continue
        for part in ("shape", "dtype", "fill", "seed", "values", "file"):
            values[f"{name}.{part}"] = getattr(given, part)
        if given.file is not None:
            values[f"content of {name}.file={given.file}"] = _digest(Path(given.file).read_bytes())
    for name, static in segment.static.items():
        if isinstance(static, Built) and not any(column.partition(".")[0] == name for column in parameters):
            values[name] = static.text
        if isinstance(static, Template):
            values[name] = leave_out(static.text, name, parameters)
    values |= list_contents(segment)
    return json.loads(json.dumps({name: value for name, value in values.items() if name not in parameters}))


def list_contents(segment: Segment) -> dict[str, str]:
    """The digests of what the task's parameters for files name, by parameter and path, where there is a file."""
    paths = {name: Path(value) for name in segment.task.files if isinstance(value := segment.static[name], str)}
    return {f"content of {name}={path}": _digest_path(path) for name, path in paths.items() if path.exists()}


def _digest_path(path: Path) -> str:
    """The digest of a file, or of the names and contents of all files in a folder."""
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    return _digest_files(path, tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@cache
def _digest_files(path: Path, stamps: tuple[tuple[Path, int, int], ...]) -> str:
    found = hashlib.sha256()
    for file, size, _ in stamps:
        found.update(f"{file.relative_to(path).as_posix()} {size}\n".encode())
        with file.open("rb") as content:
            while part := content.read(2**20):
                found.update(part)
    return found.hexdigest()[:16]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def identify_code(task: Task) -> str:
    """The versions of libraries and the digest of the code on which the numbers of a task depend, as one text."""
    return " ".join([*(f"{name}={metadata.version(name)}" for name in LIBRARIES), _digest_code(task)])


def _digest_code(task: Task) -> str:
    """A digest of the source of the task's module, and of the modules beside it or of its package that it uses."""
    if is_held(task.target):
        return _digest(read_code(load_function(task)))
    definition = find_definition(task.target)
    if definition is None:  # a module that no file on the path has
        file = find_file(task)
        return _digest(file.read_bytes() if file else b"")
    sources = collect_sources(definition.source)
    return _digest(b"\0".join(sources[name].content for name in sorted(sources)))


def upgrade_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The fingerprint of format 2, one mapping from sentences to values, as JSON values of format 3."""
    data: dict[str, Any] = {"versions": {}, "lanes": "auto", "device": None, "code": {}, "values": {}}
    for label, value in facts.items():
        owner, separator, name = label.partition(": ")
        if separator:
            data["values"].setdefault(owner, {})[name] = value
        elif label.startswith(prefix := "the version of "):
            data["versions"][label.removeprefix(prefix)] = value
        elif label.startswith(prefix := "the code of task "):
            data["code"][label.removeprefix(prefix)] = value
        else:
            data["device" if label == "the kind of device" else "lanes"] = value
    return data

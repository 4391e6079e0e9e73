"""The overviews of all studies in a folder, kept between two lists of them for as long as the studies do not change."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import StudyFailedError
from runner.storage.folder import Folder, write_file
from runner.storage.overview import BestRun, Overview, measure_bytes

FORMAT = 1
"""The format of the file; one of another format is not used."""


@dataclass(frozen=True)
class Entry:
    """A study in a list: its overview, when its last call began (seconds since 1970), its size, and who runs it now.

    `holder` is empty if no process has the study.
    """

    folder: Folder
    overview: Overview
    called: float
    bytes: int
    holder: str


def read_entry(folder: Folder) -> Entry:
    """One study, which must have a manifest."""
    from runner.storage.counting import read_overview

    return _make_entry(folder, read_overview(folder), folder.manifest.stat().st_mtime)


def list_entries(outputs: Path) -> Iterator[Entry]:
    """The studies in a folder, the most recently called first.

    A table is read if a file of its study has changed since the last list. What was read is kept in the user's cache
    of Seedbed, where a file is no loss.
    """
    store = _locate_store(outputs)
    known = _read_store(store)
    seen: dict[str, Any] = {}
    stats = {path.parent.name: path.stat().st_mtime for path in outputs.glob("*/study.json")}
    for name in sorted(stats, key=lambda name: -stats[name]):
        folder = Folder(outputs / name)
        signature = _sign_files(folder)
        packed = known.get(name, {})
        if (overview := _unpack(packed, signature)) is None:
            from runner.storage.counting import read_overview  # NumPy and more, which an unchanged study needs not

            overview = read_overview(folder)
            packed = _pack(overview, signature)
        seen[name] = packed
        yield _make_entry(folder, overview, stats[name])
    if seen != known:
        _write_store(store, seen)


def _make_entry(folder: Folder, overview: Overview, called: float) -> Entry:
    return Entry(folder, overview, called, measure_bytes(folder.path), _find_holder(folder))


def _find_holder(folder: Folder) -> str:
    if not folder.holder.exists():
        return ""
    from runner.storage.lock import is_locked, read_holder  # needed for few studies of many

    return read_holder(folder) if is_locked(folder) else ""


def _locate_store(outputs: Path) -> Path | None:
    """The file that has the overviews of a folder; None where the user has no home."""
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        base = Path(given) if given else Path.home() / ".cache"
    except RuntimeError:
        return None
    name = hashlib.sha256(str(outputs.resolve()).encode()).hexdigest()[:16]
    return base / "seedbed" / "studies" / f"{name}.json"


def _read_store(store: Path | None) -> dict[str, Any]:
    if store is None:
        return {}
    try:
        data = json.loads(store.read_text())
        return dict(data["studies"]) if data["format"] == FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or a damaged one: the tables are read
        return {}


def _write_store(store: Path | None, studies: Mapping[str, Any]) -> None:
    if store is not None:
        with suppress(OSError, StudyFailedError):  # a home that is full or read-only costs time only
            store.parent.mkdir(parents=True, exist_ok=True)
            write_file(store, json.dumps({"format": FORMAT, "studies": studies}))


def _sign_files(folder: Folder) -> list[list[int] | None]:
    """Time, size and number of the files that an overview is read from; they change with their content."""
    parts = folder.parts if (folder.path / "parts").exists() else []
    files = [folder.manifest, folder.environment]
    files += [path for place in (folder, *parts) for path in (place.results, place.checksums)]
    return [_sign_file(path) for path in files]


def _sign_file(path: Path) -> list[int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_mtime_ns, stat.st_size, stat.st_ino]


def _pack(overview: Overview, signature: list[list[int] | None]) -> dict[str, Any]:
    best = None if overview.best is None else vars(overview.best)
    lists = {"tasks": list(overview.tasks), "tags": list(overview.tags)}
    return {"signature": signature, "overview": {**vars(overview), **lists, "best": best}}


def _unpack(entry: Mapping[str, Any], signature: list[list[int] | None]) -> Overview | None:
    """The overview of an entry; None if it is of another state of the study, or damaged."""
    try:
        if entry["signature"] != signature:
            return None
        data = entry["overview"]
        best = BestRun(**data["best"]) if data["best"] else None
        return Overview(**{**data, "best": best, "tasks": tuple(data["tasks"]), "tags": tuple(data["tags"])})
    except (KeyError, TypeError):
        return None

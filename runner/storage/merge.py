"""Parts of a study merged into its table: rows that shards have executed and the table does not have yet.

A part is a folder of the form of a study, `parts/<number of its first run>/`, that only its shard writes to.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace

from runner.errors import InvalidInputError
from runner.storage.environment import read_environment, write_environment
from runner.storage.fingerprint import Fingerprint, pack_fingerprint, unpack_fingerprint, upgrade_facts
from runner.storage.folder import Folder, write_file
from runner.storage.lock import is_locked
from runner.storage.manifest import Manifest, accept_changes, format_manifest, read_manifest
from runner.storage.programs import join_programs
from runner.storage.recovery import adopt_table, recover_table
from runner.storage.saved import SavedStudy, read_saved_study
from runner.storage.writer import append_part, read_first_number


def open_saved_study(folder: Folder, *, accept: bool = False) -> SavedStudy:
    """The study in a folder, after its table has taken the parts that continue it.

    A part is removed after its rows are in the table, and rows that the table has are skipped: however this is
    interrupted, the next call ends with the same bytes. `accept` takes a table that was changed. Raises
    InvalidInputError for a damaged study, and StudyFailedError if the disk refuses.
    """
    manifest = read_manifest(folder.manifest)
    if manifest is None or not folder.parts:
        return read_saved_study(folder, accept=accept)
    parts, incomplete_bytes = _recover_parts(folder, manifest)
    merged = merge_fingerprints(manifest, [part.folder for part in parts])
    if merged != manifest:
        write_file(folder.manifest, format_manifest(merged))
    before = read_saved_study(folder, accept=accept)
    rows = before.rows
    while parts and parts[0].numbers.start <= rows:
        part = parts.pop(0)
        if part.numbers.stop > rows:
            skip = rows - part.numbers.start
            append_part(folder, part.folder, merged.columns, rows=rows, skip=skip)
            rows = part.numbers.stop
        _remove_part(part.folder, folder)
    after = read_saved_study(folder)
    spans = tuple(part.numbers for part in parts)
    return replace(after, incomplete_bytes=before.incomplete_bytes + incomplete_bytes, part_spans=spans)


@dataclass(frozen=True)
class _Part:
    folder: Folder
    numbers: range


def _recover_parts(folder: Folder, manifest: Manifest) -> tuple[list[_Part], int]:
    """The parts that no shard holds with the numbers of their runs, and the bytes of their incomplete rows."""
    parts, incomplete_bytes = [], 0
    for part in folder.parts:
        if is_locked(part):
            continue
        if manifest.table_bytes is None and part.results.exists():  # written before there were checksums
            adopt_table(part, manifest.columns)
        end = recover_table(part, manifest.columns)
        incomplete_bytes += end.incomplete_bytes
        if end.rows and (first := read_first_number(part.results, manifest.columns)) is not None:
            parts.append(_Part(part, range(first, first + end.rows)))
        else:
            shutil.rmtree(part.path)
    return parts, incomplete_bytes


def _remove_part(part: Folder, folder: Folder) -> None:
    """Removes a merged part; what it recorded about programs and machine goes into the study's files."""
    if part.programs.exists():
        text = folder.programs.read_text(errors="replace") if folder.programs.exists() else ""
        write_file(folder.programs, join_programs(text, part.programs.read_text(errors="replace")))
    whole, shard = read_environment(folder), read_environment(part)
    if whole and shard:
        whole["shards"] = [*whole.get("shards", []), {name: shard[name] for name in ("host", "devices", "versions")}]
        write_environment(folder, whole)
    shutil.rmtree(part.path)
    if not folder.parts:
        shutil.rmtree(part.path.parent)


def merge_fingerprints(manifest: Manifest, parts: Sequence[Folder]) -> Manifest:
    """The manifest with the fingerprints that shards took where they ran, and with what was accepted there."""
    for part in parts:
        fingerprint, accepted = read_part_fingerprint(part)
        if fingerprint is not None:
            new = [line for line in accepted if line not in manifest.accepted]
            manifest = accept_changes(manifest, fingerprint, new)
    return manifest


def read_part_fingerprint(part: Folder) -> tuple[Fingerprint | None, list[str]]:
    """The fingerprint of a part, None if its shard has not recorded it yet, and the changes accepted there.

    Raises InvalidInputError for a damaged file.
    """
    path = next((path for path in (part.fingerprint, part.old_facts) if path.exists()), None)
    if path is None:
        return None, []
    try:
        data = json.loads(path.read_text())
        facts = data["fingerprint"] if path == part.fingerprint else upgrade_facts(data["facts"])
        return unpack_fingerprint(facts), list(data["accepted"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InvalidInputError(f"{path} is damaged ({error}); delete {part.path}, its runs are repeated") from error


def write_part_fingerprint(part: Folder, fingerprint: Fingerprint, accepted: Sequence[str]) -> None:
    """Records where a shard runs, and the changes that its user accepted."""
    data = {"fingerprint": pack_fingerprint(fingerprint), "accepted": list(accepted)}
    write_file(part.fingerprint, json.dumps(data, indent=1) + "\n")

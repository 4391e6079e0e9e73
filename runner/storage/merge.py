"""The parts of a study: what its shards have run, and the table has not taken in yet.

A part is a folder of the form of a study, `parts/<number of its first run>/`, which only its shard writes to.
"""

import json
import shutil
from dataclasses import replace

from runner.execution import schedule as ledger
from runner.execution import summary
from runner.execution.summary import Summary
from runner.storage import folder as study
from runner.storage import manifest as record
from runner.storage import table
from runner.storage.folder import Folder
from runner.storage.manifest import Fingerprint, Manifest, SavedStudy


def past(folder: Folder) -> SavedStudy:
    """The study that is there, after its table has taken in the parts that follow on its rows.

    A table is appended to before its part is removed, and a row that it has is not taken in again: whenever this
    is interrupted, the next call ends with the same bytes. Raises InvalidInputError as `record.past` does, and StudyFailedError
    where the disk refuses.
    """
    known = record.read(folder.record)
    if known is None or not folder.parts:
        return record.past(folder.record, folder.results)
    parts, torn = _recovered(folder, known)
    if (told := with_facts(known, [part for part, _ in parts])) != known:
        study.write(folder.record, record.text(told))
    before = record.past(folder.record, folder.results)
    rows = before.rows
    while parts and parts[0][1].start <= rows:
        part, numbers = parts.pop(0)
        if numbers.stop > rows:
            table.take_in(folder.results, part.results, told.columns, rows, rows - numbers.start)
            rows = numbers.stop
        _remove(part, folder)
    after = record.past(folder.record, folder.results)
    return replace(after, cut=before.cut + torn, spans=tuple(numbers for _, numbers in parts))


def _recovered(folder: Folder, known: Manifest) -> tuple[list[tuple[Folder, range]], int]:
    """The parts that no shard holds with the numbers of their runs, and the bytes that were no whole row."""
    found, torn = [], 0
    for part in folder.parts:
        if study.in_use(part):
            continue
        stop, _, cut = table.recover(part.results, known.columns)
        torn += cut
        if stop and (first := table.first(part.results, known.columns)) is not None:
            found.append((part, range(first, stop)))
        else:
            shutil.rmtree(part.path)
    return found, torn


def summed(folder: Folder, totals: Summary) -> Summary | None:
    """The totals with those of the parts; None where a part cannot tell, because its shard was lost."""
    for part in folder.parts:
        if not part.summary.exists():
            return None
        totals = summary.joined(totals, json.loads(part.summary.read_text()))
    return totals


def _remove(part: Folder, folder: Folder) -> None:
    """Removes a part that was taken in; what it tells about programs and machine is kept."""
    if part.programs.exists():
        there = folder.programs.read_text() if folder.programs.exists() else ""
        study.write(folder.programs, ledger.joined(there, part.programs.read_text()))
    if part.environment.exists() and folder.environment.exists():
        whole, own = json.loads(folder.environment.read_text()), json.loads(part.environment.read_text())
        whole["shards"] = [*whole.get("shards", []), {name: own[name] for name in ("host", "devices", "versions")}]
        study.write_environment(folder, whole)
    shutil.rmtree(part.path)
    if not folder.parts:
        shutil.rmtree(part.path.parent)


def with_facts(known: Manifest, parts: list[Folder]) -> Manifest:
    """The record with the facts that shards have found where they ran, and with what was accepted there."""
    facts, accepted = dict(known.facts), list(known.accepted)
    for part in parts:
        if part.facts.exists():
            told = json.loads(part.facts.read_text())
            facts |= told["facts"]
            accepted += [line for line in told["accepted"] if line not in accepted]
    return replace(known, facts=facts, accepted=tuple(accepted))


def write_facts(part: Folder, facts: Fingerprint, accepted: list[str]) -> None:
    """Writes a part's `facts.json`."""
    study.write(part.facts, json.dumps({"facts": dict(facts), "accepted": accepted}, indent=1) + "\n")

"""The command `python -m runner.studies`: the studies in a folder, listed or verified."""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner import terminal
from runner.errors import InvalidInputError
from runner.output import run_command
from runner.plan.even_values import count_distinct
from runner.plan.status import Status
from runner.storage.folder import Folder
from runner.storage.manifest import Manifest, require_manifest
from runner.storage.reader import count_statuses
from runner.storage.recovery import verify_table
from runner.storage.run_index import RunIndex

HEADER = ("study", "task", "axes", "done", "planned", "nonfinite", "failed", "age", "state")

WORDS = (
    "axes: what was swept or searched, with the number of values; done, planned: runs; nonfinite: runs with a NaN or "
    "an infinity in a result; failed: runs without a result; age: since the last call"
)
PROSE = ("task", "axes", "state")
VERIFIED = "as it was written"
NOT_SUMMED = "has no checksums: an earlier version wrote it; the next call of its command adds them"
DROP = ("age", "axes", "failed", "nonfinite", "task", "planned")
"""The columns that are broken into lines, and left out, where there is no room; see `terminal.print_rows`."""


def list_studies(outputs: Path) -> Iterator[list[Any]]:
    """A row under `HEADER` for each study in a folder, the most recently called first."""
    places = [path.parent for path in outputs.glob("*/study.json")]
    for path in sorted(places, key=lambda path: -(path / "study.json").stat().st_mtime):
        yield [path.name, *_describe_study(Folder(path))]


def _describe_study(folder: Folder) -> list[Any]:
    age = _format_age(time.time() - folder.manifest.stat().st_mtime)
    try:
        manifest = require_manifest(folder.manifest)
        tasks, axes = _describe_axes(manifest.indexes)
        axes = describe_search(manifest) + axes
        counts = count_statuses(folder, manifest)
        for part in folder.parts:
            counts.update(count_statuses(part, replace(manifest, retries=())))
    except InvalidInputError as error:  # a damaged study is listed, too
        return ["", "", "", "", "", "", age, str(error)]
    done = sum(counts.values())
    state = "complete" if done >= manifest.planned else "unfinished: the same command resumes it"
    return [tasks, axes, done, manifest.planned, counts[Status.NONFINITE], counts[Status.FAILED], age, state]


def describe_search(manifest: Manifest) -> str:
    """What a study says of its search before its axes; nothing if its points were listed."""
    facts = manifest.fingerprint.search or {}
    methods = [str(facts[name]) for name in ("sampler", "halving") if name in facts]
    return f"search ({', '.join(methods)}) " if methods else ""


def _describe_axes(indexes: tuple[RunIndex, ...]) -> tuple[str, str]:
    """The tasks of a study, and its axes with their numbers of values."""
    values: dict[str, set[Any]] = {}
    for index in indexes:
        for segment in index.segments:
            for name, value in [*segment.cells.items(), *segment.base.items()]:
                values.setdefault(name, set()).add(value)
    tasks = ", ".join(sorted(values.pop("task", ())))
    counts = {name: len(found) for name, found in values.items()}
    columns = [item for index in indexes for axis in index.axes for item in axis.items()]
    for name in dict.fromkeys(name for name, _ in columns):
        counts[name] = count_distinct([column for other, column in columns if other == name])
    return tasks, " ".join(f"{name}:{count}" for name, count in counts.items() if count > 1)


def _format_age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def verify_studies(paths: Iterable[Path]) -> Iterator[tuple[Path, int | None, str]]:
    """Of each study its folder, the rows of its table, and what was found: `VERIFIED`, or the problem."""
    for path in paths:
        folder = Folder(path)
        try:
            manifest = require_manifest(folder.manifest)
            rows = verify_table(folder, recorded=manifest.table_bytes)
        except InvalidInputError as error:
            yield path, None, str(error)
        else:
            yield path, rows, NOT_SUMMED if manifest.table_bytes is None else VERIFIED


def main() -> None:
    """Runs the command. Exit status 2 if there is no such folder or study, 1 if a verified table was changed."""
    run_command(_execute)


def _execute() -> None:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] not in ("list", "verify", "-h", "--help"):
        arguments = ["list", *arguments]  # the list is what one asks for most
    given = _build_parser().parse_args(arguments)
    given.execute(given)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m runner.studies", description="Lists and verifies studies.")
    commands = parser.add_subparsers(required=True, metavar="command")
    listing = commands.add_parser("list", help="list the studies in a folder (the default)", epilog=WORDS)
    listing.add_argument("outputs", nargs="?", default="outputs", type=Path, help="the folder, by default outputs")
    listing.set_defaults(execute=_list)
    verifying = commands.add_parser("verify", help="compare whole tables with their checksums")
    verifying.add_argument("studies", nargs="*", help="names, or folders; by default all studies in outputs")
    verifying.add_argument("--outputs", default="outputs", type=Path, help="the folder, by default outputs")
    verifying.set_defaults(execute=_verify)
    return parser


def _list(given: argparse.Namespace) -> None:
    _require_folder(given.outputs)
    terminal.print_rows(HEADER, list_studies(given.outputs), prose=PROSE, drop=DROP)


def _verify(given: argparse.Namespace) -> None:
    paths = [_find_study(given.outputs, name) for name in given.studies]
    if not paths:
        _require_folder(given.outputs)
        paths = sorted(path.parent for path in given.outputs.glob("*/study.json"))
    found = list(verify_studies(paths))
    rows = [(path.name, "" if count is None else count, verdict) for path, count, verdict in found]
    terminal.print_rows(("study", "rows", "table"), rows, prose=("table",))
    if any(count is None for _, count, _ in found):
        sys.exit(1)


def _find_study(outputs: Path, name: str) -> Path:
    """The folder of a study, given by its name or by its path. Raises InvalidInputError if there is none."""
    for path in (outputs / name, Path(name)):
        if Folder(path).manifest.exists():
            return path
    raise InvalidInputError(f"there is no study {name!r} in {outputs}")


def _require_folder(outputs: Path) -> None:
    if not outputs.is_dir():
        raise InvalidInputError(f"there is no folder {outputs}")


if __name__ == "__main__":
    main()

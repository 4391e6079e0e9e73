"""The command `python -m runner.studies`: the studies in a folder."""

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner import terminal
from runner.errors import InvalidInputError
from runner.output import run_command
from runner.plan.even_values import count_distinct
from runner.plan.status import Status
from runner.storage.folder import Folder
from runner.storage.manifest import require_manifest
from runner.storage.reader import count_statuses
from runner.storage.run_index import RunIndex

HEADER = ("study", "task", "axes", "done", "planned", "nonfinite", "failed", "age", "state")

WORDS = (
    "axes: what was swept, with the number of values; done, planned: runs; nonfinite: runs with a NaN or an infinity "
    "in a result; failed: runs without a result; age: since the last call"
)
PROSE = ("task", "axes", "state")
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
        counts = count_statuses(folder, manifest)
        for part in folder.parts:
            counts.update(count_statuses(part, replace(manifest, retries=())))
    except InvalidInputError as error:  # a damaged study is listed, too
        return ["", "", "", "", "", "", age, str(error)]
    done = sum(counts.values())
    state = "complete" if done >= manifest.planned else "unfinished: the same command resumes it"
    return [tasks, axes, done, manifest.planned, counts[Status.NONFINITE], counts[Status.FAILED], age, state]


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


def main() -> None:
    """Runs the command. Exit status 2 if there is no such folder."""
    run_command(_list)


def _list() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m runner.studies", description="Lists the studies in a folder.", epilog=WORDS
    )
    parser.add_argument("outputs", nargs="?", default="outputs", type=Path, help="the folder, by default outputs")
    outputs = parser.parse_args().outputs
    if not outputs.is_dir():
        raise InvalidInputError(f"there is no folder {outputs}")
    terminal.print_rows(HEADER, list_studies(outputs), prose=PROSE, drop=DROP)


if __name__ == "__main__":
    main()

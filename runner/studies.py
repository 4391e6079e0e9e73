"""The studies in a folder: `python -m runner.studies [outputs]`."""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from runner import terminal as console
from runner.errors import InvalidInputError
from runner.storage import manifest as record
from runner.storage import table
from runner.storage.folder import Folder
from runner.storage.run_index import RunIndex

HEADER = ("study", "task", "axes", "done", "planned", "nonfinite", "failed", "age", "state")


def studies(outputs: Path) -> Iterator[list[Any]]:
    """A row under `HEADER` for each study in a folder, the one that was called last first."""
    places = [path.parent for path in outputs.glob("*/study.json")]
    for path in sorted(places, key=lambda path: -(path / "study.json").stat().st_mtime):
        yield [path.name, *_row(Folder(path))]


def _row(folder: Folder) -> list[Any]:
    age = _age(time.time() - folder.record.stat().st_mtime)
    try:
        known = record.required(folder.record)
        counts = Counter(table.statuses(folder.results))
        for part in folder.parts:
            counts.update(table.statuses(part.results))
    except InvalidInputError as error:  # a study that is damaged is listed all the same
        return ["", "", "", "", "", "", age, str(error)]
    done = sum(counts.values())
    state = "complete" if done >= known.planned else "unfinished: the same command goes on"
    tasks, axes = _described(known.extents)
    return [tasks, axes, done, known.planned, counts.get("nonfinite", 0), counts.get("failed", 0), age, state]


def _described(extents: tuple[RunIndex, ...]) -> tuple[str, str]:
    """The tasks of a study, and what varies in it with the number of values."""
    values: dict[str, set[Any]] = {}
    for extent in extents:
        for part in extent.parts:
            for name, value in [*json.loads(part.key), *part.base.items()]:
                values.setdefault(name, set()).add(value)
    tasks = ", ".join(sorted(values.pop("task", ())))
    counts = {name: len(found) for name, found in values.items()}
    columns = [item for extent in extents for axis in extent.axes for item in axis.items()]
    for name in dict.fromkeys(name for name, _ in columns):
        counts[name] = len(np.unique(np.concatenate([column for other, column in columns if other == name])))
    return tasks, " ".join(f"{name}:{count}" for name, count in counts.items() if count > 1)


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def main() -> None:
    """The command. Exit status 2 where there is no such folder."""
    parser = argparse.ArgumentParser(prog="python -m runner.studies", description="Lists the studies in a folder.")
    parser.add_argument("outputs", nargs="?", default="outputs", type=Path, help="the folder, by default outputs")
    outputs = parser.parse_args().outputs
    if not outputs.is_dir():
        print(f"error: there is no folder {outputs}", file=sys.stderr)
        sys.exit(2)
    console.print_rows(HEADER, studies(outputs))


if __name__ == "__main__":
    main()

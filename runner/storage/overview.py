"""What a list of studies shows of each of them: its tasks and axes, how many runs it has, and the best of them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.plan.status import Status


@dataclass(frozen=True)
class BestRun:
    """The run with the best value of a metric among those whose results are all finite, the first of equal ones."""

    metric: str
    direction: str
    value: float
    run: int


@dataclass(frozen=True)
class Overview:
    """A study in short; `problem` says what cannot be read of it, or is empty.

    `axes` has the number of values of each parameter that varies, `search` names the method by which points were
    proposed, `statuses` has the number of runs with each status.
    """

    tasks: tuple[str, ...] = ()
    axes: Mapping[str, int] | None = None
    planned: int = 0
    statuses: Mapping[str, int] | None = None
    best: BestRun | None = None
    note: str = ""
    tags: tuple[str, ...] = ()
    search: str = ""
    problem: str = ""

    @property
    def done(self) -> int:
        return sum((self.statuses or {}).values())

    def count(self, status: Status) -> int:
        """How many runs have a status."""
        return (self.statuses or {}).get(status.value, 0)


def measure_bytes(path: Path | str) -> int:
    """The size of all files in a folder; files that vanish meanwhile count nothing."""
    total = 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += measure_bytes(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return total
    return total

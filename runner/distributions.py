"""Other distributions that install packages under the names that Seedbed's have."""

import re
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

PACKAGES = ("conf", "runner", "tasks")
"""The top-level names of Seedbed that others may have, too."""

_FILE = re.compile(rb"(?m)^\"?(conf|runner|tasks)/")


def describe_clash(folders: Iterable[str] | None = None) -> str | None:
    """A line about the first other distribution with such a package in the folders that Python searches; None if none.

    pip lets one distribution replace the files of another without a word.
    """
    for distribution, package in _find_clashes(sys.path if folders is None else folders):
        return (
            f"the distribution {distribution} installs a package {package!r}, as Seedbed does; install Seedbed into an "
            "environment of its own: python -m venv .venv"
        )
    return None


def _find_clashes(folders: Iterable[str]) -> Iterator[tuple[str, str]]:
    for folder in dict.fromkeys(folders):
        for record in sorted(Path(folder or ".").glob("*.dist-info/RECORD")):
            name = record.parent.name.partition("-")[0]
            if name == "seedbed":
                continue
            try:
                status = record.stat()
                package = _find_package(record, status.st_mtime_ns, status.st_size)
            except OSError:  # of somebody else's, and no matter of this call
                continue
            if package:
                yield name, package


@lru_cache(maxsize=4096)
def _find_package(record: Path, modified: int, size: int) -> str:
    """The first of the packages that a RECORD lists, empty if none; read again if its time (ns) or size has changed."""
    found = _FILE.search(record.read_bytes())
    return found[1].decode() if found else ""

"""A table as a call finds it: verified, and truncated to the last row that is known to be whole."""

import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from runner.errors import InvalidInputError
from runner.storage.checksums import (
    Verification,
    count_covered,
    read_records,
    sum_table,
    truncate_records,
    verify_content,
    write_records,
)
from runner.storage.columns import Columns
from runner.storage.folder import Folder

READ_BYTES = 1 << 16


class TableChangedError(InvalidInputError):
    """A table is not what its study wrote; `reason` says where."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} is not as the study wrote it: {reason}. Restore it, or call the study's command with "
            "on_mismatch=accept to keep it as it is, overwrite=true to start it again, or another study=…"
        )
        self.reason = reason


@dataclass(frozen=True)
class TableEnd:
    """Where a table ends: the number of its rows, of its bytes, and of the bytes after them that are no whole row."""

    rows: int = 0
    bytes: int = 0
    incomplete_bytes: int = 0


def recover_table(folder: Folder, columns: Columns, *, recorded: int = 0, truncate: bool = True) -> TableEnd:
    """Verifies a study's table and truncates it to the last row that it has checksums of.

    An interrupted call leaves rows that were not synced yet, part of a line, or zeros. Without `truncate` the file,
    which another process may be writing, is only read. `recorded` bytes at least must have checksums. Raises
    TableChangedError for a table that was changed by anything else.
    """
    path = folder.results
    size = path.stat().st_size if path.exists() else 0
    if size == 0:
        if truncate:
            truncate_records(folder.checksums, 0)
        return TableEnd()
    found = _verify_table(folder, recorded)
    if found.lines and _read_bytes(path, 0, len(columns.header)) != columns.header:
        raise TableChangedError(path, "its header is not that of the study")
    if truncate and found.bytes < size:
        _truncate(path, found.bytes)
    if truncate:
        truncate_records(folder.checksums, found.records)
    return TableEnd(max(0, found.lines - 1), found.bytes, size - found.bytes)


def verify_table(folder: Folder, *, recorded: int | None) -> int:
    """The number of rows of a study's table that are what was written; `recorded` bytes at least have checksums.

    None stands for a table that was written before there were checksums, of which nothing is known. That the table ends
    early is no change. Raises TableChangedError for any other one.
    """
    if recorded is None or not folder.results.exists() or not folder.results.stat().st_size:
        return 0
    return max(0, _verify_table(folder, recorded).lines - 1)


def _verify_table(folder: Folder, recorded: int) -> Verification:
    try:
        records = read_records(folder.checksums)
        found = None if records is None else verify_content(folder.results, records)
    except OSError as error:
        raise InvalidInputError(f"{error.filename} cannot be read: {error.strerror}") from error
    if records is None or found is None or count_covered(records) < recorded:
        problem = "missing" if records is None else "incomplete"
        raise TableChangedError(folder.results, f"{folder.checksums.name}, its checksums, is {problem}")
    if found.difference:
        raise TableChangedError(folder.results, f"the first difference is in {found.difference}")
    return found


def adopt_table(folder: Folder, columns: Columns) -> None:
    """Takes a table as it is: truncates it to its last whole line, and sums all of it.

    Raises InvalidInputError if it does not begin with the study's columns.
    """
    path = folder.results
    end = _find_last_line(path)
    if _read_bytes(path, 0, len(columns.header)) != columns.header[:end]:
        header = columns.header.decode().strip()
        raise InvalidInputError(f"{path} does not begin with the columns of this study: {header}")
    _truncate(path, end)
    write_records(folder.checksums, sum_table(path))


def read_last_row(folder: Folder, columns: Columns, end: TableEnd, back: int = 0) -> dict[str, str]:
    """The cells of the last row of a table, or of the one `back` rows before it."""
    stop, line = end.bytes, b""
    for _ in range(back + 1):
        line = _read_line_before(folder.results, stop)
        stop -= len(line)
    return parse_row(line, columns)


def parse_row(line: bytes, columns: Columns) -> dict[str, str]:
    """The cells of a line of the table as text. Raises InvalidInputError if it is no row of these columns."""
    names = list(columns.names)
    texts = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    reading = pyarrow.csv.ReadOptions(column_names=names, block_size=max(READ_BYTES, 2 * len(line)))
    try:
        rows = pyarrow.csv.read_csv(pa.BufferReader(line), reading, convert_options=texts).to_pylist()
    except pa.ArrowInvalid as error:
        raise InvalidInputError(f"{line[:60]!r} is no row of this study: {error}") from error
    if len(rows) != 1 or not str(rows[0]["run"]).isdigit():
        raise InvalidInputError(f"{line[:60]!r} is no row of this study")
    return rows[0]


def _truncate(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)
        os.fsync(file.fileno())


def _read_bytes(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def _read_line_before(path: Path, stop: int) -> bytes:
    """The line that ends at `stop`."""
    size = READ_BYTES
    while True:
        start = max(0, stop - size)
        content = _read_bytes(path, start, stop - start)
        place = content.rfind(b"\n", 0, len(content) - 1) + 1
        if place or start == 0:
            return content[place:]
        size *= 4


def _find_last_line(path: Path) -> int:
    """Where the last line ends that no zero comes before."""
    content = path.read_bytes()
    zero = content.find(b"\0")
    return content.rfind(b"\n", 0, len(content) if zero < 0 else zero) + 1

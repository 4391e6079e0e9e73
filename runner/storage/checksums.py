"""`results.crc`: checksums of what a study appended to its table, so that a later change is noticed and located.

The file is a sequence of records, each with the length in bytes and the CRC-32 of a slice of the table. The slices are
consecutive, end at line ends, and are a single row each where few rows are appended at once. A record is written after
its rows are on disk, so that the records never cover more than the table has.
"""

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

SLICE_BYTES = 1 << 14
"""The slices of a large block, some hundred rows each; smaller ones would cost more than the sum itself."""
LARGE_BYTES = 1 << 18
SLICES = 128
"""Slices of a small block: the first row that differs can be told exactly."""
CHUNK_BYTES = 1 << 19
"""Of a table whose rows are summed afterwards: a slice is a few thousand bytes then, as in a large block."""
RECORD = np.dtype([("length", "<u4"), ("crc", "<u4")])


@dataclass(frozen=True)
class Difference:
    """The first place where a table is not what was written: lines of the file, counted from 1, `last` included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"line {self.first}" if self.first == self.last else f"lines {self.first:,} to {self.last:,}"


@dataclass(frozen=True)
class Verification:
    """A table held against its checksums.

    The first `bytes` bytes, which are `lines` lines, are as they were written, by the first `records` records.
    `difference` is None if nothing differs; that the table ends early is no difference.
    """

    bytes: int
    lines: int
    records: int
    difference: Difference | None = None


def sum_rows(content: bytes) -> bytes:
    """The records of some rows that are appended at once."""
    view, size, start, words = memoryview(content), len(content), 0, []
    stride = SLICE_BYTES if size > LARGE_BYTES else max(1, size // SLICES)
    while start < size:
        stop = content.find(b"\n", start + stride - 1) + 1 or size
        words += [stop - start, zlib.crc32(view[start:stop])]
        start = stop
    return np.array(words, dtype="<u4").tobytes()


def read_records(path: Path) -> np.ndarray | None:
    """The records of a table, None if there are none; an incomplete last record is left out."""
    if not path.exists():
        return None
    content = path.read_bytes()
    records = np.frombuffer(content[: len(content) // RECORD.itemsize * RECORD.itemsize], dtype=RECORD)
    empty = np.flatnonzero(records["length"] == 0)  # a power failure may leave zeros
    return records[: empty[0]] if len(empty) else records


def count_covered(records: np.ndarray) -> int:
    """The bytes of a table that its records cover."""
    return int(records["length"].sum(dtype=np.int64))


def verify_content(table: Path, records: np.ndarray) -> Verification:
    """Reads a table once and compares it with its checksums, up to where it ends or differs.

    A zero ends the content if no later slice is as it was written: a power failure leaves zeros where space was
    allocated and nothing written.
    """
    done = lines = 0
    with table.open("rb") as file:
        for number, (length, crc) in enumerate(records.tolist()):
            content = file.read(length)
            if zlib.crc32(content) != crc or len(content) < length:
                is_cut = len(content) < length or (b"\0" in content and not _has_slice(file, records[number + 1 :]))
                last = lines + max(1, content.count(b"\n"))
                return Verification(done, lines, number, None if is_cut else Difference(lines + 1, last))
            done, lines = done + length, lines + content.count(b"\n")
    return Verification(done, lines, len(records))


def _has_slice(file: BinaryIO, records: np.ndarray) -> bool:
    """Whether any of these slices, which come next in the file, is as it was written."""
    return any(zlib.crc32(file.read(length)) == crc for length, crc in records.tolist())


def sum_table(table: Path) -> bytes:
    """The records of a whole table."""
    records = []
    with table.open("rb") as file:
        records.append(sum_rows(file.readline()))
        while content := file.read(CHUNK_BYTES) + file.readline():
            records.append(sum_rows(content))
    return b"".join(records)


def write_records(path: Path, records: bytes) -> None:
    """Replaces the records of a table."""
    path.write_bytes(records)


def truncate_records(path: Path, records: int) -> None:
    """Cuts the file after so many records."""
    if path.exists() and path.stat().st_size != records * RECORD.itemsize:
        os.truncate(path, records * RECORD.itemsize)

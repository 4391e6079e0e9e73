"""The writer of `results.csv`: rows are formatted, appended, synced, and truncated to the last complete one."""

import csv
import errno
import math
import mmap
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from runner.errors import InvalidInputError, StudyFailedError
from runner.plan.dtypes import stored_dtype
from runner.plan.pending import Block
from runner.plan.segments import Plan
from runner.plan.status import Status
from runner.storage.columns import Columns, format_cell, static_cells
from runner.storage.text_cells import encode_text, encode_texts

SYNC_SECONDS = 1.0
"""Rows are synced to disk at least this often; it bounds what a power failure costs."""
COPY_BYTES = 1 << 24

_PLAIN = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")


def format_rows(
    plan: Plan, columns: Columns, block: Block, outputs: Mapping[str, np.ndarray] | None, reason: str | None
) -> bytes:
    """A block as lines of CSV; `outputs` are arrays `(runs, …)`, or None where the block failed for `reason`.

    A scalar is written with the shortest digits that read back to the same float32, an array as a JSON list.
    """
    count, segment = len(block), plan.segments[block.segment]
    if outputs is not None:
        outputs = {name: values.astype(stored_dtype(values.dtype), copy=False) for name, values in outputs.items()}
    cells = {name: _repeat(value, count) for name, value in static_cells(segment, columns.parameters).items()}
    cells |= {name: pa.array(values) for name, values in plan.traced(block.segment, block.places).items()}
    cells["run"] = pa.array(block.numbers)
    cells |= {name: _format_output(values) for name, values in (outputs or {}).items()}
    cells["status"] = _repeat(Status.FAILED.value, count) if outputs is None else _find_status(outputs, count)
    cells["reason"] = _repeat(reason, count)
    lines = pa.table([cells.get(name, pa.nulls(count)) for name in columns.names], names=list(columns.names))
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(lines, sink, _PLAIN)
    return sink.getvalue().to_pybytes()


def _repeat(value: Any, count: int) -> pa.Array:
    if value is None:
        return pa.nulls(count)
    if isinstance(value, str):
        return pa.repeat(encode_text(value), count)
    return pa.repeat(value if isinstance(value, bool | int | float) else format_cell(value), count)


def _format_output(values: np.ndarray) -> pa.Array:
    """The cells of an output `(runs, …)`: numbers, categories, or JSON lists nested like the array."""
    if values.ndim == 1:
        return encode_texts(values) if values.dtype == object else pa.array(values)
    text = pc.cast(pa.array(values.reshape(-1)), pa.string())
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        for arrow, json_name in (("nan", "NaN"), ("inf", "Infinity")):
            text = pc.replace_substring(text, arrow, json_name)
    for axis in reversed(range(1, values.ndim)):
        text = _join_lists(text, math.prod(values.shape[:axis]), values.shape[axis])
    return text


def _join_lists(text: pa.Array, count: int, size: int) -> pa.Array:
    """`count` JSON lists of `size` consecutive cells each, which may be none."""
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(size)
    lists = pa.ListArray.from_arrays(pa.array(offsets), text)
    return pc.binary_join_element_wise("[", pc.binary_join(lists, ", "), "]", "")


def _find_status(outputs: Mapping[str, np.ndarray], count: int) -> pa.Array:
    finite = np.ones(count, dtype=bool)
    for values in outputs.values():
        if values.dtype.kind == "f":
            finite &= np.isfinite(values.reshape(count, -1)).all(axis=1)
    if finite.all():
        return pa.repeat(Status.OK.value, count)
    return pa.array(np.where(finite, Status.OK.value, Status.NONFINITE.value))


@contextmanager
def open_table(path: Path, header: bytes) -> Iterator[Callable[[bytes], None]]:
    """Opens the table, creating it with its header if there is none, and yields the function that appends rows.

    All rows are on disk when the context ends. Raises StudyFailedError if the disk refuses a write.
    """
    synced = time.monotonic()

    def sync() -> None:
        nonlocal synced
        file.flush()
        os.fsync(file.fileno())
        if os.fstat(file.fileno()).st_nlink == 0:
            raise OSError(errno.ENOENT, "the file was deleted")
        synced = time.monotonic()

    def append(rows: bytes) -> None:
        file.write(rows)
        if time.monotonic() - synced > SYNC_SECONDS:
            sync()

    try:
        with path.open("ab") as file:
            if file.tell() == 0:
                append(header)
            yield append
            sync()
    except OSError as error:
        raise StudyFailedError(f"cannot append to {path}: {error.strerror}; the same command resumes it") from error


def append_part(path: Path, part: Path, columns: Columns, *, rows: int, skip: int) -> None:
    """Appends the rows of the table at `part` to the one at `path`, which has `rows` rows, without the first `skip`.

    All rows are on disk when this returns. Raises StudyFailedError if the disk refuses a write.
    """
    if rows == 0:
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        return
    with open_table(path, columns.header) as append, part.open("rb") as file:
        for _ in range(1 + skip):
            file.readline()
        while content := file.read(COPY_BYTES):
            append(content)


@dataclass(frozen=True)
class TableEnd:
    """Where a table ends: the number of its rows, the cells of the last one, and the bytes of an incomplete row."""

    rows: int = 0
    cells: Mapping[str, str] = field(default_factory=dict)
    incomplete_bytes: int = 0


def recover_table(path: Path, columns: Columns, *, truncate: bool = True) -> TableEnd:
    """Truncates a table to its last complete row. Raises InvalidInputError if it does not have these columns.

    An interrupted write leaves part of a line, or zeros where space was allocated but no content written. Without
    `truncate` the file, which another process may be writing, is only read.
    """
    if not path.exists():
        return TableEnd()
    with path.open("r+b" if truncate else "rb") as file:
        size = os.fstat(file.fileno()).st_size
        end, last = _find_last_line(file, size) if size else (0, b"")
        if end and file.read(len(columns.header)) != columns.header:
            header = columns.header.decode().strip()
            raise InvalidInputError(f"{path} does not begin with the columns of this study: {header}")
        if truncate and end < size:
            file.truncate(end)
            os.fsync(file.fileno())
    if end == 0 or last == b"":
        return TableEnd(incomplete_bytes=size - end)
    cells = dict(zip(columns.names, next(csv.reader([last.decode()]), []), strict=False))
    if len(cells) != len(columns.names) or not cells["run"].isdigit():
        raise InvalidInputError(f"{path} does not end with a row of this study: {last[:60].decode()!r}")
    return TableEnd(int(cells["run"]) + 1, cells, size - end)


def _find_last_line(file: BinaryIO, size: int) -> tuple[int, bytes]:
    """Where the last complete line ends, and that line; the line is empty if it is the header or there is none."""
    with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as content:
        zero = content.find(b"\0")
        end = content.rfind(b"\n", 0, size if zero < 0 else zero) + 1
        start = content.rfind(b"\n", 0, max(0, end - 1)) + 1
        return end, content[start:end].rstrip(b"\n") if start else b""


def read_first_number(path: Path, columns: Columns) -> int | None:
    """The number of the first row of a table, None if it has no rows."""
    with path.open("rb") as file:
        file.seek(len(columns.header))
        number = file.readline().partition(b",")[0]
    return int(number) if number else None

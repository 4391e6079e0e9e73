"""The writer of `results.csv`: rows are formatted, appended, synced, and summed."""

import errno
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from runner.errors import StudyFailedError
from runner.plan.dtypes import stored_dtype
from runner.plan.pending import Block
from runner.plan.segments import Plan, Segment
from runner.plan.status import Status
from runner.storage.checksums import sum_rows
from runner.storage.columns import Columns, format_cell, static_cells
from runner.storage.folder import Folder
from runner.storage.text_cells import encode_text
from runner.storage.text_columns import encode_texts

SYNC_SECONDS = 1.0
"""Rows are synced to disk about this often, also while a block takes longer; it bounds what a failure costs."""
COPY_BYTES = 1 << 19
"""Rows that are copied, and summed, at once."""

_PLAIN = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")


@dataclass(frozen=True)
class Rows:
    """The runs of a block that become lines of the table.

    `outputs` are arrays `(runs, …)`, None where the runs failed for `reason`.
    """

    block: Block
    outputs: Mapping[str, np.ndarray] | None
    reason: str | None


def format_rows(plan: Plan, columns: Columns, rows: Sequence[Rows]) -> bytes:
    """The lines of several blocks as CSV.

    A scalar is written with the shortest digits that read back to the same float32, an array as a JSON list. Blocks
    whose cells have the same types are formatted together, since a table costs as much as a thousand of its rows.
    """
    segments = [plan.segments[each.block.segment] for each in rows]
    static = [static_cells(segment, columns.parameters) for segment in segments]
    kinds = [_list_kinds(*each) for each in zip(segments, static, rows, strict=True)]
    lines, start = [], 0
    for stop in range(1, len(rows) + 1):
        if stop == len(rows) or kinds[stop] != kinds[start]:
            lines.append(_format_alike(plan, columns, rows[start:stop], static[start:stop]))
            start = stop
    return b"".join(lines)


def _list_kinds(segment: Segment, static: Mapping[str, Any], rows: Rows) -> tuple[Any, ...]:
    """What must be equal for rows to be formatted together: types, shapes, and the reason of a failure."""
    outputs = None if rows.outputs is None else [(n, v.dtype, v.shape[1:]) for n, v in rows.outputs.items()]
    return [(name, type(value)) for name, value in static.items()], list(segment.traced), outputs, rows.reason


def _format_alike(plan: Plan, columns: Columns, rows: Sequence[Rows], static: Sequence[Mapping[str, Any]]) -> bytes:
    counts, reason = [len(each.block) for each in rows], rows[0].reason
    count, outputs = sum(counts), None
    if rows[0].outputs is not None:
        outputs = _concatenate([each.outputs or {} for each in rows])
        outputs = {name: values.astype(stored_dtype(values.dtype), copy=False) for name, values in outputs.items()}
    cells = {name: _repeat_each([each[name] for each in static], counts) for name in static[0]}
    traced = _concatenate([plan.traced(each.block.segment, each.block.places) for each in rows])
    cells |= {name: pa.array(values) for name, values in traced.items()}
    cells["run"] = pa.array(np.concatenate([each.block.numbers for each in rows]))
    cells |= {name: _format_output(values) for name, values in (outputs or {}).items()}
    cells["status"] = _repeat(Status.FAILED.value, count) if outputs is None else _find_status(outputs, count)
    cells["reason"] = _repeat(reason, count)
    lines = pa.table([cells.get(name, pa.nulls(count)) for name in columns.names], names=list(columns.names))
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(lines, sink, _PLAIN)
    return sink.getvalue().to_pybytes()


def _concatenate(columns: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    first, *others = columns
    return {name: np.concatenate([each[name] for each in columns]) for name in first} if others else dict(first)


def _repeat_each(values: Sequence[Any], counts: Sequence[int]) -> pa.Array:
    """Values of one type, each repeated so many times."""
    if len(set(map(repr, values))) == 1:  # -0.0 equals 0.0, and (1,) equals (1.0,)
        return _repeat(values[0], sum(counts))
    return pa.concat_arrays([_repeat(value, count) for value, count in zip(values, counts, strict=True)])


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


@dataclass(frozen=True)
class OpenTable:
    """A table that is written to: `append` adds rows, and `sync` puts what was appended on disk."""

    append: Callable[[bytes], None]
    sync: Callable[[], None]


@contextmanager
def open_table(folder: Folder, header: bytes) -> Iterator[OpenTable]:
    """Opens a study's table, creating it with its header if there is none.

    Rows get their checksums once they are synced, so that rows without checksums are known to be incomplete. They are
    synced once a second while rows come; while none come, somebody must call `sync`. All rows are on disk when the
    context ends. Raises StudyFailedError if the disk refuses a write.
    """
    path, synced, unsynced = folder.results, time.monotonic(), bytearray()

    def sync() -> None:
        nonlocal synced
        if not unsynced:
            return
        table.flush()
        os.fsync(table.fileno())
        if os.fstat(table.fileno()).st_nlink == 0:
            raise OSError(errno.ENOENT, "the file was deleted")
        checksums.write(unsynced)
        checksums.flush()
        unsynced.clear()
        synced = time.monotonic()

    def append(rows: bytes) -> None:
        table.write(rows)
        unsynced.extend(sum_rows(rows))
        if time.monotonic() - synced > SYNC_SECONDS:
            sync()

    try:
        with folder.checksums.open("ab") as checksums, path.open("ab") as table:
            if table.tell() == 0:
                append(header)
            try:
                yield OpenTable(append, sync)
            finally:
                sync()
            os.fsync(checksums.fileno())
    except OSError as error:
        raise StudyFailedError(f"cannot append to {path}: {error.strerror}; the same command resumes it") from error


def append_part(folder: Folder, part: Folder, columns: Columns, *, rows: int, skip: int) -> None:
    """Appends the rows of a part to the table of its study, which has `rows` rows, without the first `skip`.

    All rows are on disk when this returns. Raises StudyFailedError if the disk refuses a write.
    """
    if rows == 0:
        with part.results.open("rb") as file:
            os.fsync(file.fileno())
        shutil.copyfile(part.checksums, folder.checksums)  # first: a table without checksums would be refused
        os.replace(part.results, folder.results)
        return
    with open_table(folder, columns.header) as table, part.results.open("rb") as file:
        for _ in range(1 + skip):
            file.readline()
        while content := file.read(COPY_BYTES) + file.readline():
            table.append(content)


def read_first_number(path: Path, columns: Columns) -> int | None:
    """The number of the first row of a table, None if it has no rows."""
    with path.open("rb") as file:
        file.seek(len(columns.header))
        number = file.readline().partition(b",")[0]
    return int(number) if number else None

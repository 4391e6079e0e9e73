"""The table: one row per run, in `results.csv`; the only owner of its format."""

import csv
import io
import json
import os
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

from runner.errors import BadInput, StudyFailed
from runner.plan import Block, Plan
from runner.task import Output

SYNC_SECONDS = 1.0
"""Rows reach the disk at least this often: what a power cut may cost."""

_PLAIN = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")


@dataclass(frozen=True)
class Table:
    """The columns of a study's table, and how a block becomes rows.

    `run`, `task`, the swept config groups, the parameters in the order of the signature, the outputs,
    `status` (`ok`, `nonfinite`, `failed`) and the `reason` of a failure. A scalar is written with the
    shortest digits that read back to the same float32, an array as a JSON list.
    """

    plan: Plan
    columns: tuple[str, ...]

    @property
    def header(self) -> bytes:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(self.columns)
        return line.getvalue().encode()

    def rows(self, block: Block, outputs: Mapping[str, np.ndarray] | None, reason: str | None) -> bytes:
        """The block as lines of CSV."""
        count = len(block)
        segment = self.plan.study.segments[block.segment]
        static = {name: value for name, value in segment.static.items() if _is_shown(value)}
        cells = {name: _repeat(value, count) for name, value in {**segment.swept, **static}.items()}
        cells |= {name: pa.array(values) for name, values in self.plan.traced(block).items()}
        cells["run"] = pa.array(np.arange(block.start, block.stop))
        cells["task"] = _repeat(segment.task.name, count)
        cells |= {name: _cells(values) for name, values in (outputs or {}).items()}
        cells["status"] = _repeat("failed", count) if outputs is None else _status(outputs, count)
        cells["reason"] = _repeat(reason, count)
        lines = pa.table([cells.get(name, pa.nulls(count)) for name in self.columns], names=list(self.columns))
        sink = pa.BufferOutputStream()
        pyarrow.csv.write_csv(lines, sink, _PLAIN)
        return sink.getvalue().to_pybytes()


def table(plan: Plan, outputs: Sequence[Output]) -> Table:
    """The table of a plan whose groups give these outputs. Raises BadInput where two columns share a name."""
    parameters: dict[str, None] = {}
    choices: dict[str, None] = {}
    for segment in plan.study.segments:
        for name in segment.task.names:
            parts = [key for key in segment.swept if key.startswith(f"{name}.")]
            own = name in segment.traced or name in segment.swept or _is_shown(segment.static.get(name, segment))
            parameters |= dict.fromkeys([name, *parts] if own else parts)
        choices |= dict.fromkeys(key for key in segment.swept if key not in (*segment.task.names, "task"))
    choices = {name: None for name in choices if name not in parameters}
    names = dict.fromkeys(output.name for output in outputs)
    columns = ["run", "task", *choices, *parameters, *names, "status", "reason"]
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise BadInput(f"two columns of the table would be named {twice[0]!r}; the columns are: {', '.join(columns)}")
    return Table(plan, tuple(columns))


@contextmanager
def appending(path: Path, header: bytes) -> Iterator[Callable[[bytes], None]]:
    """Creates the table and gives the function that appends rows to it; all is on disk when the block ends.

    Raises BadInput if there is a table already, which is never written over, or none can be made, and
    StudyFailed if it can no longer be written.
    """
    try:
        file = path.open("xb")
    except FileExistsError as error:
        raise BadInput(f"{path.parent} has its results already; give the study another name") from error
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}") from error
    synced = time.monotonic()

    def sync() -> None:
        nonlocal synced
        file.flush()
        os.fsync(file.fileno())
        synced = time.monotonic()

    def append(rows: bytes) -> None:
        file.write(rows)
        if time.monotonic() - synced > SYNC_SECONDS:
            sync()

    try:
        with file:
            append(header)
            yield append
            sync()
    except OSError as error:
        raise StudyFailed(f"cannot go on writing {path}: {error.strerror}") from error


def _is_shown(value: Any) -> bool:
    """Whether a static value has a cell: a built object has none, its swept group or keys have."""
    return value is None or isinstance(value, bool | int | float | str | tuple)


def _repeat(value: Any, count: int) -> pa.Array:
    if isinstance(value, tuple):
        value = json.dumps(value, default=str)
    return pa.nulls(count) if value is None else pa.repeat(value if _is_shown(value) else str(value), count)


def _cells(values: np.ndarray) -> pa.Array:
    """The cells of an output `(runs, …)`: numbers, or JSON lists nested as the array is."""
    if values.dtype.kind == "V" or values.dtype == np.float16:  # bfloat16 and float16 are exact in float32
        values = values.astype(np.float32)
    if values.ndim == 1:
        return pa.array(values)
    text = pc.cast(pa.array(values.reshape(-1)), pa.string())
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        for word, number in (("nan", "NaN"), ("inf", "Infinity")):
            text = pc.replace_substring(text, word, number)
    for size in reversed(values.shape[1:]):
        text = _bracketed(text, size)
    return text


def _bracketed(text: pa.Array, size: int) -> pa.Array:
    """Each `size` neighbours as one JSON list."""
    lists = pa.ListArray.from_arrays(pa.array(np.arange(0, len(text) + 1, size, dtype=np.int32)), text)
    return pc.binary_join_element_wise("[", pc.binary_join(lists, ", "), "]", "")


def _status(outputs: Mapping[str, np.ndarray], count: int) -> pa.Array:
    finite = np.ones(count, dtype=bool)
    for values in outputs.values():
        if values.dtype.kind in "fV":
            finite &= np.isfinite(values.reshape(count, -1)).all(axis=1)
    return pa.repeat("ok", count) if finite.all() else pa.array(np.where(finite, "ok", "nonfinite"))

"""The table: one row per run, in `results.csv`; the only owner of its format."""

import csv
import errno
import io
import json
import mmap
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

from runner.errors import InvalidInputError, StudyFailedError
from runner.plan.contract import Built, Output
from runner.plan.study import Block, Plan, Segment, scalar_dtype
from runner.storage.run_index import RunIndex, SegmentKey

SYNC_SECONDS = 1.0
"""Rows reach the disk at least this often: what a power cut may cost."""

_PLAIN = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")


@dataclass(frozen=True)
class Columns:
    """What a table has: its parameters with their types, and the outputs; fixed when the table is made.

    `run`, `task`, the parameters in the order of the signature after the swept config groups, the outputs,
    `status` (`ok`, `nonfinite`, `failed`) and the `reason` of a failure. The type of a parameter is a NumPy
    dtype, `text` or `json`.
    """

    parameters: Mapping[str, str]
    outputs: tuple[Output, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return ("run", "task", *self.parameters, *(output.name for output in self.outputs), "status", "reason")

    @property
    def header(self) -> bytes:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(self.names)
        return line.getvalue().encode()


def parameters(plan: Plan) -> dict[str, str]:
    """The columns that a plan needs for its parameters, with their types."""
    types: dict[str, set[str]] = {}
    choices: dict[str, set[str]] = {}
    for segment in plan.study.segments:
        for name in segment.task.names:
            own = name in segment.traced or name in segment.swept or _is_shown(segment.static.get(name, segment))
            parts = [key for key in segment.swept if key.startswith(f"{name}.")]
            for column in [name, *parts] if own else parts:
                types.setdefault(column, set()).add(_type(segment, column))
        for key in segment.swept:
            if key not in ("task", *types):
                choices.setdefault(key, set()).add("text")
    merged = {name: kinds for name, kinds in choices.items() if name not in types} | types
    return {name: kinds.pop() if len(kinds) == 1 else "text" for name, kinds in merged.items()}


def columns(parameters: Mapping[str, str], outputs: Sequence[Output]) -> Columns:
    """The columns of a table. Raises InvalidInputError where two of them share a name, or one would hold words and numbers."""
    made = Columns(parameters, tuple({output.name: output for output in outputs}.values()))
    check_categories(made, outputs)
    twice = [name for name in made.names if made.names.count(name) > 1]
    if twice:
        raise InvalidInputError(
            f"two columns of the table would be named {twice[0]!r}; the columns are: {', '.join(made.names)}"
        )
    return made


def check_categories(columns: Columns, outputs: Sequence[Output]) -> None:
    """Raises InvalidInputError for an output that is a word where its column holds numbers, or the other way round."""
    words = {output.name: output.is_categorical for output in columns.outputs}
    for output in outputs:
        if output.is_categorical != words[output.name]:
            has, given = ("words", "numbers") if words[output.name] else ("numbers", "words")
            raise InvalidInputError(f"the column {output.name!r} holds {has}, not also {given}; give another name")


def _type(segment: Segment, column: str) -> str:
    if column in segment.traced:
        return scalar_dtype(segment.task, column).__name__
    value = cell(segment, column)
    kinds = {bool: "bool", int: "int64", float: "float64", tuple: "json"}
    return kinds.get(type(value), "text")


def _is_shown(value: Any) -> bool:
    """Whether a static value has a cell: a built object has none, its swept group or keys have."""
    return value is None or isinstance(value, bool | int | float | str | tuple)


def cell(segment: Segment, column: str) -> Any:
    """The static value that a segment has in a column: also of a part of an input that is not swept this time."""
    if column == "task":
        return segment.task.name
    if column in segment.static and _is_shown(segment.static[column]):
        return segment.static[column]
    if column in segment.swept:
        return segment.swept[column]
    name, _, path = column.partition(".")
    if name in segment.inputs:
        return getattr(segment.inputs[name], path, None)
    built = segment.static.get(name)
    return _within(json.loads(built.text), path) if isinstance(built, Built) else None


def _within(values: Any, path: str) -> Any:
    for name in path.split("."):
        values = values.get(name) if isinstance(values, Mapping) else None
    return tuple(values) if isinstance(values, list) else values


def _static_cells(segment: Segment, columns: Columns) -> dict[str, Any]:
    return {name: cell(segment, name) for name in ("task", *columns.parameters) if name not in segment.traced}


def extent(plan: Plan, columns: Columns) -> RunIndex:
    """The plan as its rows are told apart in the table."""
    varying = {name for axis in plan.study.axes for name in axis.columns}
    parts = []
    for segment in plan.study.segments:
        base = {name: value for name, value in segment.traced.items() if name not in varying}
        parts.append(SegmentKey(_key(_static_cells(segment, columns)), base))
    return RunIndex(tuple(parts), tuple(axis.columns for axis in plan.study.axes), plan.runs)


def _key(cells: Mapping[str, Any]) -> str:
    return json.dumps([[name, _text(value)] for name, value in cells.items() if value not in (None, "")])


def _text(value: Any) -> str:
    """A cell as `results.csv` has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, default=str) if isinstance(value, tuple) else str(value)


def rows(
    plan: Plan, columns: Columns, block: Block, outputs: Mapping[str, np.ndarray] | None, reason: str | None
) -> bytes:
    """A block as lines of CSV.

    A scalar has the shortest digits that read back to the same float32, an array is a JSON list.
    """
    count, segment = len(block), plan.study.segments[block.segment]
    cells = {name: _repeat(value, count) for name, value in _static_cells(segment, columns).items()}
    cells |= {name: pa.array(values) for name, values in plan.traced(block.segment, block.places).items()}
    cells["run"] = pa.array(block.numbers)
    cells |= {name: _cells(values) for name, values in (outputs or {}).items()}
    cells["status"] = _repeat("failed", count) if outputs is None else _status(outputs, count)
    cells["reason"] = _repeat(reason, count)
    lines = pa.table([cells.get(name, pa.nulls(count)) for name in columns.names], names=list(columns.names))
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(lines, sink, _PLAIN)
    return sink.getvalue().to_pybytes()


def _repeat(value: Any, count: int) -> pa.Array:
    if value is None:
        return pa.nulls(count)
    return pa.repeat(value if isinstance(value, bool | int | float) else _text(value), count)


def _cells(values: np.ndarray) -> pa.Array:
    """The cells of an output `(runs, …)`: numbers, words, or JSON lists nested as the array is."""
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


@contextmanager
def appending(path: Path, header: bytes) -> Iterator[Callable[[bytes], None]]:
    """The function that appends rows to the table, which is made where there is none.

    All is on disk when the block ends. Raises StudyFailedError if the disk refuses.
    """
    synced = time.monotonic()

    def sync() -> None:
        nonlocal synced
        file.flush()
        os.fsync(file.fileno())
        if os.fstat(file.fileno()).st_nlink == 0:
            raise OSError(errno.ENOENT, "the file is gone")
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
        raise StudyFailedError(
            f"cannot go on writing {path}: {error.strerror}; the same command goes on from there"
        ) from error


def recover(path: Path, columns: Columns, *, cut: bool = True) -> tuple[int, dict[str, str], int]:
    """Cuts a table back to its last whole row: the rows, the last one's cells, and the bytes that were cut.

    A write that was torn leaves half a line, or zeros where the disk was given space but no content. Without
    `cut` the table of another process is only looked at. Raises InvalidInputError if it is not that of these columns.
    """
    if not path.exists():
        return 0, {}, 0
    with path.open("r+b" if cut else "rb") as file:
        size = os.fstat(file.fileno()).st_size
        end, last = _whole(file, size) if size else (0, b"")
        if end and file.read(len(columns.header)) != columns.header:
            raise InvalidInputError(
                f"{path} does not begin with the columns of this study: {columns.header.decode().strip()}"
            )
        if cut and end < size:
            file.truncate(end)
            os.fsync(file.fileno())
    if end and last == b"":
        return 0, {}, size - end
    cells = dict(zip(columns.names, next(csv.reader([last.decode()]), []), strict=False))
    if end == 0:
        return 0, {}, size
    if len(cells) != len(columns.names) or not cells["run"].isdigit():
        raise InvalidInputError(f"{path} does not end as a table of this study does: {last[:60].decode()!r}")
    return int(cells["run"]) + 1, cells, size - end


def _whole(file: Any, size: int) -> tuple[int, bytes]:
    """Where the last whole line ends, and that line; empty if it is the header or there is none."""
    with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as content:
        zero = content.find(b"\0")
        end = content.rfind(b"\n", 0, size if zero < 0 else zero) + 1
        start = content.rfind(b"\n", 0, max(0, end - 1)) + 1
        return end, content[start:end].rstrip(b"\n") if start else b""


def first(path: Path, columns: Columns) -> int | None:
    """The number of a table's first row, None where it has none."""
    with path.open("rb") as file:
        file.seek(len(columns.header))
        number = file.readline().partition(b",")[0]
    return int(number) if number else None


def take_in(path: Path, part: Path, columns: Columns, rows: int, skip: int) -> None:
    """Appends another table to the one at `path`, which has so many rows; that many of the other are in it already.

    All is on disk when this returns. Raises what `appending` does.
    """
    if rows == 0:
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        return
    with appending(path, columns.header) as append, part.open("rb") as file:
        for _ in range(1 + skip):
            file.readline()
        while content := file.read(1 << 24):
            append(content)


def place(extent: RunIndex, columns: Columns, cells: Mapping[str, str]) -> int:
    """The place of a row in an extent, by the text of its cells; -1 if it is not in it."""
    return int(extent.find(*_run(columns, cells), 1)[0])


def _run(columns: Columns, cells: Mapping[str, str]) -> tuple[str, dict[str, np.ndarray]]:
    traced = {n: kind for n, kind in columns.parameters.items() if kind in ("uint32", "float32") and cells[n] != ""}
    static = {name: cells[name] for name in ("task", *columns.parameters) if name not in traced}
    return _key(static), {name: np.array([cells[name]]).astype(kind) for name, kind in traced.items()}


def batches(path: Path, columns: Columns) -> Iterator[tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """The table read back, some rows at a time: the key of their static cells, their traced values, their scalars."""
    scalars = [output.name for output in columns.outputs if output.shape == ()]
    kinds = {name: pa.string() for name in ("task", "status", *columns.parameters)}
    kinds |= {name: pa.from_numpy_dtype(kind) for name, kind in columns.parameters.items() if kind in _TRACED}
    convert = pyarrow.csv.ConvertOptions(
        column_types=kinds | {o.name: _stored(o) for o in columns.outputs if o.shape == ()},
        include_columns=[*kinds, *scalars],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
    )
    reading = pyarrow.csv.ReadOptions(block_size=1 << 24)
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    with pyarrow.csv.open_csv(path, reading, parsing, convert) as reader:
        for batch in reader:
            yield from _keyed(batch.to_pandas(), columns, scalars)


_TRACED = ("uint32", "float32")


def _stored(output: Output) -> pa.DataType:
    """The type in which a scalar was written: bfloat16 and float16 are exact in float32."""
    if output.is_categorical:
        return pa.string()
    return (
        pa.float32() if output.dtype.kind in "fV" and output.dtype.itemsize < 8 else pa.from_numpy_dtype(output.dtype)
    )


def _keyed(frame: Any, columns: Columns, scalars: Sequence[str]) -> Iterator[Any]:
    static = ["task", *(name for name, kind in columns.parameters.items() if kind not in _TRACED)]
    keys = [*static, "status"]
    traced = [name for name, kind in columns.parameters.items() if kind in _TRACED]
    for cells, group in frame.groupby(keys, dropna=False, sort=False):
        *cells, status = cells
        given = {name: text if isinstance(text, str) else None for name, text in zip(static, cells, strict=True)}
        has = {name: group[name].to_numpy() for name in traced if group[name].notna().all()}
        values = {name: column.astype(columns.parameters[name]) for name, column in has.items()}
        yield _key(given), values, {} if status == "failed" else {name: group[name].to_numpy() for name in scalars}


@dataclass(frozen=True)
class Coded:
    """Some rows of a table: of each parameter the texts that its cells have and which one each row has.

    `codes` are int32 `(rows,)`, -1 for an empty cell; `seeds` int64, -1 where there is none; `status` bytes;
    `outputs` the chosen ones: numbers float64 `(rows,)`, NaN where there is none, or arrays as lists of texts.
    """

    texts: Mapping[str, list[str]]
    codes: Mapping[str, np.ndarray]
    seeds: np.ndarray
    status: np.ndarray
    outputs: Mapping[str, Any]


def coded(path: Path, columns: Columns, outputs: Sequence[str]) -> Iterator[Coded]:
    """The table in batches of rows, with the chosen outputs only: memory does not grow with the others.

    Raises InvalidInputError where the table is damaged, with the words of the reader, which tell the row.
    """
    static = [name for name in ("task", *columns.parameters) if name != "seed"]
    shapes = {output.name: output.shape for output in columns.outputs}
    kinds = dict.fromkeys([*static, "status"], pa.dictionary(pa.int32(), pa.string()))
    kinds |= {name: pa.float64() if shapes[name] == () else pa.string() for name in outputs}
    kinds |= {o.name: pa.string() for o in columns.outputs if o.name in outputs and o.dtype.kind == "b"}
    kinds |= {"seed": pa.uint32()} if columns.parameters.get("seed") == "uint32" else {}
    convert = pyarrow.csv.ConvertOptions(
        column_types=kinds,
        include_columns=list(kinds),
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
    )
    reading = pyarrow.csv.ReadOptions(block_size=1 << 24)
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    try:
        with pyarrow.csv.open_csv(path, reading, parsing, convert) as reader:
            for batch in reader:
                yield _coded(batch, static, outputs, shapes)
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidInputError(
            f"{path} cannot be read: {error}. The study's own command cuts a torn tail off"
        ) from error


def _coded(batch: Any, static: Sequence[str], outputs: Sequence[str], shapes: Mapping[str, Any]) -> Coded:
    columns = {name: batch.column(name) for name in batch.schema.names}
    codes = {name: _indices(columns[name]) for name in static}
    texts = {name: columns[name].dictionary.to_pylist() for name in static}
    missing = np.full(len(batch), -1, dtype=np.int64)
    seeds = pc.fill_null(columns["seed"].cast(pa.int64()), -1).to_numpy() if "seed" in columns else missing
    names = np.array([*columns["status"].dictionary.to_pylist(), ""], dtype="S9")
    values = {n: _numbers(columns[n]) if shapes[n] == () else columns[n].to_pylist() for n in outputs}
    return Coded(texts, codes, seeds, names[_indices(columns["status"])], values)


def _indices(column: Any) -> np.ndarray:
    return pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False).astype(np.int32)


def _numbers(column: Any) -> np.ndarray:
    if pa.types.is_string(column.type):
        column = pc.equal(column, "true").cast(pa.int8()).cast(pa.float64())
    return column.to_numpy(zero_copy_only=False)


def statuses(path: Path) -> dict[str, int]:
    """How many rows of a table have which status; a torn last line is none."""
    if not path.exists():
        return {}
    convert = pyarrow.csv.ConvertOptions(include_columns=["status"])
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=lambda _: "skip")
    counts = pc.value_counts(pyarrow.csv.read_csv(path, parse_options=parsing, convert_options=convert)["status"])
    return {count["values"]: count["counts"] for count in counts.to_pylist() if count["values"]}


def frame(path: Path, columns: Columns) -> Any:
    """The table as a DataFrame in run order, with the dtypes of its values, and arrays where it has arrays.

    A column in which cells are missing has a dtype that can say so.
    """
    kinds = {"int64": pa.int64(), "bool": pa.bool_(), **{kind: pa.from_numpy_dtype(kind) for kind in _TRACED}}
    types = {name: kinds.get(kind, pa.string()) for name, kind in columns.parameters.items()}
    types |= {output.name: _stored(output) if output.shape == () else pa.string() for output in columns.outputs}
    types |= {"run": pa.int64(), "task": pa.string(), "status": pa.string(), "reason": pa.string()}
    convert = pyarrow.csv.ConvertOptions(
        column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=False, null_values=[""]
    )
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    read = pyarrow.csv.read_csv(path, parse_options=parsing, convert_options=convert).to_pandas()
    for output in columns.outputs:
        if output.shape != ():
            read[output.name] = [_array(cell, output) for cell in read[output.name]]
        elif not output.is_categorical and (not read[output.name].isna().any() or output.dtype.kind in "fV"):
            read[output.name] = read[output.name].astype(output.dtype if output.dtype.kind in "fiub" else np.float32)
    return read


def reasons(path: Path, columns: Columns, most: int) -> dict[str, str]:
    """The reasons of failed runs, at most so many, each with how many runs have it."""
    convert = pyarrow.csv.ConvertOptions(
        include_columns=["reason"], column_types={"reason": pa.string()}, strings_can_be_null=True, null_values=[""]
    )
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    counts: dict[str, int] = {}
    with pyarrow.csv.open_csv(path, None, parsing, convert) as reader:
        for batch in reader:
            for each in pc.value_counts(pc.drop_null(batch["reason"])).to_pylist():
                counts[each["values"]] = counts.get(each["values"], 0) + each["counts"]
    return {reason: f"{count:,} runs" for reason, count in list(counts.items())[:most]}


def first_rows(path: Path, columns: Columns, most: int) -> Any:
    """The first rows of a table as a DataFrame: floats as float64, arrays and other parameters as texts."""
    floats = {name: pa.float64() for name, kind in columns.parameters.items() if kind in ("float32", "float64")}
    kinds = {name: pa.string() for name in columns.names} | floats
    convert = pyarrow.csv.ConvertOptions(
        column_types=kinds, strings_can_be_null=True, quoted_strings_can_be_null=False, null_values=[""]
    )
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    batches, rows = [], 0
    with pyarrow.csv.open_csv(path, None, parsing, convert) as reader:
        for batch in reader:
            batches.append(batch)
            rows += len(batch)
            if rows >= most:
                break
    return pa.Table.from_batches(batches).slice(0, most).to_pandas()


def _array(cell: Any, output: Output) -> Any:
    if not isinstance(cell, str):
        return None
    values = np.array(json.loads(cell))
    return values.astype(output.dtype) if output.dtype.kind in "fiub" else values.astype(np.float32)

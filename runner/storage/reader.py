"""The reader of `results.csv`: one iteration over batches of rows, and small functions that reduce them."""

import json
import mmap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from runner.errors import InvalidInputError
from runner.plan.contract import Output
from runner.plan.dtypes import stored_dtype
from runner.plan.status import Status
from runner.storage.columns import TRACED_TYPES, Columns, cells_key
from runner.storage.text_cells import decode_texts

BATCH_BYTES = 1 << 24
HEADER_BYTES = 1 << 20
"""More than the first line of a table has."""

_DICTIONARY = pa.dictionary(pa.int32(), pa.string())


def iterate_batches(
    path: Path, types: Mapping[str, pa.DataType], *, skip_invalid: bool = False
) -> Iterator[pa.RecordBatch]:
    """The columns named in `types` of a table, some thousand rows at a time; an empty cell is null.

    Raises InvalidInputError for a table that cannot be read, with the row. `skip_invalid` leaves out rows with too few
    or too many cells, such as the incomplete last row of a table that is being written.
    """
    convert = pyarrow.csv.ConvertOptions(
        column_types=dict(types),
        include_columns=list(types),
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
    )
    source = _open_rows(path, is_whole=not skip_invalid)
    if source is None:
        return
    reading = pyarrow.csv.ReadOptions(block_size=BATCH_BYTES)
    handler = (lambda _: "skip") if skip_invalid else None
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=handler)
    try:
        with pyarrow.csv.open_csv(source, reading, parsing, convert) as reader:
            yield from map(_decode_batch, reader)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidInputError(
            f"{path} cannot be read: {reason}. The command that made the study truncates an incomplete last row"
        ) from error


def _open_rows(path: Path, *, is_whole: bool) -> Any:
    """What pyarrow reads a table from, None if it has no rows because it ends within its header or before.

    Unless it `is_whole`, it ends with the last line that does, since a row may end within quotes.
    """
    try:
        with path.open("rb") as file:
            if not file.readline(HEADER_BYTES).endswith(b"\n"):
                return None
            if is_whole:
                return path
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                zero = content.find(b"\0")
                end = content.rfind(b"\n", 0, len(content) if zero < 0 else zero) + 1
        return pa.memory_map(str(path)).read_buffer(end)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}") from error


def read_keyed_batches(
    path: Path, columns: Columns
) -> Iterator[tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Rows grouped by their static cells: the key of these, the traced scalars and the scalar outputs, `(rows,)`.

    Arrays are left out, unless no output is a number: then they stand with their means, float64 `(rows,)`. Rows of
    failed runs have no outputs.
    """
    has_numbers = any(output.shape == () and not output.is_categorical for output in columns.outputs)
    scalars = [output for output in columns.outputs if output.shape == () or not has_numbers]
    traced = [name for name, kind in columns.parameters.items() if kind in TRACED_TYPES]
    static = ["task", *(name for name in columns.parameters if name not in traced)]
    types = {name: pa.string() for name in (*static, "status")}
    types |= {name: pa.from_numpy_dtype(columns.parameters[name]) for name in traced}
    types |= {output.name: _stored_type(output) if output.shape == () else pa.string() for output in scalars}
    for batch in iterate_batches(path, types):
        for values, group in batch.to_pandas().groupby([*static, "status"], dropna=False, sort=False):
            *cells, status = values
            key = cells_key({n: c if isinstance(c, str) else None for n, c in zip(static, cells, strict=True)})
            given = [name for name in traced if group[name].notna().all()]
            numbers = {name: group[name].to_numpy().astype(columns.parameters[name]) for name in given}
            outputs = [] if status == Status.FAILED else scalars
            yield key, numbers, {output.name: _read_means(group[output.name], output) for output in outputs}


def _read_means(cells: pd.Series, output: Output) -> np.ndarray:
    """A scalar output unchanged, or the mean of each array; NaN where a run has none."""
    if output.shape == ():
        return cells.to_numpy()
    arrays = [_parse_list(cell, output.name) if isinstance(cell, str) else np.empty(0) for cell in cells]
    return np.array([array.mean(dtype=np.float64) if array.size else np.nan for array in arrays])


@dataclass(frozen=True)
class CodedRows:
    """Some rows of a table, with the cells of each parameter as codes of its distinct texts.

    `codes` are int32 `(rows,)`, -1 for an empty cell. `numbers` are the runs' numbers, int64. `seeds` are int64, -1
    where there is none. `statuses` are members of `Status`. `outputs` has the chosen outputs: numbers as float64
    `(rows,)`, NaN where there is none, and arrays as lists of JSON texts or None.
    """

    texts: Mapping[str, list[str]]
    codes: Mapping[str, np.ndarray]
    numbers: np.ndarray
    seeds: np.ndarray
    statuses: np.ndarray
    outputs: Mapping[str, Any]


def read_coded_rows(path: Path, columns: Columns, outputs: Sequence[str]) -> Iterator[CodedRows]:
    """The table in batches of rows with the chosen outputs only; memory does not grow with the other outputs."""
    static = [name for name in ("task", *columns.parameters) if name != "seed"]
    chosen = {output.name: output for output in columns.outputs if output.name in outputs}
    types = {"run": pa.int64(), **dict.fromkeys([*static, "status"], _DICTIONARY)}
    types |= {name: pa.float64() if _is_number(output) else pa.string() for name, output in chosen.items()}
    types |= {"seed": pa.uint32()} if columns.parameters.get("seed") == "uint32" else {}
    for batch in iterate_batches(path, types):
        cells = {name: batch.column(name) for name in batch.schema.names}
        names = np.array([*cells["status"].dictionary.to_pylist(), Status.FAILED.value], dtype=object)
        no_seed = np.full(len(batch), -1, dtype=np.int64)
        yield CodedRows(
            {name: cells[name].dictionary.to_pylist() for name in static},
            {name: _read_codes(cells[name]) for name in static},
            cells["run"].to_numpy(),
            pc.fill_null(cells["seed"].cast(pa.int64()), -1).to_numpy() if "seed" in cells else no_seed,
            names[_read_codes(cells["status"])],
            {n: _read_numbers(cells[n]) if o.shape == () else cells[n].to_pylist() for n, o in chosen.items()},
        )


def count_statuses(path: Path) -> Counter[str]:
    """How many rows of a table have which status; an incomplete last row is not counted."""
    counts: Counter[str] = Counter()
    for batch in iterate_batches(path, {"status": pa.string()}, skip_invalid=True) if path.exists() else ():
        counts.update(_count_values(batch.column(0)))
    return counts


def count_reasons(path: Path, numbers: np.ndarray | None = None) -> Counter[str]:
    """How many failed runs have which reason, of the runs with these numbers, or of all."""
    counts: Counter[str] = Counter()
    for batch in iterate_batches(path, {"run": pa.int64(), "reason": pa.string()}):
        if numbers is not None:
            batch = batch.filter(pa.array(np.isin(batch.column("run").to_numpy(), numbers)))
        counts.update(_count_values(batch.column("reason")))
    return counts


def read_arrays(path: Path, name: str, numbers: np.ndarray) -> list[np.ndarray | None]:
    """An array output of the runs with these numbers, float64 each, in their order; None where a run has none."""
    cells: dict[int, str] = {}
    last = int(numbers.max(initial=-1))
    for batch in iterate_batches(path, {"run": pa.int64(), name: pa.string()}):
        runs = batch.column("run").to_numpy()
        kept = batch.filter(pa.array(np.isin(runs, numbers)))
        cells.update(zip(kept.column("run").to_pylist(), kept.column(name).to_pylist(), strict=True))
        if len(runs) and runs[-1] >= last:
            break
    texts = [cells.get(int(number)) for number in numbers]
    return [None if text is None else _parse_list(text, name).astype(float) for text in texts]


def read_frame(path: Path, columns: Columns) -> pd.DataFrame:
    """The whole table in run order, with the dtypes of its values, and arrays as NumPy arrays.

    A column with empty cells has a dtype that can represent them.
    """
    kinds = {"int64": pa.int64(), "bool": pa.bool_(), **{kind: pa.from_numpy_dtype(kind) for kind in TRACED_TYPES}}
    parameters = {name: kinds.get(kind, pa.string()) for name, kind in columns.parameters.items()}
    outputs = {o.name: _stored_type(o) if o.shape == () else pa.string() for o in columns.outputs}
    types = {"run": pa.int64(), "task": pa.string(), **parameters, **outputs}
    types |= {"status": pa.string(), "reason": pa.string()}
    schema = pa.schema(list(types.items()))
    frame = pa.Table.from_batches(list(iterate_batches(path, types)), schema).to_pandas()
    for output in columns.outputs:
        if output.shape != ():
            frame[output.name] = [_parse_array(cell, output) for cell in frame[output.name]]
        elif not output.is_categorical and (not frame[output.name].isna().any() or _frame_dtype(output).kind == "f"):
            frame[output.name] = frame[output.name].astype(_frame_dtype(output))
    return frame


def _decode_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch with the texts that its cells stand for."""
    columns = [decode_texts(column) if _has_texts(column.type) else column for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _has_texts(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_dictionary(kind)


def _count_values(column: pa.Array) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(pc.drop_null(column)).to_pylist()}


def _stored_type(output: Output) -> pa.DataType:
    """The type in which a scalar was written."""
    return pa.string() if output.is_categorical else pa.from_numpy_dtype(stored_dtype(output.dtype))


def _is_number(output: Output) -> bool:
    return output.shape == () and output.dtype.kind != "b"


def _read_codes(column: Any) -> np.ndarray:
    return pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False).astype(np.int32)


def _read_numbers(column: Any) -> np.ndarray:
    if pa.types.is_string(column.type):  # booleans
        column = pc.equal(column, "true").cast(pa.int8()).cast(pa.float64())
    return column.to_numpy(zero_copy_only=False)


def _frame_dtype(output: Output) -> np.dtype[Any]:
    return output.dtype if output.dtype.isbuiltin == 1 else stored_dtype(output.dtype)


def _parse_array(cell: Any, output: Output) -> np.ndarray | None:
    if not isinstance(cell, str):
        return None
    array = _parse_list(cell, output.name).astype(_frame_dtype(output))
    is_flat = not array.size and array.ndim < len(output.shape)  # JSON has [] for an array of shape (0, 2)
    return array.reshape(output.shape) if is_flat else array


def _parse_list(cell: str, name: str) -> np.ndarray:
    """The array of a cell. Raises InvalidInputError if it is no JSON list of numbers."""
    try:
        return np.array(json.loads(cell))
    except ValueError as error:
        raise InvalidInputError(
            f"the table is damaged: {name} has a cell that is no list of numbers, {cell[:60]!r}"
        ) from error

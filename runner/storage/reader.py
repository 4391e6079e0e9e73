"""The reader of `results.csv`: one iteration over batches of rows, and small functions that reduce them."""

import json
import math
import mmap
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from runner.contract.task import Output
from runner.errors import InvalidInputError
from runner.plan.dtypes import stored_dtype
from runner.plan.status import Status
from runner.storage.checksums import count_covered, read_records
from runner.storage.columns import TRACED_TYPES, Columns, cells_key
from runner.storage.folder import Folder
from runner.storage.manifest import Manifest
from runner.storage.text_columns import decode_texts

BATCH_BYTES = 1 << 24
CELL_BYTES = 30
"""What a number of an array takes in its cell at most: a whole row has to fit a batch."""

MINUS_ZERO = re.compile(r"-0(?![.\de])")
"""How an array's cell has the float -0.0, which JSON would take for the integer 0."""

_DICTIONARY = pa.dictionary(pa.int32(), pa.string())


def iterate_batches(folder: Folder, manifest: Manifest, types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    """The columns named in `types` of a study's table, some thousand rows at a time; an empty cell is null.

    Of a run that was repeated only the last row is read; rows without checksums, which another process may be writing,
    are not read. Raises InvalidInputError for a table that cannot be read.
    """
    if not folder.results.exists() or not folder.results.stat().st_size:
        return
    repeated = _find_repeated(folder, manifest)
    first = 0
    for batch in _iterate_rows(folder, manifest.columns, types):
        stop = first + len(batch)
        if repeated is not None:
            batch = batch.filter(pa.array(~repeated[first:stop]))
        first = stop
        yield batch


def _find_repeated(folder: Folder, manifest: Manifest) -> np.ndarray | None:
    """Which rows of a table a later row counts instead of, bool `(rows,)`; None if there is no such row."""
    if not manifest.retries:
        return None
    batches = _iterate_rows(folder, manifest.columns, {"run": pa.int64()})
    numbers = np.concatenate([batch.column(0).to_numpy() for batch in batches])
    return pd.Index(numbers).duplicated(keep="last")


def _iterate_rows(folder: Folder, columns: Columns, types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    path = folder.results
    convert = pyarrow.csv.ConvertOptions(
        column_types=dict(types),
        include_columns=list(types),
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
    )
    cells = sum(math.prod(output.shape) for output in columns.outputs)
    reading = pyarrow.csv.ReadOptions(block_size=max(BATCH_BYTES, 2 * CELL_BYTES * cells))
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        rows = pa.py_buffer(content).slice(0, _find_end(folder, content))
        with pyarrow.csv.open_csv(pa.BufferReader(rows), reading, parsing, convert) as reader:
            yield from map(_decode_batch, reader)
    except (pa.ArrowException, OSError) as error:
        raise InvalidInputError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def _find_end(folder: Folder, content: mmap.mmap) -> int:
    """Where the last whole line ends that has a checksum."""
    records = read_records(folder.checksums)
    size = len(content) if records is None else min(len(content), count_covered(records))
    return content.rfind(b"\n", 0, size) + 1


def read_run_numbers(folder: Folder, manifest: Manifest) -> np.ndarray:
    """The number of the run in each row of a table, int64 `(rows,)`, repeated ones included."""
    batches = _iterate_rows(folder, manifest.columns, {"run": pa.int64()})
    return np.concatenate([np.empty(0, np.int64), *(pc.fill_null(b.column(0), -1).to_numpy() for b in batches)])


@dataclass(frozen=True)
class KeyedRows:
    """Rows with equal static cells, whose `key` they have, and equal `status`.

    `numbers` are the runs' numbers, int64 `(rows,)`. `traced` are their traced scalars and `outputs` the scalar
    outputs, `(rows,)` each; a failed run has none. `reason` is the first one of failed runs.
    """

    key: str
    status: Status
    numbers: np.ndarray
    traced: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    reason: str | None


def read_keyed_rows(folder: Folder, manifest: Manifest) -> Iterator[KeyedRows]:
    """All rows of a table, grouped by their static cells and status.

    Arrays are left out, unless no output is a number: then they stand with their means, float64 `(rows,)`. Raises
    InvalidInputError for an unknown status.
    """
    columns = manifest.columns
    has_numbers = any(output.shape == () and not output.is_categorical for output in columns.outputs)
    scalars = [output for output in columns.outputs if output.shape == () or not has_numbers]
    traced = [name for name, kind in columns.parameters.items() if kind in TRACED_TYPES]
    static = ["task", *(name for name in columns.parameters if name not in traced)]
    types = {name: pa.string() for name in (*static, "status", "reason")}
    types |= {name: pa.from_numpy_dtype(columns.parameters[name]) for name in traced}
    types |= {output.name: stored_type(output) if output.shape == () else pa.string() for output in scalars}
    types |= {"run": pa.int64()}
    for batch in iterate_batches(folder, manifest, types):
        for values, group in batch.to_pandas().groupby([*static, "status"], dropna=False, sort=False):
            *cells, status = values
            if status not in list(Status):
                run = group["run"].iloc[0]
                raise InvalidInputError(f"{folder.results}: run {run} has the status {status!r}; {', '.join(Status)}")
            key = cells_key({n: c if isinstance(c, str) else None for n, c in zip(static, cells, strict=True)})
            given = [name for name in traced if group[name].notna().all()]
            numbers = {name: group[name].to_numpy().astype(columns.parameters[name]) for name in given}
            outputs = [] if status == Status.FAILED else scalars
            found = {output.name: _read_means(group[output.name], output) for output in outputs}
            reason = group["reason"].iloc[0] if status == Status.FAILED else None
            yield KeyedRows(key, Status(status), group["run"].to_numpy(), numbers, found, reason)


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


def read_coded_rows(folder: Folder, manifest: Manifest, outputs: Sequence[str]) -> Iterator[CodedRows]:
    """The table in batches of rows with the chosen outputs only; memory does not grow with the other outputs."""
    columns = manifest.columns
    static = [name for name in ("task", *columns.parameters) if name != "seed"]
    chosen = {output.name: output for output in columns.outputs if output.name in outputs}
    types = {"run": pa.int64(), **dict.fromkeys([*static, "status"], _DICTIONARY)}
    types |= {name: pa.float64() if _is_number(output) else pa.string() for name, output in chosen.items()}
    types |= {"seed": pa.uint32()} if columns.parameters.get("seed") == "uint32" else {}
    for batch in iterate_batches(folder, manifest, types):
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


def count_statuses(folder: Folder, manifest: Manifest) -> Counter[str]:
    """How many runs of a table have which status."""
    counts: Counter[str] = Counter()
    for batch in iterate_batches(folder, manifest, {"status": pa.string()}):
        counts.update(_count_values(batch.column(0)))
    return counts


def count_reasons(folder: Folder, manifest: Manifest, numbers: np.ndarray | None = None) -> Counter[str]:
    """How many failed runs have which reason, of the runs with these numbers, or of all."""
    counts: Counter[str] = Counter()
    for batch in iterate_batches(folder, manifest, {"run": pa.int64(), "reason": pa.string()}):
        if numbers is not None:
            batch = batch.filter(pa.array(np.isin(batch.column("run").to_numpy(), numbers)))
        counts.update(_count_values(batch.column("reason")))
    return counts


def read_arrays(folder: Folder, manifest: Manifest, name: str, numbers: np.ndarray) -> list[np.ndarray | None]:
    """An array output of the runs with these numbers, float64 each, in their order; None where a run has none."""
    cells: dict[int, str] = {}
    last = int(numbers.max(initial=-1))
    for batch in iterate_batches(folder, manifest, {"run": pa.int64(), name: pa.string()}):
        runs = batch.column("run").to_numpy()
        kept = batch.filter(pa.array(np.isin(runs, numbers)))
        cells.update(zip(kept.column("run").to_pylist(), kept.column(name).to_pylist(), strict=True))
        if len(runs) and runs[-1] >= last and not manifest.retries:
            break
    texts = [cells.get(int(number)) for number in numbers]
    return [None if text is None else _parse_list(text, name).astype(float) for text in texts]


def read_run(folder: Folder, manifest: Manifest, number: int) -> dict[str, np.ndarray]:
    """The outputs of one run, `(1, …)` each; none if it failed, or has no row."""
    outputs = manifest.columns.outputs
    types = {o.name: stored_type(o) if o.shape == () else pa.string() for o in outputs}
    for batch in iterate_batches(folder, manifest, {"run": pa.int64(), **types}):
        row = batch.filter(pa.array(batch.column("run").to_numpy() == number)).to_pandas()
        if len(row):
            given = [output for output in outputs if row[output.name].notna().all()]
            return {output.name: _read_output(row[output.name], output) for output in given}
    return {}


def _read_output(cells: pd.Series, output: Output) -> np.ndarray:
    return cells.to_numpy() if output.shape == () else np.array([parse_array(cell, output) for cell in cells])


def read_frame(folder: Folder, manifest: Manifest) -> pd.DataFrame:
    """The whole table in run order, with the dtypes of its values, and arrays as NumPy arrays.

    A column with empty cells has a dtype that can represent them.
    """
    columns = manifest.columns
    types = list_types(columns)
    schema = pa.schema(list(types.items()))
    frame = pa.Table.from_batches(list(iterate_batches(folder, manifest, types)), schema).to_pandas()
    if manifest.retries:
        frame = frame.sort_values("run", ignore_index=True)
    for output in columns.outputs:
        if output.shape != ():
            frame[output.name] = [parse_array(cell, output) for cell in frame[output.name]]
        elif not output.is_categorical and (not frame[output.name].isna().any() or _frame_dtype(output).kind == "f"):
            frame[output.name] = frame[output.name].astype(_frame_dtype(output))
    return frame


def list_types(columns: Columns) -> dict[str, pa.DataType]:
    """The types of all columns of a table, in their order; arrays are texts."""
    kinds = {"int64": pa.int64(), "bool": pa.bool_(), **{kind: pa.from_numpy_dtype(kind) for kind in TRACED_TYPES}}
    parameters = {name: kinds.get(kind, pa.string()) for name, kind in columns.parameters.items()}
    outputs = {o.name: stored_type(o) if o.shape == () else pa.string() for o in columns.outputs}
    texts = {"status": pa.string(), "reason": pa.string()}
    return {"run": pa.int64(), "task": pa.string(), **parameters, **outputs, **texts}


def _decode_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch with the texts that its cells stand for."""
    columns = [decode_texts(column) if _has_texts(column.type) else column for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _has_texts(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_dictionary(kind)


def _count_values(column: pa.Array) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(pc.drop_null(column)).to_pylist()}


def stored_type(output: Output) -> pa.DataType:
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


def parse_array(cell: Any, output: Output) -> np.ndarray | None:
    """The array of a cell, in the output's shape and dtype; None for an empty cell."""
    if not isinstance(cell, str):
        return None
    array = _parse_list(cell, output.name).astype(_frame_dtype(output))
    is_flat = not array.size and array.ndim < len(output.shape)  # JSON has [] for an array of shape (0, 2)
    return array.reshape(output.shape) if is_flat else array


def _parse_list(cell: str, name: str) -> np.ndarray:
    """The array of a cell. Raises InvalidInputError if it is no JSON list of numbers."""
    try:
        return np.array(json.loads(MINUS_ZERO.sub("-0.0", cell)))
    except ValueError as error:
        raise InvalidInputError(
            f"the table is damaged: {name} has a cell that is no list of numbers, {cell[:60]!r}"
        ) from error

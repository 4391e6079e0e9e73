"""A study as one CSV: the last row of each run, in the order of the runs.

It is `results.csv` for a study in which no run was repeated.
"""

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from runner.exports.ordered_rows import iterate_ordered
from runner.exports.request import Exported, Request, replace_file
from runner.storage.reader import list_types
from runner.storage.text_columns import encode_texts

_PLAIN = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")


def export(request: Request) -> Exported:
    """Writes all runs of a study to one file, a batch of rows after the other."""
    target = Path(request.to) if request.to else request.folder.exports / f"{request.name}.csv"
    columns, rows = request.manifest.columns, 0
    types = list_types(columns)
    arrays = {output.name for output in columns.outputs if output.shape}
    with replace_file(target) as path, path.open("wb") as file:
        file.write(columns.header)
        with pyarrow.csv.CSVWriter(file, pa.schema(list(types.items())), write_options=_PLAIN) as writer:
            for batch in iterate_ordered(request.folder, request.manifest, types):
                writer.write_batch(_encode(batch, arrays))
                rows += len(batch)
    return Exported(rows, 0, "run", str(target))


def _encode(batch: pa.RecordBatch, arrays: Collection[str]) -> pa.RecordBatch:
    """A batch with the cells that stand for its texts; those of arrays are JSON already."""
    columns = [
        encode_texts(column.to_numpy(zero_copy_only=False))
        if pa.types.is_string(column.type) and name not in arrays
        else column
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)

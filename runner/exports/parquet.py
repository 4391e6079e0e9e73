"""A study as one Parquet file: the exact dtypes, arrays as nested lists, and the manifest as metadata."""

import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from runner.exports.nested import output_type, parse_cells
from runner.exports.ordered_rows import iterate_ordered
from runner.exports.request import Exported, Request, replace_file
from runner.storage.environment import read_environment
from runner.storage.manifest import Manifest
from runner.storage.reader import list_types

COMPRESSION = "zstd"


def export(request: Request) -> Exported:
    """Writes all runs of a study to one file, a batch of rows after the other."""
    target = Path(request.to) if request.to else request.folder.exports / f"{request.name}.parquet"
    schema, rows = build_schema(request), 0
    with replace_file(target) as path, pq.ParquetWriter(path, schema, compression=COMPRESSION) as writer:
        for batch in iterate_typed(request, schema):
            writer.write_batch(batch)
            rows += len(batch)
    return Exported(rows, 0, "run", str(target))


def build_schema(request: Request) -> pa.Schema:
    """The columns of a study with their types; its manifest and environment are metadata, as JSON."""
    types = list_types(request.manifest.columns)
    types |= {output.name: output_type(output) for output in request.manifest.columns.outputs}
    texts = {"seedbed.version": metadata.version("seedbed"), "seedbed.manifest": request.folder.manifest.read_text()}
    if environment := read_environment(request.folder):
        texts["seedbed.environment"] = json.dumps(environment)
    return pa.schema(list(types.items()), metadata=texts)


def iterate_typed(request: Request, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of a study with the types of a schema, in the order of the runs."""
    manifest = request.manifest
    for batch in iterate_ordered(request.folder, manifest, list_types(manifest.columns)):
        yield _convert(batch, manifest, schema)


def _convert(batch: pa.RecordBatch, manifest: Manifest, schema: pa.Schema) -> pa.RecordBatch:
    columns = {name: batch.column(name) for name in batch.schema.names}
    for output in manifest.columns.outputs:
        cells = columns[output.name]
        columns[output.name] = (
            parse_cells(cells, output) if output.shape else cells.cast(schema.field(output.name).type)
        )
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)

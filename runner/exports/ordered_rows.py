"""The rows of a table in the order of their runs, batch by batch."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.storage.folder import Folder
from runner.storage.manifest import Manifest, clip_retries
from runner.storage.reader import iterate_batches, read_run_numbers


def iterate_ordered(folder: Folder, manifest: Manifest, types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    """The last row of each run, in the order of the runs; `types` must have the column `run`.

    Only the rows of repeated runs are held in memory.
    """
    batches = iterate_batches(folder, manifest, types)
    numbers = read_run_numbers(folder, manifest) if manifest.retries else np.empty(0, np.int64)
    places = [np.arange(rows.start, rows.stop) for rows in clip_retries(manifest.retries, len(numbers))]
    if not places:
        yield from batches
        return
    repeated = np.unique(numbers[np.concatenate(places)])
    late = [_select(batch, repeated) for batch in iterate_batches(folder, manifest, types)]
    rows = pa.Table.from_batches(late, pa.schema(list(types.items()))).sort_by("run").combine_chunks()
    first = 0
    for batch in batches:
        early = _select(batch, repeated, invert=True)
        if not len(early):
            continue
        last = early.column("run")[-1].as_py()
        stop = first + pc.sum(pc.less(rows["run"].slice(first), last)).as_py() if first < len(rows) else first
        merged = pa.concat_tables([pa.Table.from_batches([early]), rows.slice(first, stop - first)])
        yield from merged.sort_by("run").combine_chunks().to_batches()
        first = stop
    yield from rows.slice(first).to_batches()


def _select(batch: pa.RecordBatch, numbers: np.ndarray, *, invert: bool = False) -> pa.RecordBatch:
    return batch.filter(pa.array(np.isin(batch.column("run").to_numpy(), numbers, invert=invert)))

"""Single rows of a table: the values, the status and all outputs of some runs."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from runner.contract.task import Output
from runner.plan.status import Status
from runner.storage.columns import TRACED_TYPES, cells_key
from runner.storage.folder import Folder
from runner.storage.manifest import Manifest
from runner.storage.reader import iterate_batches, parse_array, stored_type


@dataclass(frozen=True)
class SavedRun:
    """A run as the table has it.

    `key` is that of its static cells. `traced` are its scalars and `outputs` its outputs, `(1,)` and `(1, …)`; a failed
    run has no outputs but a `reason`.
    """

    number: int
    key: str
    traced: Mapping[str, np.ndarray]
    status: Status
    outputs: Mapping[str, np.ndarray]
    reason: str | None

    @property
    def scalars(self) -> dict[str, int | float]:
        """Its traced scalars as Python has them: floats with the shortest digits that stand for the same float32."""
        return {n: float(str(v[0])) if v.dtype.kind == "f" else int(v[0]) for n, v in self.traced.items()}


def read_runs(folder: Folder, manifest: Manifest, numbers: Collection[int]) -> dict[int, SavedRun]:
    """The runs of a table with these numbers, by number; those without a row are left out."""
    wanted = np.array(sorted(numbers), dtype=np.int64)
    return {run.number: run for run in iterate_runs(folder, manifest, wanted)}


def iterate_runs(folder: Folder, manifest: Manifest, wanted: np.ndarray | None = None) -> Iterator[SavedRun]:
    """The runs of a table, all or those with the wanted numbers, in the order of their rows."""
    columns = manifest.columns
    traced = [name for name, kind in columns.parameters.items() if kind in TRACED_TYPES]
    static = ["task", *(name for name in columns.parameters if name not in traced)]
    types = {"run": pa.int64(), **dict.fromkeys([*static, "status", "reason"], pa.string())}
    types |= {name: pa.from_numpy_dtype(columns.parameters[name]) for name in traced}
    types |= {output.name: stored_type(output) if output.shape == () else pa.string() for output in columns.outputs}
    for batch in iterate_batches(folder, manifest, types):
        chosen = batch
        if wanted is not None:
            chosen = batch.filter(pa.array(np.isin(batch.column("run").to_numpy(), wanted)))
        for place in range(len(chosen)):
            yield _read_row(chosen.slice(place, 1), static, traced, columns.outputs)


def _read_row(row: pa.RecordBatch, static: list[str], traced: list[str], outputs: tuple[Output, ...]) -> SavedRun:
    cells = {name: row.column(name) for name in row.schema.names}
    texts = {name: cells[name][0].as_py() for name in (*static, "status", "reason")}
    given = {name for name, cell in cells.items() if not cell.null_count}
    return SavedRun(
        cells["run"][0].as_py(),
        cells_key({name: texts[name] for name in static}),
        {name: cells[name].to_numpy() for name in traced if name in given},
        Status(texts["status"]),
        {output.name: _read_output(cells[output.name], output) for output in outputs if output.name in given},
        texts["reason"],
    )


def _read_output(cell: Any, output: Output) -> np.ndarray:
    if output.shape == ():
        return cell.to_numpy(zero_copy_only=False)
    return np.array([parse_array(cell[0].as_py(), output)])

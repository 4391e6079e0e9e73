"""Studies loaded for a comparison: the point of each run, its replicate, and its metrics."""

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pandas as pd
import pyarrow as pa

from runner.analysis.filters import describe_filter, evaluate_filter, list_filtered, list_words
from runner.analysis.reductions import REDUCTIONS, is_reduction, reduce_output
from runner.contract.task import Output
from runner.errors import InvalidInputError
from runner.plan.even_values import Column, count_members
from runner.plan.status import Status
from runner.storage.folder import Folder
from runner.storage.manifest import Manifest, require_manifest
from runner.storage.reader import CodedRows, iterate_batches, read_coded_rows, read_frame
from runner.storage.recovery import verify_table
from runner.storage.run_index import RunIndex

NUMBERS = {"float32", "float64", "int32", "int64", "uint32"}
"""The kinds of parameters that are numbers."""
MOST_METRICS = 6
"""Scalar outputs that are all compared by default; of more, those with a direction, if there are some."""


@dataclass(frozen=True)
class Runs:
    """Runs with their points, which are numbered in the order of the tables.

    `points` has a row for each point and a column for each axis. Per run, `(runs,)`: the index of its `study`, its
    `number` in that study's table, its `point`, `seed` (-1 for none), `replicate` (equal for runs that are paired:
    those with equal seeds), its `variant` (equal for runs with equal values of the pooled axes), `status`, and the
    value of each metric, float64.
    """

    studies: tuple[Folder, ...]
    manifests: tuple[Manifest, ...]
    points: pd.DataFrame
    study: np.ndarray
    number: np.ndarray
    point: np.ndarray
    seed: np.ndarray
    replicate: np.ndarray
    variant: np.ndarray
    status: np.ndarray
    values: Mapping[str, np.ndarray]
    directions: Mapping[str, str]
    planned: np.ndarray
    """Replicates of each point, `(points,)`, pending ones included."""
    pending: int
    """Runs that are still to be executed."""
    pooled: tuple[str, ...] = ()
    """Axes that vary within a point, because the comparison is not by them."""
    categorical: tuple[str, ...] = ()
    """Categorical outputs, which have no estimates."""
    primary: tuple[str, ...] = ()
    """Metrics that the tasks declare as their primary ones."""
    binary: tuple[str, ...] = ()
    """Metrics whose outputs are booleans."""
    resolutions: Mapping[str, float] = field(default_factory=dict)
    """The relative spacing of the dtype of each metric's output."""
    exclusions: tuple[str, ...] = ()
    """Which runs are left out, and why."""
    notes: tuple[str, ...] = ()
    """What else has become of the studies' runs."""

    def __len__(self) -> int:
        return len(self.point)

    def numbers_of(self, study: int) -> np.ndarray:
        """The numbers of the runs of one study, int64, ascending."""
        return self.number[self.study == study]


@dataclass(frozen=True)
class _Table:
    """The columns of one study's table: codes into the texts of all studies."""

    folder: Folder
    manifest: Manifest
    codes: Mapping[str, np.ndarray]
    number: np.ndarray
    seed: np.ndarray
    status: np.ndarray
    values: Mapping[str, np.ndarray]


Texts = dict[str, dict[str, int]]
"""Of each parameter the texts of its cells, numbered in the order of the tables."""


def read_study(folder: str | os.PathLike[str]) -> pd.DataFrame:
    """The table of a study as a DataFrame, in run order and with the dtypes that its values had.

    `folder` is that of the study, such as `outputs/lr_scan`. Seeds are uint32, floats float32, categories strings, and
    the cells of array outputs are NumPy arrays of the output's shape and dtype. Failed runs have missing values.
    Raises InvalidInputError for a folder without a study, and for a damaged table.

    With the study of `python -m runner -m task=mixed_train lr=0.1,0.2 'seed=range(0,5)' study=lr_scan`:

    >>> import runner
    >>> frame = runner.read("outputs/lr_scan")
    >>> frame.groupby("lr")["loss_after"].count().tolist()
    [5, 5]
    """
    place, manifest = _open_study(Path(folder))
    return read_frame(place, manifest)


def load_runs(
    folders: Sequence[Path],
    metrics: Sequence[str] | None = None,
    by: Sequence[str] | None = None,
    keep: str | None = None,
    is_last: bool = False,
) -> Runs:
    """The runs of studies; a run that several of them have is one.

    `metrics` and `by` are names of metrics and axes; None takes all scalar outputs (or the means of arrays, if there
    are no scalars) and all axes that vary and that no other one determines. `keep` is an expression for
    `pandas.DataFrame.eval` that selects runs. With `is_last`, elements of arrays that are not finite are left out.

    Raises InvalidInputError for a folder without a study, a damaged table, an unknown metric or axis, and a filter
    that cannot be evaluated or selects nothing.
    """
    places, notes = _list_places(folders)
    studies = [_open_study(place) for place in places]
    folders_of, manifests = [folder for folder, _ in studies], [manifest for _, manifest in studies]
    chosen = _choose_metrics(manifests, metrics)
    notes += _describe_undirected(manifests, metrics, chosen)
    filtered = list_filtered(keep, _list_outputs(manifests), chosen)
    texts: Texts = {}
    read = [_read_table(*study, [*chosen, *filtered], texts, is_last) for study in studies]
    tables, codes, copies = _join_tables(read, texts)
    notes += copies
    columns = {name: np.concatenate([getattr(t, name) for t in tables]) for name in ("number", "seed", "status")}
    columns["study"] = np.repeat(np.arange(len(tables)), [len(table.seed) for table in tables])
    values = {name: np.concatenate([table.values[name] for table in tables]) for name in [*chosen, *filtered]}
    if not len(columns["seed"]):
        raise InvalidInputError(f"{' and '.join(str(folder.path) for folder in folders_of)}: no run is done yet")
    labels = {name: _convert_texts(name, manifests, cells) for name, cells in texts.items()}
    kept, exclusions = np.ones(len(columns["seed"]), dtype=bool), []
    if keep is not None:
        words = {name: _read_words(tables, name) for name in list_words(keep, _list_outputs(manifests))}
        kept = evaluate_filter(keep, codes, labels, columns["seed"], {**values, **words})
        exclusions = describe_filter(keep, kept, [*values, *words])
    values = {name: values[name] for name in chosen}
    columns, values, codes = ({n: column[kept] for n, column in group.items()} for group in (columns, values, codes))
    runs = _build_runs(columns, values, codes, labels, by, _list_searched(manifests))
    runs = replace(
        runs,
        studies=tuple(folders_of),
        manifests=tuple(manifests),
        directions={name: way for manifest in manifests for name, way in manifest.metrics.items()},
        categorical=tuple(name for name, output in _list_outputs(manifests).items() if output.is_categorical),
        primary=tuple(dict.fromkeys(name for manifest in manifests for name in manifest.primary)),
        binary=tuple(name for name in chosen if _find_dtype(manifests, name).kind == "b"),
        resolutions={name: _find_resolution(_find_dtype(manifests, name)) for name in chosen},
        exclusions=tuple(exclusions),
        notes=tuple(notes),
    )
    planned, pending = _count_planned(runs, tables, is_whole=bool(kept.all()) and by is None)
    return replace(runs, planned=planned, pending=pending)


def _list_places(folders: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The folders without repetitions, and a note if there were some."""
    distinct = {Path(folder).resolve(): Path(folder) for folder in reversed(folders)}
    places = list(reversed(distinct.values()))
    more = len(folders) - len(places)
    return places, [f"{more:,} of the folders were given more than once, and are read once"] if more else []


def _build_runs(
    columns: Mapping[str, np.ndarray],
    values: Mapping[str, np.ndarray],
    codes: Mapping[str, np.ndarray],
    labels: Mapping[str, Sequence[Any]],
    by: Sequence[str] | None,
    searched: Collection[str],
) -> Runs:
    """The runs with their points, replicates and variants; what depends on the manifests is still to be filled in."""
    varying = [name for name, column in codes.items() if _varies(column, codes["task"])]
    axes = _find_independent(varying, codes, searched) if by is None else _check_axes(by, codes)
    rows = len(columns["seed"])
    points, (first, point) = _number_rows({name: codes[name] for name in axes}, rows)
    frame = pd.DataFrame(
        {name: [labels[name][code] for code in points[name]] for name in axes}, index=range(len(first))
    )
    pooled = [name for name in varying if name not in axes and not _is_determined(codes[name], point)]
    _, (_, variant) = _number_rows({name: codes[name] for name in pooled}, rows)
    _, (_, replicate) = _number_rows({"seed": columns["seed"]}, rows)
    return Runs(
        studies=(),
        manifests=(),
        points=frame,
        point=point,
        replicate=replicate,
        variant=variant,
        study=columns["study"],
        number=columns["number"],
        seed=columns["seed"],
        status=columns["status"],
        values=values,
        directions={},
        planned=np.empty(0),
        pending=0,
        pooled=tuple(pooled),
    )


def _list_searched(manifests: Sequence[Manifest]) -> set[str]:
    """The parameters of searches that are numbers: each of their values may be that of one point alone."""
    searches = [manifest for manifest in manifests if manifest.fingerprint.search]
    return {name for each in searches for name, kind in each.columns.parameters.items() if kind in NUMBERS}


def _find_independent(
    varying: Sequence[str], codes: Mapping[str, np.ndarray], searched: Collection[str] = ()
) -> list[str]:
    """The axes that distinguish points: without those that another one determines, other than a `searched` number.

    A parameter of an optimizer, for instance, has a value for some of the optimizers only, the same one wherever that
    is chosen. Of two that determine each other the nested one is left out, such as `optimizer.b1`; two that vary
    together both stay.
    """
    kept = list(varying)
    for name in reversed(varying):
        others = [other for other in kept if other != name and other not in searched]
        if any(_is_determined(codes[name], codes[other]) and _is_above(other, name, codes) for other in others):
            kept.remove(name)
    return kept


def _is_above(other: str, name: str, codes: Mapping[str, np.ndarray]) -> bool:
    """Whether an axis that determines another one is the one to keep."""
    return name.startswith(f"{other}.") or not _is_determined(codes[other], codes[name])


def _is_determined(column: np.ndarray, by: np.ndarray) -> bool:
    """Whether rows that are equal in `by`, codes from -1, are equal in a column."""
    last = np.zeros(int(by.max(initial=0)) + 2, dtype=column.dtype)
    last[by] = column  # the code -1 is the last place
    return bool(np.array_equal(last[by], column))


def is_same(has: Any, value: Any) -> bool:
    """Whether a value of an axis is the one that somebody has typed: numbers by value, anything else by its text."""
    try:
        return bool(np.float32(has) == np.float32(value))
    except (TypeError, ValueError):
        return str(has) == str(value)


def _open_study(path: Path) -> tuple[Folder, Manifest]:
    """A study with its manifest. Raises InvalidInputError if there is none, and if its table was changed."""
    folder = Folder(path)
    manifest = require_manifest(folder.manifest)
    verify_table(folder, recorded=manifest.table_bytes)
    return folder, manifest


def _choose_metrics(manifests: Sequence[Manifest], asked: Sequence[str] | None) -> list[str]:
    outputs = _list_outputs(manifests)
    scalars = [name for name, output in outputs.items() if output.shape == () and not output.is_categorical]
    arrays = [name for name, output in outputs.items() if output.shape != ()]
    if asked is None:
        directed = [name for name in scalars if any(name in manifest.metrics for manifest in manifests)]
        is_many = len(scalars) > MOST_METRICS and directed
        return directed if is_many else scalars or [f"{name}.mean" for name in arrays]
    for name in asked:
        base, _, part = name.partition(".")
        if name in scalars or (base in arrays and is_reduction(part)):
            continue
        parts = ", ".join(f"{array}.{{{','.join(REDUCTIONS)},steps_below_0.1,0,…}}" for array in arrays)
        has = (", ".join(scalars) or "none") + (f"; of arrays: {parts}" if arrays else "")
        is_categorical = name in outputs and outputs[name].is_categorical
        what = f"{name!r} is categorical and not a metric" if is_categorical else f"there is no metric {name!r}"
        raise InvalidInputError(f"{what}; there are: {has}")
    return list(asked)


def _describe_undirected(
    manifests: Sequence[Manifest], asked: Sequence[str] | None, chosen: Sequence[str]
) -> list[str]:
    """A note about the scalars that are not compared because they have no direction."""
    scalars = {n: o for n, o in _list_outputs(manifests).items() if o.shape == () and not o.is_categorical}
    others = [name for name in scalars if name not in chosen]
    if asked is not None or not others:
        return []
    return [
        f"{', '.join(others)}: without a direction in task.metrics, and not compared among so many; --metric names them"
    ]


def _find_dtype(manifests: Sequence[Manifest], metric: str) -> np.dtype[Any]:
    """The dtype of the output that a metric is made of."""
    outputs = _list_outputs(manifests)
    return (outputs.get(metric) or outputs[metric.partition(".")[0]]).dtype


def _find_resolution(dtype: np.dtype[Any]) -> float:
    """The relative spacing of the values of a dtype; 0 for integers and booleans, which are exact."""
    if dtype.kind in "iub":
        return 0.0
    try:
        return float(ml_dtypes.finfo(dtype).eps)
    except ValueError:
        return 2.0**-23


def _list_outputs(manifests: Sequence[Manifest]) -> dict[str, Output]:
    return {output.name: output for manifest in manifests for output in manifest.columns.outputs}


def _check_axes(asked: Sequence[str], codes: Mapping[str, Any]) -> list[str]:
    for name in asked:
        if name not in codes:
            raise InvalidInputError(f"there is no axis {name!r}; there are: {', '.join(codes)}")
    return list(asked)


def _read_table(folder: Folder, manifest: Manifest, metrics: Sequence[str], texts: Texts, is_last: bool) -> _Table:
    """One table with the parts that are not merged yet; the texts of its parameters are added to `texts`."""
    columns = manifest.columns
    has = {output.name for output in columns.outputs if not output.is_categorical}
    bases = {name: name if name in has else name.partition(".")[0] for name in metrics}
    outputs = [name for name in dict.fromkeys(bases.values()) if name in has]
    batches = [_use_small_codes(batch) for batch in read_coded_rows(folder, manifest, outputs)]
    for part in folder.parts:
        rows = read_coded_rows(part, replace(manifest, retries=()), outputs)
        batches += [_use_small_codes(batch) for batch in rows]
    codes = {
        name: _merge_codes(
            [batch.texts[name] for batch in batches],
            [batch.codes[name] for batch in batches],
            texts.setdefault(name, {}),
        )
        for name in ("task", *columns.parameters)
        if name != "seed"
    }
    rows_read = sum(len(batch.seeds) for batch in batches)
    values = {
        metric: np.concatenate(
            [np.empty(0), *(reduce_output(batch.outputs[base], metric, is_last) for batch in batches)]
        )
        if base in has
        else np.full(rows_read, np.nan)
        for metric, base in bases.items()
    }
    number = np.concatenate([np.empty(0, np.int64), *(batch.numbers for batch in batches)])
    seed = np.concatenate([np.empty(0, np.int64), *(batch.seeds for batch in batches)])
    status = np.concatenate([np.empty(0, np.int8), *(batch.statuses for batch in batches)])
    table = _Table(folder, manifest, codes, number, seed, status, values)
    if not manifest.retries and not folder.parts:
        return table
    # rows of repeated runs are at the end of the table, and some of a part may be in the table already
    return _select_rows(table, np.unique(number, return_index=True)[1])


def _select_rows(table: _Table, rows: np.ndarray) -> _Table:
    codes, values = ({name: column[rows] for name, column in group.items()} for group in (table.codes, table.values))
    return replace(
        table, codes=codes, values=values, number=table.number[rows], seed=table.seed[rows], status=table.status[rows]
    )


STATUS_CODES = {status: code for code, status in enumerate(Status)}
"""Statuses as int8, a byte for each of millions of runs."""


def _use_small_codes(batch: CodedRows) -> CodedRows:
    codes = np.full(len(batch.statuses), STATUS_CODES[Status.FAILED], dtype=np.int8)
    for status, code in STATUS_CODES.items():
        codes[batch.statuses == status.value] = code
    return replace(batch, statuses=codes)


def _merge_codes(texts: Sequence[list[str]], codes: Sequence[np.ndarray], known: dict[str, int]) -> np.ndarray:
    """Codes into the texts of all batches, which grow in the order in which they appear."""
    parts = [np.empty(0, np.int32)]
    for names, column in zip(texts, codes, strict=True):
        number = np.array([known.setdefault(name, len(known)) for name in names] + [-1], dtype=np.int32)
        parts.append(number[column])
    return np.concatenate(parts)


def _join_tables(tables: Sequence[_Table], texts: Texts) -> tuple[list[_Table], dict[str, np.ndarray], list[str]]:
    """The tables without runs that an earlier one has, the codes of all their runs, and notes.

    Codes are those of parameters, and of the entries of the fingerprint in which studies differ. Runs of two studies
    with equal codes and seeds are one run where all their values are equal; otherwise the studies are told apart.
    """
    codes, notes = _join_codes(tables, texts), []
    if len(tables) > 1:
        kept, shared = _drop_copies(tables, codes)
        notes = [
            f"{count:,} runs of {tables[i].folder.path} are in another of the studies, too, with equal values; "
            "they are counted once"
            for i, count in shared.items()
        ]
        if shared:
            tables = [_select_rows(table, rows) for table, rows in zip(tables, kept, strict=True)]
            codes = _join_codes(tables, texts)
        if _has_equal_runs(tables, codes):
            codes["study"] = _repeat_codes(tables, _name_studies(tables), texts.setdefault("study", {}))
    return list(tables), codes, notes


def _join_codes(tables: Sequence[_Table], texts: Texts) -> dict[str, np.ndarray]:
    """The codes of all runs: of their parameters, and of the entries of the fingerprint in which studies differ."""
    codes = {}
    entries = [_list_entries(table.manifest) for table in tables]
    differing = [
        name
        for name in dict.fromkeys(name for each in entries for name in each)
        if len({json.dumps(each.get(name)) for each in entries}) > 1
    ]
    parameters = dict.fromkeys(name for table in tables for name in table.codes)
    for name in parameters:
        codes[name] = np.concatenate(
            [table.codes.get(name, np.full(len(table.seed), -1, dtype=np.int32)) for table in tables]
        )
    for name in differing:
        if name not in codes:
            values = [str(each.get(name)) for each in entries]
            codes[name] = _repeat_codes(tables, values, texts.setdefault(name, {}))
    return codes


def _drop_copies(tables: Sequence[_Table], codes: Mapping[str, np.ndarray]) -> tuple[list[np.ndarray], dict[int, int]]:
    """The rows of each table that no earlier one has, and how many the others are, for tables that have some.

    Rows with equal keys count as equal if no pair of both tables differs: one difference makes them two studies.
    """
    seeds = np.concatenate([table.seed for table in tables])
    _, (_, keys) = _number_rows({"seed": seeds, **codes}, len(seeds))
    bounds = np.cumsum([0, *(len(table.seed) for table in tables)])
    own = [keys[start:stop] for start, stop in pairwise(bounds)]
    kept, shared = [np.arange(len(table.seed)) for table in tables], {}
    for i, table in enumerate(tables):
        is_copy = np.zeros(len(table.seed), dtype=bool)
        for j in range(i):
            _, mine, theirs = np.intersect1d(own[i], own[j], return_indices=True)
            if len(mine) and _are_equal(table, mine, tables[j], theirs):
                is_copy[mine] = True
        if is_copy.any():
            kept[i], shared[i] = np.flatnonzero(~is_copy), int(is_copy.sum())
    return kept, shared


def _are_equal(a: _Table, rows: np.ndarray, b: _Table, others: np.ndarray) -> bool:
    """Whether all values and statuses of some rows of two tables are equal."""
    return bool(np.array_equal(a.status[rows], b.status[others])) and all(
        np.array_equal(a.values[name][rows], b.values[name][others], equal_nan=True) for name in a.values
    )


def _name_studies(tables: Sequence[_Table]) -> list[str]:
    """The names of the studies' folders, or their paths where names are equal."""
    names = [table.folder.path.name for table in tables]
    paths = [str(table.folder.path) for table in tables]
    return [path if names.count(name) > 1 else name for name, path in zip(names, paths, strict=True)]


def _list_entries(manifest: Manifest) -> dict[str, Any]:
    """What may distinguish the runs of two studies and is in no column; names of outputs do not."""
    values = {name: value for own in manifest.fingerprint.values.values() for name, value in own.items()}
    values.pop("outputs", None)
    return manifest.fingerprint.describe_environment() | values


def _repeat_codes(tables: Sequence[_Table], names: Sequence[str], known: dict[str, int]) -> np.ndarray:
    numbers = [known.setdefault(name, len(known)) for name in names]
    return np.repeat(np.array(numbers, dtype=np.int32), [len(table.seed) for table in tables])


def _has_equal_runs(tables: Sequence[_Table], codes: Mapping[str, np.ndarray]) -> bool:
    """Whether two studies have runs with equal seeds and codes."""
    seeds = np.concatenate([table.seed for table in tables])
    first, _ = _number_rows({"seed": seeds, **codes}, len(seeds))
    return len(first["seed"]) < len(seeds)


def _convert_texts(name: str, manifests: Sequence[Manifest], texts: Mapping[str, int]) -> list[Any]:
    """The values that the codes of a parameter represent, with its type; the last one, for code -1, is None."""
    kinds = {known.columns.parameters.get(name, "text") for known in manifests}
    convert: Callable[[str], Any] = str
    if kinds <= NUMBERS:
        convert = float if kinds & {"float32", "float64"} else int
    return [*map(convert, texts), None]


def _read_words(tables: Sequence[_Table], name: str) -> np.ndarray:
    """The texts of a categorical output, `(runs,)`; empty where a run has none."""
    return np.concatenate([_read_table_words(table, name) for table in tables])


def _read_table_words(table: _Table, name: str) -> np.ndarray:
    words: dict[int, str] = {}
    if any(output.name == name and output.is_categorical for output in table.manifest.columns.outputs):
        for folder in [table.folder, *table.folder.parts]:
            for batch in iterate_batches(folder, table.manifest, {"run": pa.int64(), name: pa.string()}):
                words.update(zip(batch.column("run").to_pylist(), batch.column(name).to_pylist(), strict=True))
    return np.array([words.get(number) or "" for number in table.number.tolist()], dtype=object)


def _varies(column: np.ndarray, task: np.ndarray) -> bool:
    """Whether a parameter has several values, not counting tasks that do not have it."""
    known = column[column >= 0]
    if len(known) and known.min() != known.max():
        return True
    return len(known) < len(column) and any(len(np.unique(column[task == each])) > 1 for each in np.unique(task))


def _number_rows(
    columns: Mapping[str, np.ndarray], rows: int
) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Distinct rows of some columns in the order in which they appear, their first rows, and the number of each row."""
    if not columns:
        return {}, (np.zeros(1, dtype=np.int64), np.zeros(rows, dtype=np.int64))
    key = np.zeros(rows, dtype=np.int64)
    for column in columns.values():
        low, high = int(column.min()), int(column.max())
        if np.max(key, initial=0) * (high - low + 1) > 2**62:
            key = np.unique(key, return_inverse=True)[1]
        key = key * (high - low + 1) + (column - low)
    _, first, number = np.unique(key, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    first = first[order]
    return {name: column[first] for name, column in columns.items()}, (first, place[number])


def _count_planned(runs: Runs, tables: Sequence[_Table], *, is_whole: bool) -> tuple[np.ndarray, int]:
    """The replicates of each point with the pending ones, int64 `(points,)`, and the number of pending runs.

    Only the last call of a study can have pending runs. Where points are filtered or pooled, only replicates with a row
    are counted.
    """
    done = _count_replicates(runs)
    pending = sum(max(0, table.manifest.planned - len(table.seed)) for table in tables)
    if not pending or not is_whole:
        return done, pending
    names = list(runs.points.columns)
    places = {_point_key(row): place for place, row in enumerate(runs.points.itertuples(index=False, name=None))}
    planned = done.copy()
    for table in tables:
        for label, column in _list_points(table.manifest.indexes[-1], names):
            place = places.get(_point_key(label))
            if place is not None:
                planned[place] += len(column) - count_members(column, runs.seed[runs.point == place])
    return planned, pending


def _count_replicates(runs: Runs) -> np.ndarray:
    """The distinct replicates of each point, int64 `(points,)`."""
    if not runs.pooled:
        return np.bincount(runs.point, minlength=len(runs.points))
    width = int(runs.replicate.max()) + 1
    return np.bincount(np.unique(runs.point * width + runs.replicate) // width, minlength=len(runs.points))


def _point_key(label: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(float(np.float32(value)) if isinstance(value, float | np.floating) else str(value) for value in label)


def _list_points(index: RunIndex, names: Sequence[str]) -> Iterator[tuple[list[Any], Column]]:
    """The label of each point of an index, in the order of `names`, and its seeds."""
    others = [axis for axis in index.axes if set(axis) != {"seed"}]
    seeds = next((axis["seed"] for axis in index.axes if set(axis) == {"seed"}), None)
    for segment in index.segments:
        static = segment.cells
        for places in np.ndindex(*(len(next(iter(axis.values()))) for axis in others)):
            values = {**static, **segment.base}
            for axis, place in zip(others, places, strict=True):
                values |= {name: column[place] for name, column in axis.items()}
            yield (
                [values.get(name) for name in names],
                seeds if seeds is not None else np.array([values.get("seed", -1)]),
            )

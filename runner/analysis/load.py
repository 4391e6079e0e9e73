"""Studies loaded for a comparison: the point of each run, its replicate, and its metrics."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from runner.contract.task import Output
from runner.errors import InvalidInputError
from runner.plan.even_values import Column, count_members
from runner.plan.status import Status
from runner.storage.folder import Folder
from runner.storage.manifest import Manifest, require_manifest
from runner.storage.reader import CodedRows, read_coded_rows, read_frame
from runner.storage.recovery import verify_table
from runner.storage.run_index import RunIndex

REDUCTIONS: dict[str, Callable[[np.ndarray], Any]] = {
    "mean": lambda values: np.mean(values) if values.size else np.nan,
    "min": np.min,
    "max": np.max,
    "norm": np.linalg.norm,
    "last": lambda values: values.reshape(-1)[-1],
}
"""Numbers that an array can be reduced to, as in `y.mean`; or an index, as in `y.0` or `y.2.1`."""


@dataclass(frozen=True)
class Runs:
    """Runs with their points, which are numbered in the order of the tables.

    `points` has a row for each point and a column for each axis. Per run, `(runs,)`: the index of its `study`, its
    `number` in that study's table, its `point`, `seed` (-1 for none), `replicate` (equal for runs that are paired:
    those with equal seeds and equal values of the pooled axes), `status`, and the value of each metric, float64.
    """

    studies: tuple[Folder, ...]
    manifests: tuple[Manifest, ...]
    points: pd.DataFrame
    study: np.ndarray
    number: np.ndarray
    point: np.ndarray
    seed: np.ndarray
    replicate: np.ndarray
    status: np.ndarray
    values: Mapping[str, np.ndarray]
    directions: Mapping[str, str]
    planned: np.ndarray
    """Runs of each point, `(points,)`, pending ones included."""
    pending: int
    """Runs that are still to be executed."""
    pooled: tuple[str, ...] = ()
    """Axes that vary within a point, because the comparison is not by them."""
    categorical: tuple[str, ...] = ()
    """Categorical outputs, which have no estimates."""

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
) -> Runs:
    """The runs of studies.

    `metrics` and `by` are names of metrics and axes; None takes all scalar outputs (or the means of arrays, if there
    are no scalars) and all axes that vary. `keep` is an expression for `pandas.DataFrame.eval` that selects runs.

    Raises InvalidInputError for a folder without a study, a damaged table, an unknown metric or axis, and a filter
    that cannot be evaluated or selects nothing.
    """
    studies = [_open_study(Path(folder)) for folder in folders]
    places, manifests = [folder for folder, _ in studies], [manifest for _, manifest in studies]
    chosen = _choose_metrics(manifests, metrics)
    texts: Texts = {}
    tables = [_read_table(folder, known, chosen, texts) for folder, known in zip(places, manifests, strict=True)]
    codes = _join_codes(tables, texts)
    columns = {name: np.concatenate([getattr(t, name) for t in tables]) for name in ("number", "seed", "status")}
    columns["study"] = np.repeat(np.arange(len(tables)), [len(table.seed) for table in tables])
    values = {name: np.concatenate([table.values[name] for table in tables]) for name in chosen}
    if not len(columns["seed"]):
        raise InvalidInputError(f"{' and '.join(str(folder.path) for folder in places)}: no run is done yet")
    labels = {name: _convert_texts(name, manifests, cells) for name, cells in texts.items()}
    kept = np.ones(len(columns["seed"]), dtype=bool)
    if keep is not None:
        kept = _evaluate_filter(keep, codes, labels, columns["seed"], values)
    columns, values, codes = ({n: column[kept] for n, column in group.items()} for group in (columns, values, codes))

    varying = [name for name, column in codes.items() if _varies(column, codes["task"])]
    axes = varying if by is None else _check_axes(by, codes)
    rows = len(columns["seed"])
    points, (first, point) = _number_rows({name: codes[name] for name in axes}, rows)
    frame = pd.DataFrame(
        {name: [labels[name][code] for code in points[name]] for name in axes}, index=range(len(first))
    )
    pooled = [name for name in varying if name not in axes]
    _, (_, replicate) = _number_rows({"seed": columns["seed"], **{name: codes[name] for name in pooled}}, rows)
    runs = Runs(
        studies=tuple(places),
        manifests=tuple(manifests),
        points=frame,
        point=point,
        replicate=replicate,
        **columns,
        values=values,
        directions={name: way for manifest in manifests for name, way in manifest.metrics.items()},
        planned=np.empty(0),
        pending=0,
        pooled=tuple(pooled),
        categorical=tuple(name for name, output in _list_outputs(manifests).items() if output.is_categorical),
    )
    planned, pending = _count_planned(runs, tables, is_whole=bool(kept.all()) and by is None)
    return replace(runs, planned=planned, pending=pending)


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
        return scalars or [f"{name}.mean" for name in arrays]
    for name in asked:
        base, _, part = name.partition(".")
        if name in scalars or (base in arrays and (part in REDUCTIONS or re.fullmatch(r"\d+(\.\d+)*", part))):
            continue
        parts = ", ".join(f"{array}.{{{','.join(REDUCTIONS)},0,…}}" for array in arrays)
        has = (", ".join(scalars) or "none") + (f"; of arrays: {parts}" if arrays else "")
        is_categorical = name in outputs and outputs[name].is_categorical
        what = f"{name!r} is categorical and not a metric" if is_categorical else f"there is no metric {name!r}"
        raise InvalidInputError(f"{what}; there are: {has}")
    return list(asked)


def _list_outputs(manifests: Sequence[Manifest]) -> dict[str, Output]:
    return {output.name: output for manifest in manifests for output in manifest.columns.outputs}


def _check_axes(asked: Sequence[str], codes: Mapping[str, Any]) -> list[str]:
    for name in asked:
        if name not in codes:
            raise InvalidInputError(f"there is no axis {name!r}; there are: {', '.join(codes)}")
    return list(asked)


def _read_table(folder: Folder, manifest: Manifest, metrics: Sequence[str], texts: Texts) -> _Table:
    """One table; the texts of its parameters are added to those of all tables."""
    columns = manifest.columns
    has = {output.name for output in columns.outputs if not output.is_categorical}
    bases = {name: name if name in has else name.partition(".")[0] for name in metrics}
    outputs = [name for name in dict.fromkeys(bases.values()) if name in has]
    batches = [_use_small_codes(batch) for batch in read_coded_rows(folder, manifest, outputs)]
    codes = {
        name: _merge_codes(
            [batch.texts[name] for batch in batches],
            [batch.codes[name] for batch in batches],
            texts.setdefault(name, {}),
        )
        for name in ("task", *columns.parameters)
        if name != "seed"
    }
    rows = sum(len(batch.seeds) for batch in batches)
    values = {
        metric: np.concatenate([np.empty(0), *(_reduce_output(batch.outputs[base], metric) for batch in batches)])
        if base in has
        else np.full(rows, np.nan)
        for metric, base in bases.items()
    }
    number = np.concatenate([np.empty(0, np.int64), *(batch.numbers for batch in batches)])
    seed = np.concatenate([np.empty(0, np.int64), *(batch.seeds for batch in batches)])
    status = np.concatenate([np.empty(0, np.int8), *(batch.statuses for batch in batches)])
    if not manifest.retries:
        return _Table(folder, manifest, codes, number, seed, status, values)
    order = np.argsort(number)  # rows of repeated runs are at the end of the table
    codes, values = ({name: column[order] for name, column in group.items()} for group in (codes, values))
    return _Table(folder, manifest, codes, number[order], seed[order], status[order], values)


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


def _reduce_output(column: Any, metric: str) -> np.ndarray:
    """A scalar unchanged, or a number of each array; NaN where a run has none."""
    if isinstance(column, np.ndarray):
        return column
    part = metric.partition(".")[2]
    reduce = REDUCTIONS[part] if part in REDUCTIONS else itemgetter(tuple(map(int, part.split("."))))
    try:
        return np.array([np.nan if text is None else float(reduce(np.array(json.loads(text)))) for text in column])
    except (IndexError, TypeError, ValueError) as error:
        raise InvalidInputError(f"{metric}: {error}") from error


def _join_codes(tables: Sequence[_Table], texts: Texts) -> dict[str, np.ndarray]:
    """The codes of all runs: of their parameters, and of the entries of the fingerprint in which studies differ."""
    codes = {}
    for name in list(texts):
        codes[name] = np.concatenate(
            [table.codes.get(name, np.full(len(table.seed), -1, dtype=np.int32)) for table in tables]
        )
    entries = [_list_entries(table.manifest) for table in tables]
    for name in dict.fromkeys(name for each in entries for name in each):
        values = [each.get(name) for each in entries]
        if name not in codes and len({json.dumps(value) for value in values}) > 1:
            codes[name] = _repeat_codes(tables, [str(value) for value in values], texts.setdefault(name, {}))
    if len(tables) > 1 and _has_equal_runs(tables, codes):
        names = [table.folder.path.name for table in tables]
        codes["study"] = _repeat_codes(tables, names, texts.setdefault("study", {}))
    return codes


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
    if kinds <= {"float32", "float64", "int64", "uint32"}:
        convert = float if kinds & {"float32", "float64"} else int
    return [*map(convert, texts), None]


def _evaluate_filter(keep: str, codes: Any, labels: Any, seed: np.ndarray, values: Any) -> np.ndarray:
    """Which runs an expression such as `lr < 0.1 and seed < 10` selects, bool `(runs,)`."""
    columns = {name: np.array(labels[name], dtype=object)[codes[name]] for name in codes if name in keep}
    columns = {name: pd.Series(column).infer_objects() for name, column in columns.items()}
    columns |= {name: pd.Series(column) for name, column in {"seed": seed, **values}.items() if name in keep}
    has = ", ".join([*codes, "seed", *values])
    try:
        found = pd.DataFrame(columns).eval(keep)
    except Exception as error:  # an expression can raise anything
        raise InvalidInputError(
            f"the filter {keep!r} cannot be evaluated ({str(error).splitlines()[0]}); there are: {has}"
        ) from error
    if not isinstance(found, pd.Series) or found.dtype != bool:
        raise InvalidInputError(f"the filter {keep!r} is not a condition; there are: {has}")
    if not found.any():
        raise InvalidInputError(f"the filter {keep!r} selects none of {len(seed):,} runs")
    return found.to_numpy()


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
    """The runs of each point with the pending ones, int64 `(points,)`, and the number of pending runs.

    Only the last call of a study can have pending runs. Where points are filtered or pooled, only runs with a row
    are counted.
    """
    done = np.bincount(runs.point, minlength=len(runs.points))
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

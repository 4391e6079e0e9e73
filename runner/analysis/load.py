"""The runs of studies as they are compared: which point each one belongs to, and what came out."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from runner.errors import InvalidInputError
from runner.plan.contract import Output
from runner.storage import manifest as record
from runner.storage import table
from runner.storage.folder import Folder
from runner.storage.manifest import Manifest
from runner.storage.run_index import RunIndex

OK, NONFINITE, FAILED = 0, 1, 2
_STATUS = {b"ok": OK, b"nonfinite": NONFINITE, b"failed": FAILED}

REDUCTIONS: dict[str, Callable[[np.ndarray], Any]] = {
    "mean": np.mean,
    "min": np.min,
    "max": np.max,
    "norm": np.linalg.norm,
    "last": lambda values: values.reshape(-1)[-1],
}
"""What may stand for an array: `y.mean`, or an index such as `y.0` or `y.2.1`."""


@dataclass(frozen=True)
class Runs:
    """Runs by their points, which are numbered in the order of the tables.

    `points` has a row for each point and a column for each axis. Per run, `(runs,)`: `point`, `seed` (-1 for
    none), `replicate` (equal for runs that are paired: of one seed, and of the axes that are not compared by),
    `status`, and of each metric the value, float64.
    """

    studies: tuple[Folder, ...]
    points: pd.DataFrame
    point: np.ndarray
    seed: np.ndarray
    replicate: np.ndarray
    status: np.ndarray
    values: Mapping[str, np.ndarray]
    directions: Mapping[str, str]
    planned: np.ndarray
    """Runs of each point, `(points,)`, those that are still to be made among them."""
    unfinished: int
    """Runs that are still to be made."""
    pooled: tuple[str, ...] = ()
    """Axes that vary within a point, because it is not compared by them."""
    categories: tuple[str, ...] = ()
    """Outputs that are words, which nothing is estimated of."""

    def __len__(self) -> int:
        return len(self.point)


@dataclass(frozen=True)
class _Study:
    """The columns of one table: codes into the texts of all studies."""

    folder: Folder
    known: Manifest
    codes: Mapping[str, np.ndarray]
    seed: np.ndarray
    status: np.ndarray
    values: Mapping[str, np.ndarray]


Texts = dict[str, dict[str, int]]
"""Of each parameter the texts of its cells, numbered in the order of the tables."""


def load(
    folders: Sequence[Path],
    metrics: Sequence[str] | None = None,
    by: Sequence[str] | None = None,
    keep: str | None = None,
) -> Runs:
    """The runs of studies.

    `metrics` and `by` are names; where None, all numbers, or else the means of the arrays, and all axes that vary.
    `keep` is an expression of pandas.

    Raises InvalidInputError for a folder without a study, a damaged table, an unknown metric or axis, and a filter that
    cannot be evaluated or keeps nothing.
    """
    places = [Folder(Path(folder)) for folder in folders]
    records = [record.required(folder.record) for folder in places]
    chosen = _metrics(records, metrics)
    texts: Texts = {}
    studies = [_read(folder, known, chosen, texts) for folder, known in zip(places, records, strict=True)]
    codes = _joined(studies, texts)
    seed, status = (np.concatenate([getattr(study, name) for study in studies]) for name in ("seed", "status"))
    values = {name: np.concatenate([study.values[name] for study in studies]) for name in chosen}
    if not len(seed):
        raise InvalidInputError(f"{' and '.join(str(folder.path) for folder in places)}: no run is done yet")
    labels = {name: _labels(name, records, found) for name, found in texts.items()}
    kept = np.ones(len(seed), dtype=bool) if keep is None else _kept(keep, codes, labels, seed, values)
    seed, status = seed[kept], status[kept]
    values, codes = ({name: column[kept] for name, column in of.items()} for of in (values, codes))

    varying = [name for name, column in codes.items() if _varies(column, codes["task"])]
    axes = varying if by is None else _chosen(by, [*codes, "seed"], "axis")
    points, point = _numbered({name: codes[name] for name in axes}, len(seed))
    frame = pd.DataFrame(
        {name: [labels[name][code] for code in points[name]] for name in axes}, index=range(len(point[0]))
    )
    rest = [name for name in varying if name not in axes]
    _, (_, replicate) = _numbered({"seed": seed, **{name: codes[name] for name in rest}}, len(seed))
    runs = Runs(
        tuple(places),
        frame,
        point[1],
        seed,
        replicate,
        status,
        values,
        _directions(records),
        np.empty(0),
        0,
        tuple(rest),
        tuple(name for name, output in _outputs(records).items() if output.is_categorical),
    )
    planned, unfinished = _planned(runs, studies, bool(kept.all()) and by is None)
    return replace(runs, planned=planned, unfinished=unfinished)


def _metrics(records: Sequence[Manifest], asked: Sequence[str] | None) -> list[str]:
    outputs = _outputs(records)
    scalars = [name for name, output in outputs.items() if output.shape == () and not output.is_categorical]
    arrays = [name for name, output in outputs.items() if output.shape != ()]
    if asked is None:
        return scalars or [f"{name}.mean" for name in arrays]
    for name in asked:
        base, _, part = name.partition(".")
        if name not in scalars and not (base in arrays and (part in REDUCTIONS or re.fullmatch(r"\d+(\.\d+)*", part))):
            has = (", ".join(scalars) or "none") + (f"; of arrays: {_parts(arrays)}" if arrays else "")
            is_categorical = name in outputs and outputs[name].is_categorical
            what = f"{name!r} is a word and no metric" if is_categorical else f"there is no metric {name!r}"
            raise InvalidInputError(f"{what}; there are: {has}")
    return list(asked)


def _outputs(records: Sequence[Manifest]) -> dict[str, Output]:
    return {output.name: output for known in records for output in known.columns.outputs}


def _parts(arrays: Sequence[str]) -> str:
    return ", ".join(f"{name}.{{{','.join(REDUCTIONS)},0,…}}" for name in arrays)


def _chosen(asked: Sequence[str], has: Sequence[str], what: str) -> list[str]:
    for name in asked:
        if name not in has or name == "seed":
            raise InvalidInputError(
                f"there is no {what} {name!r}; there are: {', '.join(n for n in has if n != 'seed')}"
            )
    return list(asked)


def _read(folder: Folder, known: Manifest, metrics: Sequence[str], texts: Texts) -> _Study:
    """One table, with the texts of its parameters added to those of all."""
    has = {output.name: output.shape for output in known.columns.outputs if not output.is_categorical}
    wanted = {name: name if name in has else name.partition(".")[0] for name in metrics}
    outputs = [name for name in dict.fromkeys(wanted.values()) if name in has]
    batches = (
        list(map(_compact, table.coded(folder.results, known.columns, outputs))) if folder.results.exists() else []
    )
    names = [name for name in ("task", *known.columns.parameters) if name != "seed"]
    codes = {
        name: _merged(
            [batch.texts[name] for batch in batches],
            [batch.codes[name] for batch in batches],
            texts.setdefault(name, {}),
        )
        for name in names
    }
    rows = sum(len(batch.seeds) for batch in batches)
    values = {
        metric: np.concatenate([np.empty(0), *(_values(batch.outputs[base], metric) for batch in batches)])
        if base in has
        else np.full(rows, np.nan)
        for metric, base in wanted.items()
    }
    seed = np.concatenate([np.empty(0, np.int64), *(batch.seeds for batch in batches)])
    status = np.concatenate([np.empty(0, np.int8), *(batch.status for batch in batches)])
    return _Study(folder, known, codes, seed, status, values)


def _compact(batch: table.Coded) -> table.Coded:
    status = np.full(len(batch.status), FAILED, dtype=np.int8)
    for text, code in _STATUS.items():
        status[batch.status == text] = code
    return replace(batch, status=status)


def _merged(texts: Sequence[list[str]], codes: Sequence[np.ndarray], known: dict[str, int]) -> np.ndarray:
    """Codes into the texts of all batches, which grow in the order in which they appear."""
    parts = [np.empty(0, np.int32)]
    for names, column in zip(texts, codes, strict=True):
        number = np.array([known.setdefault(name, len(known)) for name in names] + [-1], dtype=np.int32)
        parts.append(number[column])
    return np.concatenate(parts)


def _values(column: Any, metric: str) -> np.ndarray:
    """A scalar as it is, or a part of each array; NaN where a run has none."""
    if isinstance(column, np.ndarray):
        return column
    part = metric.partition(".")[2]
    reduce = REDUCTIONS[part] if part in REDUCTIONS else itemgetter(tuple(map(int, part.split("."))))
    try:
        return np.array([np.nan if text is None else float(reduce(np.array(json.loads(text)))) for text in column])
    except (IndexError, TypeError) as error:
        raise InvalidInputError(f"{metric}: {error}") from error


def _joined(studies: Sequence[_Study], texts: Texts) -> dict[str, np.ndarray]:
    """The codes of all studies' runs: of their parameters, and of the facts in which the studies differ."""
    codes = {}
    for name in list(texts):
        lone = [np.full(len(study.seed), -1, dtype=np.int32) for study in studies]
        codes[name] = np.concatenate([study.codes.get(name, lone[i]) for i, study in enumerate(studies)])
    facts = [{key.partition(": ")[2] or key: value for key, value in study.known.facts.items()} for study in studies]
    for name in dict.fromkeys(name for each in facts for name in each):
        told = [json.dumps(each.get(name)) for each in facts]
        if name not in codes and name != "outputs" and len(set(told)) > 1:
            codes[name] = _of_study(studies, [str(each.get(name)) for each in facts], texts.setdefault(name, {}))
    if len(studies) > 1 and _overlap(studies, codes):
        names = [study.folder.path.name for study in studies]
        codes["study"] = _of_study(studies, names, texts.setdefault("study", {}))
    return codes


def _of_study(studies: Sequence[_Study], names: Sequence[str], known: dict[str, int]) -> np.ndarray:
    numbers = [known.setdefault(name, len(known)) for name in names]
    return np.repeat(np.array(numbers, dtype=np.int32), [len(study.seed) for study in studies])


def _overlap(studies: Sequence[_Study], codes: Mapping[str, np.ndarray]) -> bool:
    """Whether two studies have runs that nothing tells apart."""
    seeds = np.concatenate([study.seed for study in studies])
    first, _ = _numbered({"seed": seeds, **codes}, len(seeds))
    return len(first["seed"]) < len(seeds)


def _labels(name: str, records: Sequence[Manifest], texts: Mapping[str, int]) -> list[Any]:
    """What the codes of a parameter stand for, as values of its type; the last one, -1, is None."""
    kinds = {known.columns.parameters.get(name, "text") for known in records}
    convert: Callable[[str], Any] = str
    if kinds <= {"float32", "float64", "int64", "uint32"}:
        convert = float if kinds & {"float32", "float64"} else int
    return [*map(convert, texts), None]


def _kept(keep: str, codes: Any, labels: Any, seed: np.ndarray, values: Any) -> np.ndarray:
    """Which runs an expression such as `lr < 0.1 and seed < 10` keeps."""
    columns = {name: np.array(labels[name], dtype=object)[codes[name]] for name in codes if name in keep}
    columns = {name: pd.Series(column).infer_objects() for name, column in columns.items()}
    columns |= {name: pd.Series(column) for name, column in {"seed": seed, **values}.items() if name in keep}
    has = ", ".join([*codes, "seed", *values])
    try:
        found = pd.DataFrame(columns).eval(keep)
    except Exception as error:  # whatever an expression does
        raise InvalidInputError(
            f"the filter {keep!r} cannot be evaluated ({str(error).splitlines()[0]}); there are: {has}"
        ) from error
    if not isinstance(found, pd.Series) or found.dtype != bool:
        raise InvalidInputError(f"the filter {keep!r} is no condition; there are: {has}")
    if not found.any():
        raise InvalidInputError(f"the filter {keep!r} keeps none of {len(seed):,} runs")
    return found.to_numpy()


def _varies(column: np.ndarray, task: np.ndarray) -> bool:
    """Whether a parameter has several values, and not only tasks that do not know it."""
    known = column[column >= 0]
    if len(known) and known.min() != known.max():
        return True
    return len(known) < len(column) and any(len(np.unique(column[task == each])) > 1 for each in np.unique(task))


def _numbered(
    columns: Mapping[str, np.ndarray], rows: int
) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Distinct rows of some columns, in the order of their first, and for each row `(first, number)`."""
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


def _directions(records: Sequence[Manifest]) -> dict[str, str]:
    return {name: direction for known in records for name, direction in known.metrics.items()}


def _planned(runs: Runs, studies: Sequence[_Study], is_whole: bool) -> tuple[np.ndarray, int]:
    """The runs of each point with those that are still to be made, and how many these are.

    Only the last call of a study can have runs that are still to be made; where points are filtered or pooled,
    what is there counts.
    """
    there = np.bincount(runs.point, minlength=len(runs.points))
    left = sum(max(0, study.known.planned - len(study.seed)) for study in studies)
    if not left or not is_whole:
        return there, left
    names = list(runs.points.columns)
    places = {_key(row): place for place, row in enumerate(runs.points.itertuples(index=False, name=None))}
    planned = there.copy()
    for study in studies:
        for label, column in _extended(study.known.extents[-1], names):
            place = places.get(_key(label))
            if place is not None:
                seeds = set(runs.seed[runs.point == place].tolist())
                planned[place] += sum(int(seed) not in seeds for seed in column)
    return planned, left


def _key(label: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(float(np.float32(value)) if isinstance(value, float | np.floating) else str(value) for value in label)


def _extended(extent: RunIndex, names: Sequence[str]) -> Any:
    """Of each point of a product its label, in the order of `names`, and its seeds."""
    others = [axis for axis in extent.axes if set(axis) != {"seed"}]
    seeds = next((axis["seed"] for axis in extent.axes if set(axis) == {"seed"}), None)
    for part in extent.parts:
        static = dict(json.loads(part.key))
        for places in np.ndindex(*(len(next(iter(axis.values()))) for axis in others)):
            values = {**static, **part.base}
            for axis, place in zip(others, places, strict=True):
                values |= {name: column[place] for name, column in axis.items()}
            own = seeds if seeds is not None else np.array([values.get("seed", -1)])
            yield [values.get(name) for name in names], own

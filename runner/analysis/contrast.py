"""Two studies side by side: in which values, versions and code they differ, and what their common runs show."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from runner.analysis.comparison import compare_studies
from runner.analysis.description import format_axis, format_commit, list_commits
from runner.analysis.load import Runs, load_runs
from runner.errors import InvalidInputError
from runner.storage.contents import list_axes, list_constants
from runner.storage.environment import read_environment
from runner.storage.folder import Folder
from runner.storage.manifest import Manifest, require_manifest
from runner.storage.reader import iterate_batches
from runner.storage.recovery import verify_table


class Kind(StrEnum):
    """What an entry of a study is about."""

    VALUE = "value"
    OUTPUT = "output"
    VERSION = "version"
    SETTING = "setting"
    CODE = "code"


@dataclass(frozen=True)
class Entry:
    """An entry in which two studies differ; None where a study does not have it."""

    kind: Kind
    name: str
    first: str | None
    second: str | None


@dataclass(frozen=True)
class CommonRuns:
    """Runs with equal values and seeds in both studies: their number, and that of those with equal results.

    `apart_from` are parameters that have one value in each study, and not the same one. `differing` has for each output
    the number of runs in which it differs, `largest` the largest difference of numbers.
    """

    runs: int
    identical: int
    apart_from: tuple[str, ...]
    differing: Mapping[str, int]
    largest: Mapping[str, float]


@dataclass(frozen=True)
class Contrast:
    """Two studies side by side; `equal` is the number of entries in which they agree.

    `differences` are rows of a comparison, the second study minus the first over common seeds. Where there are none,
    `reason` says why.
    """

    paths: tuple[str, str]
    entries: tuple[Entry, ...]
    equal: int
    common: CommonRuns
    axes: tuple[str, ...]
    differences: tuple[Mapping[str, Any], ...]
    reason: str


def contrast_studies(first: Folder, second: Folder) -> Contrast:
    """Compares two studies. Raises InvalidInputError if it is twice the same, or if one of them is damaged."""
    if first.path.resolve() == second.path.resolve():
        raise InvalidInputError(f"{first.path} and {second.path} are the same study")
    folders = (first, second)
    manifests = [require_manifest(folder.manifest) for folder in folders]
    for folder, manifest in zip(folders, manifests, strict=True):
        verify_table(folder, recorded=manifest.table_bytes)
    ours, theirs = (_list_entries(folder, known) for folder, known in zip(folders, manifests, strict=True))
    names = list(dict.fromkeys([*ours, *theirs]))
    differing = [Entry(*name, ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)]
    common = _find_common_runs(folders, (manifests[0], manifests[1]))
    axes, differences, reason = _compare(folders, common)
    paths = (str(first.path), str(second.path))
    return Contrast(paths, tuple(differing), len(names) - len(differing), common, axes, differences, reason)


def _list_entries(folder: Folder, manifest: Manifest) -> dict[tuple[Kind, str], str]:
    """What a study is, by kind and name, as text."""
    constants = list_constants(manifest.indexes)
    values = {"task": ", ".join(sorted(constants))}
    for task, own in constants.items():
        prefix = f"{task}: " if len(constants) > 1 else ""
        values |= {f"{prefix}{name}": str(value) for name, value in own.items()}
    values |= {axis.name: format_axis(axis) for axis in list_axes(manifest.indexes)}
    known, environment = manifest.fingerprint, read_environment(folder) or {}
    for owner, entries in known.values.items():
        prefix = f"{owner}: " if len(known.values) > 1 else ""
        values |= {f"{prefix}{name}": str(value) for name, value in entries.items() if name != "outputs"}
    versions = {**environment.get("versions", {}), **known.versions}
    versions |= {"python": environment["python"]} if "python" in environment else {}
    settings: dict[str, Any] = {
        "lanes": known.lanes,
        "kind of device": known.device,
        "cores_per_run": known.cores_per_run,
    }
    settings |= known.settings or {}
    groups = {
        Kind.VALUE: values,
        Kind.OUTPUT: {o.name: f"{o.dtype.name} {list(o.shape)}" for o in manifest.columns.outputs},
        Kind.VERSION: versions,
        Kind.SETTING: settings,
        Kind.CODE: {**known.code, **_list_commits(environment)},
    }
    return {(kind, name): str(value) for kind, group in groups.items() for name, value in group.items()}


def _list_commits(environment: Mapping[str, Any]) -> dict[str, str]:
    states = list_commits(environment)
    return {f"repository of {', '.join(state.get('tasks', ()))}": format_commit(state) for state in states}


def _find_common_runs(folders: tuple[Folder, Folder], manifests: tuple[Manifest, Manifest]) -> CommonRuns:
    """Runs are matched, and their results compared, by the texts of their cells: equal texts are equal bits."""
    parameters = list(dict.fromkeys(["task", *manifests[0].columns.parameters, *manifests[1].columns.parameters]))
    shared = [o.name for o in manifests[0].columns.outputs if o in manifests[1].columns.outputs]
    frames = [_read_cells(f, m, parameters, shared) for f, m in zip(folders, manifests, strict=True)]
    apart = [
        name for name in parameters if name not in ("task", "seed") and _is_other_constant(frames[0], frames[1], name)
    ]
    keys = [name for name in parameters if name not in apart]
    merged = frames[0].merge(frames[1], on=keys, suffixes=(" 1", " 2"))
    if not len(merged):
        return CommonRuns(0, 0, tuple(apart), {}, {})
    unequal = {name: _differs(merged[f"{name} 1"], merged[f"{name} 2"]) for name in (*shared, "status")}
    changed = np.any(list(unequal.values()), axis=0)
    differing = {name: int(column.sum()) for name, column in unequal.items() if column.any()}
    scalars = {o.name for o in manifests[0].columns.outputs if o.shape == () and not o.is_categorical}
    largest = {
        name: _largest_difference(merged[f"{name} 1"], merged[f"{name} 2"]) for name in differing if name in scalars
    }
    return CommonRuns(len(merged), int((~changed).sum()), tuple(apart), differing, largest)


def _is_other_constant(first: pd.DataFrame, second: pd.DataFrame, name: str) -> bool:
    """Whether a column has one value in each of two frames, and not the same one."""
    values = [list(dict.fromkeys(frame[name].dropna())) for frame in (first, second)]
    return len(values[0]) == len(values[1]) == 1 and values[0] != values[1] and not first[name].isna().any()


def _read_cells(folder: Folder, manifest: Manifest, parameters: list[str], outputs: list[str]) -> pd.DataFrame:
    """The cells of a table as texts; a column that it does not have is empty."""
    names = [name for name in parameters if name in ("task", *manifest.columns.parameters)]
    types = dict.fromkeys([*names, *outputs, "status"], pa.string())
    batches = list(iterate_batches(folder, manifest, types))
    frame = pa.Table.from_batches(batches, pa.schema(list(types.items()))).to_pandas()
    return frame.reindex(columns=[*parameters, *outputs, "status"]).astype(dict.fromkeys(parameters, "str"))


def _differs(first: pd.Series, second: pd.Series) -> np.ndarray:
    return ~((first == second).fillna(False) | (first.isna() & second.isna())).to_numpy(dtype=bool)


def _largest_difference(first: pd.Series, second: pd.Series) -> float:
    gaps = (pd.to_numeric(first, errors="coerce") - pd.to_numeric(second, errors="coerce")).abs()
    return float(gaps.max()) if gaps.notna().any() else math.nan


def _compare(
    folders: tuple[Folder, Folder], common: CommonRuns
) -> tuple[tuple[str, ...], tuple[Mapping[str, Any], ...], str]:
    """The axes and the rows of the paired comparison, or why there is none."""
    paths = [folder.path for folder in folders]
    if not common.runs:
        return (), (), "the studies have no run in common: no equal values with an equal seed"
    if common.identical == common.runs:
        return (), (), "all common runs have equal results, bit by bit"
    if paths[0].name == paths[1].name:
        return (), (), f"both studies are named {paths[0].name}; rename one of them to have them compared"
    distinguishing = _find_distinguishing(load_runs(paths))
    if not distinguishing:
        return (), (), "the comparison has nothing by which it could tell the studies apart"
    comparison = compare_studies(paths, baseline=distinguishing)
    rows = comparison.differences.to_dict("records")
    axes = tuple(name for name in comparison.axes if name not in distinguishing)
    return axes, tuple(rows), "" if rows else "no metric has values in both studies"


def _find_distinguishing(runs: Runs) -> dict[str, Any]:
    """The axes on which all runs of a study have one value, and not that of the other; with those of the first one."""
    frames = [runs.points.iloc[np.unique(runs.point[runs.study == study])] for study in (0, 1)]
    names = [name for name in runs.points.columns if name != "task" and _is_other_constant(frames[0], frames[1], name)]
    return {name: frames[0][name].iloc[0] for name in names}

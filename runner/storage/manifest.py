"""The manifest of a study, `study.json`: what its table holds, what its results depend on, and which runs it has."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from runner.contract.task import Output
from runner.errors import InvalidInputError
from runner.storage.columns import Columns
from runner.storage.fingerprint import Fingerprint, pack_fingerprint, unpack_fingerprint, upgrade_facts
from runner.storage.run_index import RunIndex, pack_index, unpack_index
from runner.storage.schema import ListOf, MappingOf, Record, check_types

FORMAT = 4
OLDEST_FORMAT = 2

_SCHEMA = Record(
    {
        "columns": Record(
            {
                "parameters": MappingOf(str),
                "outputs": ListOf(Record({"name": str, "shape": ListOf(int), "dtype": str})),
            }
        ),
        "fingerprint": Record(
            {"versions": MappingOf(str), "lanes": (int, str)},
            {
                "device": (str, type(None)),
                "code": MappingOf(str),
                "values": MappingOf(Record({})),
                "settings": (dict, type(None)),
                "cores_per_run": (int, type(None)),
                "search": (dict, type(None)),
            },
        ),
        "planned": int,
        "accepted": ListOf(str),
        "retries": ListOf(ListOf(int, least=2)),
        "table_bytes": (int, type(None)),
        "indexes": ListOf(
            Record(
                {
                    "segments": ListOf(Record({"key": str, "base": MappingOf((int, float))})),
                    "axes": ListOf(MappingOf(Record({"dtype": str}))),
                    "stop": int,
                    "first": int,
                }
            ),
            least=1,
        ),
    },
    {"metrics": MappingOf(str), "can_save": bool, "primary": ListOf(str)},
)
"""The types of a manifest of the newest format."""


@dataclass(frozen=True)
class Manifest:
    """What a study is: the columns of its table, the fingerprint of its rows, and the runs that its calls added.

    `planned` is the number of rows once all runs are done. `accepted` lists the contradictions that the user has
    accepted, for people to read. `metrics` maps some outputs to `minimize` or `maximize`. `retries` are the rows,
    counted from 0, that repeat earlier runs of the table and count instead of them; the last one may be incomplete.
    `table_bytes` have checksums since the last call ended, None for a table of an earlier format, which has none.
    `can_save` says that runs have trained something that a replay can save. `primary` are the metrics that a comparison
    makes its claims of.
    """

    columns: Columns
    fingerprint: Fingerprint
    indexes: tuple[RunIndex, ...]
    planned: int
    accepted: tuple[str, ...] = ()
    metrics: Mapping[str, str] = field(default_factory=dict)
    retries: tuple[range, ...] = ()
    table_bytes: int | None = 0
    can_save: bool = False
    primary: tuple[str, ...] = ()

    def count_runs(self, rows: int) -> int:
        """How many runs a table of so many rows has."""
        return rows - sum(len(repeated) for repeated in clip_retries(self.retries, rows))


def clip_retries(retries: Sequence[range], rows: int) -> tuple[range, ...]:
    """The part of these ranges of rows that a table of so many rows has."""
    clipped = [range(repeated.start, min(repeated.stop, rows)) for repeated in retries]
    return tuple(repeated for repeated in clipped if repeated)


def format_manifest(manifest: Manifest) -> str:
    """The text of `study.json`."""
    outputs = [{"name": o.name, "shape": list(o.shape), "dtype": o.dtype.name} for o in manifest.columns.outputs]
    data = {
        "format": FORMAT,
        "columns": {"parameters": dict(manifest.columns.parameters), "outputs": outputs},
        "fingerprint": pack_fingerprint(manifest.fingerprint),
        "planned": manifest.planned,
        "accepted": list(manifest.accepted),
        "metrics": dict(manifest.metrics),
        "retries": [[repeated.start, repeated.stop] for repeated in manifest.retries],
        "table_bytes": manifest.table_bytes,
        "indexes": [pack_index(index) for index in manifest.indexes],
        **({"can_save": True} if manifest.can_save else {}),
        **({"primary": list(manifest.primary)} if manifest.primary else {}),
    }
    return json.dumps(data, indent=1) + "\n"


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of a study, None if there is no study. Raises InvalidInputError for a damaged one."""
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_text())
        if not OLDEST_FORMAT <= data["format"] <= FORMAT:
            raise InvalidInputError(
                f"{path} has format {data['format']}; this version of Seedbed reads {OLDEST_FORMAT} to {FORMAT}"
            )
        return _parse_manifest(_upgrade(data))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise InvalidInputError(f"{path} is damaged ({error}); move the folder away, or use another name") from error


def require_manifest(path: Path) -> Manifest:
    """The manifest of a study that must exist. Raises InvalidInputError if it does not, or is damaged."""
    manifest = read_manifest(path)
    if manifest is None:
        raise InvalidInputError(f"{path.parent} holds no study: there is no {path.name}")
    return manifest


def _parse_manifest(data: Mapping[str, Any]) -> Manifest:
    check_types(data, _SCHEMA)
    outputs = [Output(o["name"], tuple(o["shape"]), _parse_dtype(o["dtype"])) for o in data["columns"]["outputs"]]
    return Manifest(
        Columns(data["columns"]["parameters"], tuple(outputs)),
        unpack_fingerprint(data["fingerprint"]),
        tuple(unpack_index(index) for index in data["indexes"]),
        data["planned"],
        tuple(data["accepted"]),
        data.get("metrics", {}),
        tuple(range(start, stop) for start, stop in data["retries"]),
        data["table_bytes"],
        data.get("can_save", False),
        tuple(data.get("primary", ())),
    )


def _upgrade(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """A manifest of any format that is read with the names of the newest one."""
    if data["format"] == 2:
        indexes = [{**extent, "segments": extent["parts"]} for extent in data["extents"]]
        data = {**data, "fingerprint": upgrade_facts(data["facts"]), "indexes": indexes}
    return {"retries": [], "table_bytes": None, **data} if data["format"] < 4 else data


def _parse_dtype(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


def accept_changes(manifest: Manifest, fingerprint: Fingerprint, changes: Sequence[str]) -> Manifest:
    """The manifest with a new fingerprint, and the changes that the user accepted on record."""
    merged = manifest.fingerprint.merge(fingerprint)
    return replace(manifest, fingerprint=merged, accepted=(*manifest.accepted, *changes))

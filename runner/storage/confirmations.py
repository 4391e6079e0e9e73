"""Confirmations in a study's folder, `confirmations.json`: seeds that were run at some point after it was chosen."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from runner.errors import InvalidInputError
from runner.storage.folder import Folder, write_file
from runner.storage.schema import ListOf, Record, check_types

FORMAT = 1
_ONE = Record({"points": ListOf(int, least=1), "seeds": ListOf(int, least=2)})
_SCHEMA = Record({"format": int, "confirmations": ListOf(_ONE)})


@dataclass(frozen=True)
class Confirmation:
    """Fresh seeds of a chosen point: the number of its first run, of each variant where axes are pooled."""

    points: tuple[int, ...]
    seeds: range


def read_confirmations(folder: Folder) -> list[Confirmation]:
    """The confirmations of a study, none without a file. Raises InvalidInputError for a damaged one."""
    if not folder.confirmations.exists():
        return []
    try:
        data = json.loads(folder.confirmations.read_text())
        check_types(data, _SCHEMA)
        return [Confirmation(tuple(each["points"]), range(*each["seeds"])) for each in data["confirmations"]]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InvalidInputError(
            f"{folder.confirmations} is damaged ({error}); restore it: without it, its seeds count as any others"
        ) from error


def write_confirmations(folder: Folder, confirmations: Sequence[Confirmation]) -> None:
    """Writes all confirmations of a study."""
    packed = [{"points": list(c.points), "seeds": [c.seeds.start, c.seeds.stop]} for c in confirmations]
    write_file(folder.confirmations, json.dumps({"format": FORMAT, "confirmations": packed}, indent=1) + "\n")

"""The looks at a study: how often its runs were compared, and the share of the error level that each look may spend.

Whoever compares again and again while seeds are added has as many chances of a false claim as there are looks. The k-th
look has the level `alpha / (k * (k + 1))`; all of them together never spend more than `alpha`, however many there are
and whatever decides when to look (Bonferroni's inequality). docs/how-to/comparing.md has the widths that this costs.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from runner.analysis.load import Runs
from runner.errors import InvalidInputError
from runner.storage.folder import Folder, write_file
from runner.storage.lock import lock_looks
from runner.storage.schema import ListOf, Record, check_types

FORMAT = 1
_SCHEMA = Record({"format": int, "looks": ListOf(Record({"runs": str, "time": str, "questions": ListOf(str)}))})


@dataclass(frozen=True)
class Look:
    """One look at a study: its number, 1 for the first, and the level that it may spend.

    `is_recorded` is False in a folder that cannot be written: the next look has the same number then.
    """

    number: int
    alpha: float
    is_recorded: bool = True


def spend(number: int, alpha: float) -> float:
    """The level of the look with this number, from 1: `alpha / (number * (number + 1))`, whose sum is `alpha`."""
    return alpha / (number * (number + 1))


def identify_runs(runs: Runs) -> str:
    """A digest of which runs are compared, and whether each has finished; equal for the same runs, whatever is asked.

    Runs that a filter leaves out are not among them, so that a filter on seeds is a look of its own.
    """
    digest = hashlib.sha256()
    for study in range(len(runs.studies)):
        own = np.flatnonzero(runs.study == study)
        order = own[np.argsort(runs.number[own], kind="stable")]
        digest.update(np.ascontiguousarray(runs.number[order], dtype=np.int64).tobytes())
        digest.update(np.ascontiguousarray(runs.status[order], dtype=np.int8).tobytes())
        digest.update(b"|")
    return digest.hexdigest()


def record_look(folder: Folder, key: str, runs: str, alpha: float = 0.05) -> Look:
    """Records in the folder that `runs`, a digest, are compared, and returns the look; the same runs are one look.

    A look is a state of the runs: what `key` asks is recorded with it, for people to read, and another question about
    the same runs is the same look, because the questions of one look are adjusted for one another. The folder need
    not be unlocked: a study may be compared while it is under way. Raises InvalidInputError for a damaged file.
    """
    try:
        with lock_looks(folder):
            looks = read_looks(folder)
            number = _find(looks, runs)
            if number > len(looks):
                looks.append({"runs": runs, "time": datetime.now(UTC).isoformat(timespec="seconds"), "questions": []})
            questions = looks[number - 1]["questions"]
            if key not in questions:
                questions.append(key)
                write_file(folder.looks, json.dumps({"format": FORMAT, "looks": looks}, indent=1) + "\n")
            return Look(number, spend(number, alpha))
    except OSError:  # a folder that is not ours to write, or on a disk that is not
        number = _find(read_looks(folder), runs)
        return Look(number, spend(number, alpha), is_recorded=False)


def record_looks(runs: Runs, key: str, alpha: float = 0.05, *, is_claimless: bool = False) -> Look:
    """Records a look in the folder of each study that is compared; its number is the largest among them.

    With `is_claimless` nothing is recorded: there is nothing to claim where there is one point.
    """
    if is_claimless:
        return Look(1, spend(1, alpha))
    state = identify_runs(runs)
    looks = [record_look(folder, key, state, alpha) for folder in runs.studies]
    return max(looks, key=lambda look: (look.number, not look.is_recorded))


def count_looks(folder: Folder) -> int:
    """How many looks at a study are recorded."""
    return len(read_looks(folder))


def _find(looks: Sequence[Any], runs: str) -> int:
    """The number of the look at these runs, that of the next one if there was none."""
    return next((number for number, look in enumerate(looks, 1) if look["runs"] == runs), len(looks) + 1)


def read_looks(folder: Folder) -> list[dict[str, Any]]:
    """The looks that `looks.json` has, none without one. Raises InvalidInputError for a damaged file."""
    if not folder.looks.exists():
        return []
    try:
        data = json.loads(folder.looks.read_text())
        check_types(data, _SCHEMA)
        if data["format"] != FORMAT:
            raise InvalidInputError(
                f"{folder.looks} has format {data['format']}; this version of Seedbed reads {FORMAT}"
            )
        return list(data["looks"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InvalidInputError(
            f"{folder.looks} is damaged ({error}); restore it: without it, earlier looks are not counted"
        ) from error

"""The record of a race in its study's folder, `race.json`: the rounds begun, and the points that have left."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from runner.errors import InvalidInputError
from runner.storage.folder import Folder, write_file
from runner.storage.schema import ListOf, MappingOf, Record, check_types

FORMAT = 1
_ROUND = Record({"points": ListOf(int, least=1), "seeds": ListOf(int, least=2)})
_RACE = Record({"metric": str, "level": float, "rounds": ListOf(_ROUND), "left": MappingOf(int)})
_SCHEMA = Record({"format": int, "races": ListOf(_RACE)})


@dataclass(frozen=True)
class Round:
    """Seeds that some points were given, each point by the number of its first run."""

    points: tuple[int, ...]
    seeds: range

    @property
    def runs(self) -> int:
        return len(self.points) * len(self.seeds)


@dataclass(frozen=True)
class RaceRecord:
    """A race by one metric: its confidence level, its rounds, and in which look which point has left it."""

    metric: str
    level: float
    rounds: tuple[Round, ...] = ()
    left: Mapping[int, int] = field(default_factory=dict)

    @property
    def runs(self) -> int:
        """How many runs the race has asked for."""
        return sum(each.runs for each in self.rounds)

    def add_round(self, points: Sequence[int], seeds: range) -> "RaceRecord":
        return replace(self, rounds=(*self.rounds, Round(tuple(points), seeds)))


def read_race(folder: Folder, metric: str) -> RaceRecord | None:
    """The race of a study by a metric, None if there was none. Raises InvalidInputError for a damaged file."""
    return next((race for race in _read_races(folder) if race.metric == metric), None)


def write_race(folder: Folder, race: RaceRecord) -> None:
    """Writes the race beside those by other metrics."""
    races = [*(each for each in _read_races(folder) if each.metric != race.metric), race]
    write_file(folder.race, json.dumps({"format": FORMAT, "races": list(map(_pack, races))}, indent=1) + "\n")


def _read_races(folder: Folder) -> list[RaceRecord]:
    if not folder.race.exists():
        return []
    try:
        data = json.loads(folder.race.read_text())
        check_types(data, _SCHEMA)
        return [_unpack(race) for race in data["races"]]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InvalidInputError(f"{folder.race} is damaged ({error}); delete it to race again") from error


def _pack(race: RaceRecord) -> dict[str, Any]:
    rounds = [{"points": list(r.points), "seeds": [r.seeds.start, r.seeds.stop]} for r in race.rounds]
    left = {str(point): look for point, look in race.left.items()}
    return {"metric": race.metric, "level": race.level, "rounds": rounds, "left": left}


def _unpack(data: Mapping[str, Any]) -> RaceRecord:
    rounds = tuple(Round(tuple(each["points"]), range(*each["seeds"])) for each in data["rounds"])
    return RaceRecord(data["metric"], data["level"], rounds, {int(p): look for p, look in data["left"].items()})

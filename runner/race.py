"""The command `python -m runner.race`: seeds for the points of a study that may still be the best, until one is."""

import argparse
import math
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import numpy as np

from runner import terminal
from runner.analysis.formats import format_label
from runner.analysis.load import STATUS_CODES, Runs, load_runs
from runner.analysis.looks import record_looks
from runner.analysis.racing import FIRST_SEEDS, Standing, impute_worst, judge, next_seeds
from runner.errors import InvalidInputError
from runner.extension import Extensible, check_finished, choose_fresh_seeds, open_extensible
from runner.output import run_command
from runner.plan.status import Status
from runner.storage.folder import Folder, shorten_path
from runner.storage.race_record import RaceRecord, read_race, write_race

SHOWN_ROWS = 20


class Decision(Enum):
    """How a race ends."""

    SHOWN = "shown"
    """One point is left."""
    WITHIN = "within"
    """No point is better than the leader by more than the difference of interest."""
    SPENT = "spent"
    """The budget does not suffice for one more seed of each point in contention."""


@dataclass(frozen=True)
class Request:
    """What is asked for: `budget` is the most runs that the race may add; `difference` 0 asks for the very best."""

    study: Folder
    metric: str
    budget: int
    difference: float
    level: float
    accept: bool


@dataclass(frozen=True)
class Track:
    """The runs of a race: the values `(points, seeds)`, larger ones better, NaN for seeds that a point does not have.

    `first` has the number of the first run of each point, which names the point. Runs without a finite value have the
    worst one that there is; `failures` counts them, `(points,)`.
    """

    runs: Runs
    first: np.ndarray
    values: np.ndarray
    failures: np.ndarray

    def label(self, point: int) -> str:
        """The axes of a point with their values."""
        return format_label(self.runs.points.iloc[point].to_dict(), list(self.runs.points.columns))

    def count_common(self, contenders: np.ndarray) -> int:
        """How many seeds all contenders have."""
        return int((~np.isnan(self.values[contenders])).all(axis=0).sum())


def main() -> None:
    """Runs the command. Exit status 2 after a usage error, 130 after Ctrl-C; the same command goes on."""
    run_command(lambda: race(_read_request()))


def race(request: Request) -> None:
    """Gives seeds to the points in contention until the choice is shown or the budget is spent, and prints the result.

    Raises InvalidInputError for a study that cannot be raced or extended.
    """
    _begin(request, _read_track(request))
    with open_extensible(request.study, accept=request.accept) as study:
        record = read_race(request.study, request.metric) or RaceRecord(request.metric, request.level)
        if record.rounds:  # whatever an interrupted call has left of its last round
            study.add_seeds(record.rounds[-1].points, record.rounds[-1].seeds)
        check_finished(request.study)
        while True:
            track = _read_track(request)
            record, standing, decision, look = _look(request, track, record)
            if decision is not None:
                return _print_result(request, track, record, standing, decision, look)
            record = _run_round(request, study, track, record, standing)


def _begin(request: Request, track: Track) -> None:
    """Raises InvalidInputError for a race that cannot begin, or go on, as it is asked for."""
    record = read_race(request.study, request.metric)
    points = len(track.first)
    seeds = max(1, FIRST_SEEDS - track.count_common(np.full(points, True)))
    if record is None and seeds * points > request.budget:
        raise InvalidInputError(
            f"--budget must be at least {seeds * points:,}, {seeds} more {'seed' if seeds == 1 else 'seeds'} for "
            f"each of {points:,} points; got {request.budget:,}"
        )
    if record is not None and record.level != request.level:
        raise InvalidInputError(f"the race of {request.study.path} has the level {record.level}, got {request.level}")


def _read_track(request: Request) -> Track:
    runs = load_runs([request.study.path], [request.metric])
    direction = runs.directions.get(request.metric)
    if direction is None:
        has = ", ".join(runs.directions) or "none"
        raise InvalidInputError(f"{request.metric} has no direction in task.metrics; there are: {has}")
    if "task" in runs.points:
        raise InvalidInputError(f"{request.study.path} has several tasks, whose values have no common scale")
    if len(runs.points) < 2:
        raise InvalidInputError(f"{request.study.path} has one point; a race is between two or more")
    sign = -1.0 if direction == "minimize" else 1.0
    seeds, place = np.unique(runs.seed, return_inverse=True)
    values = np.full((len(runs.points), len(seeds)), np.nan)
    values[runs.point, place] = sign * runs.values[request.metric]
    failed = np.zeros(values.shape, dtype=bool)
    failed[runs.point, place] = ~np.isfinite(runs.values[request.metric])
    failed[runs.point, place] |= runs.status == STATUS_CODES[Status.FAILED]
    first = np.full(len(runs.points), np.iinfo(np.int64).max)
    np.minimum.at(first, runs.point, runs.number)
    return Track(runs, first, impute_worst(values, failed), failed.sum(axis=1))


def _look(request: Request, track: Track, record: RaceRecord) -> tuple[RaceRecord, Standing, Decision | None, int]:
    """Judges the race as it stands, which is one look at the study, and records who has left."""
    contenders = np.array([int(first) not in record.left for first in track.first])
    seeds = track.count_common(contenders)
    if seeds < FIRST_SEEDS and not _is_spent(request, record, contenders):
        return record, Standing(0, contenders, math.inf), None, 0
    look = record_looks(track.runs, f"race by {request.metric}", 1 - request.level)
    standing = judge(track.values, contenders, look.alpha)
    gone = {int(first): look.number for first in track.first[contenders & ~standing.contenders]}
    record = replace(record, left={**record.left, **gone})
    write_race(request.study, record)
    if standing.contenders.sum() == 1:
        return record, standing, Decision.SHOWN, look.number
    if standing.lead <= request.difference:
        return record, standing, Decision.WITHIN, look.number
    is_spent = _is_spent(request, record, standing.contenders)
    return record, standing, Decision.SPENT if is_spent else None, look.number


def _is_spent(request: Request, record: RaceRecord, contenders: np.ndarray) -> bool:
    return request.budget - record.runs < int(contenders.sum())


def _run_round(request: Request, study: Extensible, track: Track, record: RaceRecord, standing: Standing) -> RaceRecord:
    """Gives seeds to the contenders, which are recorded first: an interrupted round is gone on with."""
    count = int(standing.contenders.sum())
    more = next_seeds(track.count_common(standing.contenders), count, request.budget - record.runs)
    seeds = choose_fresh_seeds(int(track.runs.seed.max()) + 1, more)
    record = record.add_round(track.first[standing.contenders].tolist(), seeds)
    write_race(request.study, record)
    terminal.print_line(f"round {len(record.rounds)}: {more:,} more seeds for {count:,} of {len(track.first):,} points")
    study.add_seeds(record.rounds[-1].points, seeds)
    return record


def _print_result(
    request: Request, track: Track, record: RaceRecord, standing: Standing, decision: Decision, look: int
) -> None:
    points, direction = len(track.first), track.runs.directions[request.metric]
    _print_points(request, track, record, standing)
    name, runs = track.label(standing.leader), terminal.count_runs(record.runs)
    what = f"of {points:,} points by {request.metric} ({direction})"
    more = "" if decision is Decision.SHOWN else f" by more than {request.difference:g}"
    level = f"at level {request.level:g} over all {look} looks at the study"
    if decision is Decision.SPENT:
        left = int(standing.contenders.sum())
        terminal.print_prose(
            f"not shown: {left:,} {what} may still be the best, {name} leads; {runs} were added of --budget "
            f"{request.budget:,}. A larger one goes on; --difference accepts a point that is nearly the best"
        )
    else:
        terminal.print_prose(f"the best {what} is {name}: no other is better{more}, {level}; {runs} were added")
    if failures := int(track.failures[standing.leader]):
        terminal.print_prose(f"{failures:,} of its runs have no finite value; the worst finite one stands for them")
    terminal.print_line(f"compare across seeds: python -m runner.compare {shorten_path(request.study.path)}")


def _print_points(request: Request, track: Track, record: RaceRecord, standing: Standing) -> None:
    """Prints the points by merit, with the seeds that they were given."""
    sign = -1.0 if track.runs.directions[request.metric] == "minimize" else 1.0
    means = np.nanmean(track.values, axis=1)
    order = sorted(range(len(means)), key=lambda i: (i != standing.leader, not standing.contenders[i], -means[i]))
    rows = []
    for point in order[:SHOWN_ROWS]:
        state = (
            "in contention" if standing.contenders[point] else f"left in look {record.left[int(track.first[point])]}"
        )
        seeds = int((~np.isnan(track.values[point])).sum())
        state = "leads" if point == standing.leader else state
        rows.append((track.label(point), terminal.format_value(float(sign * means[point])), str(seeds), state))
    terminal.print_rows(("point", request.metric, "seeds", "state"), rows, prose=("point",))
    if len(order) > SHOWN_ROWS:
        terminal.print_line(f"… {len(order) - SHOWN_ROWS:,} more points, all in the table")


def _read_request() -> Request:
    given = _build_parser().parse_args()
    if given.budget < 1:
        raise InvalidInputError(f"--budget must be a positive number of runs, got {given.budget}")
    if not (math.isfinite(given.difference) and given.difference >= 0):
        raise InvalidInputError(f"--difference must be a number of at least 0, got {given.difference}")
    if not 0.5 <= given.level < 1:
        raise InvalidInputError(f"the confidence level must be at least 0.5 and less than 1, got {given.level}")
    return Request(Folder(given.study), given.metric, given.budget, given.difference, given.level, given.accept)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.race",
        description="Adds seeds to the points of a study that may still be the best, until one is shown to be.",
        epilog="python -m runner.race outputs/lr_scan --metric loss_after --budget 10000",
    )
    parser.add_argument("study", type=Path, help="the folder of a study, such as outputs/lr_scan")
    parser.add_argument("--metric", required=True, help="the output that decides, with a direction in task.metrics")
    parser.add_argument("--budget", type=int, required=True, help="the most runs that the race may add")
    parser.add_argument(
        "--difference",
        metavar="D",
        type=float,
        default=0.0,
        help="the difference of interest: a point is good enough if no other is better by more than D (default 0)",
    )
    parser.add_argument("--level", type=float, default=0.95, help="confidence level, by default 0.95")
    parser.add_argument(
        "--accept", action="store_true", help="race although code, versions or device differ from the study's"
    )
    return parser


if __name__ == "__main__":
    main()

"""Extensions of a study by further seeds at some of its points, executed as one of its own calls would be."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from runner import terminal
from runner.config.recall import RecalledCall, recall_call
from runner.config.settings import OnMismatch
from runner.errors import InvalidInputError
from runner.pipeline import extend_study, take_call_fingerprint
from runner.plan.even_values import EvenValues
from runner.plan.segments import Axis, Plan, Segment
from runner.plan.values import SEED_STOP
from runner.storage.environment import format_command, read_environment
from runner.storage.fingerprint import find_mismatch
from runner.storage.folder import Folder
from runner.storage.lock import lock_folder
from runner.storage.manifest import require_manifest
from runner.storage.merge import open_saved_study
from runner.storage.rows import SavedRun, read_runs
from runner.storage.saved import SavedStudy

SEED = "seed"
UNKNOWN = ("python", "-m", "runner")
"""What is recorded as the command of a study whose own is lost."""


@dataclass(frozen=True)
class Extensible:
    """A study that is held by this process, with its last call as it was composed."""

    folder: Folder
    recalled: RecalledCall
    accept: bool

    def add_seeds(self, points: Sequence[int], seeds: range) -> None:
        """Executes these seeds at some points, each given by the number of one of its runs; what is there is kept.

        Raises InvalidInputError for points that the study's last call does not have, and StudyInterruptedError after a
        signal; the same call goes on with what is missing.
        """
        call = self.recalled.call
        plan = plan_seeds(*self._match_points(points), seeds)
        mismatch = OnMismatch.ACCEPT if self.accept else OnMismatch.REFUSE
        settings = replace(call.settings, overwrite=False, retry=None, dry_run=False, on_mismatch=mismatch)
        extend_study(replace(call, plan=plan, settings=settings), self.folder)

    def _match_points(self, points: Sequence[int]) -> tuple[Plan, dict[int, list[SavedRun]]]:
        """A plan, and by the numbers of its segments the runs at some points."""
        from runner.execution.replay import match_runs

        saved = open_saved_study(self.folder)
        assert saved.manifest is not None
        rows = read_runs(self.folder, saved.manifest, points)
        chosen = [rows[number] for number in points]
        plan = self.recalled.plan_runs(chosen)
        return plan, match_runs(plan, saved.index_plan(plan), chosen)


@contextmanager
def open_extensible(folder: Folder, *, accept: bool = False) -> Iterator[Extensible]:
    """Holds a study for extensions.

    Raises InvalidInputError for a folder without a study, one that is in use, one without a seed, and one whose code,
    versions or device have changed, unless that is accepted.
    """
    manifest = require_manifest(folder.manifest)
    if manifest.columns.parameters.get(SEED) != "uint32":
        raise InvalidInputError(f"{folder.path} has no seed to which further ones could be added")
    with lock_folder(folder), recall_call(folder.path) as recalled:
        for line in recalled.call.warnings:
            terminal.print_warning(line)
        check_fingerprint(folder, recalled, open_saved_study(folder), accept=accept)
        environment = read_environment(folder)
        command = tuple(environment["command"]) if environment else UNKNOWN
        call = replace(recalled.call, origin=replace(recalled.call.origin, study=command))
        yield Extensible(folder, replace(recalled, call=call), accept)


def check_fingerprint(folder: Folder, recalled: RecalledCall, saved: SavedStudy, *, accept: bool) -> None:
    """Raises InvalidInputError if code, versions or device differ from the study's, unless that is accepted."""
    assert saved.manifest is not None
    plan, known = recalled.call.plan, saved.manifest
    mismatch = find_mismatch(known.fingerprint, known.columns.parameters, plan, take_call_fingerprint(recalled.call))
    if mismatch and not (accept and mismatch.can_be_accepted):
        option = "; --accept executes its runs nevertheless" if mismatch.can_be_accepted else ""
        raise InvalidInputError(f"{folder.path} is another study: {mismatch}{option}")
    if mismatch:
        terminal.print_warning(f"{folder.path} is another study: {mismatch}")


def check_finished(folder: Folder) -> None:
    """Raises InvalidInputError if the last call of a study has left runs that are still to be executed."""
    manifest = require_manifest(folder.manifest)
    if left := manifest.planned - open_saved_study(folder).rows:
        raise InvalidInputError(
            f"{folder.path} is not finished: {left:,} of {manifest.planned:,} runs are pending; finish it first: "
            f"{format_command(folder)}"
        )


def choose_fresh_seeds(first: int, count: int) -> range:
    """The next seeds from `first` on. Raises InvalidInputError if there are not so many."""
    if first + count > SEED_STOP:
        raise InvalidInputError(f"seeds are less than {SEED_STOP:,}; there are no {count:,} from {first:,} on")
    return range(first, first + count)


def plan_seeds(plan: Plan, matched: Mapping[int, Sequence[SavedRun]], seeds: range) -> Plan:
    """The plan of some seeds at the points of some runs, which are given by the number of their segment in `plan`.

    Where all segments have the same points, these are one axis together with the seed; otherwise each point becomes a
    segment.
    """
    points = {number: [_take_values(run) for run in runs] for number, runs in matched.items()}
    if len({frozenset(own) for own in points.values()}) == 1:
        segments = tuple(plan.segments[number] for number in points)
        return replace(plan, segments=segments, axes=(_join_axis(next(iter(matched.values())), seeds),), duplicates=0)
    segments = tuple(_fix_point(plan.segments[n], run) for n, runs in matched.items() for run in runs)
    axis = Axis({SEED: EvenValues(seeds.start, 1, len(seeds))})
    return replace(plan, segments=segments, axes=(axis,), duplicates=0)


def _take_values(run: SavedRun) -> tuple[tuple[str, float], ...]:
    return tuple((name, float(values[0])) for name, values in sorted(run.traced.items()) if name != SEED)


def _join_axis(runs: Sequence[SavedRun], seeds: range) -> Axis:
    """The points of some runs with all seeds, the seed varying fastest."""
    names = [name for name in runs[0].traced if name != SEED]
    columns = {name: np.repeat(np.concatenate([run.traced[name] for run in runs]), len(seeds)) for name in names}
    return Axis({**columns, SEED: np.tile(np.arange(seeds.start, seeds.stop, dtype=np.uint32), len(runs))})


def _fix_point(segment: Segment, run: SavedRun) -> Segment:
    """A segment whose base values are those of a run."""
    own = {name: type(segment.traced[name])(values[0]) for name, values in run.traced.items()}
    return replace(segment, traced={**segment.traced, **own})

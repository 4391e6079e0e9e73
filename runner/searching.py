"""Searches: the batches of points that a search proposes, each executed as runs of one study.

The table is the only state. A search is proposed again from its first batch in each call; what the table has of a batch
is read from there, and the rest is executed.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from runner import findings, pipeline, terminal
from runner.config.command import Call
from runner.config.overrides import quote
from runner.config.searches import SearchCall
from runner.errors import InvalidInputError, StudyFailedError
from runner.execution.signals import catch_signals
from runner.plan.pending import PendingRuns, find_pending
from runner.plan.segments import Plan
from runner.search.objectives import list_directions
from runner.search.points import Point, Results, Trial
from runner.search.ranking import rank_trials
from runner.storage.columns import plan_parameters
from runner.storage.environment import write_environment
from runner.storage.fingerprint import Fingerprint
from runner.storage.folder import Folder, fork_folder, remove_if_empty, shorten_path, write_config, write_file
from runner.storage.lock import lock_folder
from runner.storage.manifest import Manifest, format_manifest, require_manifest
from runner.storage.merge import open_saved_study
from runner.storage.programs import format_programs
from runner.storage.reader import KeyedRows, count_reasons, read_keyed_rows
from runner.storage.run_index import RunIndex, index_plan
from runner.storage.saved import SavedStudy, record_end

SHOWN = 5
"""Points that the end of a search shows."""

Outputs = Mapping[str, np.ndarray]


def run_search(call: Call, search: SearchCall, folder: Folder) -> pipeline.Ran:
    """Opens the study, executes what the search proposes and the study lacks, and prints the best points.

    Raises InvalidInputError for usage errors, StudyFailedError if runs have no result, and StudyInterruptedError if a
    signal ended the search.
    """
    check_settings(call)
    with lock_folder(folder):
        study = pipeline.open_study(call, folder)
        if study is not None:
            pipeline.prepare_jax(call)
            batches = begin_batches(call, search, study.saved, study.fingerprint)
            if call.settings.dry_run:
                batches.preview(next(search.propose()))
                return pipeline.Ran(folder)
            trials = batches.execute_all()
            summarize(call, search, batches, trials)
            return pipeline.Ran(folder, [trial.objective for trial in trials])
    fork = fork_folder(folder)
    try:
        return run_search(call, search, fork)
    finally:
        remove_if_empty(fork)


def check_settings(call: Call) -> None:
    """Raises InvalidInputError for settings that a search does not have."""
    if call.settings.retry is not None:
        raise InvalidInputError("retry is no setting of a search, whose next points depend on the results that it had")
    if call.settings.verify is not None:
        raise InvalidInputError(
            "verify is no setting of a search; python -m runner.replay executes its best runs again"
        )


@dataclass
class Batches:
    """The execution of a search: what its study has by now, and what each of its points has led to.

    `known` has the outputs that the search looks at by point, `(runs of a point,)` each. `rows` are those that the
    table had when the call began. `best` is the best mean so far, of halving with the present `budget`. `counted` are
    the runs that the search has been told about, `executed` those that this call has executed.
    """

    call: Call
    search: SearchCall
    saved: SavedStudy
    fingerprint: Fingerprint
    parameters: Mapping[str, str]
    rows: Sequence[KeyedRows]
    kept: Any
    known: dict[Any, Outputs] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    executed: int = 0
    counted: int = 0
    best: float | None = None
    budget: int | None = None
    started: float = field(default_factory=time.monotonic)
    before: float | None = None
    """Seconds that earlier calls have taken."""

    def execute_all(self) -> tuple[Trial, ...]:
        """Executes batch after batch, and returns the trials. Raises StudyInterruptedError after a signal."""
        shown = self.search.runs if self.call.launcher is None else 0
        proposals = self.search.propose()
        try:
            with _catch_stop(self.call) as get_signal, terminal.show_progress(shown) as advance:
                points, number = next(proposals), 0
                while True:
                    results = self.execute(points, get_signal, advance)
                    self._note_batch(number)
                    points, number = proposals.send(results), number + 1
                    self.check_signal(get_signal)
        except StopIteration as end:
            self._note_planned(self.saved.rows)
            return end.value
        finally:
            if self.executed:
                record_end(self.saved.folder)
                self._write_programs()

    def execute(
        self, points: Sequence[Point], get_signal: Callable[[], int | None], advance: terminal.Advance
    ) -> Results:
        """The outputs of the runs of some points; those that are not known yet are executed."""
        found: list[Outputs] = [{}] * len(points)
        if self.search.binder.pinned is not None:  # what a smaller budget has led to is no measure of a larger one
            self.best, self.budget = None, points[0][self.search.binder.pinned]
        for bound in self.search.binder.bind(points):
            identities = bound.identify()
            fresh = [place for place, identity in enumerate(identities) if identity not in self.known]
            if fresh:
                proposed = [bound.points[place] for place in fresh]
                outputs = self._execute_plan(bound.select(fresh), proposed, get_signal, advance)
                for row, place in enumerate(fresh):
                    self.known[identities[place]] = {name: values[row] for name, values in outputs.items()}
            for member, place in zip(bound.members, bound.places, strict=True):
                found[member] = self.known[identities[place]]
        return Results({name: np.stack([own[name] for own in found]) for name in self.search.outputs})

    def _execute_plan(
        self, plan: Plan, points: Sequence[Point], get_signal: Callable[[], int | None], advance: terminal.Advance
    ) -> Outputs:
        """The outputs of the runs of a plan, `(points, runs of a point)` each, NaN where a run has none."""
        index = index_plan(plan, self.parameters)
        is_new = not self.rows and not self.saved.part_spans  # then nothing but known points is in the table
        pending = find_pending(plan, None, self.saved.rows) if is_new else self.saved.find_pending(plan, index)
        values = {name: np.full(plan.runs, np.nan) for name in self.search.outputs}
        missing = sum(pending.counts)
        if missing < plan.runs:
            _fill_from_rows(values, index, self.rows)
            advance(plan.runs - missing, self._describe_best())
        if missing:
            self._execute_pending(plan, points, index, pending, values, get_signal, advance)
        self.counted += plan.runs
        shaped = {name: column.reshape(len(points), -1) for name, column in values.items()}
        self._note_best(shaped)
        advance(0, self._describe_best())
        return shaped

    def _execute_pending(
        self,
        plan: Plan,
        points: Sequence[Point],
        index: RunIndex,
        pending: PendingRuns,
        values: dict[str, np.ndarray],
        get_signal: Callable[[], int | None],
        advance: terminal.Advance,
    ) -> None:
        """Executes the pending runs of a plan into the table, and into `values` by their places."""
        from runner.execution.schedule import check_metrics, make_schedule

        is_here = not pipeline.is_elsewhere(self.call)
        is_resumed, known = bool(self.saved.rows), self.kept.traced
        schedule = make_schedule(plan, pending, is_resumed=is_resumed, is_here=is_here, known=known)
        if not self.executed:
            outputs = self.saved.manifest.columns.outputs if self.saved.manifest else ()
            check_metrics(schedule, outputs)
            self.search.check_outputs([*schedule.outputs, *outputs])
            pipeline.warn_of_shortages(self.call, self.saved.folder, schedule)
        self.kept.traced.update(schedule.groups)
        self._write_manifest(plan, index, schedule)
        if self.call.launcher is None and not self.saved.part_spans:
            self._execute_here(schedule, index, values, get_signal, advance)
        else:
            self._execute_shards(plan, points, schedule, index, values)

    def _write_manifest(self, plan: Plan, index: RunIndex, schedule: Any) -> None:
        from runner import program

        saved, folder = self.saved, self.saved.folder
        missing = sum(schedule.pending.counts)
        manifest = saved.extend_manifest(
            self.call.plan if saved.manifest is None else plan,
            index,
            schedule.outputs,
            self.fingerprint,
            missing=missing,
            can_save=schedule.can_save,
        )
        left = 0 if self.search.is_part else max(0, self.search.runs - self.counted - plan.runs)
        manifest = self._put_objectives_first(replace(manifest, planned=manifest.planned + left))
        write_file(folder.manifest, format_manifest(manifest))
        if not self.executed:
            devices = [] if pipeline.is_elsewhere(self.call) else program.describe_devices() * len(schedule.devices)
            write_environment(folder, pipeline.describe_call(self.call, folder, devices))
            write_config(folder, self.call.config_files)
        self.saved = replace(saved, manifest=manifest, last_sweep=index)

    def _put_objectives_first(self, manifest: Manifest) -> Manifest:
        """The manifest whose first metrics are what is searched for, in the search's own directions."""
        if self.search.is_part:  # its directions are not known
            return manifest
        directions = list_directions(self.search.objectives)
        primary = tuple(dict.fromkeys([*directions, *manifest.primary])) if manifest.primary else ()
        return replace(manifest, metrics={**directions, **{**manifest.metrics, **directions}}, primary=primary)

    def _execute_here(
        self,
        schedule: Any,
        index: RunIndex,
        values: dict[str, np.ndarray],
        get_signal: Callable[[], int | None],
        advance: terminal.Advance,
    ) -> None:
        from runner.execution.blocks import execute_schedule
        from runner.execution.group_statistics import begin_progress

        assert self.saved.manifest is not None
        folder, columns, done = self.saved.folder, self.saved.manifest.columns, 0
        progress = begin_progress(schedule, {name: each.groups[name] for name, each in self.progress.items()})
        for result in execute_schedule(schedule, columns, folder, get_signal, terminal.print_warning, self.kept):
            for name in values:
                if result.outputs is not None and name in result.outputs:
                    values[name][result.block.places] = result.outputs[name]
            progress, done = progress.add(result), done + len(result.block)
            advance(len(result.block), self._describe_best())
        self.progress |= dict.fromkeys(schedule.groups, progress)
        self.executed += done
        if done < schedule.runs:
            self.counted += done
            self.check_signal(get_signal)
        saved, rows = self.saved, schedule.runs
        self.saved = replace(saved, rows=saved.rows + rows, table_rows=saved.table_rows + rows)

    def _execute_shards(
        self, plan: Plan, points: Sequence[Point], schedule: Any, index: RunIndex, values: dict[str, np.ndarray]
    ) -> None:
        folder, call = self.saved.folder, replace(self.call, plan=plan)
        if call.launcher is not None:
            given = f"sweep.points={quote(json.dumps(list(points)))}"
            call = replace(call, launcher=replace(call.launcher, overrides=[*call.launcher.overrides, given]))
        folder.stop_request.unlink(missing_ok=True)
        if not self.executed:
            folder.programs.unlink(missing_ok=True)
        number, problems = pipeline.run_shards(call, folder, schedule)
        folder.stop_request.unlink(missing_ok=True)
        self.saved = open_saved_study(folder)
        assert self.saved.manifest is not None
        self.executed += schedule.runs
        left = sum(self.saved.find_pending(plan, index).counts)
        if left:
            self.counted += plan.runs - left
            self.check_signal(lambda: number)
            reason = f": {problems[0]}" if problems else ""
            again = pipeline.format_call(call, folder)
            message = f"{left:,} of {schedule.runs:,} runs are missing{reason}; resume with: {again}"
            raise StudyFailedError(message).with_command(again)
        _fill_from_rows(values, index, read_keyed_rows(folder, self.saved.manifest))
        if self.counted + plan.runs < self.search.runs:
            self.check_signal(lambda: number)

    def look_up(self, trial: Trial) -> Outputs:
        """The outputs of the runs of a trial, `(runs,)` each."""
        return self.known[self.search.binder.bind([self.search.complete(trial)])[0].identify()[0]]

    def _note_planned(self, runs: int) -> None:
        """Records how many runs the study has in the end, which only the search knows."""
        manifest = self.saved.manifest
        if manifest is not None and not self.search.is_part and manifest.planned != runs:
            self.saved = replace(self.saved, manifest=replace(manifest, planned=runs))
            write_file(self.saved.folder.manifest, format_manifest(replace(manifest, planned=runs)))

    def check_signal(self, get_signal: Callable[[], int | None]) -> None:
        """Raises StudyInterruptedError if a signal has arrived and the search is not at its end."""
        if number := get_signal():
            raise pipeline.interrupted(self.call, number, self.counted, self.search.runs, self.saved.folder)

    def preview(self, points: Sequence[Point]) -> None:
        """Prints the groups of a batch."""
        from runner.execution.schedule import make_schedule, preview_schedule

        rows: list[Sequence[Any]] = []
        header: list[str] = []
        for bound in self.search.binder.bind(points):
            schedule = make_schedule(bound.plan, find_pending(bound.plan), is_resumed=False)
            header, own = preview_schedule(schedule)
            rows += own
        terminal.print_preview(header, rows)
        terminal.print_line(f"the first batch of a search of at most {terminal.count_runs(self.search.runs)}")

    def _note_best(self, outputs: Outputs) -> None:
        """Notes the best mean of the first objective, for the progress."""
        objective = self.search.objectives[0]
        means = objective.sign * outputs[objective.output].mean(axis=1)
        finite = means[np.isfinite(means)]
        if len(finite) and (self.best is None or np.min(finite) < objective.sign * self.best):
            self.best = objective.sign * float(np.min(finite))

    def _describe_best(self) -> str:
        if self.best is None:
            return ""
        budget = "" if self.budget is None else f" with {self.search.binder.pinned}={self.budget}"
        return f"best {self.search.objectives[0].output} {self.best:.6g}{budget}"

    def _note_batch(self, number: int) -> None:
        """Appends when a batch has ended to `batches.csv`, unless an earlier call has executed it."""
        if not self.executed or self.search.is_part:
            return
        path = self.saved.folder.batches
        known = path.read_text().splitlines() if path.exists() else ["batch,runs,seconds"]
        if self.before is None:
            self.before = float(known[-1].rpartition(",")[2]) if len(known) > 1 else 0.0
        seconds = self.before + time.monotonic() - self.started
        write_file(path, "\n".join([*known[: number + 1], f"{number},{self.counted},{seconds:.3f}", ""]))

    def _write_programs(self) -> None:
        """Writes what each group of the search has cost, all of its batches together."""
        from runner import program

        devices = [] if pipeline.is_elsewhere(self.call) else program.describe_devices()
        rows = [progress.group_row(name, devices) for name, progress in self.progress.items()]
        if rows:
            write_file(self.saved.folder.programs, format_programs(rows))


def _catch_stop(call: Call) -> AbstractContextManager[Callable[[], int | None]]:
    """The signals of a call, which say what they do."""
    return catch_signals(partial(pipeline.announce_stop, call), is_guest=call.origin.is_guest)


def begin_batches(call: Call, search: SearchCall, saved: SavedStudy, fingerprint: Fingerprint) -> Batches:
    """The execution of a search before its first batch."""
    from runner.execution.compilation import KeptPrograms

    manifest = saved.manifest
    parameters = manifest.columns.parameters if manifest else plan_parameters(call.plan)
    rows = list(read_keyed_rows(saved.folder, manifest)) if manifest else []
    return Batches(call, search, saved, fingerprint, parameters, rows, KeptPrograms())


def _fill_from_rows(values: dict[str, np.ndarray], index: RunIndex, rows: Any) -> None:
    """Sets the values of the runs of an index that have a row."""
    for batch in rows:
        places = index.find_runs(batch.key, batch.traced, len(batch.numbers))
        here = places >= 0
        for name in values:
            if name in batch.outputs and here.any():
                values[name][places[here]] = batch.outputs[name][here]


def summarize(call: Call, search: SearchCall, batches: Batches, trials: Sequence[Trial]) -> None:
    """Prints the best points and how to confirm them. Raises StudyFailedError if runs have no result."""
    folder = batches.saved.folder
    ranked = [] if search.is_part else rank_trials(trials, search.objectives)
    if not search.is_part:
        print_best(search, batches, ranked)
    saved = batches.counted - batches.executed
    there = f", {saved:,} of them already there" if saved else ""
    terminal.print_line(
        f"{terminal.count_runs(batches.counted)} of {len(trials):,} trials in {shorten_path(folder.results)}{there}"
    )
    if search.is_part:
        return
    if call.settings.report:
        from runner.analysis.comparison import compare_studies
        from runner.analysis.page.document import write_report

        terminal.print_line(f"the report is {write_report(compare_studies([folder.path]), folder.report)}")
    else:
        terminal.print_line(f"compare across seeds: python -m runner.compare {shorten_path(folder.path)}")
    manifest = require_manifest(folder.manifest)
    if ranked:
        findings.tell_search(call, search, folder, manifest, ranked)
    if failures := count_reasons(folder, manifest):
        reason, _ = failures.most_common(1)[0]
        raise StudyFailedError(f"{failures.total():,} of {batches.saved.rows:,} runs have no result: {reason}")


def print_best(search: SearchCall, batches: Batches, ranked: Sequence[Trial]) -> None:
    """Prints the best points, with the values of their runs for each objective."""
    if not ranked:
        terminal.print_line("no point has a finite value and meets the constraints")
        return
    keys = list(dict.fromkeys(key for trial in ranked[:SHOWN] for key in trial.point))
    header = list(keys)
    for objective in search.objectives:
        header += [f"{objective.reduction} of {objective.output}", f"least of {objective.output}", "greatest"]
    rows = []
    for trial in ranked[:SHOWN]:
        assert trial.values is not None
        row: list[Any] = [terminal.format_value(trial.point.get(key, "")) for key in keys]
        outputs = batches.look_up(trial)
        for objective, value in zip(search.objectives, trial.values, strict=True):
            runs = outputs[objective.output]
            row += [f"{value:.6g}", f"{np.nanmin(runs):.6g}", f"{np.nanmax(runs):.6g}"]
        rows.append(row)
    terminal.print_rows(header, rows)
    if len(search.objectives) > 1:
        terminal.print_line(f"{len(ranked):,} points are on the front, which no other point beats in all objectives")

"""The main path: a call is read, its study opened, its pending runs traced and executed, and all of it summarized.

Steps that need JAX import it late, and no other module does: it takes seconds, and usage errors come before.
"""

import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runner import terminal
from runner.config.command import Call
from runner.config.launch import Placement, ShardJob
from runner.config.settings import OnMismatch
from runner.errors import InvalidInputError, StudyFailedError, StudyInterruptedError
from runner.execution.signals import catch_signals
from runner.execution.summary import Summary, add_block, add_parts, add_saved_runs, empty_summary
from runner.storage.environment import collect_environment, format_command, write_environment
from runner.storage.fingerprint import Fingerprint, Mismatch, find_mismatch, take_fingerprint
from runner.storage.folder import (
    Folder,
    fork_folder,
    move_aside,
    remove_if_empty,
    shorten_path,
    write_config,
    write_file,
)
from runner.storage.lock import is_locked, lock_folder
from runner.storage.manifest import Manifest, accept_changes, format_manifest
from runner.storage.merge import open_saved_study
from runner.storage.programs import count_failures, format_programs
from runner.storage.run_index import RunIndex
from runner.storage.saved import SavedStudy

if TYPE_CHECKING:
    from runner.execution.schedule import Schedule

POLL_SECONDS = 0.2
"""How often a call looks whether shards that have outlived their launcher are done."""


@dataclass(frozen=True)
class Study:
    """An opened study: as it was saved, the index of the call's runs in it, and the fingerprint of the call."""

    saved: SavedStudy
    index: RunIndex
    fingerprint: Fingerprint


@dataclass(frozen=True)
class Outcome:
    """What an execution led to; `last_outputs` are those of the last block, `problem` is what went wrong."""

    summary: Summary
    last_outputs: Mapping[str, np.ndarray] | None = None
    problem: str | None = None


def run_call(path: Path, read_call: Callable[[], Call]) -> None:
    """Runs the call that `read_call` returns in the folder at `path`.

    Raises InvalidInputError for usage errors, StudyFailedError if runs are left without a result, and
    StudyInterruptedError if a signal ended the study.
    """
    call, folder = read_call(), Folder(path)
    if call.shard:
        run_shard(call, folder, call.shard)
    else:
        run_study(call, folder)


def run_study(call: Call, folder: Folder) -> None:
    """Opens the study, traces and executes what it lacks, and summarizes all of it; a fork runs in another folder."""
    from runner import program
    from runner.execution.schedule import preview_schedule

    program.enable_cache()
    if is_elsewhere(call):
        program.use_cpu_only()  # the devices' memory belongs to the shards
    with lock_folder(folder):
        study = open_study(call, folder)
        if study is not None:
            schedule = trace_pending(call, study)
            if call.settings.dry_run:
                terminal.print_rows(*preview_schedule(schedule))
                return
            outcome = execute_pending(call, study, schedule)
            summarize(call, study, schedule, outcome)
            return
    fork = fork_folder(folder)
    try:
        run_study(call, fork)
    finally:
        remove_if_empty(fork)


def run_shard(call: Call, folder: Folder, shard: ShardJob) -> None:
    """Executes the runs of a shard, in a process of a launcher, into a part of the study."""
    from runner import program
    from runner.execution.shards import execute_part

    program.enable_cache()
    with catch_signals() as get_signal:

        def stop() -> bool:
            return bool(get_signal()) or shard.is_orphaned()

        if not shard.is_orphaned():
            accept = call.settings.on_mismatch is OnMismatch.ACCEPT
            execute_part(call.plan, folder, shard.numbers, accept=accept, stop=stop)
    if shard.is_orphaned():
        os._exit(1)  # nobody waits for the answer, and the worker would wait minutes for another job


def is_elsewhere(call: Call) -> bool:
    """Whether other processes execute the study, perhaps on other machines."""
    return call.launcher is not None and call.launcher.placement is not Placement.THIS_PROCESS


def open_study(call: Call, folder: Folder) -> Study | None:
    """Reads the study in a folder and compares it with the call; None if a fork is to be run instead.

    Raises InvalidInputError for a damaged study, and for one that contradicts the call.
    """
    from runner import program

    if call.settings.overwrite and (aside := move_aside(folder)):
        terminal.print_line(f"the previous study was moved to {aside}")
    saved = open_saved_study(folder)
    index = saved.index_plan(call.plan)
    if saved.part_spans and not saved.is_last_sweep(index):
        raise InvalidInputError(_describe_unfinished(saved))
    device = None if is_elsewhere(call) else " ".join(program.describe_devices())
    fingerprint = take_fingerprint(call.plan, device)
    if saved.manifest is not None:
        known = saved.manifest
        mismatch = find_mismatch(known.fingerprint, known.columns.parameters, call.plan, fingerprint)
        if mismatch and call.settings.on_mismatch is OnMismatch.FORK:
            terminal.print_line(f"{folder.path} is another study: {mismatch}")
            return None
        if mismatch:
            saved = _accept_mismatch(call, saved, known, fingerprint, mismatch)
    if saved.incomplete_bytes:
        table = shorten_path(folder.results)
        terminal.print_line(f"truncated an incomplete last row of {table} ({saved.incomplete_bytes:,} bytes)")
    if call.plan.duplicates:
        terminal.print_line(f"{call.plan.duplicates:,} runs are duplicates of others, and are executed once")
    return Study(saved, index, fingerprint)


def _accept_mismatch(
    call: Call, saved: SavedStudy, known: Manifest, fingerprint: Fingerprint, mismatch: Mismatch
) -> SavedStudy:
    if call.settings.on_mismatch is OnMismatch.ACCEPT and mismatch.can_be_accepted:
        return replace(saved, manifest=accept_changes(known, fingerprint, mismatch.changes))
    options = ["study=…", "on_mismatch=fork", "on_mismatch=accept", "overwrite=true"]
    if not mismatch.can_be_accepted:
        options.remove("on_mismatch=accept")
    raise InvalidInputError(f"{saved.folder.path} is another study: {mismatch}. Options: {', '.join(options)}")


def _describe_unfinished(saved: SavedStudy) -> str:
    path, command = saved.folder.path, format_command(saved.folder)
    runs = f"{sum(map(len, saved.part_spans)):,} runs of another sweep that are not in its table yet"
    return f"{path} has {runs}, because a shard was lost; finish it first: {command}. Or: study=…, overwrite=true"


def trace_pending(call: Call, study: Study) -> "Schedule":
    """Traces the groups that have pending runs. Raises InvalidInputError if a new study has none that can be traced."""
    from runner.execution.schedule import make_schedule

    pending = study.saved.find_pending(call.plan, study.index)
    return make_schedule(call.plan, pending, is_resumed=study.saved.is_last_sweep(study.index))


def execute_pending(call: Call, study: Study, schedule: "Schedule") -> Outcome:
    """Executes the pending runs here or in shards; the outcome covers the runs that were there already, too."""
    from runner import program

    saved, folder = study.saved, study.saved.folder
    missing = sum(schedule.pending.counts)
    manifest = saved.extend_manifest(call.plan, study.index, schedule.outputs, study.fingerprint, missing)
    empty = empty_summary(call.plan, manifest.columns.outputs)
    summary = add_saved_runs(empty, saved, study.index)
    if not schedule.runs:
        return Outcome(summary)
    write_file(folder.manifest, format_manifest(manifest))
    devices = [] if is_elsewhere(call) else program.describe_devices()
    write_environment(folder, collect_environment(devices))
    write_config(folder, call.config_files)
    if call.launcher is None and not saved.part_spans:
        return _execute_here(folder, schedule, manifest, summary)
    return _execute_shards(call, study, schedule, summary, empty)


def _execute_here(folder: Folder, schedule: "Schedule", manifest: Manifest, summary: Summary) -> Outcome:
    """Executes blocks in this process, and appends them to the table."""
    from runner import program
    from runner.execution.blocks import execute_schedule
    from runner.execution.group_statistics import begin_progress

    progress, outputs = begin_progress(schedule), None
    with catch_signals() as get_signal, terminal.show_progress(schedule.runs) as advance:
        for result in execute_schedule(schedule, manifest.columns, folder.results, get_signal):
            summary = add_block(summary, result.block, result.outputs)
            progress, outputs = progress.add(result), result.outputs
            advance(len(result.block))
        number = get_signal()
    write_file(folder.programs, format_programs(progress.program_rows(program.describe_devices())))
    if number and progress.runs < schedule.runs:
        raise _interrupted(number, progress.runs, schedule, folder)
    return Outcome(summary, outputs, _describe_failures(progress.failed, schedule.plan.runs, progress.reasons))


def _execute_shards(call: Call, study: Study, schedule: "Schedule", summary: Summary, empty: Summary) -> Outcome:
    """Executes the pending runs in shards, and merges their parts into the table.

    Raises StudyInterruptedError if a signal has left runs pending.
    """
    folder, plan = study.saved.folder, call.plan
    for outdated in (folder.programs, folder.stop_request):
        outdated.unlink(missing_ok=True)
    number, problems = _run_shards(call, folder, schedule)
    folder.stop_request.unlink(missing_ok=True)

    whole = add_parts(summary, folder)  # cheaper than reading the table, if no shard was lost
    merged = open_saved_study(folder)
    left = sum(map(len, merged.find_pending(plan, study.index).spans))
    if left and number:
        raise _interrupted(number, schedule.runs - left, schedule, folder)
    if left:
        why = f": {problems[0]}" if problems else ""
        problem: str | None = f"{left:,} of {schedule.runs:,} runs are missing{why}; {_explain_resuming(folder)}"
        return Outcome(add_saved_runs(empty, merged, study.index), problem=problem)
    failed, reasons = count_failures(folder.programs.read_text() if folder.programs.exists() else "")
    problem = _describe_failures(failed, plan.runs, reasons)
    return Outcome(add_saved_runs(empty, merged, study.index) if whole is None else whole, problem=problem)


def _run_shards(call: Call, folder: Folder, schedule: "Schedule") -> tuple[int | None, list[str]]:
    """Starts the shards and waits for them: the signal that arrived, and the messages of errors.

    Without a launcher this process executes the gaps between the parts that an earlier sweep has left.
    """
    from runner import program
    from runner.execution.shards import execute_part, share_spans

    spans, problems = schedule.pending.spans, []
    with catch_signals(folder.stop_request.touch) as get_signal, terminal.show_progress(schedule.runs) as advance:
        if call.launcher is None:
            accept = call.settings.on_mismatch is OnMismatch.ACCEPT
            for span in spans:
                execute_part(call.plan, folder, span, accept=accept, stop=get_signal, advance=advance)
        else:
            shares = share_spans(spans, call.launcher.count)
            problems = call.launcher.launch(folder.path, shares, program.count_cores())
            while not get_signal() and any(map(is_locked, folder.parts)):
                time.sleep(POLL_SECONDS)  # the launcher has given up, but shards are still running
        return get_signal(), problems


def summarize(call: Call, study: Study, schedule: "Schedule", outcome: Outcome) -> None:
    """Prints the results, and writes the report if it is asked for. Raises StudyFailedError if something went wrong."""
    folder, runs = study.saved.folder, call.plan.runs
    terminal.print_results(call.plan, outcome.summary, outcome.last_outputs)
    saved = f", {runs - schedule.runs:,} of them already there" if schedule.runs < runs else ""
    terminal.print_line(f"{terminal.count_runs(runs)} in {shorten_path(folder.results)}{saved}")
    if call.settings.report:
        from runner.analysis.comparison import compare_studies
        from runner.analysis.report import write_report

        terminal.print_line(f"the report is {write_report(compare_studies([folder.path]), folder.report)}")
    elif runs > 1:
        terminal.print_line(f"compare across seeds: python -m runner.compare {shorten_path(folder.path)}")
    if outcome.problem:
        raise StudyFailedError(outcome.problem)


def _describe_failures(failed: int, runs: int, reasons: list[str]) -> str | None:
    return f"{failed:,} of {runs:,} runs have no result: {reasons[0]}" if failed else None


def _interrupted(number: int, done: int, schedule: "Schedule", folder: Folder) -> StudyInterruptedError:
    message = f"interrupted after {done:,} of {schedule.runs:,} runs; {_explain_resuming(folder)}"
    return StudyInterruptedError(number, message)


def _explain_resuming(folder: Folder) -> str:
    is_named = any(argument.startswith("study=") for argument in sys.orig_argv)
    arguments = sys.orig_argv if is_named else [*sys.orig_argv, f"study={folder.path.name}"]
    return f"resume with: {shlex.join(arguments)}"

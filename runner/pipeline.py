"""The main path: a call is read, its study opened, its pending runs traced and executed, and all of it summarized.

Steps that need JAX import it late, and no other module does: it takes seconds, and usage errors come before.
"""

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runner import findings, terminal
from runner.config.callers import end_with
from runner.config.command import Call
from runner.config.launch import Placement, ShardJob
from runner.config.settings import OnMismatch
from runner.errors import InvalidInputError, StudyFailedError, StudyInterruptedError
from runner.execution.signals import catch_signals
from runner.execution.summary import Summary, add_block, add_parts, add_saved_runs, empty_summary
from runner.plan.pending import Block, PendingRuns
from runner.storage.checkpoints import format_replay
from runner.storage.environment import (
    annotate_study,
    collect_environment,
    format_command,
    format_words,
    read_environment,
    write_environment,
)
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
from runner.storage.manifest import Manifest, accept_changes, format_manifest, require_manifest
from runner.storage.merge import open_saved_study
from runner.storage.programs import format_programs, read_programs
from runner.storage.reader import count_reasons, read_run
from runner.storage.repositories import describe_repositories
from runner.storage.run_index import RunIndex
from runner.storage.saved import SavedStudy, read_saved_study, record_end

if TYPE_CHECKING:
    from runner.execution.schedule import Schedule

POLL_SECONDS = 0.2
"""How often a call looks whether shards that have outlived their launcher are done."""


@dataclass(frozen=True)
class Study:
    """An opened study: as it was saved, and of the call the index of its runs, those to execute, and its fingerprint.

    `repeated` are runs that have a row already and are executed once more.
    """

    saved: SavedStudy
    index: RunIndex
    pending: PendingRuns
    repeated: tuple[Block, ...]
    fingerprint: Fingerprint

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to execute."""
        return not sum(self.pending.counts) and not self.repeated


@dataclass(frozen=True)
class Outcome:
    """What an execution led to: how many runs it was about, and the outputs of the last block.

    `failures` has the number of failed runs of the study by reason; `missing` says which runs were lost, and why.
    """

    summary: Summary
    executed: int = 0
    last_outputs: Mapping[str, np.ndarray] | None = None
    failures: Counter[str] = field(default_factory=Counter)
    missing: str | None = None


@dataclass(frozen=True)
class Ran:
    """What a call has run: the folder of its study, and the objectives of a search's points in their order."""

    folder: Folder
    objectives: Sequence[float | list[float]] = ()


def run_call(path: Path, read_call: Callable[[], Call]) -> Ran:
    """Runs the call that `read_call` returns in the folder at `path`.

    Raises InvalidInputError for usage errors, StudyFailedError if runs are left without a result, and
    StudyInterruptedError if a signal ended the study.
    """
    call, folder = read_call(), Folder(path)
    for line in call.warnings:
        terminal.print_warning(line)
    if call.shard:
        run_shard(call, folder, call.shard)
        return Ran(folder)
    if call.search:
        from runner.searching import run_search

        return run_search(call, call.search, folder)
    return Ran(run_study(call, folder))


def run_study(call: Call, folder: Folder) -> Folder:
    """Opens the study, traces and executes what it lacks, and summarizes all of it; a fork runs in another folder.

    Returns the folder in which it ran.
    """
    with lock_folder(folder):
        study = open_study(call, folder)
        if study is not None:
            _run_opened(call, study)
            return folder
    fork = fork_folder(folder)
    try:
        return run_study(call, fork)
    finally:
        remove_if_empty(fork)


def extend_study(call: Call, folder: Folder) -> None:
    """Executes what the study in a folder lacks of the call's plan, without a summary; the caller holds the lock.

    Raises InvalidInputError for a study that contradicts the call, and StudyInterruptedError after a signal.
    """
    study = open_study(call, folder)
    if study is not None and not study.is_complete:
        schedule = trace_pending(call, study)
        warn_of_shortages(call, folder, schedule)
        execute_pending(call, study, schedule)


def _run_opened(call: Call, study: Study) -> None:
    if study.is_complete and not call.settings.dry_run:
        summarize(call, study, summarize_saved(call, study))
        return
    schedule = trace_pending(call, study)
    warn_of_shortages(call, study.saved.folder, schedule)
    if call.settings.dry_run:
        preview(call, schedule)
    else:
        summarize(call, study, execute_pending(call, study, schedule))


def summarize_saved(call: Call, study: Study) -> Outcome:
    """The outcome of a call whose runs all have a row already; what its user has noted is recorded."""
    assert study.saved.manifest is not None
    folder, manifest = study.saved.folder, study.saved.manifest
    summary, outputs = _summarize_saved(call, study.saved, study.index, manifest), None
    annotate_study(folder, call.settings.note, call.settings.tags)
    if call.plan.runs == 1:
        number = study.saved.find_numbers(study.index)[0]
        outputs = read_run(folder, manifest, number) or None
    return Outcome(summary, last_outputs=outputs, failures=_count_failures(folder))


def preview(call: Call, schedule: "Schedule") -> None:
    """Prints the groups that would be executed, and how many programs would be compiled."""
    from runner.execution.schedule import describe_compilation, preview_schedule

    terminal.print_preview(*preview_schedule(schedule))
    terminal.print_line(describe_compilation(schedule, is_elsewhere=is_elsewhere(call)))


def prepare_jax(call: Call) -> None:
    """Imports JAX, with its cache and its devices as the call needs them."""
    from runner import program

    program.dispatch_in_caller()
    if call.settings.deterministic:
        program.require_determinism()
    if problem := program.enable_cache():
        terminal.print_warning(problem)
    if is_elsewhere(call):
        program.use_cpu_only()  # the devices' memory belongs to the shards
        return
    cores = call.settings.cores_per_run
    if (pool := program.count_pool() or cores) != cores:
        devices = program.count_cpu_devices()
        reason = (
            f"one for each of its {devices} CPU devices"
            if pool == devices > cores
            else "in which JAX had started before"
        )
        terminal.print_warning(
            f"XLA's pool has {pool} {'thread' if pool == 1 else 'threads'} in this process, {reason}, "
            f"and not cores_per_run={cores}; the study records {pool}"
        )


def run_shard(call: Call, folder: Folder, shard: ShardJob) -> None:
    """Executes the runs of a shard, in a process of a launcher, into a part of the study."""
    prepare_jax(call)
    from runner.execution.shards import execute_part

    is_guest = call.origin.is_guest and shard.is_in_caller()
    with end_with(shard.caller, folder.stop_request), catch_signals(is_guest=is_guest) as get_signal:

        def stop() -> bool:
            return bool(get_signal()) or shard.is_orphaned()

        if not shard.is_orphaned():
            accept = call.settings.on_mismatch is OnMismatch.ACCEPT
            verify, warn = call.settings.verify, terminal.print_warning
            execute_part(call.plan, folder, shard.numbers, accept=accept, verify=verify, stop=stop, warn=warn)
    if shard.is_orphaned():
        os._exit(1)  # nobody waits for the answer, and the worker would wait minutes for another job


def is_elsewhere(call: Call) -> bool:
    """Whether other processes execute the study, perhaps on other machines."""
    return call.launcher is not None and call.launcher.placement is not Placement.THIS_PROCESS


def open_study(call: Call, folder: Folder) -> Study | None:
    """Reads the study in a folder and compares it with the call; None if a fork is to be run instead.

    Raises InvalidInputError for a damaged study, and for one that contradicts the call.
    """
    if call.settings.overwrite and (aside := move_aside(folder)):
        terminal.print_line(f"the previous study was moved to {aside}")
    accept = call.settings.on_mismatch is OnMismatch.ACCEPT
    saved = open_saved_study(folder, accept=accept)
    index = saved.index_plan(call.plan)
    if saved.part_spans and not saved.is_last_sweep(index) and call.search is None:
        raise InvalidInputError(_describe_unfinished(saved))
    pending = saved.find_pending(call.plan, index)
    repeated = saved.find_repeated(index, call.settings.retry)
    if call.launcher is not None and repeated:
        raise InvalidInputError("retry executes runs in this process only; leave out hydra.sweeper.shards")
    fingerprint = take_call_fingerprint(call, is_complete=not sum(pending.counts) and not repeated)
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
    return Study(saved, index, pending, repeated, fingerprint)


def take_call_fingerprint(call: Call, *, is_complete: bool = False) -> Fingerprint:
    """The fingerprint of the call; without device and settings of JAX if nothing is to be executed and none is set."""
    is_usual = not call.settings.deterministic and not any(name.startswith(("JAX_", "XLA_")) for name in os.environ)
    if is_complete and is_usual:
        return take_fingerprint(call.plan, None, None, _count_pool())
    from runner import program

    prepare_jax(call)
    if is_elsewhere(call):
        return take_fingerprint(call.plan, None, program.list_settings())
    device = " ".join(program.describe_devices())
    return take_fingerprint(call.plan, device, program.list_settings(), program.count_pool())


def _count_pool() -> int | None:
    """The threads of XLA's pool, None if JAX is not imported: then it is that of the call's `cores_per_run`."""
    if "jax" not in sys.modules:
        return None
    from runner import program

    return program.count_pool()


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
    from runner.execution.schedule import check_metrics, make_schedule

    is_resumed = study.saved.is_last_sweep(study.index)
    is_here = not is_elsewhere(call)
    schedule = make_schedule(call.plan, study.pending, study.repeated, is_resumed=is_resumed, is_here=is_here)
    check_metrics(schedule, study.saved.manifest.columns.outputs if study.saved.manifest else ())
    return schedule


def warn_of_shortages(call: Call, folder: Folder, schedule: "Schedule") -> None:
    """Prints on standard error what seems not to fit into the memory or onto the disk; and of cores left idle."""
    from runner import program
    from runner.execution.schedule import describe_idle_cores, list_shortages

    memory = None if is_elsewhere(call) else program.count_memory()
    for line in list_shortages(schedule, memory, shutil.disk_usage(folder.path).free):
        terminal.print_warning(line)
    if not is_elsewhere(call) and (hint := describe_idle_cores(schedule, program.count_cores())):
        terminal.print_line(hint)


def execute_pending(call: Call, study: Study, schedule: "Schedule") -> Outcome:
    """Executes the pending runs here or in shards; the outcome covers the runs that were there already, too."""
    from runner import program

    saved, folder = study.saved, study.saved.folder
    missing, repeated = sum(schedule.pending.counts), sum(map(len, study.repeated))
    manifest = saved.extend_manifest(
        call.plan,
        study.index,
        schedule.outputs,
        study.fingerprint,
        missing=missing,
        repeated=repeated,
        can_save=schedule.can_save,
    )
    write_file(folder.manifest, format_manifest(manifest))
    devices = [] if is_elsewhere(call) else program.describe_devices() * len(schedule.devices)
    write_environment(folder, describe_call(call, folder, devices))
    write_config(folder, call.config_files)
    is_here = call.launcher is None and not saved.part_spans
    try:
        return (_execute_here if is_here else _execute_shards)(call, study, schedule, manifest)
    finally:
        record_end(folder)


def describe_call(call: Call, folder: Folder, devices: Sequence[str]) -> dict[str, Any]:
    """What `environment.json` has about a call that executes runs; notes and tags of earlier calls stay."""
    known, settings = read_environment(folder) or {}, call.settings
    note, tags = settings.note or known.get("note"), settings.tags or known.get("tags")
    environment = collect_environment(devices, call.origin.command, call.origin.study)
    environment |= {name: value for name, value in (("note", note), ("tags", list(tags or ()))) if value}
    return environment | {"repositories": describe_repositories(call.plan)}


def _execute_here(call: Call, study: Study, schedule: "Schedule", manifest: Manifest) -> Outcome:
    """Executes blocks in this process, and appends them to the table."""
    from runner import program
    from runner.execution.blocks import execute_schedule
    from runner.execution.group_statistics import begin_progress
    from runner.execution.verification import choose_sample, verify_sample

    folder, progress, outputs = study.saved.folder, begin_progress(schedule), None
    sample = choose_sample(schedule, call.settings.verify or 0)
    summary = _summarize_saved(call, study.saved, study.index, manifest)
    stop = catch_signals(partial(announce_stop, call), is_guest=call.origin.is_guest)
    with stop as get_signal, terminal.show_progress(schedule.runs) as advance:
        for result in execute_schedule(schedule, manifest.columns, folder, get_signal, terminal.print_warning):
            summary = add_block(summary, result.block, result.outputs)
            progress, sample, outputs = progress.add(result), sample.add(result), result.outputs
            advance(len(result.block))
        verified, number = verify_sample(sample, get_signal), get_signal()
    write_file(folder.programs, format_programs(progress.program_rows(program.describe_devices(), verified)))
    if number and progress.runs < schedule.runs:
        raise interrupted(call, number, progress.runs, schedule.runs, folder)
    if study.repeated:  # their earlier rows count no more
        summary = _summarize_saved(call, read_saved_study(folder), study.index, manifest)
    failures = _count_failures(folder) if study.saved.rows else progress.failures
    return Outcome(summary, schedule.runs, outputs, failures)


def _execute_shards(call: Call, study: Study, schedule: "Schedule", manifest: Manifest) -> Outcome:
    """Executes the pending runs in shards, and merges their parts into the table.

    Raises StudyInterruptedError if a signal has left runs pending.
    """
    folder, plan, summary = study.saved.folder, call.plan, _summarize_saved(call, study.saved, study.index, manifest)
    for outdated in (folder.programs, folder.stop_request):
        outdated.unlink(missing_ok=True)
    number, problems = run_shards(call, folder, schedule)
    folder.stop_request.unlink(missing_ok=True)

    whole = add_parts(summary, folder)  # cheaper than reading the table, if no shard was lost
    merged = open_saved_study(folder)
    left = sum(map(len, merged.find_pending(plan, study.index).spans))
    if left and number:
        raise interrupted(call, number, schedule.runs - left, schedule.runs, folder)
    if left or whole is None:
        whole = _summarize_saved(call, merged, study.index, manifest)
    missing = f"{left:,} of {schedule.runs:,} runs are missing{f': {problems[0]}' if problems else ''}"
    return Outcome(whole, schedule.runs, failures=_count_failures(folder), missing=missing if left else None)


def _summarize_saved(call: Call, saved: SavedStudy, index: RunIndex, manifest: Manifest) -> Summary:
    """The summary of those runs of the call that have a row already."""
    return add_saved_runs(empty_summary(call.plan, manifest.columns.outputs), saved, index)


def _count_failures(folder: Folder) -> Counter[str]:
    """How many runs of a study have failed, by reason."""
    return count_reasons(folder, require_manifest(folder.manifest))


def run_shards(call: Call, folder: Folder, schedule: "Schedule") -> tuple[int | None, list[str]]:
    """Starts the shards and waits for them: the signal that arrived, and the messages of errors.

    Without a launcher this process executes the gaps between the parts that an earlier sweep has left.
    """
    from runner import program
    from runner.execution.shards import execute_part, share_spans

    spans, problems, warn = schedule.pending.spans, [], terminal.print_warning

    def stop_shards() -> None:
        folder.stop_request.touch()
        announce_stop(call)

    stop = catch_signals(stop_shards, is_guest=call.origin.is_guest)
    with stop as get_signal, terminal.show_progress(schedule.runs) as advance:
        if call.launcher is None:
            accept, verify = call.settings.on_mismatch is OnMismatch.ACCEPT, call.settings.verify
            for span in spans:
                execute_part(
                    call.plan,
                    folder,
                    span,
                    accept=accept,
                    verify=verify,
                    stop=get_signal,
                    advance=advance,
                    warn=warn,
                )
        else:
            shares = share_spans(spans, call.launcher.count)
            problems = call.launcher.launch(folder.path, shares, program.count_cores(), call.settings.cores_per_run)
            while not get_signal() and any(map(is_locked, folder.parts)):
                time.sleep(POLL_SECONDS)  # the launcher has given up, but shards are still running
        return get_signal(), problems


def announce_stop(call: Call) -> None:
    """Says what a signal does, and what the next one will."""
    again = "Ctrl-C" if call.origin.is_guest else "Ctrl-C or SIGTERM"
    terminal.print_at_once(f"stopping after the blocks under way; a second {again} ends the call at once")


def summarize(call: Call, study: Study, outcome: Outcome) -> None:
    """Prints the results, and writes the report if it is asked for. Raises StudyFailedError if runs have no result."""
    folder, runs = study.saved.folder, call.plan.runs
    terminal.print_results(call.plan, outcome.summary, outcome.last_outputs)
    saved = runs - outcome.executed
    there = f", {saved:,} of them already there" if saved else ""
    terminal.print_line(f"{terminal.count_runs(runs)} in {shorten_path(folder.results)}{there}")
    if call.settings.verify and outcome.executed:
        _print_verification(folder)
    if call.settings.report:
        from runner.analysis.comparison import compare_studies
        from runner.analysis.page.document import write_report

        terminal.print_line(f"the report is {write_report(compare_studies([folder.path]), folder.report)}")
    elif runs > 1:
        terminal.print_line(f"compare across seeds: python -m runner.compare {shorten_path(folder.path)}")
        if command := format_replay(folder, require_manifest(folder.manifest)):
            terminal.print_line(f"keep the best run: {command}")
    if call.plan.search and runs > 1 and not outcome.missing:
        findings.tell_drawn(folder, require_manifest(folder.manifest), runs)
    if outcome.missing:
        command = format_call(call, folder)
        raise StudyFailedError(f"{outcome.missing}; resume with: {command}").with_command(command)
    if outcome.failures:
        raise _explain_failures(call, outcome.failures, study)


def _print_verification(folder: Folder) -> None:
    from runner.execution.verification import describe_verification

    header, *rows = read_programs(folder.programs) or [[]]
    terminal.print_line(describe_verification([dict(zip(header, row, strict=True)) for row in rows]))


def _explain_failures(call: Call, failures: Counter[str], study: Study) -> StudyFailedError:
    """How many runs of the study have failed, why most of them did, and how they are executed once more."""
    runs = study.saved.rows + sum(study.pending.counts)
    reason, _ = failures.most_common(1)[0]
    others = f" (and {len(failures) - 1:,} other reasons)" if len(failures) > 1 else ""
    command = f"{format_call(call, study.saved.folder)} retry=failed"
    message = f"{failures.total():,} of {runs:,} runs have no result: {reason}{others}; execute them once more with"
    return StudyFailedError(f"{message}: {command}").with_command(command)


def interrupted(call: Call, number: int, done: int, runs: int, folder: Folder) -> StudyInterruptedError:
    """The error of a signal that has left runs pending."""
    command = format_words(call.origin.command) if call.origin.study else format_call(call, folder)
    message = f"interrupted after {done:,} of {runs:,} runs; resume with: {command}"
    return StudyInterruptedError(number, message).with_command(command)


def format_call(call: Call, folder: Folder) -> str:
    """This call as one would type it to go on with its study."""
    arguments = [argument for argument in call.origin.command if not argument.startswith(("study=", "retry="))]
    return format_words([*arguments, f"study={folder.path.name}"])

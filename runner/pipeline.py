"""One call of the command: config → study → plan → programs → table → summary."""

import os
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from runner.config import compose as configs
from runner.config.compose import Policy
from runner.errors import InvalidInputError, StudyFailedError, StudyInterruptedError
from runner.execution import shards
from runner.execution import signals as interrupt
from runner.execution.shards import Shards
from runner.plan.study import Plan
from runner.storage import folder as study
from runner.storage.folder import Folder

if TYPE_CHECKING:
    from runner.execution.schedule import Schedule
    from runner.execution.summary import Summary
    from runner.storage.manifest import Fingerprint, SavedStudy
    from runner.storage.table import Columns

FULL_ERROR = "SEEDBED_FULL_ERROR"
"""Where `main` keeps what the user asked for by `HYDRA_FULL_ERROR`."""


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def run(config: DictConfig, launcher: Shards | None = None) -> None:
    """Runs the study that a composed config describes; a single run is a study without axes.

    With a launcher its runs are shared out, and each shard is a call of this function again.
    """
    hydra_config = HydraConfig.get()
    folder = Folder(Path(hydra_config.runtime.output_dir))
    try:
        policy, plan, written = configs.policy(config), Plan(configs.read(config)), configs.written(config)
        if numbers := shards.part(config):
            run_shard(plan, folder, policy, numbers, partial(shards.is_alone, config))
        else:
            run_study(plan, folder, policy, written, launcher)
    except (InvalidInputError, StudyFailedError, StudyInterruptedError) as error:
        if hydra_config.mode is RunMode.RUN:
            leave(error)  # Hydra would put a line about its job before the message
        raise
    finally:
        study.discard(folder)


def run_shard(plan: Plan, folder: Folder, policy: Policy, numbers: range, is_alone: Callable[[], bool]) -> None:
    """The way of a shard, in a process of the launcher: the runs of these numbers into a part of the study."""
    from runner.program import programs as program

    program.use_cache()
    with interrupt.requests() as asked:

        def stop() -> bool:
            return bool(asked()) or is_alone()

        if not is_alone():
            shards.make(plan, folder, numbers, accept=policy.on_mismatch == "accept", stop=stop)
    if is_alone():
        os._exit(1)  # nobody waits for the answer, and a worker would wait minutes for more to do


def run_study(
    plan: Plan, folder: Folder, policy: Policy, written: dict[str, str], launcher: Shards | None = None
) -> None:
    """The way of a study: what is there is read, what is missing is run, and all of it is summed up.

    Raises InvalidInputError where the study cannot be begun, StudyFailedError where runs are left without a result, StudyInterruptedError
    where a signal ended it.
    """
    from runner import terminal as console
    from runner.program import programs as program
    from runner.storage import manifest as record
    from runner.storage import merge as parts

    program.use_cache()
    if elsewhere(launcher):
        program.use_cpu()  # the memory of a device is the shards'
    with study.held(folder):
        if policy.overwrite and (aside := study.set_aside(folder)):
            console.say(f"the study that was there is in {aside} now")
        past = parts.past(folder)
        if past.spans and not past.is_begun(plan):
            raise InvalidInputError(_unfinished(folder, past))
        facts = record.facts(plan, None if elsewhere(launcher) else program.devices())
        if found := record.differences(past, plan, facts):
            if policy.on_mismatch == "fork":
                console.say(f"this is not the study in {folder.path}: {'; '.join(found)}")
                run_study(plan, study.sibling(folder), policy, written, launcher)
                return
            past = record.accepted(past, facts, found, accept=policy.on_mismatch == "accept")
        if past.cut:
            console.say(f"the last {past.cut:,} bytes of {folder.shown} were no whole row, and were cut off")
        if plan.study.left_out:
            console.say(f"{plan.study.left_out:,} runs were asked for more than once, and are run once")
        run_missing(plan, past, facts, folder, policy, written, launcher)


def elsewhere(launcher: Shards | None) -> bool:
    """Whether other processes run the study, perhaps on other machines."""
    return launcher is not None and not launcher.is_here


def _unfinished(folder: Folder, past: "SavedStudy") -> str:
    runs = f"{sum(map(len, past.spans)):,} runs of another sweep, beyond others that a shard has lost"
    return f"{folder.path} has {runs}; finish it first: {study.command(folder)}. Or: study=…, overwrite=true"


def run_missing(
    plan: Plan,
    past: "SavedStudy",
    facts: "Fingerprint",
    folder: Folder,
    policy: Policy,
    written: dict[str, str],
    launcher: Shards | None,
) -> None:
    """Traces, compiles and runs what the table lacks of a plan; a dry run shows the plan."""
    from runner import terminal as console
    from runner.execution import blocks as execute
    from runner.execution import schedule as ledger
    from runner.execution import summary, work
    from runner.program import programs as program
    from runner.storage import manifest as record
    from runner.storage import merge as parts

    books = work.opened(plan, todo := past.todo(plan), is_begun=past.is_begun(plan))
    if policy.dry_run:
        console.print_rows(*ledger.preview(books))
        return

    now = record.extended(past, plan, sum(todo.counts), execute.outputs(books.groups), facts)
    empty, last, problem = summary.summary(plan, now.columns.outputs), None, None
    totals = past.summed(empty, plan)
    if books.missing:
        study.write(folder.record, record.text(now))
        study.write_environment(folder, study.environment([] if elsewhere(launcher) else program.devices()))
        study.write_config(folder, written)
        if launcher or past.spans:
            whole, problem = run_parts(books, folder, policy, launcher, totals)
            totals = whole or parts.past(folder).summed(empty, plan)
        else:
            totals, last, problem = run_blocks(books, now.columns, folder, totals)

    already = f", {plan.runs - books.missing:,} of them there already" if books.missing < plan.runs else ""
    console.print_results(plan, totals, last)
    console.say(f"{console.runs(plan.runs)} in {folder.shown}{already}")
    if policy.report:
        from runner import compare
        from runner.analysis import report

        console.say(f"the report is {report.write(compare.compare([folder.path]), folder.report)}")
    elif plan.runs > 1:
        console.say(f"compared across seeds: python -m runner.compare {folder.shown_path}")
    if problem:
        raise StudyFailedError(problem)


def run_blocks(
    books: "Schedule", columns: "Columns", folder: Folder, totals: "Summary"
) -> tuple["Summary", Mapping[str, Any] | None, str | None]:
    """Runs what is missing and appends it to the table: the totals, the last outputs, and what went wrong."""
    from runner import terminal as console
    from runner.execution import schedule as ledger
    from runner.execution import summary, work
    from runner.program import programs as program

    plan, last = books.plan, None
    with interrupt.requests() as stop, console.progress(books.missing) as advance:
        for result in work.results(books, columns, folder.results, stop):
            totals = summary.add(totals, result.block, result.outputs)
            books, last = ledger.entered(books, result), result.outputs
            advance(len(result.block))
        number = stop()
    study.write(folder.programs, ledger.text(books, program.devices()))
    if books.runs < books.missing and number:
        raise StudyInterruptedError(number, _stopped(books.runs, books.missing, folder))
    return totals, last, _failed(books.failed, plan.runs, books.reasons)


def run_parts(
    books: "Schedule", folder: Folder, policy: Policy, launcher: Shards | None, totals: "Summary"
) -> tuple["Summary | None", str | None]:
    """Shares out what is missing over shards, and lets the table take in what they made.

    Without a launcher it makes the parts itself: what lies between those that are there. Returns the totals, if
    every shard can tell its own, and what went wrong.
    """
    from runner import terminal as console
    from runner.execution import schedule as ledger
    from runner.program import programs as program
    from runner.storage import merge as parts

    plan, spans, problems = books.plan, books.todo.spans, []
    for old in (folder.programs, folder.end):
        old.unlink(missing_ok=True)
    with interrupt.requests(folder.end.touch) as stop, console.progress(books.missing) as advance:
        if launcher is None:
            for span in spans:
                shards.make(plan, folder, span, accept=policy.on_mismatch == "accept", stop=stop, advance=advance)
        else:
            problems = launcher.launch(folder, shards.shares(spans, launcher.count), program.cores())
            while not stop() and any(map(study.in_use, folder.parts)):
                time.sleep(0.2)  # the launcher has given up, and yet shards go on
        number = stop()
    folder.end.unlink(missing_ok=True)

    whole = parts.summed(folder, totals)
    left = sum(map(len, parts.past(folder).todo(plan).spans))
    made = books.missing - left
    if left and number:
        raise StudyInterruptedError(number, _stopped(made, books.missing, folder))
    if left:
        why = f": {problems[0]}" if problems else ""
        return None, f"{left:,} of {books.missing:,} runs are missing{why}; {goes_on(folder)}"
    failed, reasons = ledger.failures(folder.programs.read_text() if folder.programs.exists() else "")
    return whole, _failed(failed, plan.runs, reasons)


def _failed(failed: int, runs: int, reasons: list[str]) -> str | None:
    return f"{failed:,} of {runs:,} runs have no result: {reasons[0]}" if failed else None


def _stopped(made: int, missing: int, folder: Folder) -> str:
    return f"stopped after {made:,} of {missing:,} runs; {goes_on(folder)}"


def goes_on(folder: Folder) -> str:
    """How a study that was stopped is taken up again."""
    named = any(word.startswith("study=") for word in sys.orig_argv)
    words = sys.orig_argv if named else [*sys.orig_argv, f"study={folder.path.name}"]
    return f"this goes on: {shlex.join(words)}"


def leave(error: Exception) -> NoReturn:
    """Ends with a message on standard error; with `HYDRA_FULL_ERROR=1` the traceback comes first."""
    if os.environ.get(FULL_ERROR) == "1":
        traceback.print_exception(error)
    print(f"error: {configs.explained(error)}", file=sys.stderr)
    sys.exit(_status(error))


def _status(error: Exception) -> int:
    if isinstance(error, StudyInterruptedError):
        return 128 + error.number
    asked_wrongly = InvalidInputError, HydraException, OmegaConfBaseException, NotADirectoryError, IsADirectoryError
    return 2 if isinstance(error, asked_wrongly) else 1

"""The command line: config → study → plan → programs → table → summary."""

import os
import shlex
import signal
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from runner import catalog, study, sweep
from runner import config as configs
from runner.config import Policy
from runner.errors import BadInput, Stopped, StudyFailed
from runner.plan import Plan
from runner.study import Folder

if TYPE_CHECKING:
    from runner.record import Facts, Past

FULL_ERROR = "SEEDBED_FULL_ERROR"
"""Where `main` keeps what the user asked for by `HYDRA_FULL_ERROR`."""


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def run(config: DictConfig) -> None:
    """Runs the study that a composed config describes; a single run is a study without axes."""
    hydra_config = HydraConfig.get()
    folder = Folder(Path(hydra_config.runtime.output_dir))
    try:
        policy = configs.policy(config)
        run_study(Plan(configs.read(config)), folder, policy, configs.written(config))
    except (BadInput, StudyFailed, Stopped) as error:
        if hydra_config.mode is RunMode.RUN:
            leave(error)  # Hydra would put a line about its job before the message
        raise
    finally:
        study.discard(folder)


def run_study(plan: Plan, folder: Folder, policy: Policy, written: dict[str, str]) -> None:
    """The way of a study: what is there is read, what is missing is run, and all of it is summed up.

    Raises BadInput where the study cannot be begun, StudyFailed where runs are left without a result, Stopped
    where a signal ended it.
    """
    from runner import console, program, record  # JAX, only from here on

    program.use_cache()
    with study.held(folder):
        if policy.overwrite and (aside := study.set_aside(folder)):
            console.say(f"the study that was there is in {aside} now")
        past = record.past(folder.record, folder.results)
        facts = record.facts(plan, program.devices())
        if found := record.differences(past, plan, facts):
            if policy.on_mismatch == "fork":
                console.say(f"this is not the study in {folder.path}: {'; '.join(found)}")
                run_study(plan, study.sibling(folder), policy, written)
                return
            past = record.accepted(past, facts, found, accept=policy.on_mismatch == "accept")
        if past.cut:
            console.say(f"the last {past.cut:,} bytes of {folder.shown} were no whole row, and were cut off")
        if plan.study.left_out:
            console.say(f"{plan.study.left_out:,} runs were asked for more than once, and are run once")
        run_missing(plan, past, facts, folder, None if policy.dry_run else written)


def run_missing(plan: Plan, past: "Past", facts: "Facts", folder: Folder, written: dict[str, str] | None) -> None:
    """Traces, compiles and runs what the table lacks of a plan; a dry run, without `written`, shows the plan."""
    from runner import console, execute, interrupt, ledger, program, record, summary, table

    missing = past.missing(plan)
    groups = execute.trace(plan, missing)
    threads = plan.study.threads or program.cores()
    sizes = {name: execute.block_size(plan.runs_per_segment, group, threads) for name, group in groups.items()}
    books = ledger.opened(plan, missing, groups, sizes)
    if written is None:
        console.print_rows(*ledger.preview(books))
        return

    now = record.extended(past, plan, books.missing, execute.outputs(groups), facts)
    totals, last = past.summed(summary.summary(plan, now.columns.outputs), plan), None
    if books.missing:
        study.write(folder.record, record.text(now))
        study.write_environment(folder, study.environment(program.devices()))
        study.write_config(folder, written)
        rows, blocks = partial(table.rows, plan, now.columns), plan.blocks(sizes, past.left(plan), past.rows)
        with (
            interrupt.requests() as stop,
            table.appending(folder.results, now.columns.header) as append,
            console.progress(books.missing) as advance,
        ):
            for result in execute.execute(plan, groups, blocks, rows, threads=threads, stop=stop):
                append(result.rows)
                totals = summary.add(totals, result.block, result.outputs)
                books, last = ledger.entered(books, result), result.outputs
                advance(len(result.block))
        study.write(folder.programs, ledger.text(books, program.devices()))
        if books.runs < books.missing and (number := stop()):
            raise Stopped(number, f"stopped after {books.runs:,} of {books.missing:,} runs; {goes_on(folder)}")

    already = f", {plan.runs - books.missing:,} of them there already" if books.missing < plan.runs else ""
    console.print_results(plan, totals, last)
    console.say(f"{console.runs(plan.runs)} in {folder.shown}{already}")
    if books.failed:
        raise StudyFailed(f"{books.failed:,} of {plan.runs:,} runs have no result: {books.reasons[0]}")


def goes_on(folder: Folder) -> str:
    """How a study that was stopped is taken up again."""
    named = any(word.startswith("study=") for word in sys.orig_argv)
    words = sys.orig_argv if named else [*sys.orig_argv, f"study={folder.path.name}"]
    return f"this goes on: {shlex.join(words)}"


def main() -> None:
    """The command, with its exit status.

    2 for what was asked wrongly, 1 for a failure while running, 130 and 143 after Ctrl-C and SIGTERM.
    """
    os.environ[FULL_ERROR] = os.environ.get("HYDRA_FULL_ERROR", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on to here, and does not exit with 1 itself
    catalog.register()
    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's own task lies where the command is called, also for the console script
    try:
        sys.argv[1:] = sweep.with_first_task(sys.argv[1:])
        run()
    except KeyboardInterrupt:
        leave(Stopped(signal.SIGINT, "stopped before the first run"))
    except (BadInput, StudyFailed, Stopped, HydraException, OmegaConfBaseException, OSError) as error:
        leave(error)


def leave(error: Exception) -> NoReturn:
    """Ends with a message on standard error; with `HYDRA_FULL_ERROR=1` the traceback comes first."""
    if os.environ.get(FULL_ERROR) == "1":
        traceback.print_exception(error)
    print(f"error: {configs.explained(error)}", file=sys.stderr)
    sys.exit(128 + error.number if isinstance(error, Stopped) else 1 if isinstance(error, StudyFailed) else 2)


if __name__ == "__main__":
    main()

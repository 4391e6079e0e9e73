"""The command line: config → study → plan → programs → table → summary."""

import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from runner import catalog, sweep
from runner import config as configs
from runner.errors import BadInput, StudyFailed
from runner.plan import Plan, Study
from runner.study import Folder, discard

FULL_ERROR = "SEEDBED_FULL_ERROR"
"""Where `main` keeps what the user asked for by `HYDRA_FULL_ERROR`."""


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def run(config: DictConfig) -> None:
    """Runs the study that a composed config describes; a single run is a study without axes."""
    hydra_config = HydraConfig.get()
    folder = Folder(Path(hydra_config.runtime.output_dir))
    try:
        execute_study(configs.read(config), folder, dry_run=config.dry_run)
    except (BadInput, StudyFailed) as error:
        if hydra_config.mode is RunMode.RUN:
            leave(error)  # Hydra would put a line about its job before the message
        raise
    finally:
        discard(folder)


def execute_study(asked: Study, folder: Folder, *, dry_run: bool = False) -> None:
    """The way of a study: traced, compiled, run block by block into its table, and summed up.

    Raises BadInput where no group can be built, StudyFailed where runs are left without a result.
    """
    from runner import console, execute, ledger, program, study, summary, table  # JAX, once the values are read

    plan, threads = Plan(asked), asked.threads or program.cores()
    program.use_cache()
    groups = execute.trace(plan)
    sizes = {name: execute.block_size(plan.runs_per_segment, group, threads) for name, group in groups.items()}
    books = ledger.opened(plan, groups, sizes)
    if dry_run:
        console.print_plan(*ledger.preview(books))
        return

    outputs = execute.outputs(groups)
    rows, totals = table.table(plan, outputs), summary.summary(plan, outputs)
    with table.appending(folder.results, rows.header) as append, console.progress(plan.runs) as advance:
        study.write_environment(folder, study.environment(program.devices()))
        for result in execute.execute(plan, groups, plan.blocks(sizes), rows.rows, threads):
            append(result.rows)
            totals = summary.add(totals, result.block, result.outputs)
            books = ledger.entered(books, result)
            advance(len(result.block))
    study.write(folder.programs, ledger.text(books, program.devices()))

    console.print_results(plan, totals, result.outputs)
    console.say(f"{plan.runs:,} {'run' if plan.runs == 1 else 'runs'} in {folder.shown}")
    if books.failed:
        raise StudyFailed(f"{books.failed:,} of {plan.runs:,} runs have no result: {books.reasons[0]}")


def main() -> None:
    """The command, with its exit status: 2 for what was asked wrongly, 1 for a failure while running."""
    os.environ[FULL_ERROR] = os.environ.get("HYDRA_FULL_ERROR", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on to here, and does not exit with 1 itself
    catalog.register()
    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's own task lies where the command is called, also for the console script
    try:
        sys.argv[1:] = sweep.with_first_task(sys.argv[1:])
        run()
    except (BadInput, StudyFailed, HydraException, OmegaConfBaseException, OSError) as error:
        leave(error)


def leave(error: Exception) -> NoReturn:
    """Ends with a message on standard error; with `HYDRA_FULL_ERROR=1` the traceback comes first."""
    if os.environ.get(FULL_ERROR) == "1":
        traceback.print_exception(error)
    print(f"error: {configs.explained(error)}", file=sys.stderr)
    sys.exit(1 if isinstance(error, StudyFailed) else 2)


if __name__ == "__main__":
    main()

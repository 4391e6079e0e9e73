"""The command `python -m runner.export`: a study for another tool, as a file or in a tracker."""

import argparse
import math
from pathlib import Path

from runner import terminal
from runner.errors import InvalidInputError
from runner.exports.request import Exported, Request
from runner.exports.targets import TARGETS, Target, find_target, load_export
from runner.output import run_command
from runner.storage.counting import read_overview
from runner.storage.folder import Folder, shorten_path
from runner.storage.manifest import Manifest, require_manifest
from runner.storage.recovery import verify_table

EPILOG = (
    "A tracker gets a run for each point: its values, the mean of each metric with its interval, the seeds as a table, "
    "curves as series with a band, and once the report. The same export again updates what is there. Addresses, "
    "accounts and offline modes are those of the client's own settings, such as WANDB_MODE and MLFLOW_TRACKING_URI."
)


def main() -> None:
    """Runs the command. Exit status 2 after a usage error, for a damaged study, and where a library is missing."""
    run_command(_export)


def _export() -> None:
    given = _build_parser().parse_args()
    target = find_target(given.target)
    request = _read_request(given, target)
    _check_options(target, request)
    done = _count_runs(request)
    if not done:
        raise InvalidInputError(f"{request.folder.path}: no run is done yet")
    exported = load_export(target)(request)
    _print_exported(exported, request.manifest, done)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.export", description="Exports a study to a file or a tracker.", epilog=EPILOG
    )
    targets = "; ".join(f"{target.name}: {target.describes}" for target in TARGETS.values())
    parser.add_argument("study", type=Path, help="the folder of a study, such as outputs/lr_scan")
    parser.add_argument("target", help=targets)
    parser.add_argument(
        "--to",
        help="where to: a file (parquet, csv, optuna), a folder (tensorboard, wandb), or the address of a storage "
        "(mlflow, optuna); by default exports/ of the study, and for wandb and mlflow what their settings say",
    )
    parser.add_argument(
        "--project", help="its project in W&B, experiment in MLflow, study in Optuna; by default its name"
    )
    parser.add_argument("--all", action="store_true", help="a tracker run for each run, which can take long")
    parser.add_argument("--filter", help="the runs that a tracker gets, as 'lr < 0.1 and seed < 100'")
    return parser


def _read_request(given: argparse.Namespace, target: Target) -> Request:
    folder = Folder(given.study)
    manifest = require_manifest(folder.manifest)

    def announce(runs: int) -> None:
        if given.all:
            terminal.print_prose(_estimate(target, runs))

    return Request(folder, manifest, given.to, given.project, given.all, given.filter, announce)


def _count_runs(request: Request) -> int:
    """The number of runs that are done. Raises InvalidInputError for a table that was changed."""
    manifest = request.manifest
    rows = verify_table(request.folder, recorded=manifest.table_bytes)
    return manifest.count_runs(rows) if rows else read_overview(request.folder).done


def _check_options(target: Target, request: Request) -> None:
    """Raises InvalidInputError for options of trackers with a target that has all runs anyway."""
    if target.is_tracker:
        return
    for name, value in (("--all", request.each_run), ("--filter", request.keep), ("--project", request.project)):
        if value:
            trackers = ", ".join(name for name, target in TARGETS.items() if target.is_tracker)
            raise InvalidInputError(f"{name} is for trackers ({trackers}); {target.name} has all runs in one file")


def _estimate(target: Target, runs: int) -> str:
    """How long an export of single runs will take, in words."""
    assert target.rate is not None
    seconds = runs / target.rate
    units = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
    size, unit = next((each for each in units if seconds >= 2 * each[0]), units[-1])
    count = math.ceil(seconds / size)
    return f"{terminal.count_runs(runs)} at about {target.rate:g} a second: {count:,} {unit}{'' if count == 1 else 's'}"


def _print_exported(exported: Exported, manifest: Manifest, done: int) -> None:
    def count(number: int) -> str:
        return f"{number:,} {exported.noun}{'' if number == 1 else 's'}"

    before = f", {count(exported.unchanged)} unchanged" if exported.unchanged else ""
    terminal.print_line(f"{count(exported.written)} written{before}: {_shorten(exported.place)}")
    for note in exported.notes:
        terminal.print_prose(f"note: {note}")
    if manifest.planned > done:
        terminal.print_line(
            f"{manifest.planned - done:,} runs of the study are pending; export it again when they are done"
        )


def _shorten(place: str) -> str:
    path = Path(place)
    return shorten_path(path) if path.is_absolute() and path.exists() else place


if __name__ == "__main__":
    main()

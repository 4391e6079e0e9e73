"""The command `python -m runner.replay`: runs of a study executed once more, compared with its table, and saved."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner import terminal
from runner.analysis.winners import Choice, choose_runs
from runner.config.recall import RecalledCall, format_run, recall_call
from runner.errors import InvalidInputError
from runner.extension import check_fingerprint
from runner.output import run_command
from runner.storage.checkpoints import check_target, list_outputs, save_run
from runner.storage.folder import Folder, shorten_path
from runner.storage.rows import read_runs
from runner.storage.saved import SavedStudy, read_saved_study

if TYPE_CHECKING:
    from runner.execution.replay import Replay, ReplayGroup

BESIDE = ""
"""What `--save` has where it is given without a folder."""
IDENTICAL, DIFFERENT = "identical", "different"


@dataclass(frozen=True)
class Request:
    """What is asked for: which runs of which study, and where they are saved, None for nowhere."""

    study: Folder
    choice: Choice
    target: Path | None
    accept: bool


def main() -> None:
    """Runs the command. Exit status 1 if an output differs from the table, 2 after a usage error."""
    run_command(_replay)


def _replay() -> None:
    request = _read_request()
    numbers = choose_runs(request.study.path, request.choice)
    with recall_call(request.study.path) as recalled:
        saved = read_saved_study(request.study, truncate=False)
        for line in recalled.call.warnings:
            terminal.print_warning(line)
        check_fingerprint(request.study, recalled, saved, accept=request.accept)
        groups = _trace(request, recalled, saved, numbers)
        replays = list(_execute(request, recalled, groups))
    replays.sort(key=lambda replay: numbers.index(replay.run.number))
    _print_replays(request, recalled, replays)
    if any(replay.difference.differing for replay in replays):
        sys.exit(1)


def _trace(request: Request, recalled: RecalledCall, saved: SavedStudy, numbers: Sequence[int]) -> "list[ReplayGroup]":
    """The groups of the runs. Raises InvalidInputError if they cannot be saved, and are to be."""
    from runner.execution.replay import match_runs, trace_groups

    assert saved.manifest is not None
    rows = read_runs(request.study, saved.manifest, numbers)
    chosen = [rows[number] for number in numbers]
    plan = recalled.plan_runs(chosen)
    matched = match_runs(plan, saved.index_plan(plan), chosen)
    groups = trace_groups(plan, matched)
    if request.target is not None:
        for number in numbers:
            check_target(request.target, number)
        for group in groups:
            if group.task is None:
                name = group.segments[0].task.name
                raise InvalidInputError(
                    f"task {name!r} has nothing to save: it returns no loop with variables and write; leave out --save"
                )
    return groups


def _execute(request: Request, recalled: RecalledCall, groups: "Sequence[ReplayGroup]") -> "Iterator[Replay]":
    """The runs once more, without their variables: each is saved first, where that is asked for."""
    from runner.execution.replay import replay_group

    for group in groups:
        for replay in replay_group(recalled.call.plan, group):
            if request.target is not None and replay.outputs is not None:
                _save(request, request.target, recalled, replay)
            yield replace(replay, variables=None)


def _save(request: Request, target: Path, recalled: RecalledCall, replay: "Replay") -> None:
    assert replay.outputs is not None
    found = replay.difference
    report = {
        "study": str(request.study.path),
        "run": replay.run.number,
        "task": replay.segment.task.name,
        "outputs": list_outputs(replay.outputs),
        "verdict": DIFFERENT if found.differing else IDENTICAL,
        "differing": found.differing,
        "largest_difference": found.largest,
    }
    config = format_run(recalled, replay.segment, replay.run.scalars)
    save_run(check_target(target, replay.run.number), replay.save, config, report)


def _print_replays(request: Request, recalled: RecalledCall, replays: "Sequence[Replay]") -> None:
    """Prints a row for each run: what distinguishes it, its metric, and whether its outputs are those of the table."""
    from runner.execution.verification import describe_values

    swept = dict.fromkeys(name for axis in recalled.call.plan.axes for name in axis.columns)
    swept |= dict.fromkeys(recalled.call.search.binder.keys if recalled.call.search else ())
    metric = request.choice.metric
    rows = []
    for replay in replays:
        values = {**replay.segment.swept, **{n: v for n, v in replay.run.scalars.items() if n in swept}}
        found = replay.difference
        verdict = describe_values(found) if found.differing else IDENTICAL
        label = " ".join(f"{name}={terminal.format_value(value)}" for name, value in values.items())
        rows.append((str(replay.run.number), label, *([_format_metric(replay, metric)] if metric else []), verdict))
    terminal.print_rows(("run", "values", *([metric] if metric else []), "outputs"), rows, prose=("values", "outputs"))
    saved = [replay for replay in replays if replay.outputs is not None]
    if request.target is not None:
        terminal.print_line(f"{terminal.count_runs(len(saved))} saved in {shorten_path(request.target)}")


def _format_metric(replay: "Replay", metric: str) -> str:
    """A scalar metric of a run as the table has it; nothing for a number of an array."""
    return terminal.format_value(replay.run.outputs[metric][0]) if metric in replay.run.outputs else ""


def _read_request() -> Request:
    given = _build_parser().parse_args()
    folder = Folder(given.study)
    numbers, point = _parse_numbers(given.run or []), _parse_point(given.point or [])
    if numbers and (given.best is not None or point):
        raise InvalidInputError("--run names the runs; leave out --best and --point")
    if not numbers and given.best is None and not point:
        raise InvalidInputError("give --run 17,204, or --best 3 --metric NAME, or --point lr=0.1")
    if given.best is not None and given.best < 1:
        raise InvalidInputError(f"--best must be at least 1, got {given.best}")
    target = folder.checkpoints if given.save == BESIDE else given.save
    choice = Choice(numbers, point, given.best, given.metric)
    return Request(folder, choice, None if target is None else Path(target), given.accept)


def _parse_numbers(texts: Sequence[str]) -> tuple[int, ...]:
    words = [word for text in texts for word in text.split(",")]
    for word in words:
        if not word.strip().isdecimal():
            raise InvalidInputError(f"--run takes numbers of runs such as 17,204, got {word!r}")
    return tuple(map(int, words))


def _parse_point(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if not all(name and middle for name, middle, _ in pairs):
        raise InvalidInputError(f"--point takes axis=value such as lr=0.1, got {', '.join(texts)}")
    return {name: value for name, _, value in pairs}


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.replay",
        description="Executes runs of a study once more, compares every output with its table, and saves what they "
        "have trained.",
        epilog="python -m runner.replay outputs/digits --best 3 --metric validation_loss --save",
    )
    parser.add_argument("study", type=Path, help="the folder of a study, such as outputs/digits")
    parser.add_argument("--run", metavar="N,N", action="append", help="the runs by their numbers in the table")
    parser.add_argument("--best", metavar="K", type=int, help="the best K runs by --metric, as task.metrics says")
    parser.add_argument("--metric", help="the output that decides, and is shown")
    parser.add_argument(
        "--point", metavar="AXIS=VALUE", action="append", help="only runs with this value; alone, all of them"
    )
    parser.add_argument(
        "--save",
        metavar="FOLDER",
        nargs="?",
        const=BESIDE,
        help="write each run's checkpoint and configuration, by default into STUDY/checkpoints",
    )
    parser.add_argument(
        "--accept", action="store_true", help="replay although code, versions or device differ from the study's"
    )
    return parser


if __name__ == "__main__":
    main()

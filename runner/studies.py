"""The command `python -m runner.studies`: studies found, shown, compared, verified, renamed and removed."""

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import terminal
from runner.errors import InvalidInputError
from runner.output import run_command
from runner.plan.status import Status
from runner.storage.catalog import Entry, list_entries, read_entry
from runner.storage.folder import Folder, shorten_path
from runner.storage.overview import BestRun

if TYPE_CHECKING:  # imports pandas and scipy, which a list need not
    from runner.analysis.contrast import Contrast
    from runner.analysis.description import BestPoint, Description

HEADER = (
    *("study", "task", "axes", "done", "planned", "nonfinite", "failed", "best run", "size", "tags", "age", "state"),
)
WORDS = (
    "axes: what was swept or searched, with the number of values; done, planned: runs; nonfinite: runs with a NaN or "
    "an infinity in a result; failed: runs without a result; best run: the best value of the first metric with a "
    "direction, which of many runs is a lucky one (show has the best point over its seeds); size: of all files; age: "
    "since the last call"
)
PROSE = ("task", "axes", "tags", "state")
VERIFIED = "as it was written"
NOT_SUMMED = "has no checksums: an earlier version wrote it; the next call of its command adds them"
DROP = ("size", "tags", "age", "best run", "axes", "failed", "nonfinite", "task", "planned")
"""The columns that are broken into lines, and left out, where there is no room; see `terminal.print_rows`."""
COMPLETE = "complete"
UNFINISHED = "unfinished: the same command resumes it"
SECONDS = {"min": 60, "h": 3600, "d": 86400, "w": 604800}
"""The units of an age."""
COMMANDS = ("list", "show", "diff", "rm", "mv", "verify")


@dataclass(frozen=True)
class Filter:
    """Which studies are listed: patterns of task and tag, the earliest time of the last call, only unfinished ones."""

    task: str | None = None
    tag: str | None = None
    since: float | None = None
    unfinished: bool = False

    def accepts(self, entry: Entry) -> bool:
        """Whether a study passes all conditions; a damaged one counts as unfinished."""
        overview = entry.overview
        return (
            (self.task is None or any(fnmatchcase(task, self.task) for task in overview.tasks))
            and (self.tag is None or any(fnmatchcase(tag, self.tag) for tag in overview.tags))
            and (self.since is None or entry.called >= self.since)
            and (not self.unfinished or not _is_complete(entry))
        )


def list_studies(outputs: Path, chosen: Filter | None = None) -> Iterator[list[Any]]:
    """A row under `HEADER` for each study in a folder that a filter accepts, the most recently called first."""
    for entry in list_entries(outputs):
        if chosen is None or chosen.accepts(entry):
            yield _describe_entry(entry)


def _describe_entry(entry: Entry) -> list[Any]:
    name, age, overview = entry.folder.path.name, _format_age(entry.called), entry.overview
    if overview.statuses is None:  # a damaged study is listed, too
        return [name, "", "", "", "", "", "", "", format_bytes(entry.bytes), "", age, overview.problem]
    searched = [f"search ({overview.search})"] if overview.search else []
    axes = " ".join([*searched, *(f"{axis}:{count}" for axis, count in (overview.axes or {}).items())])
    counts = [overview.count(status) for status in (Status.NONFINITE, Status.FAILED)]
    return [
        *(name, ", ".join(overview.tasks), axes, overview.done, overview.planned, *counts),
        *(_format_best(overview.best), format_bytes(entry.bytes), ", ".join(overview.tags), age, _tell_state(entry)),
    ]


def _is_complete(entry: Entry) -> bool:
    return entry.overview.statuses is not None and entry.overview.done >= entry.overview.planned


def _tell_state(entry: Entry) -> str:
    if entry.overview.problem:
        return entry.overview.problem
    if entry.holder:
        return f"in use by {entry.holder}"
    return COMPLETE if _is_complete(entry) else UNFINISHED


def _format_best(best: BestRun | None) -> str:
    return "" if best is None else f"{best.metric} {best.value:.5g} (run {best.run})"


def format_bytes(size: int) -> str:
    """A size with its unit, such as `1.2 MB`."""
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= bytes_:
            return f"{size / bytes_:.3g} {unit}"
    return f"{size} B"


def _format_age(called: float) -> str:
    seconds = time.time() - called
    for unit in ("d", "h", "min"):
        if seconds >= SECONDS[unit]:
            return f"{seconds / SECONDS[unit]:.0f} {unit}"
    return f"{seconds:.0f} s"


def _list_fields(entry: Entry) -> dict[str, Any]:
    """A study in a list as JSON values."""
    overview, best = entry.overview, entry.overview.best
    return {
        "name": entry.folder.path.name,
        "path": str(entry.folder.path),
        "tasks": list(overview.tasks),
        "axes": dict(overview.axes or {}),
        "planned": overview.planned,
        "done": overview.done,
        **{status.value: overview.count(status) for status in Status},
        "best": None if best is None else vars(best),
        "bytes": entry.bytes,
        "called": datetime.fromtimestamp(entry.called).astimezone().isoformat(timespec="seconds"),
        "note": overview.note,
        "tags": list(overview.tags),
        "complete": _is_complete(entry),
        "holder": entry.holder,
        "problem": overview.problem,
    }


def verify_studies(paths: Iterable[Path]) -> Iterator[tuple[Path, int | None, str]]:
    """Of each study its folder, the rows of its table, and what was found: `VERIFIED`, or the problem."""
    from runner.storage.manifest import require_manifest
    from runner.storage.recovery import verify_table  # imports pyarrow

    for path in paths:
        folder = Folder(path)
        try:
            manifest = require_manifest(folder.manifest)
            rows = verify_table(folder, recorded=manifest.table_bytes)
        except InvalidInputError as error:
            yield path, None, str(error)
        else:
            yield path, rows, NOT_SUMMED if manifest.table_bytes is None else VERIFIED


def main() -> None:
    """Runs the command. Exit status 2 if there is no such folder or study, 1 if a verified table was changed."""
    run_command(_execute)


def _execute() -> None:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] not in (*COMMANDS, "-h", "--help"):
        arguments = ["list", *arguments]  # the list is what one asks for most
    given = _build_parser().parse_args(arguments)
    given.execute(given)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.studies", description="Finds, shows, compares, verifies, renames and removes studies."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_list(commands)

    def add(name: str, execute: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        command.add_argument(
            "--outputs", default="outputs", type=Path, help="the folder of studies, by default outputs"
        )
        command.set_defaults(execute=execute)
        return command

    showing = add("show", _show, "show a study: values, axes, versions, best points, failures, how to go on")
    showing.add_argument("study", help="its name, or its folder")
    contrasting = add("diff", _diff, "show in what two studies differ, and compare their common runs")
    contrasting.add_argument("first", help="name or folder of a study")
    contrasting.add_argument("second", help="name or folder of another one")
    for command in (showing, contrasting):
        command.add_argument("--json", action="store_true", help="print JSON")
    removing = add("rm", _remove, "remove studies, if no process has them")
    removing.add_argument("studies", nargs="+", help="names, or folders")
    removing.add_argument("--yes", action="store_true", help="do not ask")
    renaming = add("mv", _rename, "rename a study, if no process has it")
    renaming.add_argument("study", help="its name, or its folder")
    renaming.add_argument("name", help="the new name, which no folder beside it has")
    verifying = add("verify", _verify, "compare whole tables with their checksums")
    verifying.add_argument("studies", nargs="*", help="names, or folders; by default all studies in outputs")
    return parser


def _add_list(commands: Any) -> None:
    listing = commands.add_parser("list", help="list the studies in a folder (the default)", epilog=WORDS)
    listing.add_argument("outputs", nargs="?", default="outputs", type=Path, help="the folder, by default outputs")
    listing.add_argument("--task", help="only studies with this task; a pattern such as 'port_*', too")
    listing.add_argument("--tag", help="only studies with this tag, or one that fits a pattern")
    listing.add_argument(
        "--since", help="only those called since then: 2026-11-01, or an age such as 30min, 12h, 7d, 2w"
    )
    listing.add_argument("--unfinished", action="store_true", help="only those with runs to be executed, or damaged")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(execute=_list)


def _list(given: argparse.Namespace) -> None:
    _require_folder(given.outputs)
    since = None if given.since is None else parse_since(given.since, time.time())
    chosen = Filter(given.task, given.tag, since, given.unfinished)
    entries = list(list_entries(given.outputs))
    accepted = [entry for entry in entries if chosen.accepts(entry)]
    if given.json:
        print_json([_list_fields(entry) for entry in accepted])
        return
    terminal.print_rows(HEADER, map(_describe_entry, accepted), prose=PROSE, drop=DROP)
    if len(accepted) < len(entries):
        terminal.print_line(f"{len(accepted):,} of {len(entries):,} studies in {given.outputs}")


def parse_since(text: str, now: float) -> float:
    """The time that a date, or an age, stands for, in seconds since 1970. Raises InvalidInputError for another text."""
    if age := re.fullmatch(r"(\d+(?:\.\d+)?)(min|h|d|w)", text):
        return now - float(age[1]) * SECONDS[age[2]]
    try:
        return datetime.fromisoformat(text).timestamp()  # of the user's time zone, if it names none
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(
            f"--since takes a date such as 2026-11-01, or an age such as 7d, got {text!r}"
        ) from error


def _show(given: argparse.Namespace) -> None:
    from runner.analysis.description import describe_study, list_fields

    entry = read_entry(_find_study(given.outputs, given.study))
    description = describe_study(entry)
    if given.json:
        print_json(list_fields(description))
        return
    terminal.print_rows(("study", description.name), _list_facts(entry, description), prose=(description.name,))
    if any(best.points > 1 and math.isnan(best.corrected) for best in description.best):
        terminal.print_prose(
            "The mean of the best of several points flatters it: runner.compare says what the seeds show."
        )
    for purpose, command in description.commands.items():
        terminal.print_line(f"{purpose}: {command}")


def _list_facts(entry: Entry, found: "Description") -> Iterator[tuple[str, str]]:
    from runner.analysis.description import format_axis, format_commit

    runs = ", ".join(f"{count:,} {status}" for status, count in found.statuses.items())
    yield "state", f"{_tell_state(entry)} ({entry.overview.done:,} of {found.planned:,} runs: {runs or 'none'})"
    yield "last call", f"{found.called} ({_format_age(entry.called)} ago): {found.command}"
    yield from [(name, text) for name, text in (("note", found.note), ("tags", ", ".join(found.tags))) if text]
    sizes = ", ".join(f"{name} {format_bytes(size)}" for name, size in found.sizes.items())
    yield "size", f"{format_bytes(entry.bytes)} ({sizes})"
    if entry.overview.search:
        yield "search by", entry.overview.search
    for task, values in found.constants.items():
        yield f"values of {task}", ", ".join(f"{name}={value}" for name, value in values.items())
    for axis in found.axes:
        yield f"axis {axis.name}", format_axis(axis)
    for best in found.best:
        yield f"best point by {best.metric}", _describe_best(best)
    for reason, count in found.failures.items():
        yield f"failed: {count:,}", reason
    environment = {"python": found.python, **found.versions}
    yield "versions", ", ".join(f"{name} {version}" for name, version in environment.items() if version)
    yield "devices", ", ".join(found.devices)
    for name, value in found.fingerprint.items():
        yield name, str(value)
    for state in found.repositories:
        yield f"repository of {', '.join(state.get('tasks', ()))}", format_commit(state)
    for line in found.accepted:
        yield "accepted", line


def _describe_best(best: "BestPoint") -> str:
    point = " ".join(f"{name}={_format_number(value)}" for name, value in best.point.items())
    interval = "" if math.isnan(best.low) else f" [{best.low:.4g} … {best.high:.4g}]"
    seeds = f"{best.seeds:,} {'run' if best.seeds == 1 else 'runs'}"
    mean = f"{point or 'the only one'}: mean {best.mean:.5g}{interval} over {seeds}"
    if math.isnan(best.corrected):
        return f"{mean}, {best.direction}; {best.points:,} points"
    corrected = f"{best.corrected:.4g} [{best.corrected_low:.4g} … {best.corrected_high:.4g}]"
    return f"{mean}, {best.direction}; corrected for the choice among {best.points:,} points: {corrected}"


def _format_number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _diff(given: argparse.Namespace) -> None:
    from runner.analysis.contrast import contrast_studies

    first, second = (_find_study(given.outputs, name) for name in (given.first, given.second))
    found = contrast_studies(first, second)
    if given.json:
        print_json(_list_contrast(found))
        return
    names = [shorten_path(folder.path) for folder in (first, second)]
    rows = [(each.kind, each.name, _or_none(each.first), _or_none(each.second)) for each in found.entries]
    terminal.print_rows(("what", "name", *names), rows, prose=tuple(names))
    terminal.print_line(f"{found.equal:,} entries are equal")
    _print_common(found)


def _print_common(found: "Contrast") -> None:
    common = found.common
    if common.runs:
        apart = f" apart from {', '.join(common.apart_from)}" if common.apart_from else ""
        terminal.print_line(
            f"{terminal.count_runs(common.runs)} in common{apart}, {common.identical:,} with equal results"
        )
    for name, count in common.differing.items():
        largest = common.largest.get(name, math.nan)
        by = "" if math.isnan(largest) else f", by at most {largest:.3g}"
        terminal.print_line(f"{name} differs in {terminal.count_runs(count)}{by}")
    if found.reason:
        terminal.print_prose(f"no comparison: {found.reason}")
        return
    header = (*found.axes, "metric", "pairs", "second minus first", "interval", "the seeds show")
    rows = [
        [
            *(_format_number(row[axis]) for axis in found.axes),
            *(row["metric"], row["pairs"], f"{row['difference']:.5g}"),
            "" if math.isnan(row["low"]) else f"{row['low']:.4g} … {row['high']:.4g}",
            row["verdict"],
        ]
        for row in found.differences
    ]
    terminal.print_rows(header, rows, prose=("the seeds show",))


def _or_none(text: str | None) -> str:
    return "–" if text is None else text


def _list_contrast(found: "Contrast") -> dict[str, Any]:
    return {
        "studies": found.paths,
        "differing": [{**vars(entry), "kind": str(entry.kind)} for entry in found.entries],
        "equal": found.equal,
        "common": vars(found.common),
        "differences": found.differences,
        "reason": found.reason,
    }


def _remove(given: argparse.Namespace) -> None:
    from runner.storage.lifecycle import remove_studies

    folders = list({folder.path.resolve(): folder for folder in _find_all(given)}.values())
    names = ", ".join(shorten_path(folder.path) for folder in folders)
    if not given.yes and not _confirm(f"remove {names} for good?"):
        terminal.print_line("nothing was removed")
        return
    for removed in remove_studies(folders):
        kept = f"; left there: {', '.join(removed.left)}" if removed.left else ""
        terminal.print_line(f"removed {shorten_path(removed.folder.path)}{kept}")


def _confirm(question: str) -> bool:
    if not sys.stdin.isatty():
        raise InvalidInputError("rm removes studies for good, and there is no terminal to ask: give --yes")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _rename(given: argparse.Namespace) -> None:
    from runner.storage.lifecycle import rename_study

    folder = _find_study(given.outputs, given.study)
    renamed = rename_study(folder, given.name)
    terminal.print_line(f"{shorten_path(folder.path)} is {shorten_path(renamed.path)} now")


def _verify(given: argparse.Namespace) -> None:
    paths = [folder.path for folder in _find_all(given)]
    if not paths:
        _require_folder(given.outputs)
        paths = sorted(path.parent for path in given.outputs.glob("*/study.json"))
    found = list(verify_studies(paths))
    rows = [(path.name, "" if count is None else count, verdict) for path, count, verdict in found]
    terminal.print_rows(("study", "rows", "table"), rows, prose=("table",))
    if any(count is None for _, count, _ in found):
        sys.exit(1)


def _find_all(given: argparse.Namespace) -> list[Folder]:
    return [_find_study(given.outputs, name) for name in given.studies]


def _find_study(outputs: Path, name: str) -> Folder:
    """The folder of a study, given by its name or by its path. Raises InvalidInputError if there is none."""
    for path in (outputs / name, Path(name)):
        if Folder(path).manifest.exists():
            return Folder(path)
    raise InvalidInputError(f"there is no study {name!r} in {outputs}")


def _require_folder(outputs: Path) -> None:
    if not outputs.is_dir():
        raise InvalidInputError(f"there is no folder {outputs}")


def print_json(value: Any) -> None:
    """Prints values as JSON; what is not a number is null."""
    print(json.dumps(_replace_nan(value), indent=1, default=_to_json))


def _replace_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _replace_nan(member) for name, member in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_replace_nan(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _to_json(value: Any) -> Any:
    """A scalar of NumPy as Python has it."""
    return value.item()


if __name__ == "__main__":
    main()

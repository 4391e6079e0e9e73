"""The command `python -m runner.compare`: studies compared across seeds."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from runner import terminal
from runner.analysis.answer import answer, list_lines
from runner.analysis.comparison import Comparison, compare_studies, format_json
from runner.analysis.standings import describe_goal
from runner.analysis.tables import list_aggregates, list_differences, list_estimates, list_standings
from runner.errors import InvalidInputError
from runner.layout import TIE
from runner.output import run_command
from runner.storage.checkpoints import format_replay
from runner.storage.text_cells import encode_text

SHOWN_ROWS = 20

ROOM = 9
"""Characters that a column is not made narrower than, where its cells can be broken between words."""
INTERVALS = "± and brackets: simultaneous {level} intervals over all points of a metric; see --wide, --csv and --html"

compare = compare_studies
"""The Python interface of earlier versions."""


def print_comparison(comparison: Comparison, rows: int = SHOWN_ROWS, *, is_wide: bool = False) -> None:
    """Prints a comparison: for each metric at most so many points by merit, then what a reader has to know, and last
    the answer. Wide ones have all columns.
    """
    for metric in comparison.metrics:
        _print_metric(comparison, metric, rows)
        if is_wide:
            _print_columns(comparison, metric, rows)
    if len(comparison.aggregates):
        terminal.print_line("over all tasks (interquartile mean, bootstrap stratified by task)")
        aggregates = list_aggregates(comparison)
        terminal.print_blocks(aggregates.header, aggregates.rows, len(comparison.axes))
    if len(comparison.points):
        terminal.print_prose(INTERVALS.format(level=f"{100 * comparison.level:g} %"))
    for note in (*comparison.exclusions, *comparison.notes):
        terminal.print_prose(f"note: {note}")
    for study, manifest in zip(comparison.runs.studies, comparison.runs.manifests, strict=True):
        if command := format_replay(study, manifest):
            terminal.print_line(f"keep the best run: {command}")
    _print_answer(comparison)


def _print_metric(comparison: Comparison, metric: str, rows: int) -> None:
    """Prints the points of a metric by merit, in five columns."""
    table = list_standings(comparison, metric)
    if not table.rows:
        return
    notes = [describe_goal(comparison, metric), "" if metric in comparison.primary else "exploratory"]
    terminal.print_line(f"{metric}{''.join(f', {note}' for note in notes if note)}")
    shown = [[_tie(cell) for cell in row] for row in table.rows[:rows]]
    terminal.print_rows(table.header, shown, prose=table.header, room=ROOM)
    for number, note in enumerate(table.footnotes, 1):
        terminal.print_prose(f"[{number}] {note}")
    if len(table.rows) > rows:
        terminal.print_line(f"… {len(table.rows) - rows:,} more rows: --rows, --csv or --html")


def _tie(cell: str) -> str:
    """A cell whose numbers are not separated from their signs at the end of a line."""
    for sign in ("±", "…", "of"):
        cell = cell.replace(f" {sign} ", f"{TIE}{sign}{TIE}")
    return cell


def _print_columns(comparison: Comparison, metric: str, rows: int) -> None:
    """Prints all columns of the points and the differences of a metric."""
    for name, table in (
        ("points", list_estimates(comparison, metric)),
        ("differences", list_differences(comparison, metric)),
    ):
        if table.rows:
            terminal.print_line(f"{metric}: all columns of {name}")
            keys = sum(axis in table.header for axis in comparison.axes)
            terminal.print_blocks(table.header, table.rows[:rows], keys)


def _print_answer(comparison: Comparison) -> None:
    """Prints what was run, what failed, and for each metric the best point, what is shown and what settles it."""
    found = answer(comparison)
    if not found.metrics:
        return
    terminal.print_line("")
    for line in filter(None, (found.ran, found.failed)):
        terminal.print_prose(line)
    for metric in found.metrics:
        for line in list_lines(metric):
            terminal.print_prose(line)
        if metric.command:
            terminal.print_line(f"  {metric.command}")


def _parse_baseline(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    pairs = [pair.partition("=") for pair in shlex.split(text.replace(",", " "))]
    if not pairs or not all(middle for _, middle, _ in pairs):
        raise InvalidInputError(f"the baseline must be axis=value pairs such as 'lr=0.1 hidden=4', got {text!r}")
    return {name: value for name, _, value in pairs}


def _parse_margin(texts: Sequence[str] | None) -> float | dict[str, float] | None:
    """One margin for all metrics, or margins by metric."""
    if texts is None:
        return None
    if len(texts) == 1 and "=" not in texts[0]:
        return _parse_number(texts[0], "--margin")
    pairs = [text.rpartition("=") for text in texts]
    if not all(name for name, _, _ in pairs):
        raise InvalidInputError(f"--margin must be a number, or metric=number pairs, got {' '.join(texts)!r}")
    return {name: _parse_number(value, "--margin") for name, _, value in pairs}


def _parse_bounds(texts: Sequence[str] | None) -> dict[str, tuple[float, float]] | None:
    found = {}
    for text in texts or ():
        name, _, bounds = text.rpartition("=")
        low, comma, high = bounds.partition(",")
        if (
            not name
            or not comma
            or (pair := (_parse_number(low, "--bounds"), _parse_number(high, "--bounds")))[0] >= pair[1]
        ):
            raise InvalidInputError(f"--bounds must be metric=low,high, as accuracy=0,1, got {text!r}")
        found[name] = pair
    return found or None


def _parse_number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InvalidInputError(f"{option}: {text!r} is not a number") from error


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.compare",
        description="Compares studies across their seeds: estimates, and differences to the best point or a baseline.",
    )
    parser.add_argument("studies", nargs="+", type=Path, help="folders of studies, such as outputs/lr_scan")
    _add_questions(parser)
    _add_seeds(parser)
    _add_outputs(parser)
    return parser


def _add_questions(parser: argparse.ArgumentParser) -> None:
    """The options of what is compared with what."""
    parser.add_argument("--metric", action="append", help="an output, or a part of an array: y.mean, y.0 (repeatable)")
    parser.add_argument(
        "--by", action="append", help="an axis that distinguishes points; other axes are pooled (repeatable)"
    )
    parser.add_argument(
        "--baseline", help="the point to compare with, as 'lr=0.1' or 'lr=0.1 hidden=4'; without it, the best one"
    )
    parser.add_argument("--all-pairs", action="store_true", help="compare all points with one another")
    parser.add_argument(
        "--primary", action="append", help="a metric that claims are made of (repeatable); by default all"
    )
    parser.add_argument(
        "--margin", action="append", help="the smallest difference of interest: 0.01, or loss=0.01 (repeatable)"
    )
    parser.add_argument(
        "--failures",
        choices=["drop", "worst", "last"],
        default="drop",
        help="what stands for runs without a finite value",
    )
    parser.add_argument(
        "--bounds",
        action="append",
        help="lowest and highest possible value, as accuracy=0,1: tasks on one scale (repeatable)",
    )
    parser.add_argument("--level", type=float, default=0.95, help="confidence level, by default 0.95")
    parser.add_argument("--filter", help="the runs to compare, as 'lr < 0.1 and seed < 100'")


def _add_seeds(parser: argparse.ArgumentParser) -> None:
    """The options of further seeds."""
    parser.add_argument(
        "--difference",
        metavar="D",
        type=float,
        help="propose the seeds that show a difference of D, where none is shown",
    )
    parser.add_argument(
        "--confirm", metavar="N", type=int, help="run N fresh seeds at the best points only, which are reported alone"
    )
    parser.add_argument(
        "--accept", action="store_true", help="confirm although code, versions or device differ from the study's"
    )


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    """The options of what is printed and written."""
    parser.add_argument("--rows", type=int, default=SHOWN_ROWS, help="most rows of a table to print")
    parser.add_argument("--wide", action="store_true", help="print all columns, in several tables if need be")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    parser.add_argument("--csv", choices=["points", "differences"], help="print one of its tables as CSV")
    parser.add_argument("--figures", action="store_true", help="write figures/ beside the table, as PNG and SVG")
    parser.add_argument("--html", action="store_true", help="write report.html beside the table")


def main() -> None:
    """Runs the command. Exit status 2 after a usage error, and for a damaged study."""
    run_command(_compare)


def _compare() -> None:
    given = _build_parser().parse_args()
    comparison = _compare_as_asked(given)
    if given.confirm is not None:
        from runner.confirm import confirm_best  # it executes runs, and needs JAX

        confirm_best(comparison, given.confirm, accept=given.accept)
        comparison = _compare_as_asked(given)
    _show_comparison(comparison, given)
    _write_files(comparison, given)


def _compare_as_asked(given: argparse.Namespace) -> Comparison:
    return compare_studies(
        given.studies,
        metrics=given.metric,
        by=given.by,
        baseline=_parse_baseline(given.baseline),
        level=given.level,
        keep=given.filter,
        primary=given.primary,
        all_pairs=given.all_pairs,
        margin=_parse_margin(given.margin),
        failures=given.failures,
        bounds=_parse_bounds(given.bounds),
        difference=given.difference,
    )


def _show_comparison(comparison: Comparison, given: argparse.Namespace) -> None:
    if given.json:
        print(format_json(comparison))
    elif given.csv:
        frame: pd.DataFrame = getattr(comparison, given.csv)
        texts = frame.map(lambda value: encode_text(value) if isinstance(value, str) else value)
        print(texts.to_csv(index=False), end="")
    else:
        print_comparison(comparison, given.rows, is_wide=given.wide)


def _write_files(comparison: Comparison, given: argparse.Namespace) -> None:
    folder, is_quiet = comparison.runs.studies[0], given.json or given.csv
    if given.figures:
        from runner.analysis.figures import write_figures  # matplotlib takes a second to import

        paths = write_figures(comparison, folder.path / "figures")
        if not is_quiet:
            terminal.print_line(f"{len(paths)} figures in {folder.path / 'figures'}")
    if given.html:
        from runner.analysis.page.document import write_report

        path = write_report(comparison, folder.report)
        if not is_quiet:
            terminal.print_line(f"the report is {path}")


if __name__ == "__main__":
    main()

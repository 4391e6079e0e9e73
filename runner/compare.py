"""The command `python -m runner.compare`: studies compared across seeds."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from runner import terminal
from runner.analysis.comparison import Comparison, compare_studies, format_json
from runner.analysis.tables import list_aggregates, list_differences, list_estimates
from runner.errors import InvalidInputError
from runner.output import run_command
from runner.storage.checkpoints import format_replay
from runner.storage.text_cells import encode_text

SHOWN_ROWS = 20

PROSE = ("against", "the seeds show", "command")
DROP = (
    *("could show", "interval of P(better)", "interval of P(greater)", "interval of P(improvement)", "effect"),
    *("worst seed", "max", "min", "std", "seeds for 80 % power", "P(better)", "P(greater)", "P(improvement)"),
    *("IQM", "median", "by", "pairs", "p", "against", "runs", "tasks"),
)
"""The columns that are broken into lines, and left out, where there is no room; see `terminal.print_rows`."""
ESTIMATES = (
    "intervals hold for all points of a metric together: Student's t for means, Clopper and Pearson's for successes; "
    "IQM: the mean of the middle half"
)
DIFFERENCES = (
    "p-values and intervals of differences allow for all comparisons; effect: the difference in standard deviations; "
    "could show: the smallest difference that this many pairs show with 80 % power"
)

compare = compare_studies
"""The Python interface of earlier versions."""


def print_comparison(comparison: Comparison, rows: int = SHOWN_ROWS) -> None:
    """Prints the tables of a comparison, at most so many rows of each, and its notes."""
    for metric in comparison.metrics:
        direction = comparison.runs.directions.get(metric)
        terminal.print_line(f"{metric}{f' ({direction})' if direction else ''}")
        for header, lines in (list_estimates(comparison, metric), list_differences(comparison, metric)):
            if lines:
                terminal.print_rows(header, lines[:rows], prose=PROSE, drop=DROP)
            if len(lines) > rows:
                terminal.print_line(f"… {len(lines) - rows:,} more rows: --rows, --csv or --html")
    if len(comparison.aggregates):
        terminal.print_line("over all tasks (interquartile mean, bootstrap stratified by task)")
        terminal.print_rows(*list_aggregates(comparison), prose=PROSE, drop=DROP)
    if len(comparison.points):
        terminal.print_prose(ESTIMATES)
    if len(comparison.differences):
        terminal.print_prose(DIFFERENCES)
    for note in (*comparison.exclusions, *comparison.notes):
        terminal.print_prose(f"note: {note}")
    if comparison.suggestion:
        terminal.print_line(f"to show the smallest observed difference with 80 % power: {comparison.suggestion}")
    for study, manifest in zip(comparison.runs.studies, comparison.runs.manifests, strict=True):
        if command := format_replay(study, manifest):
            terminal.print_line(f"keep the best run: {command}")


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
        epilog=f"{ESTIMATES}. {DIFFERENCES}.",
    )
    parser.add_argument("studies", nargs="+", type=Path, help="folders of studies, such as outputs/lr_scan")
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
    parser.add_argument("--rows", type=int, default=SHOWN_ROWS, help="most rows of a table to print")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    parser.add_argument("--csv", choices=["points", "differences"], help="print one of its tables as CSV")
    parser.add_argument("--figures", action="store_true", help="write figures/ beside the table, as PNG and SVG")
    parser.add_argument("--html", action="store_true", help="write report.html beside the table")
    return parser


def main() -> None:
    """Runs the command. Exit status 2 after a usage error, and for a damaged study."""
    run_command(_compare)


def _compare() -> None:
    given = _build_parser().parse_args()
    comparison = compare_studies(
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
    )
    _show_comparison(comparison, given)
    _write_files(comparison, given)


def _show_comparison(comparison: Comparison, given: argparse.Namespace) -> None:
    if given.json:
        print(format_json(comparison))
    elif given.csv:
        frame: pd.DataFrame = getattr(comparison, given.csv)
        texts = frame.map(lambda value: encode_text(value) if isinstance(value, str) else value)
        print(texts.to_csv(index=False), end="")
    else:
        print_comparison(comparison, given.rows)


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

"""Output in the terminal: results, tables, and progress."""

import json
import math
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from runner.distributions import describe_clash
from runner.jupyter import NotebookProgress, find_display
from runner.layout import LEAST_ROOM, TIE, Column, format_lines, lay_out, measure, stack_rows, wrap_words
from runner.output import fit_message
from runner.plan.texts import escape_controls

if TYPE_CHECKING:  # a summary imports pandas, which a list of studies need not
    from runner.execution.summary import Summary
    from runner.plan import segments
    from runner.plan.segments import Plan

ARRAY_EDGE = 3
"""Elements that are shown at each end of an array."""
SHOWN_METRICS = 4
"""Metrics in a printed summary, so that it fits a wide terminal; the table has all of them."""
SHOWN_CATEGORIES = 3
"""Categories of a point whose runs a printed summary counts."""
UNLIMITED = 100_000
"""The width of a file or a pipe: lines there have whatever length they need."""
NOTEBOOK_COLUMNS = 100
"""The width of a cell's output, which a notebook would wrap within words."""
STDERR = 2
"""The file descriptor of standard error."""
MANY_ROWS = 100
"""Rows of a table that rich lays out; it would take seconds for thousands."""
EMPTY = '""'
"""How an empty category is shown."""


class Advance(Protocol):
    """Advances the progress bar; a note stands behind it."""

    def __call__(self, runs: int, note: str = "") -> None: ...


_is_muted = ContextVar("is_muted", default=False)


@contextmanager
def mute() -> Iterator[None]:
    """Prints nothing on standard output while the context is open; warnings are printed."""
    token = _is_muted.set(True)
    try:
        yield
    finally:
        _is_muted.reset(token)


def open_console() -> Console:
    """A console on standard output; off a terminal, lines have the width of `COLUMNS`, or whatever they need."""
    options: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "quiet": _is_muted.get()}
    terminal = Console(force_jupyter=False, **options)
    if terminal.is_terminal or os.environ.get("COLUMNS", "").isdigit():
        return terminal
    return Console(force_jupyter=False, width=NOTEBOOK_COLUMNS if find_display() else UNLIMITED, **options)


def format_command(words: Sequence[str]) -> str:
    """A command as one would type it."""
    return shlex.join(words)


def format_value(value: Any) -> str:
    """A value as in YAML; floats to six significant digits, since the table on disk has all of them."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(format_value, value))}]"
    is_number = isinstance(value, np.generic) and value.dtype.kind in "fV"  # those of ml_dtypes are no np.floating
    return f"{float(value):.6g}" if is_number or isinstance(value, float) else str(value)


def format_array(values: np.ndarray) -> str:
    """The first and the last elements of an array, and its shape."""
    flat = values.reshape(-1)
    if flat.size > 2 * ARRAY_EDGE:
        parts = [*map(format_value, flat[:ARRAY_EDGE]), "…", *map(format_value, flat[-ARRAY_EDGE:])]
    else:
        parts = [*map(format_value, flat)]
    return f"[{', '.join(parts)}] ({format_shape(values.shape)})"


def format_shape(shape: Sequence[int]) -> str:
    """A shape as `4×3`."""
    return "×".join(map(str, shape))


def print_results(plan: "Plan", summary: "Summary", last: Mapping[str, np.ndarray] | None) -> None:
    """Prints a single run with its values, or the points of a sweep; `last` are the outputs of the last block."""
    if plan.runs == 1 and last is not None:
        print_run(plan.segments[0], last)
    else:
        print_summary(summary)


def print_run(segment: "segments.Segment", outputs: Mapping[str, np.ndarray]) -> None:
    """Prints the values and the outputs of a single run."""
    cells = {"task": segment.task.name, **segment.list_values()}
    results = {n: format_array(rows[0]) if rows.ndim > 1 else format_value(rows[0]) for n, rows in outputs.items()}
    values = {name: _describe_value(value) for name, value in cells.items()} | results
    print_columns([_make_column(name, [str(value)]) for name, value in values.items()])


def _describe_value(value: Any) -> str:
    """A value as a YAML has it."""
    return json.dumps(value) if value is None or isinstance(value, bool | tuple) else str(value)


def print_summary(summary: "Summary") -> None:
    """Prints for each point its runs, categories, and of the first metrics mean, 95 % interval and deviation.

    The interval is Student's, which needs only the moments that the summary has.
    """
    labels = [summary.points.label(number) for number in range(len(summary.runs))]
    names = list(dict.fromkeys(key for label in labels for key in label))
    columns = [
        _make_column(name, [format_value(label.get(name, "")) for label in labels], is_right=name != "task")
        for name in names
    ]
    columns.append(_make_column("runs", list(map(str, summary.runs)), is_right=True))
    for name, counts in summary.categories.items():
        columns.append(_make_column(name, list(map(_count_categories, counts)), is_prose=True))
    shown = min(len(summary.metrics), SHOWN_METRICS)
    columns += [column for j in range(shown) for column in _list_moments(summary, j)]
    print_columns(columns)
    means = {name.removesuffix(".mean") for name in summary.metrics[:shown] if name not in summary.arrays}
    if more := [*summary.metrics[shown:], *(name for name in summary.arrays if name not in means)]:
        print_line(f"in the table only: {', '.join(more)}")
    left = summary.points.count - len(labels)
    if left:
        print_line(f"… {left:,} more points, all in the table")


def _list_moments(summary: "Summary", j: int) -> list[Column]:
    """The columns of a metric; where there is no room, deviations are left out first, then the last metrics."""
    metric, count, mean, deviation = (
        summary.metrics[j],
        summary.count[:, j],
        summary.mean[:, j],
        summary.deviation[:, j],
    )
    halves = [f"{_half_width(int(n)) * d:.2g}" if n > 1 else "" for n, d in zip(count, deviation, strict=True)]
    name = metric if metric.rpartition(".")[2] == "mean" else f"{metric} mean"
    moments = [
        (name, [_estimate(value, n > 0) for value, n in zip(mean, count, strict=True)], j),
        (f"±{TIE}95{TIE}%", halves, j or 1),
        ("std", [_estimate(value, n > 1) for value, n in zip(deviation, count, strict=True)], SHOWN_METRICS + j),
    ]
    columns = [_make_column(name, cells, is_right=True, drop=drop) for name, cells, drop in moments]
    values = summary.values[:, j]
    if (count < values).any():
        known = [str(int(n)) if given else "" for n, given in zip(count, values, strict=True)]
        columns.append(_make_column("finite", known, is_right=True, drop=j))
    return columns


def _count_categories(counts: Mapping[str, int]) -> str:
    """How many runs have which category, the most frequent first, then by name."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{category or EMPTY} {count}" for category, count in ranked[:SHOWN_CATEGORIES]]
    return ", ".join([*shown, *(["…"] if len(ranked) > SHOWN_CATEGORIES else [])])


def _half_width(count: int) -> float:
    """Half the width of a 95 % interval of the mean, in standard deviations of the values."""
    from scipy.special import stdtrit  # takes a tenth of a second, which only a sweep needs

    return float(stdtrit(count - 1, 0.975)) / math.sqrt(count) if count > 1 else math.nan


def _estimate(value: float, known: bool) -> str:
    return format_value(float(value)) if known else ""


def print_rows(
    header: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    prose: Sequence[str] = (),
    drop: Sequence[str] = (),
    room: int = LEAST_ROOM,
) -> None:
    """Prints a table, such as the groups of a plan.

    Where there is no room, the columns of `prose` are broken between words, down to `room` characters, and those of
    `drop` are left out, the first one first.
    """
    texts = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    order = {name: len(drop) - i for i, name in enumerate(drop)}
    print_columns(
        [
            _make_column(name, [row[i] for row in texts], is_prose=name in prose, drop=order.get(name, 0), room=room)
            for i, name in enumerate(header)
        ]
    )


def print_blocks(header: Sequence[str], rows: Sequence[Sequence[str]], keys: int) -> None:
    """Prints all columns of a table: as several tables that fit the width, each with the first `keys` columns."""
    columns = [_make_column(name, [row[i] for row in rows]) for i, name in enumerate(header)]
    blocks: list[list[Column]] = [[]]
    for column in columns[keys:]:
        if blocks[-1] and measure([*columns[:keys], *blocks[-1], column]) > open_console().width:
            blocks.append([])
        blocks[-1].append(column)
    for block in blocks:
        print_columns([*columns[:keys], *block])


def print_preview(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints the groups of a plan, and what its words mean."""
    print_rows(header, rows, prose=("static", "inputs", "bytes"), drop=("blocks", "block", "lanes"))
    print_prose("lanes: runs executed side by side; block: the most runs in one call; bytes: an estimate of the memory")


def print_columns(columns: Sequence[Column]) -> None:
    """Prints a table as far as its columns fit, and says which ones do not."""
    console = open_console()
    layout = lay_out(columns, console.width)
    if layout.is_stacked:
        for i, pair in enumerate(stack_rows(columns, console.width)):
            console.print(end="\n" if i else "")
            _print_table(console, pair, has_header=False)
        return
    _print_table(console, layout.columns)
    if layout.left_out:
        names = ", ".join(dict.fromkeys(layout.left_out)).replace(TIE, " ")
        print_prose(f"left out at this width: {names}; COLUMNS={layout.needed} or a wider terminal shows them")


def _make_column(
    name: str,
    cells: Sequence[str],
    *,
    is_right: bool = False,
    is_prose: bool = False,
    drop: int = 0,
    room: int = LEAST_ROOM,
) -> Column:
    return Column(escape_controls(name), tuple(map(escape_controls, cells)), is_right, is_prose, drop, room)


def _print_table(console: Console, columns: Sequence[Column], *, has_header: bool = True) -> None:
    """Prints a table without the blanks that would fill its lines."""
    if columns and len(columns[0].cells) > MANY_ROWS:
        console.print(Text("\n".join(format_lines(columns))), soft_wrap=True)
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, show_header=has_header)
    for column in columns:
        table.add_column(
            Text(column.name.replace(TIE, " ")), justify="right" if column.is_right else "left", no_wrap=True
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell.replace(TIE, " ")) for cell in cells))
    wide = console.options.update(width=max(console.width, measure(columns)))
    for line in console.render_lines(table, wide, pad=False):
        console.print(Segments([*_strip_line(line), Segment.line()]), end="", soft_wrap=True)


def _strip_line(line: Sequence[Segment]) -> list[Segment]:
    kept = list(line)
    while kept and not kept[-1].text.strip():
        kept.pop()
    if kept:
        kept[-1] = Segment(kept[-1].text.rstrip(), kept[-1].style)
    return kept


def count_runs(count: int) -> str:
    """A number of runs with its noun."""
    return f"{count:,} {'run' if count == 1 else 'runs'}"


def print_line(line: str) -> None:
    """Prints a line without wrapping it, so that a path in it can be copied."""
    open_console().print(Text(escape_controls(line)), soft_wrap=True)


def print_prose(text: str) -> None:
    """Prints a sentence in lines that fit the terminal, broken between words."""
    console = open_console()
    console.print(Text(wrap_words(escape_controls(text), console.width)), soft_wrap=True)


def print_warning(line: str) -> None:
    """Prints a line on standard error about something that is not as it should be, and does not matter to results."""
    with suppress(OSError):
        print(fit_message(f"warning: {line}"), file=sys.stderr)  # a progress bar takes it, and moves below it


def warn_of_clash() -> None:
    """Prints a line if another distribution has replaced files of Seedbed, or may have: it explains what fails."""
    if line := describe_clash():
        print_warning(line)


def print_at_once(line: str) -> None:
    """Prints a line on standard error from the handler of a signal, which may interrupt another print.

    It does not use the stream, which is not reentrant. On a terminal the cursor is shown again, which a progress bar
    has hidden: the next signal may end the process without another word. A notebook shows only what goes to the stream.
    """
    if find_display():
        print(line, file=sys.stderr)
        return
    text = f"\r\x1b[K{line}\n\x1b[?25h" if os.isatty(STDERR) else f"{line}\n"
    with suppress(OSError):
        os.write(STDERR, text.encode())


class RunsPerSecond(ProgressColumn):
    """The rate of a progress bar."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} runs/s" if task.speed else "")


@contextmanager
def show_progress(runs: int) -> Iterator[Advance]:
    """Shows a bar with runs per second and remaining time, on a terminal and in a notebook; yields its `advance`."""
    if runs and (display := find_display()) and not _is_muted.get():
        yield NotebookProgress(runs, display).advance
        return
    err = Console(stderr=True, force_jupyter=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RunsPerSecond(),
        TimeRemainingColumn(),
    )
    is_shown = err.is_terminal and bool(runs) and not _is_muted.get()
    with Progress(*columns, console=err, disable=not is_shown, transient=True) as bar:
        task = bar.add_task("runs", total=runs)

        def advance(runs: int, note: str = "") -> None:
            bar.update(task, advance=runs, description=f"runs  {note}" if note else "runs")

        yield advance

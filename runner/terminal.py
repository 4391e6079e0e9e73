"""Output in the terminal: results, tables, and progress."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from runner.execution.summary import Summary
from runner.plan.segments import Plan, Segment

ARRAY_EDGE = 3
"""Elements that are shown at each end of an array."""
SHOWN_METRICS = 4
"""Metrics in a printed summary, so that it fits a wide terminal; the table has all of them."""
SHOWN_CATEGORIES = 3
"""Categories of a point whose runs a printed summary counts."""
EMPTY = '""'
"""How an empty category is shown."""


class Advance(Protocol):
    """Advances the progress bar."""

    def __call__(self, runs: int) -> None: ...


def open_console() -> Console:
    """A console on standard output; off a terminal, lines have whatever length they need."""
    terminal = Console(highlight=False)
    return terminal if terminal.is_terminal else Console(highlight=False, width=1000)


def format_value(value: Any) -> str:
    """A value as in YAML; floats to six significant digits, since the table on disk has all of them."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(format_value, value))}]"
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)


def format_array(values: np.ndarray) -> str:
    """The first and the last elements of an array, and its shape."""
    flat = values.reshape(-1)
    if flat.size > 2 * ARRAY_EDGE:
        parts = [*map(format_value, flat[:ARRAY_EDGE]), "…", *map(format_value, flat[-ARRAY_EDGE:])]
    else:
        parts = [*map(format_value, flat)]
    shape = "×".join(map(str, values.shape))
    return f"[{', '.join(parts)}] ({shape})"


def print_results(plan: Plan, summary: Summary, last: Mapping[str, np.ndarray] | None) -> None:
    """Prints a single run with its values, or the points of a sweep; `last` are the outputs of the last block."""
    if plan.runs == 1 and last is not None:
        print_run(plan.segments[0], last)
    else:
        print_summary(summary)


def print_run(segment: Segment, outputs: Mapping[str, np.ndarray]) -> None:
    """Prints the values and the outputs of a single run."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    shapes = {f"{name}.shape": list(value.shape) for name, value in segment.inputs.items()}
    for name in ("task", *segment.traced, *segment.static, *shapes, *outputs):
        table.add_column(name, overflow="fold")
    values = [*segment.traced.values(), *segment.static.values(), *shapes.values()]
    results = [format_array(rows[0]) if rows.ndim > 1 else format_value(rows[0]) for rows in outputs.values()]
    table.add_row(*map(Text, [segment.task.name, *map(str, values), *results]))
    open_console().print(table)


def print_summary(summary: Summary) -> None:
    """Prints for each point its runs, categories, and of the first metrics mean, 95 % interval and deviation.

    The interval is Student's, which needs only the moments that the summary has.
    """
    labels = [summary.points.label(number) for number in range(len(summary.runs))]
    names = list(dict.fromkeys(key for label in labels for key in label))
    nonfinite = [bool(column.any()) for column in (summary.count < summary.values).T]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for name in [*names, "runs"]:
        table.add_column(name, justify="left" if name == "task" else "right")
    for name in summary.categories:
        table.add_column(name)
    shown = range(min(len(summary.metrics), SHOWN_METRICS))
    for j in shown:
        metric = summary.metrics[j]
        table.add_column(f"{metric} mean", justify="right")
        table.add_column("± 95 %", justify="right")
        table.add_column("std", justify="right")
        if nonfinite[j]:
            table.add_column("finite", justify="right")
    for i, label in enumerate(labels):
        cells = [format_value(label.get(name, "")) for name in names] + [str(summary.runs[i])]
        cells += [_count_categories(counts[i]) for counts in summary.categories.values()]
        for j in shown:
            known = int(summary.count[i, j])
            half = _half_width(known) * summary.deviation[i, j]
            cells += [_estimate(summary.mean[i, j], known > 0), f"{half:.2g}" if known > 1 else ""]
            cells += [_estimate(summary.deviation[i, j], known > 1)]
            cells += [str(known) if summary.values[i, j] else ""] if nonfinite[j] else []
        table.add_row(*map(Text, cells))
    out = open_console()
    out.print(table)
    if more := (*summary.metrics[len(shown) :], *summary.arrays):
        out.print(f"in the table only: {', '.join(more)}")
    left = summary.points.count - len(labels)
    if left:
        out.print(f"… {left:,} more points, all in the table")


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


def print_rows(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints a table, such as the groups of a plan."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else str(cell)) for cell in row))
    open_console().print(table)


def count_runs(count: int) -> str:
    """A number of runs with its noun."""
    return f"{count:,} {'run' if count == 1 else 'runs'}"


def print_line(line: str) -> None:
    """Prints a line without wrapping it, so that a path in it can be copied."""
    open_console().print(Text(line), soft_wrap=True)


def print_warning(line: str) -> None:
    """Prints a line on standard error about something that is not as it should be, and does not matter to results."""
    Console(stderr=True, highlight=False).print(Text(f"warning: {line}"), soft_wrap=True)


class RunsPerSecond(ProgressColumn):
    """The rate of a progress bar."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} runs/s" if task.speed else "")


@contextmanager
def show_progress(runs: int) -> Iterator[Advance]:
    """Shows a bar with runs per second and remaining time, on a terminal only; yields the function to advance it."""
    err = Console(stderr=True)
    columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), RunsPerSecond(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as bar:
        task = bar.add_task("runs", total=runs)

        def advance(runs: int) -> None:
            bar.advance(task, runs)

        yield advance

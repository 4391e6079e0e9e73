"""What the user sees in the terminal."""

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
from runner.plan.study import Plan, Segment

ARRAY_EDGE = 3
"""Elements of an array that are shown at each end."""
SHOWN_METRICS = 4
"""Metrics of a printed summary, so that it fits a wide terminal; all of them are in the table."""
SHOWN_CATEGORIES = 3
"""Words of a point that a printed summary counts."""
EMPTY = '""'
"""How it shows a word without letters."""


class Advance(Protocol):
    """Moves the progress bar on."""

    def __call__(self, runs: int) -> None: ...


def console() -> Console:
    """Standard output; without a terminal lines are as long as they need to be."""
    terminal = Console(highlight=False)
    return terminal if terminal.is_terminal else Console(highlight=False, width=1000)


def text(value: Any) -> str:
    """A value as a YAML would have it; floats to six significant digits, for the table on disk has all of them."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(text, value))}]"
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)


def array(values: np.ndarray) -> str:
    """The ends of an array, and its shape."""
    flat = values.reshape(-1)
    if flat.size > 2 * ARRAY_EDGE:
        parts = [*map(text, flat[:ARRAY_EDGE]), "…", *map(text, flat[-ARRAY_EDGE:])]
    else:
        parts = [*map(text, flat)]
    shape = "×".join(map(str, values.shape))
    return f"[{', '.join(parts)}] ({shape})"


def print_results(plan: Plan, summary: Summary, last: Mapping[str, np.ndarray] | None) -> None:
    """A single run with its values, or the points of a sweep; `last` are the outputs of the last block."""
    if plan.runs == 1 and last is not None:
        print_run(plan.study.segments[0], last)
    else:
        print_summary(summary)


def print_run(segment: Segment, outputs: Mapping[str, np.ndarray]) -> None:
    """The values of a single run and what came out."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    shapes = {f"{name}.shape": list(value.shape) for name, value in segment.inputs.items()}
    for name in ("task", *segment.traced, *segment.static, *shapes, *outputs):
        table.add_column(name, overflow="fold")
    values = [*segment.traced.values(), *segment.static.values(), *shapes.values()]
    results = [array(rows[0]) if rows.ndim > 1 else text(rows[0]) for rows in outputs.values()]
    table.add_row(*map(Text, [segment.task.name, *map(str, values), *results]))
    console().print(table)


def print_summary(summary: Summary) -> None:
    """Per point the count, the words, and of the first metrics the mean with its 95 % interval and the deviation.

    The interval is Student's, for it needs no more than the moments that were gathered.
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
        cells = [text(label.get(name, "")) for name in names] + [str(summary.runs[i])]
        cells += [_counted(counts[i]) for counts in summary.categories.values()]
        for j in shown:
            known = int(summary.count[i, j])
            half = _half(known) * summary.deviation[i, j]
            cells += [_estimate(summary.mean[i, j], known > 0), f"{half:.2g}" if known > 1 else ""]
            cells += [_estimate(summary.deviation[i, j], known > 1)]
            cells += [str(known) if summary.values[i, j] else ""] if nonfinite[j] else []
        table.add_row(*map(Text, cells))
    out = console()
    out.print(table)
    if more := (*summary.metrics[len(shown) :], *summary.arrays):
        out.print(f"in the table only: {', '.join(more)}")
    left = summary.points.count - len(labels)
    if left:
        out.print(f"… {left:,} more points, all in the table")


def _counted(words: Mapping[str, int]) -> str:
    """How many runs have which word, the most frequent first: the same whatever the order of the runs."""
    ranked = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{word or EMPTY} {count}" for word, count in ranked[:SHOWN_CATEGORIES]]
    return ", ".join([*shown, *(["…"] if len(ranked) > SHOWN_CATEGORIES else [])])


def _half(count: int) -> float:
    """Half of a 95 % interval of the mean, in standard deviations of the values."""
    from scipy.special import stdtrit  # a tenth of a second, which only a sweep has to spend

    return float(stdtrit(count - 1, 0.975)) / math.sqrt(count) if count > 1 else math.nan


def _estimate(value: float, known: bool) -> str:
    return text(float(value)) if known else ""


def print_rows(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table of any kind, such as the groups of a plan."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else str(cell)) for cell in row))
    console().print(table)


def runs(count: int) -> str:
    """So many runs, in words."""
    return f"{count:,} {'run' if count == 1 else 'runs'}"


def say(line: str) -> None:
    """A line that is never wrapped, so that a path in it can be copied."""
    console().print(Text(line), soft_wrap=True)


class RunsPerSecond(ProgressColumn):
    """The speed of a progress bar."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} runs/s" if task.speed else "")


@contextmanager
def progress(runs: int) -> Iterator[Advance]:
    """A bar with runs per second and the time that remains, on a terminal only."""
    err = Console(stderr=True)
    columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), RunsPerSecond(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as bar:
        task = bar.add_task("runs", total=runs)

        def advance(runs: int) -> None:
            bar.advance(task, runs)

        yield advance

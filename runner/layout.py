"""The layout of a table in a terminal: which columns fit its width. A number or a name is never broken."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest

from rich.cells import cell_len

PADDING = 1
GAP = 3
"""Blanks around a table, and between two of its columns."""
TIE = "\u00a0"
"""Stands for a blank between words that stay in one line."""
LEAST_ROOM = 20
"""The least width of prose, unless it is shorter, or the column has another one."""


@dataclass(frozen=True)
class Column:
    """A column of texts.

    Lines of its name, and of its cells if they are prose, are broken between words where there is no room, down to the
    width `room`. `drop` orders the columns that may be left out, the highest first; 0 is never left out.
    """

    name: str
    cells: tuple[str, ...]
    is_right: bool = False
    is_prose: bool = False
    drop: int = 0
    room: int = LEAST_ROOM

    @cached_property
    def width(self) -> int:
        return max(cell_len(line) for text in (self.name, *self.cells) for line in text.split("\n"))

    @property
    def least_width(self) -> int:
        words = [word for text in (self.name, *(self.cells if self.is_prose else ())) for word in _split(text)]
        cells = max(map(cell_len, self.cells), default=0)
        least = min(cells, self.room) if self.is_prose else cells
        return max(least, *map(cell_len, words), 0)

    def wrap(self, width: int) -> "Column":
        """The column with lines of at most this width, as far as its words allow."""
        cells = tuple(wrap_words(cell, width) for cell in self.cells) if self.is_prose else self.cells
        return replace(self, name=wrap_words(self.name, width), cells=cells)


@dataclass(frozen=True)
class Layout:
    """The columns that are shown, and the names of those that are left out; `needed` is the width of all of them.

    `is_stacked` asks for a line for each cell, because not even the columns that are never left out fit.
    """

    columns: tuple[Column, ...]
    left_out: tuple[str, ...] = ()
    needed: int = 0
    is_stacked: bool = False


def lay_out(columns: Sequence[Column], width: int) -> Layout:
    """The layout of a table in a terminal of some width.

    Lines are broken between words first, then columns are left out, and at last the rows are stacked.
    """
    shown, needed = tuple(columns), measure(columns)
    if needed <= width:
        return Layout(shown, needed=needed)
    while _measure_least(shown) > width:
        worst = max(column.drop for column in shown)
        if worst == 0:
            return Layout(tuple(columns), needed=needed, is_stacked=True)
        shown = tuple(column for column in shown if column.drop != worst)
    left_out = tuple(column.name for column in columns if column not in shown)
    return Layout(_shrink(shown, width), left_out, needed)


def measure(columns: Sequence[Column]) -> int:
    """The width of a table without a line broken."""
    return sum(column.width for column in columns) + _measure_gaps(columns)


def _measure_least(columns: Sequence[Column]) -> int:
    return sum(column.least_width for column in columns) + _measure_gaps(columns)


def _measure_gaps(columns: Sequence[Column]) -> int:
    return GAP * (len(columns) - 1) + 2 * PADDING


def stack_rows(columns: Sequence[Column], width: int) -> list[tuple[Column, Column]]:
    """For each row a table of two columns, the names of the columns and the cells of the row."""
    names = tuple(column.name for column in columns)
    room = max(LEAST_ROOM, width - max(map(cell_len, names), default=0) - GAP - 2 * PADDING)
    rows = zip(*(column.cells for column in columns), strict=True)
    return [(Column("", names), Column("", row, is_prose=True).wrap(room)) for row in rows]


def wrap_words(text: str, width: int) -> str:
    """The text in lines of at most this width, broken between words only."""
    lines: list[str] = []
    for word in _split(text):
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


def format_lines(columns: Sequence[Column]) -> Iterator[str]:
    """The lines of a table as rich prints it, without styles, and without blanks at their ends."""
    widths = [column.width for column in columns]
    yield from _format_row([column.name.replace(TIE, " ") for column in columns], columns, widths)
    yield "─" * measure(columns)
    for cells in zip(*(column.cells for column in columns), strict=True):
        yield from _format_row(cells, columns, widths)


def _format_row(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> Iterator[str]:
    for parts in zip_longest(*(cell.split("\n") for cell in cells), fillvalue=""):
        padded = []
        for part, column, width in zip(parts, columns, widths, strict=True):
            blanks = " " * (width - cell_len(part))
            padded.append(blanks + part if column.is_right else part + blanks)
        yield (" " * PADDING + (" " * GAP).join(padded)).rstrip()


def _split(text: str) -> list[str]:
    return [word for word in text.replace("\n", " ").split(" ") if word]


def _shrink(columns: tuple[Column, ...], width: int) -> tuple[Column, ...]:
    """The columns, those with the most room to give broken into lines until all of them fit."""
    while (excess := measure(columns) - width) > 0:
        spare = [column.width - column.least_width for column in columns]
        place = spare.index(max(spare))
        less = min(excess, -(-spare[place] // 2))
        columns = (*columns[:place], columns[place].wrap(columns[place].width - less), *columns[place + 1 :])
    return columns

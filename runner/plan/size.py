"""The size of a plan, known by multiplication before anything of it is composed or expanded, and its limits."""

from dataclasses import dataclass

from runner.errors import InvalidInputError

MOST_RUNS = 1_000_000_000
MOST_PROGRAMS = 10_000
"""A program takes about a second to compile."""
MOST_SEGMENTS = 100_000
"""Combinations of values that are not traced, each of which is checked by itself, in about a millisecond."""
MOST_VALUES = 10_000_000
"""Values of an axis that are held in memory, which takes some microseconds each; a range of seeds is not expanded."""
RUN_NUMBERS = 2**63
"""Runs are numbered in int64; nothing permits more."""

CELL_BYTES = 10
"""What a number takes in the table with its comma: float32 has up to 9 digits, and often fewer."""


@dataclass(frozen=True)
class PlanSize:
    """How many runs, programs, segments and expanded values a plan has at most, and the cells of a row.

    An array counts as one cell, because its shape is not known before the task is traced.
    """

    runs: int
    programs: int
    segments: int
    values: int
    cells: int

    @property
    def table_bytes(self) -> int:
        """An estimate of the size of the table: 10 bytes for each cell."""
        return self.runs * self.cells * CELL_BYTES


def check_size(size: PlanSize, *, large: bool) -> None:
    """Raises InvalidInputError for a plan that exceeds a limit and is not permitted to be `large`."""
    limits = [
        (size.runs, MOST_RUNS, "runs"),
        (size.programs, MOST_PROGRAMS, "programs"),
        (size.segments, MOST_SEGMENTS, "combinations of values that are neither floats nor seeds"),
        (size.values, MOST_VALUES, "values of ranges or lists of floats"),
    ]
    table = f"{size.runs:,} runs, about {format_bytes(size.table_bytes)} of results.csv"
    if size.runs >= RUN_NUMBERS:
        raise InvalidInputError(f"the sweep has {table}; a study has fewer than 2**63 runs")
    for count, limit, noun in limits:
        if count > limit and not large:
            given = table if noun == "runs" else f"{count:,} {noun} ({table})"
            raise InvalidInputError(f"the sweep has {given}; more than {limit:,} need large=true")


def format_bytes(count: int) -> str:
    """A number of bytes to three digits, such as `53.2 GB`."""
    units = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")
    power = min(len(units) - 1, (len(str(count)) - 1) // 3)
    return f"{count / 1000**power:.3g} {units[power]}" if count < 10**21 else f"{count // 10**18:,} EB"

"""The tables of a comparison as text: short ones of five columns by merit, and full ones."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from runner.analysis.comparison import Comparison
from runner.analysis.formats import format_estimate, format_p, format_value
from runner.analysis.standings import rank_points

POINT, MEAN, DIFFERENCE, VERDICT, SEEDS = "point", "mean ± interval", "difference", "verdict", "seeds"
STANDINGS = (POINT, MEAN, DIFFERENCE, VERDICT, SEEDS)
"""The columns of a short table."""
COMMANDS = ("command",)
"""Columns that a full table leaves out: they are printed once, below."""
P_VALUES = ("p", "p_adjusted")
"""Columns that are written as p-values."""
COUNTS = ("seeds_needed",)
"""Columns of whole numbers that are floats where some are missing."""


@dataclass(frozen=True)
class Table:
    """A table of texts with its footnotes, which are numbered from 1 in its verdicts.

    `keys` has the numbers by which the rows of each column are sorted, or None for columns of text.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    keys: tuple[Sequence[float] | None, ...] = ()
    footnotes: tuple[str, ...] = ()


def list_standings(comparison: Comparison, metric: str) -> Table:
    """The points of a metric by merit, with five columns each.

    What a verdict has to say beyond its word is a footnote, once for all rows with the same text.
    """
    rows = rank_points(comparison, metric)
    footnotes: dict[str, int] = {}
    lines = [_list_standing(row, footnotes) for row in rows.to_dict("records")]
    keys: list[Sequence[float] | None] = [None] * len(STANDINGS)
    for name, column in ((MEAN, "mean"), (DIFFERENCE, "difference"), (SEEDS, "finished")):
        if len(rows):
            keys[STANDINGS.index(name)] = rows[column].astype(float).tolist()
    return Table(STANDINGS, tuple(lines), tuple(keys), tuple(footnotes))


def _list_standing(row: Mapping[str, Any], footnotes: dict[str, int]) -> tuple[str, ...]:
    estimate = format_estimate(row["mean"], row["low"], row["high"]) or "no finite value"
    difference = format_estimate(row["difference"], row["difference_low"], row["difference_high"], is_signed=True)
    return row["name"], estimate, difference, _give_verdict(row, footnotes), _count_seeds(row, footnotes)


def _give_verdict(row: Mapping[str, Any], footnotes: dict[str, int]) -> str:
    """The word of the conclusion; with the number of a footnote, if the verdict says more."""
    if not isinstance(row["conclusion"], str):
        return "best" if row["is_best"] else ""
    word = row["conclusion"]
    return word if row["verdict"] == word else _add_footnote(word, row["verdict"], footnotes)


def _add_footnote(text: str, note: str, footnotes: dict[str, int]) -> str:
    return f"{text} [{footnotes.setdefault(note, len(footnotes) + 1)}]"


def _count_seeds(row: Mapping[str, Any], footnotes: dict[str, int]) -> str:
    """The seeds of a point that have a finite value; what is the matter with the others is a footnote."""
    finite = int(row["finished"] - row["nonfinite"])
    parts = [f"{int(row['failed']):,} failed"] if row["failed"] else []
    parts += [f"{int(row['nonfinite']):,} not finite"] if row["nonfinite"] else []
    pending = int(row["seeds"] - row["finished"] - row["failed"])
    parts += [f"{pending:,} pending"] if pending > 0 else []
    return (
        _add_footnote(f"{finite:,} of {int(row['seeds']):,}", ", ".join(parts), footnotes) if parts else f"{finite:,}"
    )


def list_estimates(comparison: Comparison, metric: str) -> Table:
    """All columns of one metric's points, in the order of the tables."""
    return _list_frame(comparison.points, metric)


def list_differences(comparison: Comparison, metric: str) -> Table:
    """All columns of one metric's differences."""
    return _list_frame(comparison.differences, metric)


def list_aggregates(comparison: Comparison) -> Table:
    """The aggregates over all tasks."""
    return _make_table(comparison.aggregates)


def _list_frame(frame: pd.DataFrame, metric: str) -> Table:
    rows = frame[frame["metric"] == metric] if len(frame) else frame
    return _make_table(rows.drop(columns=["metric", *COMMANDS], errors="ignore"))


def _make_table(frame: pd.DataFrame) -> Table:
    """A table of a frame, without the columns that have nothing in any row."""
    frame = frame[[name for name in frame if not _is_empty(frame[name])]]
    header = tuple(str(name) for name in frame)
    rows = tuple(tuple(_format_cell(name, value) for name, value in row.items()) for row in frame.to_dict("records"))
    keys = tuple(frame[name].tolist() if _is_number(frame[name]) else None for name in frame)
    return Table(header, rows, keys)


def _is_empty(column: pd.Series) -> bool:
    return bool((column.isna() | (column.astype(str) == "")).all())


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _format_cell(name: Any, value: Any) -> str:
    if name in COUNTS and isinstance(value, float) and not math.isnan(value):
        return f"{int(value):,}"
    return format_p(value) if name in P_VALUES and isinstance(value, float) else format_value(value)

"""`programs.csv`: what each group is and what it cost, which may differ between two executions of a study."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from runner.errors import InvalidInputError
from runner.storage.text_cells import decode_text, encode_text

COLUMNS = (
    *("group", "task", "static", "inputs", "runs", "failed", "lanes", "block", "devices", "bytes"),
    *("cache_hit", "compile_seconds", "run_seconds", "runs_per_second", "reason"),
    *("verified", "differing", "largest_difference", "largest_relative_difference", "differing_output"),
)


def format_programs(rows: Iterable[Sequence[Any]]) -> str:
    """The text of `programs.csv`, a row of `COLUMNS` for each group."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([encode_text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return out.getvalue()


def join_programs(text: str, more: str) -> str:
    """Two texts of `programs.csv` as one; the first may be empty."""
    if not text or text.partition("\n")[0] == more.partition("\n")[0]:
        return text + more.partition("\n")[2] if text else more
    tables = [list(csv.DictReader(io.StringIO(part))) for part in (text, more)]  # of two versions
    return format_programs([row.get(name, "") for name in COLUMNS] for table in tables for row in table)


def read_programs(path: Path) -> list[list[str]]:
    """The rows of `programs.csv`, the header first; none if there is no file.

    Raises InvalidInputError for a damaged one.
    """
    try:
        rows = list(csv.reader(io.StringIO(path.read_text()))) if path.exists() else []
    except (ValueError, csv.Error, OSError) as error:
        raise InvalidInputError(f"{path} is damaged ({error}); delete it") from error
    if any(len(row) != len(rows[0]) for row in rows):
        raise InvalidInputError(
            f"{path} is damaged: its rows do not have the {len(rows[0])} cells of its header; delete it"
        )
    return [[decode_text(cell) for cell in row] for row in rows]

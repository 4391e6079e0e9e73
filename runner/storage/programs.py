"""`programs.csv`: what each group is and what it cost, which may differ between two executions of a study."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

COLUMNS = (
    *("group", "task", "static", "inputs", "runs", "failed", "lanes", "block", "devices", "bytes"),
    *("cache_hit", "compile_seconds", "run_seconds", "runs_per_second", "reason"),
)


def format_programs(rows: Iterable[Sequence[Any]]) -> str:
    """The text of `programs.csv`, a row of `COLUMNS` for each group."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return out.getvalue()


def join_programs(text: str, more: str) -> str:
    """Two texts of `programs.csv` as one; the first may be empty."""
    return text + more.partition("\n")[2] if text else more

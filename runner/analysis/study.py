"""A study as a value for notebooks and scripts: its table, its programs, its comparison."""

import os
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from runner.analysis.comparison import Comparison, compare_studies
from runner.analysis.load import read_study
from runner.analysis.tables import list_standings
from runner.errors import InvalidInputError, SeedbedError
from runner.plan.status import Status
from runner.storage.environment import format_command, read_environment
from runner.storage.folder import Folder, shorten_path
from runner.storage.manifest import require_manifest
from runner.storage.programs import read_programs
from runner.storage.reader import count_statuses

SHOWN_METRICS = 3
SHOWN_ROWS = 12
"""Metrics and points of the head of a report."""

HEAD = """
<div><strong>{{ name }}</strong>: {{ lead }}{% if note %}<br><em>{{ note }}</em>{% endif %}
{%- if command %}<br><code>{{ command }}</code>{% endif %}
{%- for table in tables %}
{% if table.title %}<p>{{ table.title }}</p>{% endif -%}
<table><thead><tr>{% for cell in table.header %}<th>{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{%- for row in table.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{%- endfor %}
</tbody></table>
{%- if table.left_out %}<p>{{ "{:,}".format(table.left_out) }} more points</p>{% endif %}
{%- endfor %}</div>
"""


@dataclass(frozen=True)
class Study:
    """A study in a folder, as `runner.run` returns it; `Study("outputs/lr_scan")` is one that exists.

    What it has is read when it is first asked for, and kept: make another `Study` to see what was added since.
    """

    path: Path

    def __init__(self, path: str | os.PathLike[str]) -> None:
        object.__setattr__(self, "path", Path(path).absolute())

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The table, a row for each run, with exact dtypes and arrays as arrays; see `runner.read`."""
        return read_study(self.path)

    @cached_property
    def programs(self) -> pd.DataFrame:
        """A row for each compiled program of the last call that executed runs, with the columns of `programs.csv`."""
        header, *rows = read_programs(self._folder.programs) or [[]]
        return pd.DataFrame(rows, columns=header).apply(_convert_column)

    def compare(self, *others: "Study | str | os.PathLike[str]", **options: Any) -> Comparison:
        """The points of the study, and those of others, compared across their seeds.

        `options` are those of `runner.compare_studies`, such as `metrics`, `baseline` or `difference`.
        """
        paths = [self.path, *(other.path if isinstance(other, Study) else Path(other) for other in others)]
        return compare_studies(paths, **options)

    def __repr__(self) -> str:
        return f"Study({shorten_path(self.path)!r}): {self._lead}"

    def _repr_html_(self) -> str:
        """The head of the report: what was run, and the estimates of the first metrics."""
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
        known = _try_reading(self._folder)
        return environment.from_string(HEAD).render(
            name=self.path.name,
            lead=self._lead,
            note=known.get("note"),
            command=format_command(self._folder) if known else "",
            tables=self._tables,
        )

    @property
    def _folder(self) -> Folder:
        return Folder(self.path)

    @cached_property
    def _counts(self) -> Counter[str]:
        """How many runs have which status. Raises InvalidInputError where there is no study."""
        return count_statuses(self._folder, require_manifest(self._folder.manifest))

    @cached_property
    def _lead(self) -> str:
        """How many runs there are, and how they ended."""
        try:
            counts, planned = self._counts, require_manifest(self._folder.manifest).planned
        except InvalidInputError as error:
            return str(error)
        done = counts.total()
        facts = [f"{done:,} of {planned:,} runs" if done < planned else f"{done:,} {'run' if done == 1 else 'runs'}"]
        facts += [f"{counts[status]:,} {status}" for status in (Status.NONFINITE, Status.FAILED) if counts[status]]
        return ", ".join(facts)

    @cached_property
    def _tables(self) -> list[dict[str, Any]]:
        try:
            if self._counts.total() == 1:
                row = self.frame.iloc[0]
                return [{"title": "", "header": list(row.index), "rows": [list(map(str, row))], "left_out": 0}]
            comparison = self.compare()
        except SeedbedError:  # no run is done yet, or there is no study: the lead says so
            return []
        return [_build_table(comparison, metric) for metric in comparison.metrics[:SHOWN_METRICS]]


def _build_table(comparison: Comparison, metric: str) -> dict[str, Any]:
    table = list_standings(comparison, metric)
    direction = comparison.runs.directions.get(metric)
    title = f"{metric} ({direction})" if direction else metric
    return {
        "title": title,
        "header": table.header,
        "rows": table.rows[:SHOWN_ROWS],
        "left_out": max(0, len(table.rows) - SHOWN_ROWS),
    }


def _try_reading(folder: Folder) -> dict[str, Any]:
    try:
        return read_environment(folder) or {}
    except InvalidInputError:  # a damaged one is no reason to show nothing
        return {}


def _convert_column(column: pd.Series) -> pd.Series:
    """A column of numbers, where all cells are numbers or empty; else the texts."""
    filled = column.replace("", None)
    if filled.isna().all():
        return column
    try:
        return pd.to_numeric(filled)
    except (ValueError, TypeError):
        return column

"""The columns of a study's table, and the cells that the runs of a segment share."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.contract.task import Built, Output
from runner.errors import InvalidInputError
from runner.plan.datasets import Dataset
from runner.plan.descriptions import select_value
from runner.plan.inputs import Input
from runner.plan.segments import Plan, Segment
from runner.plan.templates import Template, is_mark

TRACED_TYPES = ("uint32", "int32", "float32")
"""The types of parameter columns that hold traced scalars."""


@dataclass(frozen=True)
class Columns:
    """The parameters of a table with their types, and its outputs; fixed when the table is created.

    The table has, in this order: `run`, `task`, the parameters (swept config groups first, then in the order of the
    signature), the outputs, `status`, and the `reason` of a failure. The type of a parameter is the name of a NumPy
    dtype, `text` or `json`.
    """

    parameters: Mapping[str, str]
    outputs: tuple[Output, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return ("run", "task", *self.parameters, *(output.name for output in self.outputs), "status", "reason")

    @property
    def header(self) -> bytes:
        """The first line of the table, with its line feed."""
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(self.names)
        return line.getvalue().encode()


def plan_parameters(plan: Plan) -> dict[str, str]:
    """The parameter columns that a plan needs, with their types; `text` where segments disagree about the type."""
    types: dict[str, set[str]] = {}
    choices: dict[str, set[str]] = {}
    for segment in plan.segments:
        for name in segment.task.names:
            has_cell = name in segment.traced or name in segment.swept or _is_shown(segment.static.get(name, segment))
            parts = [key for key in (*segment.swept, *segment.traced) if key.startswith(f"{name}.")]
            for column in dict.fromkeys([name, *parts] if has_cell else parts):
                types.setdefault(column, set()).add(_column_type(segment, column))
        for key in [key for key in segment.traced if key not in types]:  # what values of parameters refer to
            types.setdefault(key, set()).add(_column_type(segment, key))
        for key in segment.swept:
            if key not in ("task", *types):
                choices.setdefault(key, set()).add("text")
    merged = {name: kinds for name, kinds in choices.items() if name not in types} | types
    return {name: kinds.pop() if len(kinds) == 1 else "text" for name, kinds in merged.items()}


def build_columns(parameters: Mapping[str, str], outputs: Sequence[Output]) -> Columns:
    """The columns of a new table.

    Raises InvalidInputError if two of them would share a name, or if one would hold both categories and numbers.
    """
    columns = Columns(parameters, tuple({output.name: output for output in outputs}.values()))
    check_categories(columns, outputs)
    repeated = [name for name in columns.names if columns.names.count(name) > 1]
    if repeated:
        names = ", ".join(columns.names)
        raise InvalidInputError(f"two columns of the table would be named {repeated[0]!r}; the columns are: {names}")
    return columns


def check_categories(columns: Columns, outputs: Sequence[Output]) -> None:
    """Raises InvalidInputError for a categorical output whose column holds numbers, or the reverse."""
    is_categorical = {output.name: output.is_categorical for output in columns.outputs}
    for output in outputs:
        if output.is_categorical != is_categorical[output.name]:
            has, given = ("categories", "numbers") if is_categorical[output.name] else ("numbers", "categories")
            raise InvalidInputError(f"the column {output.name!r} holds {has}, not also {given}; give another name")


def read_cell(segment: Segment, column: str) -> Any:
    """The static value that a segment has in a column, also for a part of an input that is not swept this time."""
    if column == "task":
        return segment.task.name
    if column in segment.static and _is_shown(segment.static[column]):
        return segment.static[column]
    if column in segment.swept:
        return segment.swept[column]
    name, _, path = column.partition(".")
    given = segment.inputs.get(name, segment.static.get(name))
    if isinstance(given, Input):
        return getattr(given, path, None)
    found = select_value(given.text, path) if isinstance(given, Built | Dataset | Template) else None
    return None if is_mark(found) else found  # the scalar that it stands for has a column of its own


def static_cells(segment: Segment, parameters: Mapping[str, str]) -> dict[str, Any]:
    """The cells that all runs of a segment share, `task` first."""
    return {name: read_cell(segment, name) for name in ("task", *parameters) if name not in segment.traced}


def cells_key(cells: Mapping[str, Any]) -> str:
    """Static cells as one string that is equal for equal texts in the table."""
    return json.dumps([[name, format_cell(value)] for name, value in cells.items() if value not in (None, "")])


def format_cell(value: Any) -> str:
    """A static value as the text of its cell in `results.csv`."""
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, default=str) if isinstance(value, tuple) else str(value)


def _column_type(segment: Segment, column: str) -> str:
    if column in segment.traced:
        return segment.scalar_dtype(column).__name__
    types = {bool: "bool", int: "int64", float: "float64", tuple: "json"}
    return types.get(type(read_cell(segment, column)), "text")


def _is_shown(value: Any) -> bool:
    """Whether a static value has a cell; a built object has none, but its swept config group or keys do."""
    return value is None or isinstance(value, bool | int | float | str | tuple)

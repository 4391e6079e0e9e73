"""Arrays of a table's cells as nested lists of Arrow, parsed column by column."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from runner.contract.task import Output
from runner.errors import InvalidInputError
from runner.plan.dtypes import stored_dtype
from runner.storage.reader import MINUS_ZERO


def value_type(output: Output) -> pa.DataType:
    """The Arrow type of an output's numbers, or of its categories.

    Floats and integers of ml_dtypes have the type that the table has for them, in which each of their values is exact.
    """
    if output.is_categorical:
        return pa.string()
    return pa.from_numpy_dtype(output.dtype if output.dtype.isbuiltin == 1 else stored_dtype(output.dtype))


def output_type(output: Output) -> pa.DataType:
    """The type of an output: a number, a category, or lists nested like its shape."""
    kind = value_type(output)
    for _ in output.shape:
        kind = pa.list_(kind)
    return kind


def parse_cells(cells: pa.Array, output: Output) -> pa.Array:
    """The arrays in some cells, which may be empty, as nested lists. Raises InvalidInputError for what is no array."""
    try:
        if pc.any(pc.match_substring(cells, "[]")).as_py():  # an empty list would be split into one empty text
            values = [None if text is None else json.loads(MINUS_ZERO.sub("-0.0", text)) for text in cells.to_pylist()]
            return pa.array(values, output_type(output))
        return _parse_lists(cells, len(output.shape) - 1, value_type(output))
    except (pa.ArrowException, ValueError, TypeError) as error:
        line = str(error).splitlines()[0]
        raise InvalidInputError(f"the table is damaged: {output.name} has a cell that is no array: {line}") from error


def _parse_lists(cells: pa.Array, level: int, kind: pa.DataType) -> pa.Array:
    """Lists of `level` further dimensions; they are separated by a comma between as many brackets."""
    if level < 0:
        return cast_texts(pc.utf8_trim(cells, "[]"), kind)
    lists = pc.split_pattern(cells, "]" * level + ", " + "[" * level)
    values = _parse_lists(lists.flatten(), level - 1, kind)
    mask: Any = cells.is_null() if cells.null_count else None
    return pa.ListArray.from_arrays(lists.offsets, values, mask=mask)


def cast_texts(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    """Numbers of their texts, each the nearest one of its type."""
    if pa.types.is_float16(kind):
        return texts.cast(pa.float32()).cast(kind)
    return texts.cast(kind)

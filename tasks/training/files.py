"""Data in files: tables (.csv, .parquet) and arrays (.npz) by name, and the columns of one array (.npy) by number."""

import zipfile
from collections.abc import Callable, Sequence
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np

from tasks.training.splits import Array, Kind, Splits, make_splits

Names = str | int | Sequence[str | int]
Columns = dict[Any, Array]


def load_file(
    path: str, target: Names, features: Names | None = None, drop: Names = (), kind: Kind = "classes", **split: Any
) -> Splits:
    """The data of a file, divided by the keywords of `make_splits`.

    `target` is the column of the labels, or are the columns of the targets; `features` are the columns of `x`, by
    default all the others but those to `drop`. In a `.npz` they are names of arrays, one each; in a `.npy` numbers of
    columns, of which −1 is the last. Raises ValueError for a file or a column that is not there, and as `make_splits`.
    """
    file = Path(path)
    if file.suffix not in _READERS:
        raise ValueError(f"data files are {', '.join(_READERS)}, got {path!r}")
    if not file.is_file():
        raise ValueError(f"there is no data file {path!r} in {Path.cwd()}")
    columns = _read(file)
    targets, dropped = (_list_names(names, columns) for names in (target, drop))
    left = [name for name in columns if name not in {*targets, *dropped}]
    used = left if features is None else _list_names(features, columns)
    _check_names(path, [*targets, *used, *dropped], columns)
    if not used or not targets:
        raise ValueError(f"{path} needs a target and features, got target={targets} and features={used}")
    _check_shapes(path, {name: columns[name].shape for name in targets}, targets)
    _check_shapes(path, {name: columns[name].shape for name in used}, used)
    y = _stack([columns[name] if kind == "classes" else _read_numbers(path, name, columns) for name in targets])
    x = _stack([_read_numbers(path, name, columns) for name in used])
    x = x[:, None] if x.ndim == 1 else x
    names = [str(name) for name in used] if x.shape[1:] == (len(used),) else None
    return make_splits(x, y, kind=kind, columns=names, **split)


def _read(file: Path) -> Columns:
    """Raises ValueError for what cannot be read."""
    try:
        return _READERS[file.suffix](file)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise ValueError(f"{file} cannot be read: {lines[0]}") from None


def _read_csv(file: Path) -> Columns:
    from pyarrow import csv

    # an empty cell of a column of texts is missing, as one of numbers is
    return _read_table(csv.read_csv(file, convert_options=csv.ConvertOptions(strings_can_be_null=True)))


def _read_parquet(file: Path) -> Columns:
    from pyarrow import parquet

    return _read_table(parquet.read_table(file))


def _read_table(table: Any) -> Columns:
    names = table.column_names
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"column {twice[0]!r} is there {names.count(twice[0])} times")
    return {name: column.to_numpy() for name, column in zip(names, table.columns, strict=True)}


def _read_npz(file: Path) -> Columns:
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _read_npy(file: Path) -> Columns:
    array = np.load(file, allow_pickle=False)
    if array.ndim != 2:
        raise ValueError(f"it must have two axes, examples and columns, got shape {array.shape}")
    return {index: array[:, index] for index in range(array.shape[1])}


_READERS: dict[str, Callable[[Path], Columns]] = {
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".npz": _read_npz,
    ".npy": _read_npy,
}


def _list_names(names: Names, columns: Columns) -> list[str | int]:
    """Names as a list; negative numbers count from the end."""
    listed = [names] if isinstance(names, str | int) else list(names)
    return [name + len(columns) if isinstance(name, int) and name < 0 else name for name in listed]


def _check_names(path: str, names: Sequence[str | int], columns: Columns) -> None:
    for name in names:
        if name not in columns:
            raise ValueError(f"{path} has no column {name!r}; it has: {', '.join(map(str, columns))}")


def _check_shapes(path: str, shapes: dict[str | int, tuple[int, ...]], names: Sequence[str | int]) -> None:
    """Raises ValueError for several columns that cannot be put beside one another."""
    if len(names) > 1 and (len({*shapes.values()}) > 1 or len(shapes[names[0]]) != 1):
        given = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"{path}: several columns must be of one length with one axis each, got {given}")


def _read_numbers(path: str, name: str | int, columns: Columns) -> Array:
    """A column of numbers, missing ones as NaN."""
    column = columns[name]
    if column.dtype.kind in "fiub":
        return column
    unfit = [value for value in column.ravel() if not isinstance(value, Number | None)]
    if column.dtype != object or unfit:
        example = str(unfit[0] if unfit else column.ravel()[0])
        raise ValueError(
            f"column {name!r} of {path} must have numbers, got {example!r}; drop and features choose columns"
        )
    return column.astype(np.float64)


def _stack(arrays: list[Array]) -> Array:
    """Columns beside one another; a single one as it is."""
    return arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=1)

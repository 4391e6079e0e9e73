"""Data in files: tables (.csv, .parquet) and arrays (.npz) by name, and the columns of one array (.npy) by number."""

import zipfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.training.splits import Array, Kind, Splits, make_splits

Names = str | int | Sequence[str | int]


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
    columns = _READERS[file.suffix](file)
    targets, dropped = _list_names(target), _list_names(drop)
    used = [c for c in columns if c not in {*targets, *dropped}] if features is None else _list_names(features)
    _check_names(path, [*targets, *used, *dropped], columns)
    if not used:
        raise ValueError(f"{path} has no column but the target {targets} and what is dropped")
    y = _stack(path, [columns[name] for name in targets], targets)
    x = _stack(path, [_read_numbers(path, name, columns[name]) for name in used], used)
    x = x[:, None] if x.ndim == 1 else x
    names = [str(name) for name in used] if x.shape[1:] == (len(used),) else None
    return make_splits(x, y, kind=kind, columns=names, **split)


def _read_csv(file: Path) -> dict[Any, Array]:
    import pandas as pd

    # pandas's faster way to read floats is off by a bit at times
    return _read_frame(file, lambda: pd.read_csv(file, float_precision="round_trip"))


def _read_parquet(file: Path) -> dict[Any, Array]:
    import pandas as pd

    return _read_frame(file, lambda: pd.read_parquet(file))


def _read_frame(file: Path, read: Callable[[], Any]) -> dict[Any, Array]:
    try:
        frame = read()
    except (ValueError, OSError) as error:
        raise _name_failure(file, error) from None
    return {str(name): column.to_numpy() for name, column in frame.items()}


def _read_npz(file: Path) -> dict[Any, Array]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise _name_failure(file, error) from None


def _read_npy(file: Path) -> dict[Any, Array]:
    try:
        array = np.load(file, allow_pickle=False)
    except (ValueError, OSError) as error:
        raise _name_failure(file, error) from None
    if array.ndim != 2:
        raise ValueError(f"{file} must have two axes, examples and columns, got shape {array.shape}; .npz has arrays")
    return {index: array[:, index] for index in range(array.shape[1])}


_READERS: dict[str, Callable[[Path], dict[Any, Array]]] = {
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".npz": _read_npz,
    ".npy": _read_npy,
}


def _name_failure(file: Path, error: Exception) -> ValueError:
    lines = str(error).splitlines() or [type(error).__name__]
    return ValueError(f"{file} cannot be read: {lines[0]}")


def _list_names(names: Names) -> list[str | int]:
    return [names] if isinstance(names, str | int) else list(names)


def _check_names(path: str, names: Collection[str | int], columns: Collection[str | int]) -> None:
    for name in names:
        if name not in columns:
            raise ValueError(f"{path} has no column {name!r}; it has: {', '.join(map(str, columns))}")


def _read_numbers(path: str, name: str | int, column: Array) -> Array:
    """Features as numbers, for which pandas has an object where cells are missing or of several types."""
    try:
        return column if column.dtype.kind in "fiu" else column.astype(np.float64)
    except (ValueError, TypeError):
        example = next(value for value in column if not isinstance(value, int | float))
        raise ValueError(
            f"column {name!r} of {path} must have numbers, got {example!r}; drop=[{name}] leaves it out"
        ) from None


def _stack(path: str, arrays: list[Array], names: Sequence[str | int]) -> Array:
    """Columns beside one another; a single one as it is."""
    if len(arrays) == 1:
        return arrays[0]
    if shapes := {array.shape for array in arrays if array.ndim != 1 or array.shape != arrays[0].shape}:
        raise ValueError(f"{path}: columns {list(names)} must be of one length with one axis each, got {shapes}")
    return np.stack(arrays, axis=1)

"""Inputs: array parameters, described in YAML and built with NumPy."""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from runner.contract.task import Task
from runner.errors import InvalidInputError
from runner.plan.dtypes import describe_range, find_changed_value, is_float, parse_dtype
from runner.plan.values import SEED_STOP, as_integer, freeze, invalid_value

KEYS = ("shape", "fill", "seed", "dtype", "values", "file")
FILLS = ("normal", "uniform", "linspace", "ones", "zeros")
FILES = (".npy", ".csv")
DTYPES = ("float32", "float16", "bfloat16", "int32", "uint32", "int8", "uint8", "bool")


_THREAD = threading.local()


@dataclass(frozen=True)
class Input:
    """The checked description of an array: exactly one of `file`, `values`, and `shape` with `fill` defines it."""

    shape: tuple[int, ...]
    dtype: str
    fill: str | None = None
    seed: int = 0
    values: tuple[Any, ...] | float | None = None
    file: str | None = None

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def describe_input(task: Task, name: str, value: Any) -> Input:
    """Checks the YAML description of array parameter `name`. Raises InvalidInputError if it describes no array.

    A number or a list of numbers stands for `{values: …}`.
    """
    if isinstance(value, list | tuple | int | float) and not isinstance(value, bool):
        value = {"values": value}
    if not isinstance(value, Mapping):
        raise invalid_value(task, name, f"an array described by {', '.join(KEYS)}", value)
    unknown = [key for key in value if key not in KEYS]
    if unknown:
        raise InvalidInputError(f"task {task.name!r}: {name} has no {unknown[0]!r}; an array has: {', '.join(KEYS)}")
    given = {key: freeze(entry) for key, entry in value.items() if entry is not None}
    dtype = _check_choice(task, f"{name}.dtype", given.get("dtype", "float32"), DTYPES)
    if "file" in given and "values" in given:
        raise InvalidInputError(f"task {task.name!r}: {name} has both {name}.values and {name}.file; give one of them")
    if "file" in given:
        path = str(given["file"])
        array = _read_file(task, name, path)
        _refuse_changed(task, name, f"file={path}", dtype, _find_changed_in_file(path, _read_version(path), dtype))
        return Input(array.shape, dtype, file=path)
    if "values" in given:
        array = _parse_values(task, name, given["values"])
        _refuse_changed(task, name, "values", dtype, find_changed_value(array, parse_dtype(dtype)))
        return Input(array.shape, dtype, values=given["values"])
    return _describe_filled(task, name, given, dtype)


def _describe_filled(task: Task, name: str, given: dict[str, Any], dtype: str) -> Input:
    if "shape" not in given:
        raise InvalidInputError(
            f"task {task.name!r}: {name} has no array; give {name}.shape, {name}.values or {name}.file"
        )
    shape = _check_shape(task, name, given["shape"])
    fill = _check_choice(task, f"{name}.fill", given.get("fill", "normal"), FILLS)
    seed = as_integer(given.get("seed", 0))
    if seed is None or not 0 <= seed < SEED_STOP:
        raise invalid_value(task, f"{name}.seed", f"an integer from 0 to {SEED_STOP - 1}", given["seed"])
    if not _can_hold_fill(shape, dtype, fill):
        raise invalid_value(task, f"{name}.fill", f"ones or zeros for {name}.dtype={dtype}", fill)
    return Input(shape, dtype, fill=fill, seed=seed)


def _can_hold_fill(shape: tuple[int, ...], dtype: str, fill: str) -> bool:
    """Whether a dtype represents the values of a fill: integers do not have those between 0 and 1."""
    is_whole = fill in ("ones", "zeros") or (fill == "linspace" and math.prod(shape) <= 2)
    return is_whole or is_float(parse_dtype(dtype))


def _check_shape(task: Task, name: str, value: Any) -> tuple[int, ...]:
    sizes = [as_integer(size) for size in value] if isinstance(value, tuple) else [None]
    if any(size is None or size < 1 for size in sizes):
        raise invalid_value(task, f"{name}.shape", "a list of positive integers", value)
    return tuple(size for size in sizes if size is not None)


def _check_choice(task: Task, name: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise invalid_value(task, name, f"one of {', '.join(choices)}", value)
    return value


def _parse_values(task: Task, name: str, values: Any) -> np.ndarray:
    try:
        if _has_null(values):  # NumPy would read it as NaN
            raise TypeError("null is no number")
        return np.array(values, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise invalid_value(task, f"{name}.values", "a list of numbers, or lists of equal length", values) from error


def _has_null(values: Any) -> bool:
    return any(map(_has_null, values)) if isinstance(values, tuple) else values is None


def _refuse_changed(task: Task, name: str, source: str, dtype: str, changed: float | None) -> None:
    """Raises InvalidInputError for an array of which `changed` is the first value that the dtype does not represent."""
    if changed is not None:
        rule = f"must have {describe_range(parse_dtype(dtype))} for {name}.dtype={dtype}"
        raise InvalidInputError(f"task {task.name!r}: {name}.{source} {rule}, got {str(changed).removesuffix('.0')}")


def _read_version(file: str) -> tuple[int, int]:
    """What changes when a file is written again: its time of modification and its size."""
    status = Path(file).stat()
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=256)
def _find_changed_in_file(file: str, version: tuple[int, int], dtype: str) -> float | None:
    """The first value of a file that the dtype does not represent; the segments of a sweep read the file once."""
    return find_changed_value(_load_file(Path(file)), parse_dtype(dtype))


def _read_file(task: Task, name: str, file: str) -> np.ndarray:
    path = Path(file)
    if path.suffix not in FILES:
        raise invalid_value(task, f"{name}.file", f"a file that ends in {' or '.join(FILES)}", file)
    try:
        array = _load_file(path)
    except (OSError, ValueError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InvalidInputError(f"task {task.name!r}: cannot read {name}.file={file}: {reason}") from error
    if array.dtype.kind not in "biuf" or array.size == 0:
        raise InvalidInputError(
            f"task {task.name!r}: {name}.file={file} has {array.size} values of {array.dtype}, not numbers"
        )
    return array


def _load_file(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r")
    with path.open() as lines:
        return np.loadtxt(lines, delimiter=",", ndmin=1) if path.stat().st_size else np.empty(0)


@lru_cache(maxsize=256)
def build_array(description: Input) -> np.ndarray:
    """Builds the array of a description, of its shape and dtype; read-only, because it is cached and shared.

    Values are computed in float64 and rounded to the dtype once.

    Random fills draw from `numpy.random.RandomState(seed)`, whose stream NumPy guarantees not to change (NEP 19);
    `default_rng` has no such guarantee. `uniform` is on [0, 1); `linspace` runs from 0 to 1 over all elements in
    row-major order.
    """
    array = np.asarray(_fill_values(description), dtype=input_dtype(description))
    array.setflags(write=False)
    return array


def _fill_values(description: Input) -> np.ndarray:
    if description.file is not None:
        return _load_file(Path(description.file))
    if description.values is not None:
        return np.array(description.values, dtype=np.float64)
    size = int(np.prod(description.shape))
    random = _seed_generator(description.seed)
    make = {
        "normal": lambda: random.standard_normal(size),
        "uniform": lambda: random.random_sample(size),
        "linspace": lambda: np.linspace(0.0, 1.0, size),
        "ones": lambda: np.ones(size),
        "zeros": lambda: np.zeros(size),
    }
    return make[description.fill or "zeros"]().reshape(description.shape)


def _seed_generator(seed: int) -> np.random.RandomState:
    """A generator as `RandomState(seed)`; a new one would collect entropy first, for 60 µs."""
    if not hasattr(_THREAD, "random"):
        _THREAD.random = np.random.RandomState()
    _THREAD.random.seed(seed)
    return _THREAD.random


def input_dtype(description: Input) -> np.dtype[Any]:
    """The NumPy dtype of an input, bfloat16 included."""
    return parse_dtype(description.dtype)

"""The settings of a call: one declaration of each, with its default, type, help and check.

They are the keys of the composed configuration that belong to the runner; every other key is a parameter of the task.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, ListConfig

from runner.errors import InvalidInputError
from runner.plan.size import MOST_PROGRAMS, MOST_RUNS, MOST_SEGMENTS, MOST_VALUES
from runner.plan.status import Status
from runner.plan.values import as_integer


class OnMismatch(StrEnum):
    """What to do about a study of the same name that contradicts the call."""

    REFUSE = "refuse"
    FORK = "fork"
    ACCEPT = "accept"


def _check_name(name: str, value: Any) -> str:
    text = "" if value is None else str(value)
    is_path = text in ("", ".", "..") or any(separator in text for separator in "/\\")
    if is_path or not text.isprintable() or not isinstance(value, str | int | float):
        raise InvalidInputError(
            f"{name} must be a name without / and \\, got {value!r}; hydra.run.dir=DIR writes into another folder, "
            "with -m hydra.sweep.dir=DIR"
        )
    return text


def _check_flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidInputError(f"{name} must be true or false, got {value!r}")
    return value


def _check_limit(name: str, value: Any) -> int | None:
    """A positive integer, or None for `auto`."""
    if value == "auto":
        return None
    number = as_integer(value)
    if number is None or number < 1:
        raise InvalidInputError(f"{name} must be auto or a positive integer, got {value!r}")
    return number


def _check_cores(name: str, value: Any) -> int:
    if (number := _check_count(name, value)) is None:
        raise InvalidInputError(f"{name} must be a positive integer, got {value!r}")
    return number


def _check_devices(name: str, value: Any) -> int | tuple[int, ...] | None:
    """A number of devices, the numbers of some, or None for `auto`."""
    if value == "auto":
        return None
    listed = value.split(",") if isinstance(value, str) and "," in value else value
    if isinstance(listed, ListConfig | list):
        numbers = [int(each) if str(each).strip().isdecimal() else -1 for each in listed]
        if numbers and min(numbers) >= 0 and len(set(numbers)) == len(numbers):
            return tuple(numbers)
    elif (count := as_integer(value)) is not None and count > 0:
        return count
    raise InvalidInputError(
        f"{name} must be auto, how many devices, or a list of their numbers from 0 on, got {value!r}"
    )


def _check_count(name: str, value: Any) -> int | None:
    """A positive integer, or None where nothing is given."""
    number = as_integer(value)
    if value is not None and (number is None or number < 1):
        raise InvalidInputError(f"{name} must be a positive integer, got {value!r}")
    return number


def _check_mismatch(name: str, value: Any) -> OnMismatch:
    if value not in list(OnMismatch):
        raise InvalidInputError(f"{name} must be refuse, fork or accept, got {value!r}")
    return OnMismatch(value)


def _check_note(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str | int | float):
        raise InvalidInputError(f"{name} must be a text, got {value!r}")
    return None if value is None else str(value)


def _check_tags(name: str, value: Any) -> tuple[str, ...]:
    """Words; a single one needs no list."""
    given = [value] if isinstance(value, str | int | float) else value
    if not isinstance(given, ListConfig | list) or not all(isinstance(tag, str | int | float) for tag in given):
        raise InvalidInputError(f"{name} must be a list of words, such as [baseline,paper], got {value!r}")
    return tuple(dict.fromkeys(map(str, given)))


def _check_retry(name: str, value: Any) -> Status | None:
    if value is not None and value not in (Status.FAILED, Status.NONFINITE):
        raise InvalidInputError(f"{name} must be failed or nonfinite, got {value!r}")
    return None if value is None else Status(value)


Check = Callable[[str, Any], Any]


def _setting(default: Any, values: str, text: str, check: Check) -> Any:
    """A field with the default of its YAML key, the values that it takes, its help text, and its check."""
    return field(default=default, metadata={"values": values, "help": text, "check": check})


@dataclass(frozen=True)
class Settings:
    """The checked settings of a call. The defaults are those of the YAML; None stands for `auto`."""

    study: str = _setting(
        "${task.name}-${now:%Y%m%d-%H%M%S}",
        "NAME",
        "name of the study and of its folder under `outputs/`; a named study can be resumed and extended "
        "(default: the task's name and the time)",
        _check_name,
    )
    dry_run: bool = _setting(
        False,
        "true",
        "print the plan (which programs are compiled, their runs, shapes and bytes) and run nothing",
        _check_flag,
    )
    lanes: int | None = _setting(
        "auto",
        "auto|N",
        "how many runs a program executes side by side, by jax.vmap (auto: up to 64, fewer for large tasks); "
        "1 executes the plain jitted function and has its bits",
        _check_limit,
    )
    block: int | None = _setting(
        "auto",
        "auto|N",
        "the most runs that one call of a program executes; their rows are written together",
        _check_limit,
    )
    threads: int | None = _setting(
        "auto",
        "auto|N",
        "how many blocks are executed at once (auto: the cores divided by `cores_per_run`)",
        _check_limit,
    )
    cores_per_run: int = _setting(
        1,
        "N",
        "threads among which XLA divides a single run, for few and large runs; part of the study, because the last "
        "bits of a divided reduction depend on it",
        _check_cores,
    )
    devices: int | tuple[int, ...] | None = _setting(
        "auto",
        "auto|N|[0,2]",
        "the devices that execute blocks: all, the first N, or those of these numbers; the results do not depend on "
        "it (with shards: those of each shard)",
        _check_devices,
    )
    deterministic: bool = _setting(
        False,
        "true",
        "on a GPU, programs without autotuning and without operations that give other bits each time (XLA's "
        "`--xla_gpu_deterministic_ops`), which may be slower; recorded in the study",
        _check_flag,
    )
    verify: int | None = _setting(
        None,
        "N",
        "execute N runs of each group once more, each alone with one lane, and report the largest difference from "
        "their results",
        _check_count,
    )
    on_mismatch: OnMismatch = _setting(  # noqa: RUF009 - it returns a dataclass field
        "refuse",
        "refuse|fork|accept",
        "what to do if the study of that name contradicts this call: refuse it, start a sibling study, or continue "
        "and record the difference",
        _check_mismatch,
    )
    overwrite: bool = _setting(False, "true", "move the study of that name aside and start it again", _check_flag)
    retry: Status | None = _setting(  # noqa: RUF009 - it returns a dataclass field
        None,
        "failed|nonfinite",
        "execute the runs of the study with this status once more; their rows are appended, and the last row of a run "
        "counts",
        _check_retry,
    )
    large: bool = _setting(
        False,
        "true",
        f"permit a sweep of more than {MOST_RUNS:,} runs, {MOST_PROGRAMS:,} programs, {MOST_SEGMENTS:,} combinations "
        f"of values that are neither floats nor seeds, or {MOST_VALUES:,} floats along an axis",
        _check_flag,
    )
    note: str | None = _setting(
        None, "TEXT", "a sentence about the study, kept in `environment.json` and shown in the report", _check_note
    )
    tags: tuple[str, ...] = _setting((), "[A,B]", "words by which the study is found again, kept likewise", _check_tags)
    report: bool = _setting(
        False, "true", "write report.html, the comparison across seeds as one page, beside the table", _check_flag
    )


NAMES = tuple(setting.name for setting in fields(Settings))
RESERVED = ("task", "sweep", *NAMES)
"""Top-level keys that are not parameters of the task."""


def check_target(config: DictConfig) -> None:
    """Raises InvalidInputError if the config names no function of a task."""
    task = config.get("task")
    if not isinstance(task, DictConfig) or not task.get("_target_"):
        raise InvalidInputError(
            "task has no _target_, the dotted path of its function; a task's YAML begins with # @package _global_"
        )


def read_settings(config: Mapping[str, Any] | DictConfig) -> Settings:
    """Checks the settings of a composed configuration. Raises InvalidInputError for a value that is not valid."""
    for name in NAMES:
        if name not in config:
            raise InvalidInputError(f"{name} is a setting, and cannot be deleted")
    return Settings(**{s.name: s.metadata["check"](s.name, config[s.name]) for s in fields(Settings)})


FUNCTION = "function"
"""The task that is any function: `task=function task._target_=my_lab.decay +rate=0.1`."""

_PARTS = ("_target_", "outputs", "metrics", "eager", "traced", "check", "shared")

ConfigStore.instance().store(
    name="settings",
    node={
        setting.name: list(setting.default) if isinstance(setting.default, tuple) else setting.default
        for setting in fields(Settings)
    },
    provider="seedbed",
)
ConfigStore.instance().store(
    group="task",
    name=FUNCTION,
    node={"task": {"name": FUNCTION, **dict.fromkeys(_PARTS)}},
    package="_global_",
    provider="seedbed",
)

"""The arguments of the command: Hydra's flags, and overrides, checked before Hydra composes anything."""

import argparse
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, QuotedString, Sweep
from hydra.main import get_args_parser

from runner.config.overrides import check_key, quote
from runner.errors import InvalidInputError
from runner.plan.texts import escape_controls

PACKAGES = ("jax", "flax", "hydra-core")
"""Packages whose versions `--version` shows."""


def read_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments as Hydra shall read them: overrides, then flags.

    Overrides may stand before and after flags, and values that are not ASCII need no quotes. `--version` ends the
    process. Raises InvalidInputError for an unknown flag, and for what is no override.
    """
    given = _Parser().parse_intermixed_args(list(arguments))
    if given.version:
        print(describe_versions())
        sys.exit(0)
    if given.experimental_rerun is not None:
        raise InvalidInputError("--experimental-rerun is not supported; call the command again with the same arguments")
    for override in given.overrides:
        _check_override(override)
    overrides = [_quote_words(_list_devices(override)) for override in given.overrides]
    return [*select_first_task(overrides), *_find_flags(arguments, given.overrides)]


def describe_versions() -> str:
    """The version of Seedbed and of what results depend on, in one line, without importing them."""
    python = ".".join(map(str, sys.version_info[:3]))
    others = ", ".join([*(f"{name} {version(name)}" for name in PACKAGES), f"Python {python}"])
    return f"seedbed {version('seedbed')} ({others})"


def select_first_task(overrides: Sequence[str]) -> list[str]:
    """The overrides with the first of several tasks selected before their sweep.

    Hydra composes a sweep once without the swept keys, that is with the default task, whose config would refuse a
    parameter that only the swept tasks have. Raises InvalidInputError if a task is not given by its name.
    """
    extended = []
    for override in overrides:
        if override.startswith("task="):
            value = _parse_value(override)
            names = value.list if isinstance(value, ChoiceSweep) else [value]
            if not all(isinstance(name, str | QuotedString | Sweep | Glob) for name in names):
                raise InvalidInputError(f"task takes the name of a task, got {override!r}")
            if isinstance(value, ChoiceSweep):
                extended.append(f"task={names[0]}")
        extended.append(override)
    return extended


class _Parser(argparse.ArgumentParser):
    """Hydra's parser with errors in one line, and a `--version` of its own."""

    def __init__(self) -> None:
        super().__init__(parents=[get_args_parser()], add_help=False, conflict_handler="resolve")
        self.add_argument("--version", action="store_true")

    def error(self, message: str) -> NoReturn:
        raise InvalidInputError(f"{escape_controls(message)} (--hydra-help lists the flags)")


def _find_flags(arguments: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The arguments without the overrides, which are a subsequence of them."""
    flags, rest = [], list(overrides)
    for argument in arguments:
        if rest and argument == rest[0]:
            rest.pop(0)
        elif argument != "--":
            flags.append(argument)
    return flags


def _check_override(override: str) -> None:
    key, equals, _ = override.partition("=")
    if any("\ud800" <= character <= "\udfff" for character in override):  # Python's stand-ins for other bytes
        raise InvalidInputError(f"an argument must be UTF-8, got {override!r}")
    if not key.lstrip("+~") or override.startswith("-") or not (equals or override.startswith("~")):
        raise InvalidInputError(f"an argument is a flag or KEY=VALUE, got {override!r}")
    check_key(key.lstrip("+~"))
    if key == "hydra.verbose" and not isinstance(_parse_value(override), bool | str | list):
        raise InvalidInputError(f"hydra.verbose must be true, false, or loggers, got {override!r}")


def _parse_value(override: str) -> Any:
    return OverridesParser.create().parse_overrides([override])[0].value()


def _list_devices(override: str) -> str:
    """`devices=0,2` as the list that it means, since a setting cannot be swept."""
    return re.sub(r"^(\+*devices)=(\d+(?:,\d+)+)$", r"\1=[\2]", override)


def _quote_words(override: str) -> str:
    """The override with quotes around plain words that are not ASCII, which Hydra's grammar asks for."""
    key, equals, value = override.partition("=")
    if value.isascii() or re.search(r"""[\[\]{}()'"\\=$:]""", value):
        return override
    return key + equals + ",".join(word if word.isascii() else quote(word.strip()) for word in value.split(","))

"""`environment.json`: the command, versions, machine and devices of the last call that executed runs."""

import json
import os
import platform
import shlex
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from runner.errors import InvalidInputError
from runner.storage.folder import Folder, write_file
from runner.storage.schema import ListOf, MappingOf, Record, check_types

LIBRARIES = ("seedbed", "jax", "jaxlib", "flax", "numpy", "hydra-core", "omegaconf", "pyarrow", "optax")
SHOWN_DIFF = 20_000
"""Characters of a diff in a report."""

_SCHEMA = Record(
    {"command": ListOf(str, least=1)},
    {
        "started": str,
        "python": str,
        "devices": ListOf(str),
        "versions": MappingOf(str),
        "shards": ListOf(Record({"host": str, "devices": ListOf(str), "versions": MappingOf(str)})),
        "note": str,
        "tags": ListOf(str),
        "repositories": ListOf(Record({"commit": (str, type(None)), "dirty": (bool, type(None))}, {"diff": str})),
    },
)
"""The types of what is read again."""


def collect_environment(
    devices: Iterable[str], command: Sequence[str] = (), study: Sequence[str] = ()
) -> dict[str, Any]:
    """The environment of this process as JSON values.

    `devices` are the kinds of its devices, `command` is that of the call, by default the one of this process. `study`
    is the command of the study if this call extends it by another one, which is recorded beside it then.
    """
    own = list(command or sys.orig_argv)
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(study) or own,
        **({"extended_by": own} if study else {}),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "devices": list(devices),
        "versions": list_versions(),
        "variables": {name: os.environ[name] for name in sorted(os.environ) if name.startswith(("JAX_", "XLA_"))},
    }


def write_environment(folder: Folder, environment: Mapping[str, Any]) -> None:
    """Writes `environment.json`."""
    write_file(folder.environment, json.dumps(environment, indent=2) + "\n")


def read_environment(folder: Folder) -> dict[str, Any] | None:
    """The content of `environment.json`, None if there is none. Raises InvalidInputError for a damaged one."""
    if not folder.environment.exists():
        return None
    try:
        environment = json.loads(folder.environment.read_text())
        check_types(environment, _SCHEMA)
    except (ValueError, TypeError, OSError) as error:
        raise InvalidInputError(f"{folder.environment} is damaged ({error}); delete it") from error
    return environment


def list_repositories(environment: Mapping[str, Any]) -> dict[str, str]:
    """The Git repositories of an environment as one mapping from a label for people to a text; long diffs are cut."""
    entries: dict[str, str] = {}
    for state in environment.get("repositories", ()):
        label, names = "code of " + ", ".join(state.get("tasks", ())), ("commit", "branch", "root", "diff")
        entries |= {f"{label}: {name}": state[name] for name in names if state.get(name)}
        if len(diff := state.get("diff", "")) > SHOWN_DIFF:
            entries[f"{label}: diff"] = f"{diff[:SHOWN_DIFF]}\n… the rest is in environment.json"
        if state["dirty"] is not None:
            entries[f"{label}: state"] = "changed since the commit" if state["dirty"] else "as committed"
    return entries


def annotate_study(folder: Folder, note: str | None, tags: Sequence[str]) -> None:
    """Records a note and tags of a call that executes nothing, if it has any, in `environment.json`."""
    given = {name: value for name, value in (("note", note), ("tags", list(tags))) if value}
    environment = read_environment(folder) if given else None
    if environment is not None and {**environment, **given} != environment:
        write_environment(folder, {**environment, **given})


def format_command(folder: Folder) -> str:
    """The command of the study's last call that executed runs, as one would type it; empty if it is not known."""
    environment = read_environment(folder)
    if environment is None:
        return ""
    return format_words(environment["command"])


def format_words(words: Sequence[str]) -> str:
    """The words of a command as one would type it, without the folder of its program."""
    program, *arguments = words
    return shlex.join([Path(program).name, *arguments])


def list_versions() -> dict[str, str]:
    """The versions of Seedbed and of the libraries that are installed."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions

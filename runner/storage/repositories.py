"""The Git repositories of tasks' code: commit, branch, and what of the tracked files was not committed.

Untracked files and the environment are never read. Whatever Git cannot tell is left out, and is no error.
"""

import os
import subprocess
import threading
from pathlib import Path
from typing import Any

from runner.contract.source import is_library
from runner.contract.task import find_file
from runner.plan.segments import Plan

MOST_BYTES = 1_000_000
"""Bytes of a diff that are kept."""
TIMEOUT = 20.0
"""Seconds that an answer of Git may take; on a network's file system it may be a long one."""

_OPTIONS = ("-c", "core.fsmonitor=false", "-c", "core.quotepath=false", "-c", "color.ui=false")
"""The file system monitor would be a command that the repository names."""
_DIFF = ("diff", "--no-ext-diff", "--no-textconv", "--no-color")


def describe_repositories(plan: Plan) -> list[dict[str, Any]]:
    """The state of each Git repository that has code of the plan's tasks, as JSON values; libraries have none."""
    tasks: dict[Path, list[str]] = {}
    for task in dict.fromkeys(segment.task for segment in plan.segments):
        place = find_file(task) or Path.cwd() / "notebook"
        if not is_library(place) and (root := _find_root(place.parent)):
            tasks.setdefault(root, []).append(task.name)
    return [{"tasks": names, **describe_repository(root)} for root, names in tasks.items()]


def describe_repository(root: Path) -> dict[str, Any]:
    """The commit and the branch of a repository, None where there is none, and the diff of its tracked files."""
    commit = _ask(root, "rev-parse", "--verify", "--quiet", "HEAD")
    branch = _ask(root, "symbolic-ref", "--short", "--quiet", "HEAD")
    diff = _read_diff(root, "HEAD" if commit else "--cached")
    dirty = None if diff is None else bool(diff)
    state = {"root": str(root), "commit": commit or None, "branch": branch or None, "dirty": dirty}
    return {**state, "diff": diff} if diff else state


def _find_root(folder: Path) -> Path | None:
    """The top of the repository that a folder is in; that of a submodule within one."""
    root = _ask(folder, "rev-parse", "--show-toplevel") if folder.is_dir() else ""
    return Path(root) if root else None


def _ask(folder: Path, *arguments: str) -> str:
    """What a command of Git prints; nothing if it fails, or if there is no Git."""
    try:
        asked = subprocess.run(
            _command(folder, *arguments), capture_output=True, timeout=TIMEOUT, env=_environment(), check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.decode(errors="replace").strip()


def _read_diff(root: Path, against: str) -> str | None:
    """The diff of tracked files, with a last line that says so where it was cut; None if Git does not answer."""
    command = _command(root, *_DIFF, against)
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment())
    except OSError:
        return None
    watchdog = threading.Timer(TIMEOUT, process.kill)
    watchdog.start()
    with process:
        assert process.stdout is not None
        content = process.stdout.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            process.kill()  # the rest is not wanted, and would fill the pipe
    watchdog.cancel()
    if len(content) <= MOST_BYTES:
        return content.decode(errors="replace") if process.returncode == 0 else None
    kept = content[:MOST_BYTES].rpartition(b"\n")[0].decode(errors="replace")
    return f"{kept}\n… cut here: the diff has more than {MOST_BYTES:,} bytes\n"


def _command(folder: Path, *arguments: str) -> list[str]:
    return ["git", "-C", str(folder), *_OPTIONS, *arguments]


def _environment() -> dict[str, str]:
    """The environment of a command that only reads: it takes no locks, and asks nobody anything."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**kept, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}

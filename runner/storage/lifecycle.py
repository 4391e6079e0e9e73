"""Studies that are removed or renamed, which only the process that holds their lock may do."""

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from runner.errors import InvalidInputError
from runner.storage.environment import read_environment, write_environment
from runner.storage.folder import Folder, shorten_path
from runner.storage.lock import lock_folder
from runner.storage.manifest import require_manifest

_NAME = re.compile(r"[^/\\\x00-\x1f]+")


@dataclass(frozen=True)
class Removed:
    """A study that was removed, with the names of what else lay in its folder, which stays."""

    folder: Folder
    left: tuple[str, ...]


def remove_studies(folders: Sequence[Folder]) -> list[Removed]:
    """Removes the files of studies, all of them or, if one is in use, none.

    Other files in their folders stay there. Raises InvalidInputError for a study that another process holds.
    """
    with ExitStack() as locks:
        for folder in folders:
            locks.enter_context(lock_folder(folder))
        return [_remove(folder) for folder in folders]


def _remove(folder: Folder) -> Removed:
    """Moves the files into a hidden folder first: a study that is half removed would be a damaged one."""
    doomed = Path(tempfile.mkdtemp(dir=folder.path.parent, prefix=f".{folder.path.name}.removed-"))
    for path in sorted(folder.own_paths, key=lambda path: path != folder.manifest):  # without it there is no study
        if path.exists():
            os.replace(path, doomed / path.name)
    folder.holder.unlink(missing_ok=True)
    folder.lock.unlink(missing_ok=True)
    left = tuple(sorted(path.name for path in folder.path.iterdir()))
    if not left:
        folder.path.rmdir()
    shutil.rmtree(doomed)
    return Removed(folder, left)


def rename_study(folder: Folder, name: str) -> Folder:
    """Renames a study within the folder that it lies in; the command in its record gets the new name, too.

    Raises InvalidInputError for a name that is taken or is no name, for a damaged study, and for one in use.
    """
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise InvalidInputError(
            f"the new name must be that of a folder beside {shorten_path(folder.path)}, got {name!r}"
        )
    target = Folder(folder.path.with_name(name))
    if target.path.exists() or target.path.is_symlink():
        raise InvalidInputError(f"{shorten_path(target.path)} exists; give another name")
    require_manifest(folder.manifest)
    with lock_folder(folder):
        _rename_in_command(folder, name)
        os.rename(folder.path, target.path)
        target.holder.unlink(missing_ok=True)
    return target


def _rename_in_command(folder: Folder, name: str) -> None:
    """Lets the recorded command, which resumes the study, name it as its folder is called."""
    environment = read_environment(folder)
    if environment is None:
        return
    command = [word for word in environment["command"] if not word.startswith("study=")]
    write_environment(folder, {**environment, "command": [*command, f"study={name}"]})

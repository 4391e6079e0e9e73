"""The folder of a study: the paths of its files, and what is done with it as a whole."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from runner.errors import InvalidInputError, StudyFailedError


@dataclass(frozen=True)
class Folder:
    """The paths of one study. The part that a shard writes has a folder of the same form, in `parts/`."""

    path: Path

    @property
    def results(self) -> Path:
        return self.path / "results.csv"

    @property
    def checksums(self) -> Path:
        """The checksums of the table; see `runner.storage.checksums`."""
        return self.path / "results.crc"

    @property
    def manifest(self) -> Path:
        return self.path / "study.json"

    @property
    def programs(self) -> Path:
        return self.path / "programs.csv"

    @property
    def batches(self) -> Path:
        """When each batch of a search had ended, for people and pictures."""
        return self.path / "batches.csv"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def holder(self) -> Path:
        """Which process holds the lock, for people."""
        return self.path / ".holder.json"

    @property
    def fingerprint(self) -> Path:
        """The fingerprint that a shard took where it ran; only in the folder of a part."""
        return self.path / "fingerprint.json"

    @property
    def old_facts(self) -> Path:
        """What `fingerprint` was in manifests of format 2."""
        return self.path / "facts.json"

    @property
    def summary(self) -> Path:
        """The summary of all rows of a part; only in its folder, and only if the shard finished."""
        return self.path / "summary.json"

    @property
    def stop_request(self) -> Path:
        """A file whose presence asks the shards to stop."""
        return self.path / ".end"

    @property
    def states(self) -> Path:
        """The states of runs that take long, by the number of the first run of their block."""
        return self.path / "states"

    @property
    def checkpoints(self) -> Path:
        """What replays have saved, a folder for each run."""
        return self.path / "checkpoints"

    @property
    def looks(self) -> Path:
        """Which states of its runs were compared; see `runner.analysis.looks`."""
        return self.path / "looks.json"

    @property
    def looks_lock(self) -> Path:
        """Held while a comparison records its look."""
        return self.path / ".looks.lock"

    @property
    def confirmations(self) -> Path:
        """Which seeds confirm which points; see `runner.analysis.confirmation`."""
        return self.path / "confirmations.json"

    @property
    def race(self) -> Path:
        """The rounds of a race; see `runner.race`."""
        return self.path / "race.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def exports(self) -> Path:
        """What `python -m runner.export` writes, unless told where else."""
        return self.path / "exports"

    @property
    def own_paths(self) -> tuple[Path, ...]:
        """The files and folders of a study, but for those of its lock."""
        files = (self.results, self.manifest, self.programs, self.batches, self.environment)
        folders = (".hydra", "parts", "figures", "states", "checkpoints", "exports")
        more = (self.stop_request, self.report, self.checksums, self.looks, self.confirmations, self.race)
        return (*files, *more, *(self.path / name for name in folders))

    @property
    def parts(self) -> "list[Folder]":
        """The folders of the parts, in the order of their runs."""
        return [Folder(path) for path in sorted((self.path / "parts").glob("[0-9]*"))]

    def part(self, first: int) -> "Folder":
        """The folder of the part that begins with run number `first`."""
        return Folder(self.path / "parts" / f"{first:012d}")


def shorten_path(path: Path) -> str:
    """The path relative to the working directory, if it lies in it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def remove_if_empty(folder: Folder) -> None:
    """Removes the folder of a study that was never begun."""
    if folder.path.is_dir() and not any(folder.path.iterdir()):
        folder.path.rmdir()


def move_aside(folder: Folder) -> Path | None:
    """Moves the files of a study into a new folder beside it and returns that one; None if the folder is empty.

    What else lies in the folder stays there. Raises InvalidInputError for a folder with content that is no study.
    """
    locks = (folder.lock, folder.holder, folder.looks_lock)
    if not any(path not in locks for path in folder.path.iterdir()):
        return None
    if not folder.manifest.is_file():
        raise InvalidInputError(
            f"overwrite=true moves a study aside, and {shorten_path(folder.path)} is no study: "
            f"it has files, and no {folder.manifest.name}; use another name"
        )
    aside = _free_path(folder.path, "old")
    aside.mkdir()
    for path in folder.own_paths:
        if path.exists():
            shutil.move(path, aside / path.name)
    return aside


def fork_folder(folder: Folder) -> Folder:
    """A folder that does not exist yet, beside the given one and with its name and a number."""
    return Folder(_free_path(folder.path, "fork"))


def _free_path(path: Path, suffix: str) -> Path:
    return next(free for number in count(1) if not (free := path.with_name(f"{path.name}.{suffix}{number}")).exists())


def write_file(path: Path, text: str) -> None:
    """Writes a file atomically: to a temporary name, synced, then renamed.

    Raises StudyFailedError if the disk refuses.
    """
    name = None
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            name = file.name
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        if name is not None:
            Path(name).unlink(missing_ok=True)
        raise StudyFailedError(f"cannot write {path}: {error.strerror}; the same command resumes the study") from error


def write_config(folder: Folder, texts: Mapping[str, str]) -> None:
    """Writes the composed configuration into `.hydra/`, by file name."""
    (folder.path / ".hydra").mkdir(exist_ok=True)
    for name, text in texts.items():
        write_file(folder.path / ".hydra" / name, text)

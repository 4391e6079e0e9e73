"""A study's folder: its files, its lock, and what may be done with it as a whole."""

import json
import os
import platform
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from runner.errors import InvalidInputError, StudyFailedError

LIBRARIES = ("seedbed", "jax", "jaxlib", "flax", "numpy", "hydra-core", "omegaconf", "pyarrow", "optax")


@dataclass(frozen=True)
class Folder:
    """The paths of one study."""

    path: Path

    @property
    def results(self) -> Path:
        return self.path / "results.csv"

    @property
    def record(self) -> Path:
        return self.path / "study.json"

    @property
    def programs(self) -> Path:
        return self.path / "programs.csv"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def holder(self) -> Path:
        return self.path / ".holder.json"

    @property
    def facts(self) -> Path:
        """In a part's folder, what is in no column and yet decides its results: see `runner.record`."""
        return self.path / "facts.json"

    @property
    def summary(self) -> Path:
        """In a part's folder, the summary of all of its rows."""
        return self.path / "summary.json"

    @property
    def end(self) -> Path:
        """Its presence asks the shards to end."""
        return self.path / ".end"

    def part(self, first: int) -> "Folder":
        """The folder of the shard that begins with this run: a part has the form of a study."""
        return Folder(self.path / "parts" / f"{first:012d}")

    @property
    def parts(self) -> "list[Folder]":
        """The folders of the parts, in the order of their runs."""
        return [Folder(path) for path in sorted((self.path / "parts").glob("[0-9]*"))]

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def shown(self) -> str:
        """The path of the table as it is shortest to type."""
        return _shortest(self.results)

    @property
    def shown_path(self) -> str:
        """The path of the folder as it is shortest to type."""
        return _shortest(self.path)


def _shortest(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


@contextmanager
def held(folder: Folder) -> Iterator[None]:
    """Keeps other processes off the study. The system lets go of the lock when its holder ends, however it ends.

    Raises InvalidInputError that says who holds it, be it a shard that outlived the call it belongs to.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.lock, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InvalidInputError(f"{folder.path} is in use by {_holder(folder)}") from error
    try:
        if shards := [part for part in folder.parts if in_use(part)]:
            raise InvalidInputError(f"{folder.path} is in use by a shard, {_holder(shards[0])}")
        since = datetime.now(UTC).isoformat(timespec="seconds")
        write(folder.holder, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}) + "\n")
        yield
    finally:
        folder.holder.unlink(missing_ok=True)
        lock.release()
        if not folder.record.exists():
            folder.lock.unlink(missing_ok=True)


def in_use(folder: Folder) -> bool:
    """Whether another process holds the study, or the part of one."""
    lock = FileLock(folder.lock, timeout=0)
    try:
        with lock:
            return False
    except Timeout:
        return True


def _holder(folder: Folder) -> str:
    try:
        holder = json.loads(folder.holder.read_text())
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"


def discard(folder: Folder) -> None:
    """Removes the folder of a study that was never begun, if nothing else is in it."""
    if folder.path.is_dir() and not any(folder.path.iterdir()):
        folder.path.rmdir()


def set_aside(folder: Folder) -> Path | None:
    """Moves what is in the folder into another one beside it, and tells which; None if it is empty."""
    content = [path for path in folder.path.iterdir() if path not in (folder.lock, folder.holder)]
    if not content:
        return None
    aside = _free(folder.path, "old")
    aside.mkdir()
    for path in content:
        shutil.move(path, aside / path.name)
    return aside


def sibling(folder: Folder) -> Folder:
    """A folder of the same name with a number, that is not there yet."""
    return Folder(_free(folder.path, "fork"))


def _free(path: Path, word: str) -> Path:
    return next(free for number in count(1) if not (free := path.with_name(f"{path.name}.{word}{number}")).exists())


def write(path: Path, text: str) -> None:
    """Writes a record whole: to a temporary name, then renamed. Raises StudyFailedError if the disk refuses."""
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
        raise StudyFailedError(f"cannot write {path}: {error.strerror}; the same command goes on from there") from error


def environment(devices: Iterable[str]) -> dict[str, Any]:
    """What the results depend on beside their values: versions, machine and devices."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.orig_argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "devices": list(devices),
        "versions": _versions(),
        "variables": {name: os.environ[name] for name in sorted(os.environ) if name.startswith(("JAX_", "XLA_"))},
    }


def command(folder: Folder) -> str:
    """The command of the study's last call, as it is told in a message."""
    program, *words = json.loads(folder.environment.read_text())["command"]
    return shlex.join([Path(program).name, *words])


def _versions() -> Mapping[str, str]:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def write_environment(folder: Folder, record: Mapping[str, Any]) -> None:
    """Writes `environment.json`."""
    write(folder.environment, json.dumps(record, indent=2) + "\n")


def write_config(folder: Folder, texts: Mapping[str, str]) -> None:
    """Writes what was composed into `.hydra/`, where Hydra would have put it, once the study is accepted."""
    (folder.path / ".hydra").mkdir(exist_ok=True)
    for name, text in texts.items():
        write(folder.path / ".hydra" / name, text)

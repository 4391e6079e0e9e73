"""The lock of a study: one process at a time writes to its folder."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from filelock import FileLock, Timeout

from runner.errors import InvalidInputError
from runner.storage.folder import Folder, write_file

FINGERPRINT_SECONDS = 60
"""How long a shard waits for the others while they record where they run."""
LOOK_SECONDS = 10
"""How long a comparison waits for another one that records its look."""


@contextmanager
def lock_folder(folder: Folder) -> Iterator[None]:
    """Keeps other processes out of the study. The operating system releases the lock when its holder ends.

    Raises InvalidInputError that names the holder, also where that is a shard that outlived its call.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.lock, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InvalidInputError(f"{folder.path} is in use by {read_holder(folder)}") from error
    try:
        if shards := [part for part in folder.parts if is_locked(part)]:
            raise InvalidInputError(f"{folder.path} is in use by a shard, {read_holder(shards[0])}")
        since = datetime.now(UTC).isoformat(timespec="seconds")
        write_file(folder.holder, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}) + "\n")
        yield
    finally:
        folder.holder.unlink(missing_ok=True)
        lock.release()
        if not folder.manifest.exists():
            folder.lock.unlink(missing_ok=True)


@contextmanager
def lock_parts(folder: Folder) -> Iterator[None]:
    """Lets one shard at a time read and write the fingerprints of the parts; waits for the others."""
    with FileLock(folder.path / "parts" / ".lock", timeout=FINGERPRINT_SECONDS):
        yield


@contextmanager
def lock_looks(folder: Folder) -> Iterator[None]:
    """Lets one comparison at a time read and write the looks at a study, which may be under way meanwhile.

    Waits for the others, and raises InvalidInputError if that takes too long.
    """
    try:
        with FileLock(folder.looks_lock, timeout=LOOK_SECONDS):
            yield
    except Timeout as error:
        raise InvalidInputError(f"{folder.looks} is in use by another comparison; try again") from error


def is_locked(folder: Folder) -> bool:
    """Whether another process holds the study, or the part of one."""
    lock = FileLock(folder.lock, timeout=0)
    try:
        with lock:
            return False
    except Timeout:
        return True


def read_holder(folder: Folder) -> str:
    """Who holds a study, or the part of one, in words."""
    try:
        holder = json.loads(folder.holder.read_text())
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"

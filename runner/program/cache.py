"""JAX's persistent cache of executables: where it is, which lookups hit it, and entries that a kill has truncated."""

import errno
import os
import socket
import threading
import warnings
import zlib
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jaxlib

ENABLED, FOLDER = "jax_enable_compilation_cache", "jax_compilation_cache_dir"
HIT_EVENT = "/jax/compilation_cache/cache_hits"
CHECKED = ".checked"
"""A file in the cache's folder: entries that are older were checked."""
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

_THREAD = threading.local()


def enable_cache() -> str | None:
    """Turns on the cache, in a folder for each user, host and jaxlib; one set by `JAX_COMPILATION_CACHE_DIR` is kept.

    An executable of another host or another jaxlib may be refused or crash, hence the folder's name. Where the folder
    cannot be used, there is no cache, and the problem is returned as a sentence.
    """
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # JAX compiles instead, and says so: another process may be writing the entry at this moment
    warnings.filterwarnings("ignore", category=UserWarning, module=r"jax\._src\.compiler")
    given = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    try:
        folder = _make_folder(Path(given) if given else _locate_folder())
    except (OSError, RuntimeError) as error:  # Path.home() raises RuntimeError
        jax.config.update(ENABLED, False)
        return f"executables are not cached: {error}"
    jax.config.update(ENABLED, True)
    jax.config.update(FOLDER, str(folder))
    if not given:
        remove_truncated_entries(folder)
    return None


def _locate_folder() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "seedbed" / f"{socket.gethostname()}-jaxlib-{jaxlib.__version__}"


def _make_folder(folder: Path) -> Path:
    """The folder, which exists and in which files can be written, or at least read. Raises OSError otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.R_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    return folder


def remove_truncated_entries(folder: Path) -> None:
    """Deletes the entries that were not written to their end, among those written since the last check.

    JAX would warn about such an entry at each lookup, compile, and never replace it: it does not write atomically,
    and leaves existing entries alone.
    """
    if not os.access(folder, os.W_OK):  # nothing could be deleted, and nothing new is written
        return
    stamp = folder / CHECKED
    since = stamp.stat().st_mtime_ns if stamp.exists() else 0
    entries = [Path(entry) for entry in os.scandir(folder) if entry.stat().st_mtime_ns >= since]
    stamp.touch()  # before the entries are read: what is written meanwhile is checked next time
    for entry in entries:
        if entry.name.endswith("-cache") and not _is_complete(entry.read_bytes()):
            entry.unlink(missing_ok=True)


def _is_complete(content: bytes) -> bool:
    """Whether a compressed entry can be decompressed; JAX compresses with zstandard if that is installed."""
    if content.startswith(ZSTD_MAGIC):
        import zstandard

        try:
            zstandard.ZstdDecompressor().decompress(content)
        except zstandard.ZstdError:
            return False
        return True
    try:
        zlib.decompress(content)
    except zlib.error:
        return False
    return True


def find_cached(names: Collection[str]) -> set[str] | None:
    """Which of the programs of these names seem to have an entry in the cache; None if there is no cache.

    A name stands for a structure, so that a rare change, such as one of a constant array, is not noticed.
    """
    is_enabled, folder = (getattr(jax.config, setting) for setting in (ENABLED, FOLDER))
    if not is_enabled or folder is None:
        return None
    entries = (name for name in os.listdir(folder) if name.endswith("-cache"))
    return set(names) & {name.rpartition("-")[0].removeprefix("jit_").rpartition("-")[0] for name in entries}


@cache
def watch_cache() -> None:
    """Begins to count the hits of the cache; JAX has no way to remove a listener."""
    jax.monitoring.register_event_listener(_count_hit)


def count_hits() -> int:
    """Hits of the cache so far, in the thread that asks."""
    return getattr(_THREAD, "hits", 0)


def _count_hit(event: str, **_: Any) -> None:
    if event == HIT_EVENT:
        _THREAD.hits = count_hits() + 1

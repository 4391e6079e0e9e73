"""The process that waits for a shard, and the end of a worker that nobody waits for any more."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

POLL_SECONDS = 1.0
"""How often a worker looks whether its caller is alive."""
GRACE_SECONDS = 5.0
"""How long a shard without a caller may take to end its block, unless it was asked to stop before."""

_busy = threading.Event()


@dataclass(frozen=True)
class Caller:
    """A process that has started a launcher and waits for its jobs."""

    host: str
    process: int

    def is_here(self) -> bool:
        """Whether it runs on this machine, so that its end can be seen."""
        return self.host == socket.gethostname()

    def is_gone(self) -> bool:
        """Whether it has ended; unknown, and so False, on another host."""
        if not self.is_here():
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # the number belongs to a process of another user by now
            return True
        # a process that nobody has waited for keeps its number, but has no children any more
        return _is_parent(self.process, os.getpid()) and os.getppid() != self.process


@contextmanager
def end_with(caller: Caller | None, stop_request: Path) -> Iterator[None]:
    """Ends this process soon after its caller is gone, if it is a worker of a launcher on the caller's machine.

    While the context is open, the shard has a few seconds to end by itself, and none if the file `stop_request` exists:
    then its caller was ended by a second signal. Afterwards the worker is idle, and its launcher would keep it and its
    memory for minutes.
    """
    if caller is None or not caller.is_here() or caller.process == os.getpid():
        yield
        return
    _start_watching(caller, os.getpid(), stop_request)
    _busy.set()
    try:
        yield
    finally:
        _busy.clear()


@cache
def _is_parent(process: int, child: int) -> bool:
    """Whether a process was the parent of this one, `child`, when that was first asked."""
    return os.getppid() == process


@cache
def _start_watching(caller: Caller, process: int, stop_request: Path) -> None:
    """Starts the thread that looks after the caller, once for each caller and `process`, which is this one."""
    _is_parent(caller.process, process)
    threading.Thread(target=_watch, args=(caller, stop_request), daemon=True).start()


def _watch(caller: Caller, stop_request: Path) -> None:
    while not caller.is_gone():
        time.sleep(POLL_SECONDS)
    end = time.monotonic() + GRACE_SECONDS
    while _busy.is_set() and time.monotonic() < end and not stop_request.exists():
        time.sleep(POLL_SECONDS / 10)
    os._exit(1)

"""Ctrl-C and SIGTERM: the first is a request to stop, honoured at the end of a block, the second ends the process."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ONE_SIGNAL_SECONDS = 0.05
"""Within this time two signals are one: `timeout` and others send theirs to the process and to its group."""


@contextmanager
def catch_signals(
    on_signal: Callable[[], object] = lambda: None, *, is_guest: bool = False
) -> Iterator[Callable[[], int | None]]:
    """Yields a function that returns the number of the signal that has arrived, or None.

    `on_signal` is called when it arrives. The second signal ends the process at once, by the system and not by Python,
    which could not run a handler while a task holds its lock; the study on disk is then as after a kill. Outside of the
    main thread no signal is caught, because Python delivers signals to the main thread only.

    In a process of somebody else's (`is_guest`) SIGTERM is not caught, and the second Ctrl-C is handled as it was
    before, usually by a KeyboardInterrupt.
    """
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (SIGNALS[:1] if is_guest else SIGNALS)}

    def handle(number: int, _: Any) -> None:
        arrived.append(number)
        _set_all(dict.fromkeys(before, signal.SIG_IGN))
        time.sleep(ONE_SIGNAL_SECONDS)
        _set_all(before if is_guest else dict.fromkeys(SIGNALS, signal.SIG_DFL))
        on_signal()

    _set_all(dict.fromkeys(before, handle))
    try:
        yield lambda: arrived[0] if arrived else None
    finally:
        _set_all(before)


def _set_all(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)

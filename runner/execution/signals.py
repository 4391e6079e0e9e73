"""Ctrl-C and SIGTERM as requests to stop, which a study honours at the end of a block."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def catch_signals(on_signal: Callable[[], object] = lambda: None) -> Iterator[Callable[[], int | None]]:
    """Yields a function that returns the number of the signal that has arrived, or None.

    `on_signal` is called when it arrives. The second signal has its usual effect. Outside of the main thread no
    signal is caught, because Python delivers signals to the main thread only.
    """
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number in SIGNALS:
            signal.signal(number, before[number])

    def handle(number: int, _: Any) -> None:
        arrived.append(number)
        on_signal()
        restore()

    for number in SIGNALS:
        signal.signal(number, handle)
    try:
        yield lambda: arrived[0] if arrived else None
    finally:
        restore()

"""Ctrl-C and SIGTERM as a request, which the study answers at the end of a block."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def requests(answer: Callable[[], object] = lambda: None) -> Iterator[Callable[[], int | None]]:
    """Gives a function that tells the signal that has asked for an end, if any; `answer` is called at once.

    A second signal is not held back. Outside of the main thread nothing is: signals never arrive there.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def ask(number: int, _: Any) -> None:
        asked.append(number)
        answer()
        for each in SIGNALS:
            signal.signal(each, before[each])

    for number in SIGNALS:
        signal.signal(number, ask)
    try:
        yield lambda: asked[0] if asked else None
    finally:
        for number in SIGNALS:
            signal.signal(number, before[number])

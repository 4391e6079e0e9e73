"""Progress in a notebook: a bar that the frontend draws, without widgets."""

import html
import sys
import time
from collections.abc import Callable
from typing import Any

UPDATE_SECONDS = 0.2
"""How often a bar is drawn again."""

Display = Callable[..., Any]


def find_display() -> Display | None:
    """What shows something below the cell of a notebook, None if this process is no notebook's kernel."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or getattr(shell, "kernel", None) is None:
        return None
    from IPython.display import display

    return display


class NotebookProgress:
    """A bar with the runs that are done, their rate and the remaining time; it stays below its cell."""

    def __init__(self, runs: int, display: Display) -> None:
        self.runs, self.done, self.started, self.drawn = runs, 0, time.monotonic(), 0.0
        self.note = ""
        self.handle = display(self, display_id=True)

    def advance(self, runs: int, note: str = "") -> None:
        """Adds runs that are done; a note stands behind them."""
        self.done, self.note = self.done + runs, note
        now = time.monotonic()
        if now - self.drawn >= UPDATE_SECONDS or self.done == self.runs:
            self.drawn = now
            self.handle.update(self)

    def __repr__(self) -> str:
        seconds = time.monotonic() - self.started
        rate = self.done / seconds if self.done else 0.0
        left = f", {(self.runs - self.done) / rate:,.0f} s left" if 0 < self.done < self.runs else ""
        pace = f", {rate:,.0f} runs/s{left}" if self.done else ""
        return f"{self.done:,} of {self.runs:,} runs{pace}{f'; {self.note}' if self.note else ''}"

    def _repr_html_(self) -> str:
        return f'<progress value="{self.done}" max="{self.runs}"></progress> {html.escape(repr(self))}'

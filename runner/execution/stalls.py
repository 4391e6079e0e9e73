"""Stalls: blocks that take far longer than the earlier ones of their group. They are told, and nothing is ended."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any, Protocol, TypeVar

POLL_SECONDS = 1.0
"""How often it is looked whether a block has returned."""
LEAST_SECONDS = 60.0
"""No stall is told earlier."""
FIRST_SECONDS = 600.0
"""The same for a group without an earlier block; the time of its compilation is included."""
FACTOR = 10
"""How many times as long as the longest earlier block of its group a block must take."""


class Timed(Protocol):
    """A part of a block's results, with seconds of a common clock."""

    @property
    def started(self) -> float: ...
    @property
    def ended(self) -> float: ...


Results = TypeVar("Results", bound=Sequence[Timed])


class StallWatch:
    """Waits for blocks, and tells a line, once for each group, where none returns for far longer than before.

    `describe` names a group by its signature; `on_wait` is called about once a second while no block returns.
    """

    def __init__(
        self,
        describe: Callable[[str], str],
        warn: Callable[[str], object],
        on_wait: Callable[[], object] = lambda: None,
    ) -> None:
        self._describe, self._warn, self._on_wait = describe, warn, on_wait
        self._signatures: dict[Future[Any], str] = {}
        self._longest: dict[str, float] = {}
        self._told: set[str] = set()
        self._segments = 0

    def add(self, signature: str, future: Future[Results]) -> Future[Results]:
        """The future of a block of this group, for which somebody will wait."""
        self._signatures[future] = signature
        return future

    def note_segment(self) -> None:
        """Notes that a part of a block has returned, which is no stall."""
        self._segments += 1

    def wait_for(self, future: Future[Results]) -> Results:
        """The results of a block that was added, when it has returned."""
        signature = self._signatures.pop(future)
        done, since = self._count_done(), time.monotonic()
        while wait([future], timeout=POLL_SECONDS).not_done:
            if (now_done := self._count_done()) != done:
                done, since = now_done, time.monotonic()
            self._on_wait()
            self._check(signature, time.monotonic() - since)
        results = future.result()
        longest = max((result.ended - result.started for result in results), default=0.0)
        self._longest[signature] = max(longest, self._longest.get(signature, 0.0))
        return results

    def _count_done(self) -> int:
        """How many of the blocks under way have returned, beside the one that is waited for, and parts of blocks."""
        return self._segments + sum(future.done() for future in self._signatures)

    def _check(self, signature: str, seconds: float) -> None:
        longest = self._longest.get(signature)
        if signature in self._told or seconds < find_limit(longest):
            return
        self._told.add(signature)
        earlier = "it is its first" if longest is None else f"an earlier one took {longest:.1f} s at most"
        self._warn(
            f"no block has returned for {seconds:.0f} s; the one waited for is of group {self._describe(signature)}, "
            f"{earlier}. Nothing is ended: Ctrl-C stops after the blocks under way, a second one at once, and the same "
            "command resumes the study"
        )


def find_limit(longest: float | None) -> float:
    """The seconds without a block after which a stall is told; `longest` is the longest earlier one, None for none."""
    return FIRST_SECONDS if longest is None else max(LEAST_SECONDS, FACTOR * longest)

"""Pending runs: those of a plan that have no row yet, and the blocks in which they are executed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np

from runner.plan.segments import Plan, intersect

CHUNK = 65536
"""Places that are examined at once; blocks may be smaller, they are never larger than their program."""

IsMissing = Callable[[int, np.ndarray], np.ndarray]
"""Which runs of a segment, given by their places, have no row yet: bool `(runs,)`."""


@dataclass(frozen=True)
class Block:
    """Runs of one segment that one call of a program executes: places and numbers in the table, int64 `(runs,)`."""

    segment: int
    places: np.ndarray
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def cut(self, start: int, stop: int) -> "Block":
        """Some consecutive runs of the block."""
        return Block(self.segment, self.places[start:stop], self.numbers[start:stop])


@dataclass(frozen=True)
class PendingRuns:
    """The runs of a plan without a row, numbered consecutively from `first`, and which of them to execute now."""

    is_missing: IsMissing | None
    """None where no run of the plan has a row."""
    counts: Sequence[int]
    """How many runs of each segment are missing."""
    first: int
    spans: Sequence[range]
    """The numbers of the runs to execute, ascending."""

    @cached_property
    def numbers(self) -> list[range]:
        """The numbers of each segment's missing runs."""
        stops = list(accumulate(self.counts, initial=self.first))
        return [range(start, stop) for start, stop in pairwise(stops)]

    @cached_property
    def to_execute(self) -> list[int]:
        """How many runs of each segment are executed now."""
        return [sum(len(intersect(span, numbers)) for span in self.spans) for numbers in self.numbers]


def find_pending(plan: Plan, is_missing: IsMissing | None = None, first: int = 0) -> PendingRuns:
    """All runs of a plan that `is_missing` selects, numbered from `first`."""
    counts = [
        plan.runs_per_segment if is_missing is None else sum(map(len, _iterate_missing(plan, index, is_missing)))
        for index in range(len(plan.segments))
    ]
    return PendingRuns(is_missing, counts, first, [range(first, first + sum(counts))])


def iterate_blocks(plan: Plan, pending: PendingRuns, sizes: Mapping[str, int]) -> Iterator[Block]:
    """The runs to execute, in the order of the table, in blocks of at most the size of their signature."""
    for index, (segment, numbers) in enumerate(zip(plan.segments, pending.numbers, strict=True)):
        size = sizes.get(segment.signature, CHUNK)  # a group without a size has no run to execute
        for first, places in _cut(_select_places(plan, index, numbers, pending), size):
            yield Block(index, places, np.arange(first, first + len(places)))


def cut_blocks(plan: Plan, blocks: Sequence[Block], sizes: Mapping[str, int]) -> Iterator[Block]:
    """The same runs in blocks of at most the size of their signature."""
    for block in blocks:
        size = sizes[plan.segments[block.segment].signature]
        yield from (block.cut(start, start + size) for start in range(0, len(block), size))


def _select_places(plan: Plan, segment: int, numbers: range, pending: PendingRuns) -> Iterator[tuple[int, np.ndarray]]:
    """Consecutive runs of a segment that are to be executed: the number of the first, and their places."""
    spans = [span for span in pending.spans if intersect(span, numbers)]
    first = numbers.start
    for places in _iterate_missing(plan, segment, pending.is_missing) if spans else ():
        for span in spans:
            if both := intersect(span, range(first, first + len(places))):
                yield both.start, places[both.start - first : both.stop - first]
        first += len(places)


def _iterate_missing(plan: Plan, segment: int, is_missing: IsMissing | None) -> Iterator[np.ndarray]:
    for start in range(0, plan.runs_per_segment, CHUNK):
        places = np.arange(start, min(start + CHUNK, plan.runs_per_segment))
        yield places if is_missing is None else places[is_missing(segment, places)]


def _cut(pieces: Iterator[tuple[int, np.ndarray]], size: int) -> Iterator[tuple[int, np.ndarray]]:
    """The same runs, `size` at a time wherever their numbers are consecutive, with the number of each first one."""
    first, rest = 0, np.empty(0, dtype=np.int64)
    for number, places in pieces:
        if len(rest) and number != first + len(rest):
            yield first, rest
            rest = rest[:0]
        first, rest = (first, np.concatenate([rest, places])) if len(rest) else (number, places)
        whole = len(rest) // size * size
        yield from ((first + start, rest[start : start + size]) for start in range(0, whole, size))
        first, rest = first + whole, rest[whole:]
    if len(rest):
        yield first, rest

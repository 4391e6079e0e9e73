"""The programs of a schedule's groups, compiled in the background before their blocks are executed."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from runner import program
from runner.errors import InvalidInputError
from runner.execution.schedule import Groups
from runner.program import Program, TracedTask

MOST_KEPT = 64
"""Programs that are kept from one schedule to the next."""


class KeptPrograms:
    """What one schedule leaves to the next ones of the same search: traced tasks, and `most` programs by device."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self.traced: dict[str, TracedTask | str] = {}
        self._programs: dict[tuple[str, int | None], Program] = {}
        self._lock = Lock()

    def get(self, signature: str, device: int | None) -> Program | None:
        """The program of a signature on a device, if it was kept."""
        with self._lock:
            return self._programs.get((signature, device))

    def put(self, signature: str, kept: Program) -> None:
        """Keeps a program; of too many, the one that was kept first is dropped."""
        with self._lock:
            self._programs[signature, kept.traced.device] = kept
            while len(self._programs) > self._most:
                del self._programs[next(iter(self._programs))]


class Programs:
    """The programs of a schedule's groups, compiled in the background a few groups ahead of their first block.

    A program is kept until all runs of its group are done, so that memory does not grow with the number of groups;
    `kept` has those of earlier schedules, and takes them afterwards.
    """

    def __init__(
        self,
        groups: Groups,
        runs: Mapping[str, int],
        compilers: ThreadPoolExecutor,
        ahead: int,
        kept: KeptPrograms | None = None,
    ) -> None:
        self._groups, self._compilers, self._ahead = groups, compilers, ahead
        self._kept = kept or KeptPrograms(0)
        self._names = list(groups)
        self._place = {name: i for i, name in enumerate(self._names)}
        self._left = dict(runs)
        self._requested = 0
        self._compiled: dict[str, Future[Program] | str] = {}
        self._halving = Lock()

    def request(self, signature: str) -> None:
        """Compiles this group and the next ones, if that has not begun."""
        for name in self._names[self._requested : self._place[signature] + self._ahead]:
            self._requested += 1
            group = self._groups[name]
            self._compiled[name] = group if isinstance(group, str) else self._compile(name, group)

    def _compile(self, signature: str, group: TracedTask) -> Future[Program]:
        known = self._kept.get(signature, group.device)
        if known is None:
            return self._compilers.submit(program.compile_program, group)
        future: Future[Program] = Future()
        future.set_result(known)
        return future

    def get(self, signature: str) -> Program:
        """The program, when it is compiled. Raises InvalidInputError if the group cannot be traced."""
        compiled = self._compiled[signature]
        if isinstance(compiled, str):
            raise InvalidInputError(compiled)
        return compiled.result()

    def release(self, signature: str, runs: int) -> bool:
        """Drops the program if these were the last runs of its group, and returns whether they were."""
        self._left[signature] -= runs
        if is_done := not self._left[signature]:
            compiled = self._compiled.pop(signature)
            if isinstance(compiled, Future) and compiled.done() and not compiled.exception():
                self._kept.put(signature, compiled.result())
        return is_done

    def halve(self, signature: str, exceeded: Program) -> Program | None:
        """A program with less capacity than one that exceeded the memory, for the blocks to come too.

        None if there is no smaller one. Threads whose blocks exceed the memory at the same time share one compilation.
        """
        with self._halving:
            current = self.get(signature)
            if current.traced.capacity < exceeded.traced.capacity:
                return current
            smaller = program.halve_program(exceeded)
            if smaller is not None:
                future: Future[Program] = Future()
                future.set_result(smaller)
                self._compiled[signature] = future
            return smaller

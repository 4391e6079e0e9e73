"""The programs of a schedule's groups, compiled in the background before their blocks are executed."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from runner import program
from runner.errors import InvalidInputError
from runner.execution.schedule import Groups
from runner.program import Program


class Programs:
    """The programs of a schedule's groups, compiled in the background a few groups ahead of their first block.

    A program is kept until all runs of its group are done, so that memory does not grow with the number of groups.
    """

    def __init__(self, groups: Groups, runs: Mapping[str, int], compilers: ThreadPoolExecutor, ahead: int) -> None:
        self._groups, self._compilers, self._ahead = groups, compilers, ahead
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
            self._compiled[name] = (
                group if isinstance(group, str) else self._compilers.submit(program.compile_program, group)
            )

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
            del self._compiled[signature]
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

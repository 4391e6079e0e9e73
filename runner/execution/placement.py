"""Which device executes a block, and the copies of its program on the devices."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from threading import Lock
from typing import Protocol

from runner import program
from runner.execution.compilation import KeptPrograms, Programs
from runner.program import Program, TracedTask


class ProgramSource(Protocol):
    """Where a block gets its program from."""

    def get(self, signature: str) -> Program:
        """The program of a group. Raises InvalidInputError if it has none."""
        ...

    def halve(self, signature: str, exceeded: Program) -> Program | None:
        """A program with less capacity than one that exceeded the memory, None if there is none."""
        ...


class Turns:
    """The devices, which take the blocks in turn; a group begins with the device that its number selects.

    So the blocks of one group go to all devices, and groups of a single block do, too, compiled once each.
    """

    def __init__(self, devices: Sequence[int], signatures: Sequence[str]) -> None:
        # the default device has no number, so that its programs are what they are without other devices
        self.devices: tuple[int | None, ...] = (None,) if tuple(devices) == (0,) else tuple(devices)
        self._next = {name: number % len(self.devices) for number, name in enumerate(signatures)}

    def place_groups(self, groups: Mapping[str, TracedTask | str]) -> dict[str, TracedTask | str]:
        """The groups, each to be compiled for the device of its first block."""
        return {
            name: group if isinstance(group, str) else replace(group, device=self.devices[self._next[name]])
            for name, group in groups.items()
        }

    def take(self, signature: str) -> int:
        """The place among the devices of the one that executes the next block of a group."""
        place = self._next[signature]
        self._next[signature] = (place + 1) % len(self.devices)
        return place


class Copies:
    """Copies of programs for other devices than those that they were compiled for, made when first needed."""

    def __init__(self, programs: Programs, kept: KeptPrograms | None = None) -> None:
        self.programs = programs
        self._kept = kept or KeptPrograms(0)
        self._copies: dict[tuple[str, int, int | None], Future[Program]] = {}
        self._lock = Lock()

    def on(self, device: int | None) -> ProgramSource:
        """The programs on a device."""
        return _OnDevice(self, device)

    def copy(self, signature: str, original: Program, device: int | None) -> Program:
        """The program on a device. Threads that need it at the same time share one compilation."""
        if original.traced.device == device:
            return original
        key = signature, original.traced.capacity, device
        with self._lock:
            is_first = key not in self._copies
            copy = self._copies.setdefault(key, Future())
        if is_first:
            try:
                kept = self._kept.get(signature, device)
                copy.set_result(kept or program.copy_program(original, device))
            except BaseException as error:
                copy.set_exception(error)
        return copy.result()

    def release(self, signature: str, runs: int) -> None:
        """Drops the program and its copies if these were the last runs of its group."""
        if self.programs.release(signature, runs):
            with self._lock:
                for key, copy in self._copies.items():
                    if key[0] == signature and copy.done() and not copy.exception():
                        self._kept.put(signature, copy.result())
                self._copies = {key: copy for key, copy in self._copies.items() if key[0] != signature}


@dataclass(frozen=True)
class _OnDevice:
    copies: Copies
    device: int | None

    def get(self, signature: str) -> Program:
        return self.copies.copy(signature, self.copies.programs.get(signature), self.device)

    def halve(self, signature: str, exceeded: Program) -> Program | None:
        smaller = self.copies.programs.halve(signature, exceeded)
        return None if smaller is None else self.copies.copy(signature, smaller, self.device)

"""The errors that end a command, each with its exit status."""

from typing import Self

TRACEBACK = "Traceback (most recent call last):"
"""How Python begins a traceback; XLA passes the one of a callback on as text."""


class SeedbedError(Exception):
    """Base of the errors that end a command; `exit_status` is the status of the process.

    `command` is what its message ends with, where that is a command to be copied.
    """

    exit_status = 1
    command = ""

    def with_command(self, command: str) -> Self:
        """The error with the command that its message ends with."""
        self.command = command
        return self


class InvalidInputError(SeedbedError):
    """A usage error: the message states the rule, the value given and the valid values.

    Its notes are lines for the terminal that tell where in the user's own files it arose.
    """

    exit_status = 2


class StudyFailedError(SeedbedError):
    """Something failed during execution; rows that were finished before are on disk."""


class StudyInterruptedError(SeedbedError):
    """A signal ended the study early; rows that were finished before are on disk."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(number, message)  # all arguments, so that a launcher's worker can pickle the error
        self.exit_status = 128 + number
        self.message = message

    def __str__(self) -> str:
        return self.message


def describe_error(error: BaseException) -> str:
    """The type and the first line of an error; of one that a callback raised, the line below its traceback."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    if (begin := next((i for i, line in enumerate(lines) if line.endswith(TRACEBACK)), None)) is not None:
        raised = [line for line in lines[begin + 1 :] if not line.startswith(" ")]
        return raised[0] if raised else f"{type(error).__name__}: {lines[0].strip()}"
    return f"{type(error).__name__}: {lines[0].strip() if lines else 'no message'}"

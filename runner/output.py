"""Standard output of the commands, which may be closed, full, or unable to encode what is written."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from runner.errors import SeedbedError
from runner.layout import wrap_words
from runner.plan.texts import escape_controls

CLOSED_PIPE = 141
"""The exit status of a process that SIGPIPE ends, as shells report it."""


class Output:
    """A stream that goes on after a failure: what nobody reads is lost, but never the study that is being run.

    `failure` is the first error, after which nothing is written any more.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        self._try(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, act: Callable[[], object]) -> None:
        if self.failure is None:
            try:
                act()
            except OSError as error:
                self.failure = error
                _discard(self.stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _discard(stream: Any) -> None:
    """Lets what is still buffered go nowhere: the interpreter would fail once more when it ends."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


@contextmanager
def guard_output() -> Iterator[None]:
    """Replaces standard output while a command runs; afterwards the exit status tells if it could not be written.

    Characters that its encoding does not have are replaced. A closed pipe is no error: `| head` reads what it wants.
    """
    output = Output(sys.stdout)
    with suppress(AttributeError, OSError):
        output.stream.reconfigure(errors="replace")
    sys.stdout = output
    try:
        yield
        output.flush()
    except SystemExit as end:
        output.flush()
        if end.code:
            raise
    finally:
        sys.stdout = output.stream
    if output.failure is not None:
        _leave(output.failure)


def _leave(failure: OSError) -> NoReturn:
    if not isinstance(failure, BrokenPipeError):
        print_error(f"cannot write to the standard output: {failure.strerror}")
        sys.exit(1)
    sys.exit(CLOSED_PIPE)


def print_error(message: str, command: str = "") -> None:
    """Prints a message on standard error; `command` is its end, which a terminal shows in a line of its own."""
    with suppress(OSError):
        print(fit_message(f"error: {escape_controls(message, keep=chr(10))}", command), file=sys.stderr)


def fit_message(message: str, command: str = "") -> str:
    """A message for standard error: on a terminal its lines are broken between words, elsewhere it is one line.

    A command at its end stays whole, so that it can be copied.
    """
    if not sys.stderr.isatty():
        return message
    width = shutil.get_terminal_size().columns
    head = message.removesuffix(command).rstrip() if command else message
    lines = [wrap_words(line, width) for line in head.split("\n")]
    return "\n".join([*lines, *([f"  {command}"] if command and message.endswith(command) else [])])


def run_command(execute: Callable[[], None]) -> None:
    """Runs a command about studies: an error is a line and its exit status, 2 for a usage error, 130 for Ctrl-C."""
    with guard_output():
        try:
            execute()
        except (SeedbedError, OSError) as error:
            print_error(_explain(error), getattr(error, "command", ""))
            sys.exit(error.exit_status if isinstance(error, SeedbedError) else 2)
        except KeyboardInterrupt:
            print_error("interrupted")
            sys.exit(130)


def _explain(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)

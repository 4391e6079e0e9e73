"""The command `python -m runner`: arguments and exit status."""

import os
import signal
import sys
import traceback
from typing import NoReturn

from runner.config.command import run_application
from runner.config.messages import ERRORS, exit_status, explain_error
from runner.errors import StudyInterruptedError
from runner.output import guard_output, print_error
from runner.pipeline import run_call
from runner.terminal import warn_of_clash


def main() -> None:
    """Runs the command.

    Exit status 2 after a usage error, 1 after a failure during execution, 130 and 143 after Ctrl-C and SIGTERM.
    """
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra raises its errors, instead of printing them and exiting with 1
    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's own task lies in the working directory, also for the console script
    with guard_output():
        _run(show_traceback=show_traceback)


def _run(*, show_traceback: bool) -> None:
    try:
        run_application(sys.argv[1:], run_call)
    except KeyboardInterrupt:
        leave(StudyInterruptedError(signal.SIGINT, "interrupted before the first run"), show_traceback=show_traceback)
    except ERRORS as error:
        leave(error, show_traceback=show_traceback)


def leave(error: Exception, *, show_traceback: bool = False) -> NoReturn:
    """Ends the process with a message on standard error, after the traceback if it is wanted."""
    if show_traceback:
        traceback.print_exception(error)
    notes = getattr(error, "__notes__", ())  # where in the user's own files it arose
    print_error("\n".join([explain_error(error), *notes]), getattr(error, "command", ""))
    warn_of_clash()
    sys.exit(exit_status(error))


if __name__ == "__main__":
    main()

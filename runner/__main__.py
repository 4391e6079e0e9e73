"""The command line and its exit status."""

import os
import signal
import sys

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from runner import pipeline as call
from runner.config import help as catalog
from runner.config import overrides as sweep
from runner.errors import InvalidInputError, StudyFailedError, StudyInterruptedError


def main() -> None:
    """The command, with its exit status.

    2 for what was asked wrongly, 1 for a failure while running, 130 and 143 after Ctrl-C and SIGTERM.
    """
    os.environ[call.FULL_ERROR] = os.environ.get("HYDRA_FULL_ERROR", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on to here, and does not exit with 1 itself
    catalog.register()
    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's own task lies where the command is called, also for the console script
    try:
        sys.argv[1:] = sweep.with_first_task(sys.argv[1:])
        call.run()
    except KeyboardInterrupt:
        call.leave(StudyInterruptedError(signal.SIGINT, "stopped before the first run"))
    except (
        InvalidInputError,
        StudyFailedError,
        StudyInterruptedError,
        HydraException,
        OmegaConfBaseException,
        OSError,
    ) as error:
        call.leave(error)


if __name__ == "__main__":
    main()

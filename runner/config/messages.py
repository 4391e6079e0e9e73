"""Errors of Hydra and OmegaConf as one-line messages that say what is valid."""

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from runner.config.settings import NAMES, RESERVED
from runner.errors import SeedbedError

ERRORS = (SeedbedError, HydraException, OmegaConfBaseException, OSError)
"""What a call may raise for a reason outside of this program."""


def exit_status(error: Exception) -> int:
    """The exit status of the process: 2 for a usage error, 1 for a failure, 128 and the signal's number after one."""
    if isinstance(error, SeedbedError):
        return error.exit_status
    usage_errors = HydraException, OmegaConfBaseException, NotADirectoryError, IsADirectoryError
    return 2 if isinstance(error, usage_errors) else 1


def explain_error(error: Exception) -> str:
    """The message for an error, in one line where the cause is known."""
    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and isinstance(cause.parent_node, DictConfig):
        return _explain_unknown_key(str(cause.full_key), cause.parent_node)
    if isinstance(error, OSError) and error.filename:
        return f"cannot write {error.filename}: {error.strerror}"
    if isinstance(error, HydraException) and isinstance(cause, OmegaConfBaseException):
        return f"{error}\n{str(cause).splitlines()[0]}".strip()
    return str(error)


def _explain_unknown_key(key: str, parent: DictConfig) -> str:
    has = ", ".join(str(name) for name in parent if name not in (*RESERVED, "hydra"))
    above, _, name = key.rpartition(".")
    if above:
        return f"{above} has no {name!r}; it has: {has}"
    task = OmegaConf.select(parent, "task.name", default="?")
    return f"task {task!r} has no parameter {name!r}; it has: {has} (settings of the runner: {', '.join(NAMES)})"

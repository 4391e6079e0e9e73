"""Errors of Hydra and OmegaConf as one-line messages that say what is valid."""

from difflib import get_close_matches

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
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
    """The message for an error, in one line."""
    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and isinstance(cause.parent_node, DictConfig):
        return _explain_unknown_key(str(cause.full_key), cause.parent_node)
    if isinstance(error, SeedbedError):
        return str(error)
    if isinstance(error, HydraException) and isinstance(cause, SeedbedError):
        return str(cause)  # of what a plugin refuses while Hydra makes it
    if isinstance(error, OverrideParseException):
        return _explain_grammar(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _explain_missing(error.missing_cfg_file, list(error.options or ()))
    if isinstance(error, OmegaConfBaseException):
        return _explain_value(error)
    if isinstance(error, OSError) and error.filename:
        return f"cannot write {error.filename}: {error.strerror}"
    if isinstance(error, HydraException) and isinstance(cause, OmegaConfBaseException):
        return f"{_join_lines(str(error))}: {str(cause).splitlines()[0]}".removeprefix(": ")
    return _join_lines(str(error))


def describe_refusal(error: Exception) -> str:
    """The message for an error of any type that Hydra has raised about what it was given."""
    if isinstance(error, RecursionError):
        return "a value of the command line or of a YAML is nested too deeply"
    return _join_lines(str(error)) or f"Hydra cannot use this configuration ({type(error).__name__})"


def _explain_unknown_key(key: str, parent: DictConfig) -> str:
    has = ", ".join(str(name) for name in parent if name not in (*RESERVED, "hydra")) or "nothing"
    above, _, name = key.rpartition(".")
    if above:
        return f"{above} has no {name!r}; it has: {has}"
    task = OmegaConf.select(parent, "task.name", default="?")
    return f"task {task!r} has no parameter {name!r}; it has: {has} (settings of the runner: {', '.join(NAMES)})"


def _explain_grammar(error: OverrideParseException) -> str:
    *lines, _link = error.message.splitlines()
    reason = _join_lines(" ".join(line for line in lines if error.override not in line)).strip("^ ")
    rule = "a value with other characters than letters, digits and /-+.$%*@?| needs quotes: 'key=\"value\"'"
    return f"cannot parse {error.override!r}: {reason.partition(' expecting {')[0] or rule}"


def _explain_missing(path: str, options: list[str]) -> str:
    group, _, name = path.rpartition("/")
    if not options:
        return f"there is no config {path}.yaml; --config-dir DIR adds a directory of your own"
    nearest = " or ".join(map(repr, get_close_matches(name, options)))
    question = f"; did you mean {nearest}?" if nearest else ";"
    has = f"there are: {', '.join(options)}" if len(options) <= 20 else f"--help lists all {len(options)}"
    own = f"(your own: --config-dir DIR with DIR/{group}/NAME.yaml)"
    return f"there is no {group} {name!r}{question} {has} {own}"


def _explain_value(error: OmegaConfBaseException) -> str:
    reason = str(error).splitlines()[0]
    return f"{error.full_key}: {reason}" if error.full_key and str(error.full_key) not in reason else reason


def _join_lines(text: str) -> str:
    return " ".join(text.split())

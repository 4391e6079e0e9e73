"""Where a study goes: its folder is checked and made before Hydra would make it, and removed if it stays empty."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from runner.config.messages import ERRORS, describe_refusal
from runner.config.settings import Settings, check_target, read_settings
from runner.errors import InvalidInputError
from runner.storage.folder import shorten_path

SWEEPERS = ("hydra_plugins.seedbed.grid.GridSweeper", "hydra_plugins.seedbed.optuna.OptunaSweeper")

_made: list[Path] = []
"""The folders that this call has made. Hydra constructs the callback itself, so that the callback cannot hold them."""
_claimed: list[Path] = []
"""The folder that this call was given for its study."""


class EscapeError(BaseException):
    """Carries an error past Hydra, which would warn about its callback, or print a line about its job, instead."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class DestinationCallback(Callback):
    """Hydra calls it with the composed config before it makes the folder of a single run, or starts a sweep."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        with _escape_errors():
            HydraConfig.instance().set_config(config)  # the folder's name may have an interpolation of it
            check_written_by_runner(config)
            claim_folder(config, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Checks also what another sweeper than the runner's own, which claims its folder itself, would not."""
        with _escape_errors():
            check_written_by_runner(config)
            if OmegaConf.select(config, "hydra.sweeper._target_") in SWEEPERS:
                return
            HydraConfig.instance().set_config(config)
            read_settings(config)
            _check_files(config)


@contextmanager
def _escape_errors() -> Iterator[None]:
    """Lets no error of a check become one of Hydra's warnings, after which the run would go on unchecked."""
    try:
        yield
    except ERRORS as error:
        raise EscapeError(error) from error
    except Exception as error:
        raise EscapeError(InvalidInputError(describe_refusal(error))) from error


@contextmanager
def remove_unused_folders() -> Iterator[list[Path]]:
    """Removes at the end the folders that the call has made and not used, with those above them.

    Yields the list to which the folder of the study is added when the call is given one.
    """
    _made.clear()
    _claimed.clear()
    try:
        yield _claimed
    finally:
        for path in reversed(_made):
            with suppress(OSError):  # not empty, or removed already
                path.rmdir()


def check_written_by_runner(config: DictConfig) -> None:
    """Raises InvalidInputError if the config as people gave it has what only the runner writes."""
    sweep = config.get("sweep")
    if not isinstance(sweep, DictConfig) or any(value != [] for value in sweep.values()):
        raise InvalidInputError("sweep is written by the runner itself, and cannot be set")
    for name, callback in config.hydra.callbacks.items():
        if not isinstance(callback, DictConfig) or "_target_" not in callback:
            raise InvalidInputError(f"hydra.callbacks.{name} must have a _target_, the dotted path of a callback")


def claim_folder(config: DictConfig, key: str) -> Path:
    """Makes the folder that the config has at this key, and those above it.

    A study that was given no name gets a folder that did not exist: with `-2`, `-3`… where its name is taken. Raises
    InvalidInputError if a setting is not valid, the folder cannot be made, or Hydra would write files into it.
    """
    check_target(config)
    _check_files(config)
    study = read_settings(config).study
    given = OmegaConf.to_container(OmegaConf.masked_copy(config, ["study"]))
    is_named = given != {"study": Settings.study}
    for number in count(1):
        if number > 1:
            config.study = f"{study}-{number}"
        folder = Path(str(OmegaConf.select(config, key)))
        if _make_folder(folder) or is_named or folder.name != config.study:
            _claimed.append(folder)
            return folder
    raise AssertionError


def _check_files(config: DictConfig) -> None:
    """Raises InvalidInputError if Hydra would write into a folder before the call is accepted."""
    if config.hydra.output_subdir is not None:
        raise InvalidInputError(
            f"hydra.output_subdir must be null, got {config.hydra.output_subdir!r}: the runner writes .hydra/ itself"
        )
    if OmegaConf.is_missing(config.hydra, "job_logging"):
        raise InvalidInputError("hydra/job_logging selects nothing; it takes none, stdout or disabled")
    handlers = OmegaConf.select(config, "hydra.job_logging.handlers")
    for name in handlers or ():
        if "filename" in (handlers[name] or ()):
            raise InvalidInputError(
                f"hydra.job_logging has the handler {name!r}, which writes a file before a call is accepted; "
                "use hydra/job_logging=stdout or none"
            )


def _make_folder(path: Path) -> bool:
    """Makes a folder with those above it; whether it did not exist before."""
    try:
        _made.extend(folder for folder in (*reversed(path.absolute().parents), path.absolute()) if not folder.exists())
        os.makedirs(path)
    except FileExistsError:
        if path.is_dir():
            return False
        raise InvalidInputError(f"cannot write {shorten_path(path)}: it is a file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidInputError(f"cannot write {path}: {reason}") from error
    return True

"""Hydra's application: the command line and YAML composed into a call, the value that everything else works on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from runner.config import help_text
from runner.config.bind import read_plan
from runner.config.launch import ShardJob, ShardLauncher, read_shard_job
from runner.config.settings import Settings, read_settings
from runner.errors import SeedbedError
from runner.plan.segments import Plan


@dataclass(frozen=True)
class Call:
    """What one call of the command asks for.

    `config_files` are the texts of `.hydra/` by file name. `launcher` executes a sweep in shards, and `shard` is set
    in the jobs that it starts.
    """

    plan: Plan
    settings: Settings
    folder: Path
    config_files: Mapping[str, str]
    launcher: ShardLauncher | None = None
    shard: ShardJob | None = None


class _Escape(BaseException):
    """Carries an error past Hydra, which would print a line about its job before the message."""

    def __init__(self, error: SeedbedError) -> None:
        self.error = error


def run_application(execute: Callable[[Path, Callable[[], Call]], None]) -> None:
    """Composes the configuration of the command line and calls `execute(folder, read_call)`.

    A sweep calls it once, too, or once in each job of a launcher. `execute` calls `read_call()` for the checked call.
    Raises SeedbedError, HydraException or OmegaConfBaseException.
    """
    help_text.register_resolvers()

    @hydra.main(version_base="1.3", config_path="../../conf", config_name="config")
    def application(config: DictConfig, launcher: ShardLauncher | None = None) -> None:
        folder = Path(HydraConfig.get().runtime.output_dir)
        try:
            execute(folder, lambda: read_call(config, folder, launcher))
        except SeedbedError as error:
            if HydraConfig.get().mode is RunMode.RUN:
                raise _Escape(error) from error
            raise

    try:
        application()
    except _Escape as escape:
        raise escape.error from escape.error.__cause__


def read_call(config: DictConfig, folder: Path, launcher: ShardLauncher | None = None) -> Call:
    """Checks a composed configuration and binds its values. Raises InvalidInputError for usage errors."""
    settings = read_settings(config)
    plan = read_plan(config, settings)
    return Call(plan, settings, folder, _format_config(config), launcher, read_shard_job(config))


def _format_config(config: DictConfig) -> dict[str, str]:
    """The files of `.hydra/`, as Hydra writes them for a job."""
    hydra_config = OmegaConf.masked_copy(HydraConfig.instance().cfg, ["hydra"])
    contents = {"config": config, "hydra": hydra_config, "overrides": HydraConfig.get().overrides.task}
    return {f"{name}.yaml": OmegaConf.to_yaml(content) for name, content in contents.items()}

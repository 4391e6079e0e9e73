"""Hydra's application: the command line and YAML composed into a call, the value that everything else works on."""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from runner.config import help_text
from runner.config.arguments import read_arguments
from runner.config.bind import read_plan
from runner.config.cores import reserve_cores
from runner.config.destination import EscapeError, remove_unused_folders
from runner.config.launch import ShardJob, ShardLauncher, read_shard_job
from runner.config.messages import ERRORS, describe_refusal
from runner.config.searches import SearchCall, read_points, read_search
from runner.config.settings import Settings, read_settings
from runner.config.shipped import share_tasks
from runner.config.sources import SHIPPED, register_sources
from runner.errors import InvalidInputError
from runner.plan.segments import Plan


def describe_process() -> tuple[str, ...]:
    """The command of this process as one would type it: that of a console script without Python and its folder."""
    script = Path(sys.orig_argv[1]).name if len(sys.orig_argv) > 1 else ""
    return (script, *sys.orig_argv[2:]) if script == "seedbed" else tuple(sys.orig_argv)


@dataclass(frozen=True)
class Origin:
    """Where a call comes from: its command as one would type it, and whether it shares the process with other code.

    A call that is a guest leaves the process, and its handling of SIGTERM, to its host: a notebook, a script, a test.
    `study` is the command of the study where another one extends it; empty where `command` is that of the study.
    """

    command: tuple[str, ...] = field(default_factory=describe_process)
    is_guest: bool = False
    study: tuple[str, ...] = ()


@dataclass(frozen=True)
class Call:
    """What one call of the command asks for.

    `config_files` are the texts of `.hydra/` by file name. `launcher` executes a sweep in shards, and `shard` is set
    in the jobs that it starts. `warnings` are lines for the terminal.
    """

    plan: Plan
    """Of a search, that of an example."""
    settings: Settings
    folder: Path
    config_files: Mapping[str, str]
    launcher: ShardLauncher | None = None
    shard: ShardJob | None = None
    warnings: tuple[str, ...] = ()
    origin: Origin = field(default_factory=Origin)
    search: SearchCall | None = None


def run_application(
    arguments: Sequence[str], execute: Callable[[Path, Callable[[], Call]], Any], origin: Origin | None = None
) -> Path | None:
    """Composes the configuration of the command line and calls `execute(folder, read_call)`.

    A sweep calls it once, too, or once in each job of a launcher. `execute` calls `read_call()` for the checked call.
    Returns the folder that the call was given, None if each job of a foreign sweeper has its own.
    Raises SeedbedError, HydraException, OmegaConfBaseException or OSError. Folders that stay empty are removed.
    """
    origin = origin or Origin()
    help_text.register_resolvers()
    register_sources()
    is_executing = False

    @hydra.main(version_base="1.3", config_path=str(SHIPPED), config_name="config")
    def application(config: DictConfig, launcher: ShardLauncher | None = None) -> Any:
        nonlocal is_executing
        is_executing = True
        share_tasks()
        folder = Path(HydraConfig.get().runtime.output_dir)
        try:
            return execute(folder, lambda: replace(read_call(config, folder, launcher), origin=origin))
        except ERRORS as error:
            if HydraConfig.get().mode is RunMode.RUN:
                raise EscapeError(error) from error
            raise

    try:
        with _set_arguments(arguments), remove_unused_folders() as claimed:
            application()
            return claimed[-1] if claimed else None
    except EscapeError as escape:
        raise escape.error from escape.error.__cause__
    except ERRORS:
        raise
    except SystemExit as end:  # Hydra has shown something, or has printed why it cannot
        sys.exit(2 if end.code and not is_executing else end.code)
    except Exception as error:  # Hydra and Python's parsers raise anything for what they cannot read
        if is_executing:
            raise
        raise InvalidInputError(describe_refusal(error)) from error


@contextmanager
def _set_arguments(arguments: Sequence[str]) -> Iterator[None]:
    """Gives Hydra its arguments, and turns its warnings about them into errors."""
    before, sys.argv[1:] = sys.argv[1:], read_arguments(arguments)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "error", category=UserWarning, module=r"hydra\._internal\.(utils|config_loader_impl)"
            )
            yield
    finally:
        sys.argv[1:] = before


def read_call(config: DictConfig, folder: Path, launcher: ShardLauncher | None = None) -> Call:
    """Checks a composed configuration and binds its values. Raises InvalidInputError for usage errors."""
    settings, shard = read_settings(config), read_shard_job(config)
    replaced = reserve_cores(settings.cores_per_run)  # before a task's module is imported, which may start JAX
    if shard:
        shard.hide_other_gpus()  # before it, too
    points = read_points(config, settings)
    search = None if points else read_search(config, settings)
    plan = points or (search.example if search else read_plan(config, settings))
    warnings = (replaced,) if replaced else ()
    return Call(plan, settings, folder, _format_config(config), launcher, shard, warnings, search=search)


def _format_config(config: DictConfig) -> dict[str, str]:
    """The files of `.hydra/`, as Hydra writes them for a job."""
    hydra_config = OmegaConf.masked_copy(HydraConfig.instance().cfg, ["hydra"])
    contents = {"config": config, "hydra": hydra_config, "overrides": HydraConfig.get().overrides.task}
    return {f"{name}.yaml": OmegaConf.to_yaml(content) for name, content in contents.items()}

"""The grid sweeper: a sweep becomes one study, and not one job for each run.

Hydra executes this module twice, so it holds the plugin's shell and nothing with an identity.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from runner.config import overrides as sweep
from runner.errors import InvalidInputError
from runner.execution.shards import Shards


@dataclass
class GridSweeperConf:
    """`params`, `zip` and `shards` as in the README; `params` are override strings, as for Hydra's own sweeper."""

    _target_: str = "hydra_plugins.seedbed.grid.GridSweeper"
    params: dict[str, Any] | None = None
    zip: list[Any] = field(default_factory=list)
    shards: Any = 1


BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
"""The launcher that runs its jobs one after the other in this process."""

ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridSweeperConf, provider="seedbed")


class GridSweeper(Sweeper):
    """Hands the whole sweep as override strings to one job of the configured launcher.

    Several shards are jobs of that launcher, too; they are begun and gathered by a job in this process.
    """

    def __init__(self, params: dict[str, Any] | None, zip: list[Any], shards: Any) -> None:
        self.params = params or {}
        self.zip = zip
        if not isinstance(shards, int) or isinstance(shards, bool) or shards < 1:
            raise InvalidInputError(f"hydra.sweeper.shards must be a positive integer, got {shards!r}")
        self.shards = shards

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        loader = self.hydra_context.config_loader
        params = [f"{key}={value}" for key, value in self.params.items()]
        job = sweep.job(loader, [*params, *arguments], self.zip)

        # composed once here: an error costs no folder, and the folder's name may depend on the task
        folder = str(loader.load_sweep_config(self.config, job).hydra.sweep.dir)
        with open_dict(self.config):
            self.config.hydra.sweep.dir = folder
        job += [f"hydra.sweep.dir={sweep.quoted(folder)}", "hydra.sweep.subdir=."]

        launcher = self._launcher(self.task_function, self.config)
        if self.shards > 1:
            shards = Shards(self.shards, launcher, self.config.hydra.launcher, job)
            here = OmegaConf.masked_copy(self.config, list(self.config))
            OmegaConf.update(here, "hydra.launcher", {"_target_": BASIC}, merge=False)
            launcher = self._launcher(partial(self.task_function, launcher=shards), here)
        returned = launcher.launch([job], initial_job_idx=0)
        for each in returned:
            if each.status is JobStatus.FAILED:
                raise each._return_value  # `return_value` would print a line about the job first
        return returned

    def _launcher(self, task_function: TaskFunction, config: DictConfig) -> Launcher:
        return Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=task_function, config=config
        )

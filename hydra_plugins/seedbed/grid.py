"""The grid sweeper: a sweep becomes one study, and not one job for each run.

Hydra executes this module twice, so it holds the plugin's shell and nothing with an identity.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from runner import sweep


@dataclass
class GridSweeperConf:
    """`params` and `zip` as in the README; `params` are override strings, as for Hydra's own sweeper."""

    _target_: str = "hydra_plugins.seedbed.grid.GridSweeper"
    params: dict[str, Any] | None = None
    zip: list[Any] = field(default_factory=list)


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridSweeperConf, provider="seedbed")


class GridSweeper(Sweeper):
    """Hands the whole sweep as override strings to one job of the configured launcher."""

    def __init__(self, params: dict[str, Any] | None, zip: list[Any]) -> None:
        self.params = params or {}
        self.zip = zip

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

        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=self.task_function, config=self.config
        )
        returned = launcher.launch([job], initial_job_idx=0)
        for each in returned:
            if each.status is JobStatus.FAILED:
                raise each._return_value  # `return_value` would print a line about the job first
        return returned

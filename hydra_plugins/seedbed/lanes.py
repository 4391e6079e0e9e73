"""The launcher `lanes`: the jobs of any sweeper are executed as the runs of one study, many in one program.

Hydra executes this module twice, so that it must not hold anything whose identity matters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from runner.config.destination import claim_folder
from runner.config.lanes import JobReader
from runner.config.overrides import quote


@dataclass
class LanesLauncherConf:
    """`objective` is the output that the sweeper is told, or several; by default the first metric of the task."""

    _target_: str = "hydra_plugins.seedbed.lanes.LanesLauncher"
    objective: Any = None


ConfigStore.instance().store(group="hydra/launcher", name="lanes", node=LanesLauncherConf, provider="seedbed")


class LanesLauncher(Launcher):
    """Composes one config for each combination of options, and executes all jobs of a call as one batch."""

    def __init__(self, objective: Any) -> None:
        self.objective = OmegaConf.to_container(objective) if OmegaConf.is_config(objective) else objective
        self.folder: Path | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        self.reader = JobReader(hydra_context.config_loader)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Executes the jobs, and returns of each its objective. Raises what would end the study."""
        setup_globals()
        jobs = self.reader.read([list(job) for job in job_overrides])
        returned = self._run(self._compose(jobs.shared), jobs.format_search(self.objective))
        if returned.status is JobStatus.FAILED:
            raise returned._return_value  # the property `return_value` would print a line about the job first
        return [
            JobReturn(
                list(job),
                returned.cfg,
                returned.hydra_cfg,
                returned.working_dir,
                returned.task_name,
                JobStatus.COMPLETED,
                value,
            )
            for job, value in zip(job_overrides, returned._return_value.objectives, strict=True)
        ]

    def _compose(self, shared: Sequence[str]) -> DictConfig:
        loader = self.hydra_context.config_loader
        if self.folder is None:
            composed = loader.load_sweep_config(self.config, list(shared))
            self.folder = claim_folder(composed, "hydra.sweep.dir")
            with read_write(self.config.hydra.sweep):
                self.config.hydra.sweep.dir = str(self.folder)  # where other sweepers write what they have found
        folder = f"hydra.sweep.dir={quote(str(self.folder))}"
        return loader.load_sweep_config(self.config, [*shared, folder, "hydra.sweep.subdir=."])

    def _run(self, config: DictConfig, search: str) -> JobReturn:
        with read_write(config), open_dict(config):
            config.sweep.search = search  # no override, because parsing a long one takes long
            config.hydra.job.id = config.hydra.job.num = 0
        return run_job(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )

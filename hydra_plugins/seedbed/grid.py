"""The grid sweeper: a sweep is one study, not one job for each run.

Hydra executes this module twice, so that it must not hold anything whose identity matters.
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

from runner.config.destination import check_written_by_runner, claim_folder
from runner.config.launch import BASIC_LAUNCHER, LANES_LAUNCHER, ShardLauncher
from runner.config.overrides import build_sweep_overrides, quote
from runner.errors import InvalidInputError
from runner.search.samplers import Sampling, check_sampling


@dataclass
class GridSweeperConf:
    """`params` are swept like overrides on the command line, `zip` lists keys that vary together.

    `samples` points are drawn from all intervals by `sampler`, one of sobol, halton, lhs and random. With `halving`,
    such as `{budget: steps, eta: 3}`, only the best points by `objective` get the whole budget.
    """

    _target_: str = "hydra_plugins.seedbed.grid.GridSweeper"
    params: dict[str, Any] | None = None
    zip: list[Any] = field(default_factory=list)
    shards: Any = 1
    samples: Any = None
    sampler: Any = "sobol"
    sampler_seed: Any = 0
    halving: Any = None
    objective: Any = None
    direction: Any = None
    reduce: Any = "mean"


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridSweeperConf, provider="seedbed")


class GridSweeper(Sweeper):
    """Gives the whole sweep as override strings to one job of the configured launcher.

    With several shards, that job runs in this process and starts the shards as jobs of the configured launcher.
    """

    is_open = False
    """Whether the search itself chooses values of intervals."""

    def __init__(self, params: dict[str, Any] | None, zip: list[Any], shards: Any, **given: Any) -> None:
        self.params = params or {}
        self.zip = zip
        plain: Any = OmegaConf.to_container(OmegaConf.create(given), resolve=True)
        self.sampling, self.search = self.read_settings(plain)
        if not isinstance(shards, int) or isinstance(shards, bool) or shards < 1:
            raise InvalidInputError(f"hydra.sweeper.shards must be a positive integer, got {shards!r}")
        self.shards = shards

    def read_settings(self, given: dict[str, Any]) -> tuple[Sampling | None, dict[str, Any] | None]:
        """How intervals are drawn, and the settings of a search; None where there is none."""
        samples = given.pop("samples")
        drawn = (given.pop("sampler"), samples, given.pop("sampler_seed"))
        sampling = None if samples is None else check_sampling(*drawn)
        if given["halving"] is not None:
            return sampling, given
        for name, usual in (("objective", None), ("direction", None), ("reduce", "mean")):
            if given[name] != usual:
                raise InvalidInputError(f"hydra.sweeper.{name} is of use to hydra.sweeper.halving only")
        return sampling, None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        loader = self.hydra_context.config_loader
        check_written_by_runner(self.config)
        if OmegaConf.select(self.config, "hydra.launcher._target_") == LANES_LAUNCHER:
            raise InvalidInputError(
                "hydra/launcher=lanes is for the sweepers of others, such as hydra/sweeper=basic; leave it out"
            )
        params = [f"{key}={value}" for key, value in self.params.items()]
        overrides = build_sweep_overrides(
            loader, [*params, *arguments], self.zip, self.sampling, search=self.search, is_open=self.is_open
        )

        # composed here first: an error leaves no folder behind, and the folder's name may depend on the task
        composed = loader.load_sweep_config(self.config, overrides)
        folder = str(claim_folder(composed, "hydra.sweep.dir"))
        with open_dict(self.config):
            self.config.hydra.sweep.dir = folder
        overrides += [f"hydra.sweep.dir={quote(folder)}", "hydra.sweep.subdir=."]

        returned = self._launcher_of_sweep(overrides).launch([overrides], initial_job_idx=0)
        for job in returned:
            if job.status is JobStatus.FAILED:
                raise job._return_value  # the property `return_value` would print a line about the job first
        return returned

    def _launcher_of_sweep(self, overrides: list[str]) -> Launcher:
        launcher = self._instantiate_launcher(self.task_function, self.config)
        if self.shards == 1:
            return launcher
        shards = ShardLauncher(self.shards, launcher, self.config.hydra.launcher, overrides)
        config = OmegaConf.masked_copy(self.config, list(self.config))
        OmegaConf.update(config, "hydra.launcher", {"_target_": BASIC_LAUNCHER}, merge=False)
        return self._instantiate_launcher(partial(self.task_function, launcher=shards), config)

    def _instantiate_launcher(self, task_function: TaskFunction, config: DictConfig) -> Launcher:
        return Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=task_function, config=config
        )

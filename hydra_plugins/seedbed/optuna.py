"""The sweeper `optuna`: points are proposed by Optuna in batches, each of which is executed as one study's runs.

Hydra executes this module twice, so that it must not hold anything whose identity matters.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore

from hydra_plugins.seedbed.grid import GridSweeper
from runner.search.samplers import Sampling


@dataclass
class OptunaSweeperConf:
    """`trials` points are proposed by `sampler`, one of tpe, cmaes, gp, nsga2, nsga3, qmc and random, `batch` at once.

    `objective` is an output, or several, `direction` minimize or maximize for each, by default those of the task's
    metrics. `reduce` makes one value of the seeds of a point. `constraints` are texts such as `train_loss<=0.5`.
    """

    _target_: str = "hydra_plugins.seedbed.optuna.OptunaSweeper"
    params: dict[str, Any] | None = None
    shards: Any = 1
    sampler: Any = "tpe"
    trials: Any = 100
    batch: Any = 10
    sampler_seed: Any = 0
    objective: Any = None
    direction: Any = None
    reduce: Any = "mean"
    constraints: Any = field(default_factory=list)
    options: Any = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaSweeperConf, provider="seedbed")


class OptunaSweeper(GridSweeper):
    """Gives the space and the settings of the search to one job, which executes all of it."""

    is_open = True

    def __init__(self, params: dict[str, Any] | None, shards: Any, **given: Any) -> None:
        super().__init__(params, [], shards, **given)

    def read_settings(self, given: dict[str, Any]) -> tuple[Sampling | None, dict[str, Any] | None]:
        return None, given

"""The targets of an export by name, with the library that each one needs."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from runner.errors import InvalidInputError
from runner.exports.request import Exported, Request


@dataclass(frozen=True)
class Target:
    """Where a study can be exported to.

    `library` is what an extra of the same name installs, None where nothing more is needed. `rate` is about how many
    tracker runs are written in a second, None for a file of all runs.
    """

    name: str
    describes: str
    library: str | None = None
    rate: float | None = None

    @property
    def is_tracker(self) -> bool:
        return self.rate is not None


TARGETS = {
    target.name: target
    for target in (
        Target("parquet", "one file, exact dtypes, arrays as nested lists, the manifest as metadata"),
        Target("csv", "one file, the last row of each run, in the order of the runs"),
        Target("wandb", "Weights & Biases", "wandb", 2.7),
        Target("mlflow", "MLflow", "mlflow", 31),
        Target("tensorboard", "files of TensorBoard", "tensorboard", 500),
        Target("optuna", "a study of Optuna", "optuna", 30),
    )
}
"""In the order of the help. The rates were measured on one core: MLflow and Optuna in SQLite, W&B offline."""


def find_target(name: str) -> Target:
    """The target of a name. Raises InvalidInputError for an unknown one, and where its library is not installed."""
    if name not in TARGETS:
        raise InvalidInputError(f"there is no target {name!r}; there are: {', '.join(TARGETS)}")
    target = TARGETS[name]
    if target.library is not None and find_spec(target.library) is None:
        raise InvalidInputError(f"{name} needs a library that is not installed: pip install 'seedbed[{name}]'")
    return target


def load_export(target: Target) -> Callable[[Request], Exported]:
    """The function that exports to a target; its library is imported only now."""
    module: Any = import_module(f"runner.exports.{target.name}")
    return module.export

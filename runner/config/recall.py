"""The last call of a study, composed once more from what its folder has in `.hydra/`."""

import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from runner.config import help_text
from runner.config.bind import read_sweep
from runner.config.command import Call, read_call
from runner.config.compose import Assignments, combine_values, compose_base, to_values, update_config
from runner.config.messages import ERRORS, explain_error
from runner.config.overrides import SweptKey, quote
from runner.config.settings import RESERVED, Settings
from runner.config.shipped import share_tasks
from runner.config.sources import SHIPPED, register_sources
from runner.errors import InvalidInputError
from runner.plan.segments import Plan, Segment
from runner.plan.values import freeze
from runner.storage.rows import SavedRun

OWN_PROVIDERS = ("hydra", "main", "schema")
"""Where Hydra finds configs in every call; further sources are directories of the user's own."""
BINDING = ("lanes", "block", "cores_per_run", "deterministic")
"""The settings on which the bits of a run may depend."""


@dataclass(frozen=True)
class RecalledCall:
    """A call as it was, with its composed configuration."""

    call: Call
    config: DictConfig

    def plan_runs(self, runs: Iterable[SavedRun]) -> Plan:
        """The plan of the call, or of a search one that has the static values of some of its runs."""
        return self.call.plan if self.call.search is None else self.call.search.plan_runs(runs)


@contextmanager
def recall_call(folder: Path) -> Iterator[RecalledCall]:
    """The last call of the study in a folder that executed runs, without the launcher that it may have had.

    Its values are those that were composed then; only the options of swept config groups are read again. Raises
    InvalidInputError if files are missing, and for whatever the call itself would refuse today.
    """
    help_text.register_resolvers()
    register_sources()
    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's own task lies in the working directory
    share_tasks()
    known: Any = OmegaConf.to_container(_read_yaml(folder / ".hydra" / "hydra.yaml").hydra, resolve=False)
    with initialize_config_dir(str(SHIPPED), job_name=known["job"]["name"], version_base="1.3"):
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", category=UserWarning, module=r"hydra\._internal\.config_loader_impl")
                composed = compose(known["job"]["config_name"], _list_overrides(known), return_hydra_config=True)
            HydraConfig.instance().set_config(composed)
            config = _read_yaml(folder / ".hydra" / "config.yaml")
            call = read_call(config, folder)
        except ERRORS as error:
            raise InvalidInputError(f"{folder} cannot be recalled: {explain_error(error)}") from error
        except UserWarning as error:
            raise InvalidInputError(f"{folder} cannot be recalled: {error}") from error
        yield RecalledCall(call, config)


def format_run(recalled: RecalledCall, segment: Segment, scalars: Mapping[str, int | float]) -> str:
    """The configuration of one run as the YAML of a task, with which `task=NAME` executes it again.

    `scalars` are its traced values. References such as `${lr}` stay, because a program depends on them.
    """
    composed = compose_base(recalled.config, _find_assignments(recalled, segment)).config
    changed = {name: value for name, value in scalars.items() if segment.traced.get(name) != value}
    config = update_config(composed, [(SweptKey(name, "++", False, ()), value) for name, value in changed.items()])
    values = to_values(config, resolve=False)
    settings = {name: values[name] for name in BINDING if values[name] != getattr(Settings, name)}
    own = {name: value for name, value in values.items() if name not in RESERVED}
    return f"# @package _global_\n{OmegaConf.to_yaml(OmegaConf.create({'task': values['task'], **settings, **own}))}"


def _find_assignments(recalled: RecalledCall, segment: Segment) -> Assignments:
    """The values of swept keys that distinguish a segment from the others of its plan."""
    if (search := recalled.call.search) is not None:
        return tuple((search.binder.keys[name], value) for name, value in segment.swept.items())
    zips = read_sweep(recalled.config)
    static = [keys for keys in zips if all(key.key in segment.swept for key in keys)]
    return next(
        assignments
        for assignments in combine_values(static)
        if {key.key: freeze(value) for key, value in assignments} == dict(segment.swept)
    )


def _list_overrides(known: Mapping[str, Any]) -> list[str]:
    """The overrides of a call by its `hydra.yaml`; the directories that it searched are given by their paths."""
    overrides = [*known["overrides"]["hydra"], *known["overrides"]["task"]]
    kept = [line for line in overrides if not line.startswith("hydra.searchpath=")]
    own = [
        f"{source['schema']}://{source['path']}"
        for source in known["runtime"]["config_sources"]
        if source["provider"] not in OWN_PROVIDERS
    ]
    return [*kept, f"hydra.searchpath=[{','.join(map(quote, own))}]"] if own else kept


def _read_yaml(path: Path) -> Any:
    try:
        return OmegaConf.load(path)
    except FileNotFoundError as error:
        raise InvalidInputError(f"there is no {path}, which has the configuration of the study") from error
    except yaml.YAMLError as error:
        raise InvalidInputError(f"{path} is damaged: {' '.join(str(error).split())}") from error

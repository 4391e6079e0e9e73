"""The parts of the `--help` text that depend on the config: tasks, ready-made studies and settings."""

import json
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf

from runner.config.settings import FUNCTION, Settings
from runner.errors import InvalidInputError

COLUMNS = 79
"""Width of the text, so that it fits a terminal of 80 columns."""
LONGEST = 34
"""Characters of a sweep's values that are shown."""


def register_resolvers() -> None:
    """Registers `${seedbed.tasks:}` and its like for `conf/config.yaml`."""
    OmegaConf.register_new_resolver("seedbed.tasks", list_tasks, replace=True)
    OmegaConf.register_new_resolver("seedbed.studies", list_studies, replace=True)
    OmegaConf.register_new_resolver("seedbed.groups", list_groups, replace=True)
    OmegaConf.register_new_resolver("seedbed.settings", list_settings, replace=True)


def list_tasks() -> str:
    """A line for each task: its parameters with the values of its YAML."""
    described = _describe_options("task", _describe_parameters)
    return _align({**described, FUNCTION: "any other: task._target_=my_lab.decay +rate=0.1"})


def list_studies() -> str:
    """A line for each ready-made study: what it sweeps."""
    return _align(_describe_options("experiment", _describe_sweep))


def list_groups() -> str:
    """A line or more for each config group that tasks choose from: its options."""
    loader = GlobalHydra.instance().config_loader()
    groups = [name for name in loader.list_groups("") if name not in ("task", "experiment", "hydra")]
    options = {name: loader.get_group_options(name, results_filter=ObjectType.CONFIG) for name in groups}
    return _align({f"{name}=": " ".join(found) for name, found in options.items()})


def list_settings() -> str:
    """A line or more for each setting: its values and what it does."""
    texts = {f"{s.name}={s.metadata['values']}": str(s.metadata["help"]) for s in fields(Settings)}
    return _align({name: text.replace("`", "") for name, text in texts.items()})


def _describe_options(group: str, describe: Callable[[DictConfig], str]) -> dict[str, str]:
    """The description of each option of a config group; of a YAML with an error, the message."""
    loader = GlobalHydra.instance().config_loader()
    described = {}
    for name in loader.get_group_options(group, results_filter=ObjectType.CONFIG):
        path = f"{group}/{name}"
        source = next(source for source in loader.get_sources() if source.is_config(path))
        try:
            described[name] = describe(source.load_config(path).config)
        except InvalidInputError as error:
            described[name] = _format_value(error, " ")
    return described


def _describe_parameters(config: DictConfig) -> str:
    values = OmegaConf.to_container(config, resolve=False)
    assert isinstance(values, dict)
    return " ".join(
        _format_assignment(str(name), value) for name, value in values.items() if name not in ("task", "defaults")
    )


def _format_assignment(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        value = {key: entry for key, entry in value.items() if entry is not None}
        return f"{name}.shape={_format_value(value['shape'])}" if "shape" in value else f"{name}={{{', '.join(value)}}}"
    return f"{name}={_format_value(value)}"


def _format_value(value: Any, space: str = "") -> str:
    """A value as the command line takes it; `$` is doubled, because Hydra renders the text as a string.Template."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else str(value)
    return text.replace(" ", space).replace("$", "$$")


def _describe_sweep(config: DictConfig) -> str:
    params = OmegaConf.select(config, "hydra.sweeper.params")
    if not isinstance(params, DictConfig):
        return ""
    return " ".join(f"{name!s}={_shorten(_format_value(value))}" for name, value in params.items())


def _shorten(values: str) -> str:
    """The first of many values."""
    if len(values) <= LONGEST:
        return values
    return values[: values.rfind(",", 0, LONGEST) + 1 or LONGEST] + "…"


def _align(entries: Mapping[str, str]) -> str:
    width = max(map(len, entries), default=0)
    lines = (_wrap(f"  {name:<{width}}  ", text) for name, text in entries.items())
    return "\n".join(lines) or "  none"


def _wrap(indent: str, text: str) -> str:
    return (
        textwrap.fill(
            text,
            COLUMNS,
            initial_indent=indent,
            subsequent_indent=" " * len(indent),
            break_long_words=False,
            break_on_hyphens=False,
        )
        or indent.rstrip()
    )

"""The parts of the `--help` text that depend on the config: tasks, ready-made studies and settings."""

from collections.abc import Iterator, Mapping
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf

from runner.config.settings import describe_settings


def register_resolvers() -> None:
    """Registers `${seedbed.tasks:}`, `${seedbed.studies:}` and `${seedbed.settings:}` for `conf/config.yaml`."""
    OmegaConf.register_new_resolver("seedbed.tasks", list_tasks, replace=True)
    OmegaConf.register_new_resolver("seedbed.studies", list_studies, replace=True)
    OmegaConf.register_new_resolver("seedbed.settings", describe_settings, replace=True)


def list_tasks() -> str:
    """A line for each task: its parameters with the values of its YAML."""
    return _align({name: _describe_parameters(config) for name, config in _read_options("task")})


def list_studies() -> str:
    """A line for each ready-made study: what it sweeps."""
    return _align({name: _describe_sweep(config) for name, config in _read_options("experiment")})


def _read_options(group: str) -> Iterator[tuple[str, DictConfig]]:
    loader = GlobalHydra.instance().config_loader()
    for name in loader.get_group_options(group, results_filter=ObjectType.CONFIG):
        path = f"{group}/{name}"
        source = next(source for source in loader.get_sources() if source.is_config(path))
        config = source.load_config(path).config
        if isinstance(config, DictConfig):
            yield name, config


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


def _format_value(value: Any) -> str:
    return str(value).replace(" ", "").replace("$", "$$")  # Hydra renders the help text as a string.Template


def _describe_sweep(config: DictConfig) -> str:
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    return " ".join(f"{name}={_format_value(value)}" for name, value in params.items())


def _align(entries: Mapping[str, str]) -> str:
    width = max(map(len, entries), default=0)
    return "\n".join(f"  {name:<{width}}  {text}".rstrip() for name, text in entries.items()) or "  none"

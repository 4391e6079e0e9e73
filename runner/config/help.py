"""What there is to run, for `--help`: the tasks with their parameters, and the ready-made studies."""

from collections.abc import Iterator, Mapping
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf


def register() -> None:
    """Makes `${seedbed.tasks:}` and `${seedbed.studies:}` known to the help text in `conf/config.yaml`."""
    OmegaConf.register_new_resolver("seedbed.tasks", tasks, replace=True)
    OmegaConf.register_new_resolver("seedbed.studies", studies, replace=True)


def tasks() -> str:
    """A line for each task: its parameters with the values of its YAML."""
    return _lines({name: _parameters(config) for name, config in _options("task")})


def studies() -> str:
    """A line for each ready-made study: its task and its sweep."""
    return _lines({name: _sweep(config) for name, config in _options("experiment")})


def _options(group: str) -> Iterator[tuple[str, DictConfig]]:
    loader = GlobalHydra.instance().config_loader()
    for name in loader.get_group_options(group, results_filter=ObjectType.CONFIG):
        path = f"{group}/{name}"
        source = next(source for source in loader.get_sources() if source.is_config(path))
        config = source.load_config(path).config
        if isinstance(config, DictConfig):
            yield name, config


def _parameters(config: DictConfig) -> str:
    values = OmegaConf.to_container(config, resolve=False)
    assert isinstance(values, dict)
    return " ".join(_assignment(str(name), value) for name, value in values.items() if name not in ("task", "defaults"))


def _assignment(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        value = {key: entry for key, entry in value.items() if entry is not None}
        return f"{name}.shape={_text(value['shape'])}" if "shape" in value else f"{name}={{{', '.join(value)}}}"
    return f"{name}={_text(value)}"


def _text(value: Any) -> str:
    return str(value).replace(" ", "").replace("$", "$$")


def _sweep(config: DictConfig) -> str:
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    return " ".join(f"{name}={_text(value)}" for name, value in params.items())


def _lines(entries: Mapping[str, str]) -> str:
    width = max(map(len, entries), default=0)
    return "\n".join(f"  {name:<{width}}  {text}".rstrip() for name, text in entries.items()) or "  none"

"""Where configs come from: the files that ship, found by where this code lies, and YAML with errors in one line."""

import io
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import yaml
from hydra._internal.core_plugins import file_config_source, structured_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner.errors import InvalidInputError
from runner.storage.folder import shorten_path

SHIPPED = Path(__file__).resolve().parents[2] / "conf"
"""The configs that ship, whatever package `conf` the working directory has."""


class FileConfigSource(file_config_source.FileConfigSource):
    """Hydra's source of files, which names the file and the place of an error, and reads a byte order mark.

    It has the name of the class that it replaces, because Hydra refuses another one in the workers of a launcher.
    """

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.path, self._normalize_file_name(config_path)).resolve()
        if not path.exists():
            raise ConfigLoadError(f"there is no file {path}")
        text = _read_text(path)
        try:
            header = self._get_header_dict(text[:512])
        except ValueError as error:
            raise InvalidInputError(f"{shorten_path(path)}: {error}") from error
        return ConfigResult(self.provider, f"{self.scheme()}://{self.path}", _parse_mapping(path, text), header)


class StructuredConfigSource(structured_config_source.StructuredConfigSource):
    """Hydra's source of structured configs, without a copy of their whole store for each composition."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # nothing changes a source, and the store copies what it gives away


def register_sources() -> None:
    """Lets Hydra read its configs through the classes above."""
    Plugins.instance()  # registers Hydra's own sources first, of which the first one would stay
    for source in (FileConfigSource, StructuredConfigSource):
        SourcesRegistry.instance().types[source.scheme()] = source


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InvalidInputError(f"cannot read {shorten_path(path)}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        place = _describe_place(error.object[: error.start].decode())
        raise InvalidInputError(f"{shorten_path(path)}{place}: a YAML must be UTF-8, {error.reason}") from error


def _parse_mapping(path: Path, text: str) -> DictConfig:
    """The mapping that a YAML has. Raises InvalidInputError with the line and the column of an error."""
    name = shorten_path(path)
    try:
        config = OmegaConf.create(_load_yaml(text))
    except yaml.YAMLError as error:
        raise InvalidInputError(f"{name}{_describe_yaml_error(error, text)}") from error
    except RecursionError:
        raise InvalidInputError(f"{name}: nested too deeply, or an anchor that contains itself") from None
    except (OmegaConfBaseException, ValueError, OSError) as error:
        raise InvalidInputError(f"{name}: {str(error).splitlines()[0]}") from error
    if not isinstance(config, DictConfig):
        raise InvalidInputError(f"{name}: a YAML must be a mapping of keys to values")
    return config


@lru_cache(maxsize=256)
def _load_yaml(text: str) -> Any:
    """What a YAML stands for, as OmegaConf reads it. Hydra composes each command twice, from the same texts."""
    return OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))


def _describe_yaml_error(error: yaml.YAMLError, text: str) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark or error.context_mark):
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        return f":{mark.line + 1}:{mark.column + 1}: {problem}"
    if isinstance(error, yaml.reader.ReaderError):
        place = _describe_place(text[: error.position])
        return f"{place}: the character {chr(error.character)!r} is not allowed"
    return f": {' '.join(str(error).split())}"


def _describe_place(before: str) -> str:
    """Line and column of what follows a text."""
    return f":{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"

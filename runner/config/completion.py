"""What may stand at the end of an unfinished command line, for the completion of shells."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.main import get_args_parser
from hydra.plugins.completion_plugin import CompletionPlugin
from hydra.types import RunMode

from runner.config import help_text
from runner.config.arguments import select_first_task
from runner.config.overrides import OWN_KEYS, quote
from runner.config.settings import Settings
from runner.config.sources import SHIPPED, register_sources

CONFIG = "config"
OUTPUTS = Path("outputs")
FLAGS = ("--config-dir", "--cfg", "--help", "--hydra-help", "--info", "--multirun", "--version")
FOLDER_FLAGS = ("--config-dir", "-cd")


class Completion(CompletionPlugin):
    """Hydra's completion, which asks a loader of configs."""

    def install(self) -> None:
        raise NotImplementedError

    def uninstall(self) -> None:
        raise NotImplementedError

    def query(self, config_name: str | None) -> None:
        raise NotImplementedError

    @staticmethod
    def provides() -> str:
        return "seedbed"

    @staticmethod
    def help(command: str) -> str:
        return command


def complete_call(words: Sequence[str], word: str) -> list[str]:
    """The tasks, parameters, settings or studies that `word` may become, after the complete arguments `words`."""
    if word.startswith("-"):
        return [flag for flag in FLAGS if flag.startswith(word)]
    if words and words[-1] in FOLDER_FLAGS:
        return [f"{path}/" for path in list_folders(word)]
    key, equals, value = word.partition("=")
    if equals and (values := _list_values(key)):
        return [f"{key}={each}" for each in values if each.startswith(value)]
    return _ask_hydra(words, word)


def complete_study(word: str) -> list[str]:
    """The folders of studies that begin with `word`, and the folders that lead to them."""
    studies = sorted(str(path.parent) for path in OUTPUTS.glob("*/study.json"))
    others = [path for path in list_folders(word) if "/" in word and OUTPUTS not in (path, path.parent)]
    return [*(path for path in studies if path.startswith(word)), *(f"{path}/" for path in others)]


def list_folders(word: str) -> list[Path]:
    """The folders whose paths begin with `word`."""
    place = Path(word) if word.endswith("/") else Path(word).parent
    found = sorted(place.iterdir()) if place.is_dir() else []
    return [path for path in found if path.is_dir() and str(path).startswith(word.rstrip("/"))]


def _list_values(key: str) -> list[str]:
    """The values that a setting takes, where they are words; of `study` those that exist."""
    if key == "study":
        return sorted(path.parent.name for path in OUTPUTS.glob("*/study.json"))
    setting = next((setting for setting in fields(Settings) if setting.name == key), None)
    words = str(setting.metadata["values"]).split("|") if setting else []
    return [word for word in words if word.isidentifier() and word.islower()]


def _ask_hydra(words: Sequence[str], word: str) -> list[str]:
    help_text.register_resolvers()
    register_sources()
    given = get_args_parser().parse_args([each for each in words if not each.startswith("--version")])
    overrides = select_first_task(given.overrides)
    if given.config_dir:
        overrides.append(f"hydra.searchpath=[{quote(f'file://{Path(given.config_dir).absolute()}')}]")
    with initialize_config_dir(str(SHIPPED), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        plugin = Completion(loader)
        groups, is_exact = plugin._query_config_groups(word, config_name=CONFIG, words=overrides)
        if is_exact:
            return sorted(groups)
        config = loader.load_configuration(config_name=CONFIG, overrides=overrides, run_mode=RunMode.MULTIRUN)
        return sorted({*groups, *_leave_out(plugin._get_matches(config, word))})


def _leave_out(matches: Iterable[Any]) -> list[str]:
    """The keys of a config that people set."""
    return [str(match) for match in matches if not str(match).startswith(tuple(OWN_KEYS))]

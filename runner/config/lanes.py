"""Lists of jobs, as any sweeper of Hydra hands them to a launcher, as the points of one batch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser

from runner.config.overrides import check_key
from runner.config.settings import NAMES
from runner.errors import InvalidInputError


@dataclass(frozen=True)
class JobList:
    """Jobs as points: `keys` maps each key to its prefix and whether it is a config group.

    `shared` are the overrides of settings, which all jobs have in common.
    """

    shared: tuple[str, ...]
    keys: Mapping[str, tuple[str, bool]]
    points: tuple[Mapping[str, Any], ...]

    def format_search(self, objective: Any) -> str:
        """The jobs as the JSON of `sweep.search`."""
        return json.dumps({"given": {"keys": self.keys, "points": self.points}, "objective": objective})


@dataclass
class JobReader:
    """Reads overrides, each of which is parsed once: sweepers repeat most of them from job to job."""

    loader: ConfigLoader
    _parsed: dict[str, tuple[str, str, bool, Any]] = field(default_factory=dict)

    def read(self, jobs: Sequence[Sequence[str]]) -> JobList:
        """The jobs as points. Raises InvalidInputError for jobs that differ in a setting of the whole study."""
        shared: dict[str, str] = {}
        keys: dict[str, tuple[str, bool]] = {}
        points = []
        for job in jobs:
            point = {}
            for line in job:
                key, prefix, is_group, value = self._parse(line)
                if key in NAMES or key == "task" or key.startswith("hydra"):
                    if shared.setdefault(key, line) != line:
                        raise InvalidInputError(
                            f"hydra/launcher=lanes runs jobs of one study, which differ in {shared[key]} and {line}"
                        )
                    continue
                keys[key], point[key] = (prefix, is_group), value
            points.append(point)
        return JobList(tuple(shared.values()), keys, tuple(points))

    def _parse(self, line: str) -> tuple[str, str, bool, Any]:
        if line not in self._parsed:
            override = OverridesParser.create(config_loader=self.loader).parse_override(line)
            element = override.get_key_element()
            key = element.lstrip("+")
            check_key(key)
            if override.is_delete() or override.is_sweep_override():
                raise InvalidInputError(f"hydra/launcher=lanes cannot run a job with {line}")
            is_group = bool(self.loader.get_group_options(override.key_or_group))
            value = override.value() if not is_group else str(override.get_value_element_as_str())
            self._parsed[line] = (key, element[: len(element) - len(key)], is_group, value)
        return self._parsed[line]

"""The tasks that ship, importable as `tasks.…` beside a package `tasks` of the user's own."""

import pkgutil
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[2] / "tasks"


class TasksFinder(MetaPathFinder):
    """Finds the package `tasks` as Python does, with the modules that ship first in its path.

    So the `__init__` of a package in the working directory is executed, its modules can be imported, and a module that
    ships is never hidden by one of the same name.
    """

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != FOLDER.name:
            return None
        shipped = FOLDER / "__init__.py"
        spec = PathFinder.find_spec(name)
        if spec is None or spec.origin is None or Path(spec.origin).resolve() == shipped:
            spec = spec_from_file_location(name, shipped, submodule_search_locations=[])
        if spec is not None:
            spec.submodule_search_locations = pkgutil.extend_path([str(FOLDER)], name)
        return spec


def share_tasks() -> None:
    """Makes the tasks that ship importable in this process; nothing is imported before a task is."""
    if not any(isinstance(finder, TasksFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, TasksFinder())

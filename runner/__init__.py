"""Seedbed: declarative JAX and Flax experiments, all runs of one shape in one compiled program.

The public interface is loaded when it is first used, so that importing `runner` is quick.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.analysis.comparison import compare_studies
    from runner.analysis.load import read_study as read
    from runner.analysis.study import Study
    from runner.errors import InvalidInputError, StudyFailedError
    from runner.notebook import run

__all__ = ["InvalidInputError", "Study", "StudyFailedError", "compare_studies", "read", "run"]

_MODULES = {
    "InvalidInputError": ("runner.errors", "InvalidInputError"),
    "StudyFailedError": ("runner.errors", "StudyFailedError"),
    "run": ("runner.notebook", "run"),
    "Study": ("runner.analysis.study", "Study"),
    "read": ("runner.analysis.load", "read_study"),
    "compare_studies": ("runner.analysis.comparison", "compare_studies"),
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, function = _MODULES[name]
    return getattr(import_module(module), function)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

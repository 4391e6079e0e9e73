"""The state that Hydra keeps for a whole process, put back after a call as it was found."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime
from hydra.version import VersionBase

OF_A_CALL = (GlobalHydra, HydraConfig, JobRuntime, VersionBase)
"""Hydra's objects that belong to one application; the others hold what plugins and configs have registered."""
FULL_ERROR = "HYDRA_FULL_ERROR"


@contextmanager
def isolate_hydra() -> Iterator[None]:
    """Lets Hydra start as in a fresh process, and restores its state, that of an application around it included."""
    instances = Singleton._instances
    before = {owner: instances.pop(owner) for owner in OF_A_CALL if owner in instances}
    with _restore_sources(), _raise_errors(), _search_working_directory():
        try:
            yield
        finally:
            for owner in OF_A_CALL:
                instances.pop(owner, None)
            instances.update(before)


@contextmanager
def _restore_sources() -> Iterator[None]:
    """Gives an application around the call the reader of files again that it had."""
    Plugins.instance()  # registers Hydra's own sources, if nobody has yet
    types = SourcesRegistry.instance().types
    before = dict(types)
    try:
        yield
    finally:
        types.clear()
        types.update(before)


@contextmanager
def _raise_errors() -> Iterator[None]:
    """Has Hydra raise its errors, instead of printing them and ending the process."""
    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"
    try:
        yield
    finally:
        os.environ.pop(FULL_ERROR)
        if before is not None:
            os.environ[FULL_ERROR] = before


@contextmanager
def _search_working_directory() -> Iterator[None]:
    """Finds tasks in the working directory, as the command does."""
    is_there = "" in sys.path or os.getcwd() in sys.path
    if not is_there:
        sys.path.insert(0, "")
    try:
        yield
    finally:
        if not is_there and "" in sys.path:
            sys.path.remove("")

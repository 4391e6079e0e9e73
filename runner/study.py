"""A study's folder: its files and its records."""

import json
import os
import platform
import socket
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = ("seedbed", "jax", "jaxlib", "flax", "numpy", "hydra-core", "omegaconf", "pyarrow", "optax")
HYDRA = (".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "multirun.yaml")
"""What Hydra writes before a study begins."""


@dataclass(frozen=True)
class Folder:
    """The paths of one study."""

    path: Path

    @property
    def results(self) -> Path:
        return self.path / "results.csv"

    @property
    def programs(self) -> Path:
        return self.path / "programs.csv"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def shown(self) -> str:
        """The path of the table as it is shortest to type."""
        relative = os.path.relpath(self.results)
        return str(self.results) if relative.startswith("..") else relative


def discard(folder: Folder) -> None:
    """Removes what Hydra wrote of a study that has no results; anything else stays, and its folder with it."""
    if folder.results.exists():
        return
    for name in HYDRA:
        (folder.path / name).unlink(missing_ok=True)
    for path in (folder.path / ".hydra", folder.path):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def write(path: Path, text: str) -> None:
    """Writes a record whole: to a temporary name, then renamed."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def environment(devices: Iterable[str]) -> dict[str, Any]:
    """What the results depend on beside their values: versions, machine and devices."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "devices": list(devices),
        "versions": _versions(),
        "variables": {name: os.environ[name] for name in sorted(os.environ) if name.startswith(("JAX_", "XLA_"))},
    }


def _versions() -> Mapping[str, str]:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def write_environment(folder: Folder, record: Mapping[str, Any]) -> None:
    """Writes `environment.json`."""
    write(folder.environment, json.dumps(record, indent=2) + "\n")

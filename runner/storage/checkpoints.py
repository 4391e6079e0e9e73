"""The folders of runs that are kept: checkpoints, with the configuration and what a replay found beside them."""

import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from runner.errors import InvalidInputError
from runner.storage.environment import list_versions
from runner.storage.folder import Folder, shorten_path
from runner.storage.manifest import Manifest

REPORT = "replay.json"
"""What a replay found; a folder that has it was written by one."""


def check_target(target: Path, run: int) -> Path:
    """The folder of a run in `target`. Raises InvalidInputError if something else is there than an earlier replay."""
    path = target / f"run-{run}"
    if path.exists() and not (path / REPORT).is_file():
        raise InvalidInputError(f"{path} exists, and is no run that a replay has saved; give another --save FOLDER")
    return path


def save_run(path: Path, write: Callable[[Path], object], config: str, report: Mapping[str, Any]) -> None:
    """Writes the folder of a run at once: what `write` writes into it, its configuration, and the report.

    An earlier one is replaced. The configuration is `task/run-17.yaml`, which `--config-dir PATH task=run-17` reads.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as made:
        folder = Path(made) / path.name
        (folder / "task").mkdir(parents=True)
        write(folder.absolute())
        (folder / "task" / f"{path.name}.yaml").write_text(config)
        (folder / REPORT).write_text(json.dumps({**report, "versions": list_versions()}, indent=1) + "\n")
        if path.exists():
            shutil.move(path, Path(made) / "replaced")
        os.replace(folder, path)


def format_replay(folder: Folder, manifest: Manifest) -> str:
    """The command that keeps the best run of a study by its first metric; empty where there is nothing to keep."""
    outputs = [output.name for output in manifest.columns.outputs]
    metric = next((name for name in manifest.metrics if name in outputs), None)
    if metric is None or not manifest.can_save:
        return ""
    path = shorten_path(folder.path)
    return shlex.join(["python", "-m", "runner.replay", path, "--best", "1", "--metric", metric, "--save"])


def list_outputs(outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The outputs `(1, …)` of a run as JSON values; floats with the digits of the table."""
    return {name: _to_json(values[0]) for name, values in outputs.items()}


def _to_json(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_to_json(member) for member in value]
    if isinstance(value, np.floating):
        return float(str(value))
    return value.item() if isinstance(value, np.generic) else value

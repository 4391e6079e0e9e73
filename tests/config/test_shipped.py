"""What ships is found in any directory, beside packages `conf` and `tasks` of the user's own."""

import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT

DOUBLE = "from tasks import FACTOR\n\n\ndef double(seed: int, slope: float):\n    return {'value': FACTOR * slope}\n"
YAML = "# @package _global_\ntask: {name: double, _target_: tasks.double.double}\nseed: 0\nslope: 4.0\n"


def call(cwd, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HYDRA_FULL_ERROR": "0"}
    command = [sys.executable, "-m", "runner", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def place(tmp_path):
    """A directory with packages `conf` and `tasks`, one module of which hides a task that ships."""
    for name, text in {
        "conf/task/double.yaml": YAML,
        "conf/config.yaml": "- not ours\n",
        "conf/__init__.py": "",
        "tasks/__init__.py": "FACTOR = 2.0\n",
        "tasks/double.py": DOUBLE,
        "tasks/mixed_train.py": "raise RuntimeError\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.slow
def test_packages_of_the_same_names_hide_nothing(place):
    called = call(place, "--config-dir", "conf", "-m", "task=double,mixed_train", "seed=0,1", "study=both")
    assert (called.returncode, called.stderr) == (0, "")
    frame = pd.read_csv(place / "outputs/both/results.csv")
    assert frame["task"].tolist() == ["double", "double", "mixed_train", "mixed_train"]
    assert frame["value"].tolist()[:2] == [8, 8]


@pytest.mark.parametrize("kind", ["namespace", "module"])
@pytest.mark.matrix
def test_a_namespace_package_or_a_module_of_that_name(place, kind):
    (place / "conf/__init__.py").unlink()
    shutil.move(place / "tasks/__init__.py", place / "tasks.py")
    if kind == "namespace":
        (place / "tasks.py").unlink()
    (place / "tasks/double.py").write_text(DOUBLE.replace("from tasks import FACTOR", "FACTOR = 2.0"))
    task = {"namespace": "task=double,mixed_train", "module": "task=mixed_train"}[kind]
    called = call(place, "--config-dir", "conf", "-m", task, "seed=0,1", "dry_run=true")
    assert (called.returncode, called.stderr) == (0, "")

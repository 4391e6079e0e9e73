"""The distribution: what the wheel and the sdist have, and that they work outside of a clone."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT

from runner.distributions import describe_clash

LAB = "def twice(seed: int, lr: float):\n    return {'value': 2 * lr + seed}\n"
YAML = "# @package _global_\ntask: {name: mine, _target_: my_lab.twice}\nseed: 0\nlr: 0.5\n"


def execute(*call, cwd, **variables):
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    called = subprocess.run(call, cwd=cwd, env={**kept, **variables}, capture_output=True, text=True)
    assert called.returncode == 0, called.stdout + called.stderr
    return called.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the wheel and the sdist."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    place = tmp_path_factory.mktemp("dist")
    execute(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(place), str(ROOT), cwd=place)
    return place


@pytest.mark.slow
def test_what_they_have(built):
    (wheel,) = built.glob("seedbed-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = [path for top in ("conf", "runner", "tasks", "hydra_plugins") for path in (ROOT / top).rglob("*")]
    files = {str(path.relative_to(ROOT)) for path in shipped if path.is_file() and "__pycache__" not in path.parts}
    assert files <= names
    assert {"runner/py.typed", "tasks/py.typed", "conf/config.yaml", "runner/completion/seedbed.zsh"} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {
        "conf",
        "runner",
        "tasks",
        "hydra_plugins",
        "seedbed",
    }
    (sdist,) = built.glob("seedbed-*.tar.gz")
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "CHANGELOG.md", "tests/conftest.py", "docs/tour.ipynb", "PKG-INFO"} <= packed
    assert not [name for name in packed if name.startswith(("outputs", ".ci", ".coverage", "site/"))]


def try_commands(python, place):
    """The main command, a task of one's own, and a comparison, in an environment that has no clone."""
    (place / "my_lab.py").write_text(LAB)
    (place / "my_conf" / "task").mkdir(parents=True)
    (place / "my_conf" / "task" / "mine.yaml").write_text(YAML)
    seedbed = str(python.with_name("seedbed"))
    origin = execute(str(python), "-c", "import runner; print(runner.__file__)", cwd=place)
    assert not Path(origin).is_relative_to(ROOT)
    execute(seedbed, "task=mixed_train", "lr=0.1", cwd=place)
    execute(
        seedbed,
        "run",
        "--config-dir",
        "my_conf",
        "-m",
        "task=mine",
        "lr=1,2",
        "seed=range(0,3)",
        "study=own",
        cwd=place,
    )
    assert pd.read_csv(place / "outputs" / "own" / "results.csv")["value"].tolist() == [2, 3, 4, 4, 5, 6]
    assert "value" in execute(seedbed, "compare", "outputs/own", "--html", cwd=place)
    assert (place / "outputs" / "own" / "report.html").stat().st_size > 10_000
    assert execute(seedbed, "--version", cwd=place).startswith("seedbed ")
    assert "lr_across_seeds" in execute(str(python), "-m", "runner", "--help", cwd=place)
    text = "import runner; print(len(runner.run(task='mine', lr=[1.0, 2.0], config_dir='my_conf', quiet=True).frame))"
    assert execute(str(python), "-c", text, cwd=place) == "2\n"


@pytest.mark.matrix
@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_they_work_beside_the_installed_dependencies(built, tmp_path, kind):
    """An environment of its own that borrows the dependencies of this one, without its editable installation."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    folders = [path for path in sys.path if path.endswith("site-packages")]
    site = next(environment.glob("lib/python*/site-packages"))
    (site / "borrowed.pth").write_text("\n".join(folders))
    (file,) = built.glob(kind)
    execute(str(python), "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", str(file), cwd=tmp_path)
    (tmp_path / "place").mkdir()
    try_commands(python, tmp_path / "place")


@pytest.mark.matrix
def test_the_wheel_installs_with_its_dependencies(built, tmp_path):
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    execute(str(python), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel), cwd=tmp_path)
    (tmp_path / "place").mkdir()
    try_commands(python, tmp_path / "place")


def test_a_distribution_with_a_package_of_the_same_name(tmp_path, runner, monkeypatch):
    record = tmp_path / "site" / "other_tasks-1.0.dist-info" / "RECORD"
    record.parent.mkdir(parents=True)
    record.write_text("other.py,,\ntasks/__init__.py,sha256=x,0\n")
    own = tmp_path / "site" / "seedbed-0.1.dist-info" / "RECORD"
    own.parent.mkdir()
    own.write_text("runner/__init__.py,,\n")
    line = (
        "the distribution other_tasks installs a package 'tasks', as Seedbed does; install Seedbed into an environment "
        "of its own: python -m venv .venv"
    )
    assert describe_clash([str(tmp_path / "site")]) == line
    assert describe_clash([]) is None
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    called = runner("lr=abc")
    assert called.err.splitlines()[1] == f"warning: {line}"
    record.write_text("other_tasks/__init__.py,,\n")
    assert runner("lr=abc").err.count("\n") == 1

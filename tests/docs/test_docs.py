"""Every code block of the README and of the pages is executed, in the order of its page."""

import doctest
import importlib
import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
FAST = {"docs/tutorial.md", "docs/how-to/own-task.md"}
HEAVY = {
    f"docs/how-to/{name}.md"
    for name in (
        *(
            "comparing",
            "export",
            "notebook",
            "porting",
            "searching",
            "shards",
            "studies",
            "sweeps",
            "training",
            "winners",
        ),
    )
}


def mark(page):
    return [] if page in FAST else [pytest.mark.matrix if page in HEAVY else pytest.mark.slow]


ELSEWHERE = ("python3 -m venv", "pip install", "python -m pytest", "ruff check", "mkdocs build", "python docs/")
"""Commands that make an environment, or are a test or a step of their own."""
EXAMPLES = (
    "runner.notebook",
    "runner.analysis.claims",
    "runner.analysis.load",
    "runner.analysis.comparison",
    "tasks.porting.layers",
    "tasks.porting.variables",
)
"""Modules whose docstrings have examples."""
BLOCK = re.compile(r"(?:`([\w/]+\.(?:py|yaml))`:\n\n)?^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")


def blocks(page):
    return [(name, kind, text) for name, kind, text in BLOCK.findall((ROOT / page).read_text())]


@pytest.fixture
def run(runner, tmp_path, monkeypatch, capsys):
    """Runs a command of a page in this process: its exit status and output."""
    from runner import compare, export, race, replay, studies
    from tasks.porting.__main__ import main as port

    mains = {
        "runner.compare": compare.main,
        "runner.export": export.main,
        "runner.race": race.main,
        "runner.replay": replay.main,
        "runner.studies": studies.main,
        "tasks.porting": lambda: sys.exit(port()),
    }

    def call(line):
        program, *words = shlex.split(line)
        assert program == "python", line
        if words[:2] == ["-m", "runner"]:
            called = runner(*words[2:])
            return called.status, called.out + called.err
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", words[1:] if words[0] == "-m" else words)
        try:
            mains[words[1]]() if words[0] == "-m" else runpy.run_path(str(tmp_path / words[0]), run_name="__main__")
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return call


@pytest.fixture
def _own_modules(tmp_path, monkeypatch):
    """Modules of a page are imported from its folder, and forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.usefixtures("_own_modules", "standard_promotion")
@pytest.mark.parametrize("page", [pytest.param(p, marks=mark(p)) for p in PAGES])
def test_every_block_of_a_page_is_executed(page, tmp_path, run):
    scope, output = {}, ""
    for name, kind, text in blocks(page):
        first = text.partition("\n")[0]
        name = name or (first.removeprefix("# ") if re.fullmatch(r"# [\w/]+\.(py|yaml)", first) else "")
        if kind in ("python", "yaml") and name:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        elif kind == "python":
            exec(text, scope)
        elif kind == "sh":
            for line in text.replace("\\\n", " ").splitlines():
                if not line.startswith(ELSEWHERE):
                    status, output = run(line.removeprefix("! "))
                    assert (status != 0) == line.startswith("! "), (line, output)
        elif text.startswith("error"):
            assert text in output
        elif kind == "text" and output:
            check_numbers(text, output)


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_the_examples_of_docstrings_are_executed(run):
    status, output = run("python -m runner -m task=mixed_train lr=0.1,0.2 'seed=range(0,5)' study=lr_scan")
    assert status == 0, output
    for name in EXAMPLES:
        result = doctest.testmod(importlib.import_module(name))
        assert result.attempted > 1, name
        assert result.failed == 0, name


@pytest.mark.matrix
@pytest.mark.filterwarnings("ignore::DeprecationWarning:(zmq|tornado|jupyter_client|nbclient|nbformat|traitlets).*")
def test_the_notebook_is_executed(tmp_path, monkeypatch):
    """In a kernel of its own, which has the same Python."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(ROOT / "docs" / "tour.ipynb", as_version=4)
    assert len(notebook.cells) == 12
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [json.dumps(cell.get("outputs", [])) for cell in notebook.cells]
    assert "python -m runner -m task=mixed_train lr=0.01,0.1" in shown[1]
    assert "200 of 200 runs" in shown[1]
    assert "<strong>tour</strong>: 200 runs" in shown[1]
    assert "300 runs in outputs/tour/results.csv, 200 of them already there" in shown[5]
    assert "is another study: code of task decay was" in shown[8]
    assert re.search(r"interrupted after [\d,]+ of 20,000 runs; resume with: ", shown[10])
    assert (tmp_path / "outputs" / "slow" / "results.csv").stat().st_size > 1000


def check_numbers(shown, printed):
    """The rows of a shown table have the numbers of the printed one; their last digits depend on the version of JAX."""
    rows, others = (
        [values for line in text.splitlines() if len(values := [float(n) for n in NUMBER.findall(line)]) > 5]
        for text in (shown, printed)
    )
    assert rows
    for row, other in zip(rows, others, strict=False):
        np.testing.assert_allclose(row, other, rtol=1e-2)


def test_the_pages_refer_to_files_that_exist():
    for page in [*PAGES, "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
            assert (ROOT / page).parent.joinpath(target).exists(), (page, target)


def test_the_generated_pages_are_up_to_date():
    generator = runpy.run_path(str(ROOT / "docs" / "reference.py"))
    for name, describe in generator["PAGES"].items():
        assert (ROOT / "docs" / "reference" / name).read_text() == describe(), "run python docs/reference.py"


def test_the_readme_is_short_and_its_second_command_is_what_ci_calls():
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= 150
    first, second = (block for _, kind, block in blocks("README.md") if block.startswith("python3 -m venv"))
    assert first.count("\n") == second.count("\n") == 1
    assert first.strip().endswith("-m runner task=mixed_train lr=0.1")
    assert second.strip().endswith("-m pytest")
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.slow
def test_the_site_builds(tmp_path):
    mkdocs = pytest.importorskip("mkdocs.commands.build")
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path / "site"))
    mkdocs.build(config)
    assert (Path(tmp_path) / "site" / "tutorial" / "index.html").exists()

"""Linter, formatter, type checker and import contracts, on everything."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

TOOLS = [("ruff", "check"), ("ruff", "format", "--check"), ("mypy",), ("lint-imports",)]


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS, ids=" ".join)
def test_the_code_passes(tool):
    name, *arguments = tool
    command = str(Path(sys.executable).with_name(name))
    called = subprocess.run([command, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert called.returncode == 0, called.stdout + called.stderr

"""What is recorded of the Git repository of a task's code, and what never is."""

import json
import os
import subprocess

import pytest

import runner as seedbed
from runner.errors import InvalidInputError
from runner.storage import repositories
from runner.storage.environment import read_environment
from runner.storage.folder import Folder
from runner.storage.repositories import describe_repository

MODULE = "def task(seed: int):\n    return seed\n"
YAML = "# @package _global_\ntask: {name: mine, _target_: my_lab.task}\nseed: 0\n"


@pytest.fixture(autouse=True)
def _identity(monkeypatch, tmp_path):
    """Commits of nobody, without the configuration of whoever runs the tests."""
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "nobody")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "nobody@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))


def git(*arguments, at="."):
    return subprocess.run(["git", "-C", at, *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def lab_repository(lab, tmp_path):
    """A user's own task in a repository with one commit, and a file that is not tracked."""
    lab({"my_lab.py": MODULE, "my_conf/task/mine.yaml": YAML, ".gitignore": "outputs/\n", "secret.txt": "password"})
    git("init", "-q", "-b", "trunk")
    git("add", "my_lab.py", "my_conf", ".gitignore")
    git("commit", "-q", "-m", "one")
    return tmp_path


def record(runner, *more):
    called = runner("--config-dir", "my_conf", "task=mine", *more)
    assert called.status == 0, called.err
    return json.loads((called.folder / "environment.json").read_text())


def test_a_clean_repository(lab_repository, runner):
    (state,) = record(runner)["repositories"]
    commit = git("rev-parse", "HEAD")
    root = str(lab_repository.resolve())
    assert state == {"tasks": ["mine"], "root": root, "commit": commit, "branch": "trunk", "dirty": False}


def test_the_diff_has_tracked_files_only(lab_repository, runner, monkeypatch):
    monkeypatch.setenv("API_TOKEN", "password")
    (lab_repository / "my_lab.py").write_text(f"# changed: é\n{MODULE}")
    git("add", "my_lab.py")
    environment = record(runner)
    (state,) = environment["repositories"]
    assert state["dirty"] is True
    assert "+# changed: é" in state["diff"]
    assert "password" not in json.dumps(environment)
    assert "secret.txt" not in json.dumps(environment)


@pytest.mark.slow
def test_the_report_names_them(lab_repository, runner):
    (lab_repository / "my_lab.py").write_text(f"# changed\n{MODULE}")
    called = runner(
        *(
            "--config-dir",
            "my_conf",
            "-m",
            "task=mine",
            "seed=range(0,3)",
            "report=true",
            "note=first try",
            "tags=[a,b]",
        )
    )
    page = (called.folder / "report.html").read_text()
    for text in ("first try", git("rev-parse", "HEAD"), "trunk", "+# changed", "[&#34;a&#34;, &#34;b&#34;]"):
        assert text in page


def test_a_long_diff_is_cut(lab_repository, monkeypatch):
    monkeypatch.setattr(repositories, "MOST_BYTES", 1000)
    (lab_repository / "my_lab.py").write_text(MODULE + "# ü\n" * 100_000)
    diff = describe_repository(lab_repository)["diff"]
    assert diff.endswith("# ü\n… cut here: the diff has more than 1,000 bytes\n")
    assert len(diff.encode()) < 1100


def test_a_repository_without_a_commit(lab, runner):
    lab({"my_lab.py": MODULE, "my_conf/task/mine.yaml": YAML})
    git("init", "-q", "-b", "trunk")
    (state,) = record(runner)["repositories"]
    assert (state["commit"], state["branch"], state["dirty"]) == (None, "trunk", False)


@pytest.mark.slow
def test_no_branch_a_shallow_clone_and_a_submodule(lab_repository, monkeypatch):
    git("commit", "-q", "--allow-empty", "-m", "two")
    git("clone", "-q", "--depth", "1", f"file://{lab_repository}", "shallow")
    git("checkout", "-q", "--detach", at="shallow")
    state = describe_repository(lab_repository / "shallow")
    assert (state["commit"], state["branch"]) == (git("rev-parse", "HEAD"), None)
    (lab_repository / "outer").mkdir()
    git("init", "-q", "-b", "trunk", at="outer")
    git(
        "-c",
        "protocol.file.allow=always",
        "submodule",
        "--quiet",
        "add",
        f"file://{lab_repository}",
        "inner",
        at="outer",
    )
    git("commit", "-q", "-m", "with a submodule", at="outer")
    inner = lab_repository / "outer" / "inner"
    assert repositories._find_root(inner) == inner.resolve()
    assert describe_repository(inner)["commit"] == git("rev-parse", "HEAD")
    (inner / "my_lab.py").write_text("# changed\n")
    assert describe_repository(inner)["dirty"] is True


def test_no_repository(lab, runner):
    lab({"my_lab.py": MODULE, "my_conf/task/mine.yaml": YAML})
    assert record(runner)["repositories"] == []


def test_no_git(lab_repository, runner, monkeypatch):
    monkeypatch.setenv("PATH", str(lab_repository / "nothing"))
    assert record(runner)["repositories"] == []


def test_git_that_does_not_answer(lab_repository, monkeypatch):
    (lab_repository / "bin").mkdir()
    command = lab_repository / "bin" / "git"
    command.write_text("#!/bin/sh\nexec sleep 60\n")
    command.chmod(0o755)
    monkeypatch.setattr(repositories, "TIMEOUT", 0.2)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    assert describe_repository(lab_repository) == {
        **{"root": str(lab_repository), "commit": None, "branch": None, "dirty": None}
    }


def test_commands_that_a_repository_names_are_not_executed(lab_repository, runner):
    (lab_repository / ".gitattributes").write_text("*.py diff=own\n")
    git("add", ".gitattributes")
    (lab_repository / "my_lab.py").write_text(f"# changed\n{MODULE}")
    for name in ("core.fsmonitor", "diff.external", "diff.own.textconv", "diff.own.command"):
        git("config", name, f"touch {lab_repository}/executed; cat")
    (state,) = record(runner)["repositories"]
    assert "+# changed" in state["diff"]
    assert not (lab_repository / "executed").exists()


@pytest.mark.slow
def test_a_function_belongs_to_the_repository_of_the_working_directory(lab_repository):
    study = seedbed.run(task=eval("lambda seed: seed"), seed=0, quiet=True)
    assert read_environment(Folder(study.path))["repositories"][0]["commit"] == git("rev-parse", "HEAD")


def test_installed_libraries_belong_to_none(lab_repository, runner, monkeypatch):
    """A virtual environment often lies within a repository of the user's."""
    monkeypatch.setattr(repositories, "is_library", lambda _: True)
    assert record(runner)["repositories"] == []


def test_notes_and_tags(toy):
    def read(called):
        return read_environment(Folder(called.folder or first.folder))

    first = toy("task=line", "study=mine", "note=two words", "tags=baseline")
    assert (read(first)["note"], read(first)["tags"]) == ("two words", ["baseline"])
    assert read(toy("-m", "task=line", "seed=range(0,3)", "study=mine"))["note"] == "two words"
    again = read(toy("-m", "task=line", "seed=range(0,3)", "study=mine", "tags=[a,b,a]"))  # executes nothing
    assert (again["note"], again["tags"]) == ("two words", ["a", "b"])
    assert read(toy("-m", "task=line", "seed=range(0,9)", "study=mine", "note=other"))["note"] == "other"


@pytest.mark.parametrize(
    ("argument", "rule"),
    [("note=[a]", "note must be a text, got ['a']"), ("tags=[[a]]", "tags must be a list of words, such as")],
)
def test_what_is_no_note(argument, rule):
    with pytest.raises(InvalidInputError) as refused:
        seedbed.run("task=bridge", argument)
    assert rule in str(refused.value)

"""Where a study goes: names, folders that are left and folders that are not, and what `overwrite` moves."""

import re

import pytest
from omegaconf import OmegaConf

from runner import read

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "name", ["", "null", ".", "..", "a/b", "/tmp/x", "../../x", "'a\\b'", '"a\tb"', '"a\nb"', "[a]", "{a:1}"]
)
def test_a_name_is_one_component_of_a_path(toy, tmp_path, name):
    called = toy("task=line", f"study={name}", "overwrite=true")
    assert called.status == 2
    assert called.err.startswith("error: study must be a name without / and \\, got ")
    assert called.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_name_from_a_yaml_is_checked_too(runner, tmp_path):
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own/experiment/up.yaml").write_text("# @package _global_\nstudy: ../up\n")
    called = runner("--config-dir", "own", "+experiment=up")
    assert (called.status, "study must be a name" in called.err) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("slope=abc",),
        ("slope=${nothing}",),
        ("study=mine", "x.shape=[0]"),
        ("hydra.run.dir=a/b/c", "slope=abc"),
        ("hydra.output_subdir=.hydra", "slope=abc"),
        ("hydra/job_logging=default", "slope=abc"),
        ("hydra/job_logging=default",),
        ("sweep.part=[0,1]",),
        ("sweep.zip=[1]",),
        ("sweep.axes=[a]",),
        ("sweep.caller=[a,1]",),
        ("+sweep.part=[0,1]",),
        ("sweep=null",),
        ("~sweep",),
        ("~lanes",),
        ("~task",),
        ("hydra.callbacks.seedbed=null",),
        ("++hydra.callbacks={a:{b:1}}",),
        ("-m", "seed=0,1", "++hydra.callbacks={a:{b:1}}"),
        ("-m", "seed=0,1", "study=.."),
        ("-m", "seed=0,1", "sweep.part=[0,1]"),
        ("-m", "seed=0,1", "+hydra.sweeper.params={sweep.part:'[0,1]'}"),
        ("-m", "seed=0,1", "slope=abc"),
        ("-m", "seed=0,1", "hydra.sweep.dir=a/b/c", "slope=abc"),
        ("-m", "seed=0,1", "hydra.output_subdir=.hydra"),
        ("-m", "seed=0,1", "hydra/job_logging=default"),
        ("-m", "seed=0,1", "hydra/launcher=nope"),
        ("-m", "seed=0,1", "hydra/sweeper=basic", "study=.."),
        ("-m", "seed=0,1", "hydra/sweeper=basic", "hydra/job_logging=default"),
        ("-m", "study=a,b"),
        ("-m", "lanes=1,2"),
        (f"study={'n' * 300}",),
    ],
    ids=str,
)
def test_a_usage_error_leaves_nothing(toy, tmp_path, arguments):
    called = toy("task=line", *arguments)
    assert called.status == 2, called.err
    assert called.err.startswith("error: ")
    assert called.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_the_runner_writes_is_refused_from_a_yaml(runner, tmp_path):
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own/experiment/part.yaml").write_text("# @package _global_\nsweep: {part: [0, 1]}\n")
    for before in ((), ("-m", "seed=0,1")):
        called = runner("--config-dir", "own", *before, "+experiment=part")
        assert (called.status, called.err) == (2, "error: sweep is written by the runner itself, and cannot be set\n")
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_no_error_of_a_check_becomes_a_warning_of_hydra(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("runner.config.destination.read_settings", lambda _: int("no number"))
    called = toy("task=line")
    assert (called.status, "invalid literal for int()" in called.err, called.err.count("\n")) == (2, True, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_leaves_nothing(toy, tmp_path):
    assert toy("task=line", "dry_run=true").status == 0
    assert toy("-m", "task=line", "seed=0,1", "dry_run=true").status == 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_stays(toy, tmp_path):
    (tmp_path / "outputs" / "mine").mkdir(parents=True)
    assert toy("task=line", "slope=abc", "study=mine").status == 2
    assert toy("task=line", "dry_run=true", "hydra.run.dir=outputs/mine").status == 0
    assert (tmp_path / "outputs" / "mine").exists()


def test_a_fork_that_is_refused_leaves_nothing(toy, tmp_path):
    toy("task=line", "study=mine")
    assert toy("task=pair", "study=mine", "on_mismatch=fork", "x.shape=[0]").status == 2
    assert toy("task=line", "slope=2", "study=mine", "on_mismatch=fork", "lanes=1", "dry_run=true").status == 0
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["mine"]


def test_unnamed_studies_of_one_second_have_folders_of_their_own(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("hydra._internal.hydra.setup_globals", lambda: None)  # would register the resolver again
    OmegaConf.register_new_resolver("now", lambda _: "20300101-000000", use_cache=True, replace=True)
    for arguments in (("task=line",), ("task=line",), ("-m", "task=line", "seed=0,1"), ("task=line", "slope=abc")):
        toy(*arguments)
    names = sorted(path.name for path in tmp_path.glob("outputs/*"))
    assert names == [f"line-20300101-000000{number}" for number in ("", "-2", "-3")]


def test_a_name_has_the_second_and_no_more(toy):
    assert re.fullmatch(r"line-\d{8}-\d{6}", toy("task=line").folder.name)


def test_overwrite_moves_what_a_study_has_written_and_nothing_else(toy, tmp_path):
    study = toy("task=line", "study=mine", "report=true").folder
    (study / "notes.txt").write_text("keep")
    (study / "figures").mkdir()
    called = toy("task=line", "study=mine", "slope=2", "overwrite=true")
    assert called.status == 0, called.err
    assert (study / "notes.txt").read_text() == "keep"
    aside = {path.name for path in (tmp_path / "outputs/mine.old1").iterdir()}
    files = {
        "results.csv",
        "results.crc",
        "study.json",
        "programs.csv",
        "environment.json",
        "report.html",
        "figures",
        ".hydra",
    }
    assert aside == files


def test_both_studies_can_be_read_after_overwrite(toy):
    """The checksums go with their table."""
    for slope in ("slope=1,2", "slope=3"):
        called = toy("-m", "task=line", slope, "study=mine", "overwrite=true")
        assert called.status == 0, called.err
    assert [len(read(f"outputs/{name}")) for name in ("mine", "mine.old1")] == [1, 2]


@pytest.mark.parametrize("arguments", [("hydra.run.dir=.",), ("-m", "seed=0,1", "hydra.sweep.dir=."), ("study=mine",)])
def test_overwrite_leaves_a_folder_alone_that_is_no_study(toy, tmp_path, arguments):
    (tmp_path / "outputs/mine").mkdir(parents=True)
    (tmp_path / "outputs/mine/thesis.tex").write_text("keep")
    before = sorted(tmp_path.rglob("*"))
    called = toy("task=line", *arguments, "overwrite=true")
    assert called.status == 2
    assert "overwrite=true moves a study aside, and " in called.err
    assert called.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before

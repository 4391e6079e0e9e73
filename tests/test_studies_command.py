"""The list of studies and what is done with single ones: found, shown, compared, renamed, removed."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

import runner as seedbed
from runner import studies
from runner.plan.status import Status
from runner.storage import catalog, counting, overview
from runner.storage.folder import Folder
from runner.storage.lock import lock_folder
from runner.storage.manifest import require_manifest


@pytest.fixture
def listed(call_main):
    """The JSON list of the studies that options select, by name."""

    def call(*options):
        status, out, err = call_main(studies.main, "list", "--json", *options)
        assert (status, err) == (0, "")
        return {entry["name"]: entry for entry in json.loads(out)}

    return call


def record(folder, **entries):
    path = folder / "environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def three(toy, kept):
    """A complete study with a note, one that is not finished, and a damaged one; they are executed once."""
    if not (kept / "outputs").exists():
        make_three(toy)
        shutil.copytree("outputs", kept / "outputs")
    else:
        shutil.copytree(kept / "outputs", "outputs")
    return Path("outputs/whole"), Path("outputs/half")


def make_three(toy):
    whole = toy("-m", "task=noisy", "level=1,2,-1", "seed=range(0,5)", "study=whole").folder
    record(whole, note="the first try", tags=["paper", "v1"])
    half = toy("-m", "task=line", "shift=0,1", "seed=range(0,5)", "study=half").folder
    lines = (half / "results.csv").read_bytes().splitlines(keepends=True)
    (half / "results.csv").write_bytes(b"".join(lines[:8]))
    shutil.copytree(half, half.with_name("broken"))
    (half.with_name("broken") / "study.json").write_text("{")


def test_studies_are_found(three, listed, call_main):
    assert set(listed()) == {"whole", "half", "broken"}
    assert set(listed("--task", "noisy")) == set(listed("--task", "n*")) == {"whole"}
    assert set(listed("--tag", "paper")) == set(listed("--tag", "v?", "--task", "noisy")) == {"whole"}
    assert listed("--tag", "pape") == {}
    assert set(listed("--unfinished")) == {"half", "broken"}
    old = time.time() - 3 * 86400
    os.utime("outputs/half/study.json", (old, old))
    assert set(listed("--since", "2d")) == {"whole", "broken"}
    assert set(listed("--since", "1w")) == {"whole", "half", "broken"}
    assert set(listed("--since", time.strftime("%Y-%m-%d", time.localtime(old - 86400)))) == set(listed())
    status, out, _ = call_main(studies.main, "--task", "nothing")
    assert (status, out.splitlines()[-1]) == (0, "0 of 3 studies in outputs")
    status, _, err = call_main(studies.main, "--since", "yesterday")
    assert (status, err.count("\n")) == (2, 1)
    assert "--since takes a date such as 2026-11-01, or an age such as 7d, got 'yesterday'" in err


def test_a_list_has_counts_sizes_and_the_best_run(three, listed, call_main):
    entries, frame = listed(), seedbed.read("outputs/whole")
    whole = entries["whole"]
    best = frame.loc[frame["score"].idxmin()]
    assert whole["best"] == {"metric": "score", "direction": "minimize", "value": pytest.approx(best["score"])} | {
        "run": best["run"]
    }
    assert (whole["done"], whole["planned"], whole["nonfinite"], whole["failed"]) == (15, 15, 5, 0)
    assert whole["bytes"] == sum(path.stat().st_size for path in Path("outputs/whole").rglob("*") if path.is_file())
    assert (whole["note"], whole["tags"], whole["complete"]) == ("the first try", ["paper", "v1"], True)
    assert (entries["half"]["done"], entries["half"]["complete"], entries["half"]["best"]) == (7, False, None)
    assert "study.json is damaged" in entries["broken"]["problem"]
    line = next(line for line in call_main(studies.main)[1].splitlines() if line.startswith(" whole "))
    assert f"score {best['score']:.5g} (run {best['run']})" in line
    assert "paper, v1" in line


def test_a_table_is_read_again_only_if_its_study_has_changed(three, listed, monkeypatch, toy):
    before, read = listed(), []
    monkeypatch.setattr(counting, "read_overview", lambda folder: read.append(folder.path.name) or overview.Overview())
    assert listed() == before
    assert read == []
    record(three[0], tags=["other"])
    toy("-m", "task=line", "shift=0,1", "seed=range(0,5)", "study=half")
    listed()
    assert sorted(read) == ["half", "whole"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1, "studies": {"whole": {}}}', '{"format": 0}'])
def test_a_damaged_store_is_no_loss(three, listed, content):
    before = listed()
    (store,) = Path(os.environ["XDG_CACHE_HOME"], "seedbed", "studies").glob(f"{store_name()}.json")
    store.write_text(content)
    assert listed() == before


def store_name():
    return catalog._locate_store(Path("outputs")).stem


@pytest.mark.slow
def test_small_and_large_tables_are_counted_alike(toy, monkeypatch):
    toy("-m", "task=keep", "rate=1,3,9", "seed=range(0,5)", "study=s")
    toy("-m", "task=refuses", "mode=ok,sour", "seed=range(0,2)", "study=t")
    for name in "st":
        small = counting.read_overview(Folder(Path("outputs", name)))
        with monkeypatch.context() as patch:
            patch.setattr(counting, "SMALL_BYTES", 0)
            large = counting.read_overview(Folder(Path("outputs", name)))
        assert small == large
        assert small.problem == ""
        frame = seedbed.read(f"outputs/{name}")
        assert small.done == len(frame)
        assert {status: small.count(status) for status in Status} == {
            status: int((frame["status"] == status).sum()) for status in Status
        }


def test_a_list_imports_neither_pandas_nor_pyarrow_nor_jax(toy, tmp_path):
    toy("-m", "task=noisy", "level=1,2", "seed=range(0,5)", "study=s")
    code = (
        "import sys; sys.argv = ['studies']; from runner import studies; studies.main(); "
        "assert not {'jax', 'pandas', 'pyarrow', 'scipy', 'hydra'} & set(sys.modules), set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


def test_a_study_in_use_says_by_whom(three, listed):
    with lock_folder(Folder(three[1])):
        assert f"process {os.getpid()} on " in listed()["half"]["holder"]
    assert listed()["half"]["holder"] == ""


def test_a_study_is_shown(toy, call_main, three):
    status, out, err = call_main(studies.main, "show", "whole")
    assert (status, err) == (0, "")
    told = " ".join(out.split())
    for text in (
        "complete (15 of 15 runs: 10 ok, 5 nonfinite)",
        "the first try",
        "paper, v1",
        "values of noisy steps=5",
        "axis level 1.0, 2.0, -1.0",
        "best point by score level=1: mean ",
        "over 5 runs, minimize; corrected for the choice among 2 points: ",
        "version of jax ",
        "compare its points: python -m runner.compare outputs/whole",
    ):
        assert text in told, text
    frame = seedbed.read("outputs/whole")
    shown = json.loads(call_main(studies.main, "show", "outputs/whole", "--json")[1])
    (best,) = shown["best"]
    assert best["mean"] == pytest.approx(frame[frame["level"] == 1]["score"].mean())
    assert best["low"] < best["mean"] < best["high"]
    assert best["corrected_low"] <= best["corrected"] <= best["corrected_high"]
    assert (best["point"], best["points"], best["seeds"]) == ({"level": 1.0}, 2, 5)
    assert shown["axes"][1] == {"name": "seed", "count": 5, "values": [0, 1, 2, 3, 4], "last": 4}
    state = {"tasks": ["line"], "commit": "ab12", "branch": "main", "dirty": True, "diff": "secret"}
    record(three[1], repositories=[state])
    shown = call_main(studies.main, "show", "half")[1] + call_main(studies.main, "show", "half", "--json")[1]
    assert "commit ab12 on main, changed since the commit" in shown
    assert "secret" not in shown
    record(three[1], command=["/usr/bin/python3", "-m", "runner", "task=line", "study=half"])
    assert "resume it: python3 -m runner task=line study=half\n" in call_main(studies.main, "show", "half")[1]
    status, _, err = call_main(studies.main, "show", "broken")
    assert (status, err.count("\n")) == (2, 1)
    assert "there is no study 'nowhere' in outputs" in call_main(studies.main, "show", "nowhere")[2]


def test_failures_are_shown_by_their_reason(toy, call_main):
    folder = toy("-m", "task=refuses", "mode=ok,sour,bitter", "seed=range(0,2)", "study=s").folder
    record(folder, command=["python", "-m", "runner", "task=refuses", "study=s"])
    shown = json.loads(call_main(studies.main, "show", "s", "--json")[1])
    reasons = {reason.rpartition(": ")[2]: count for reason, count in shown["failures"].items()}
    assert reasons == {"sour": 2, "bitter": 2}
    retry = "python -m runner task=refuses study=s retry=failed"
    assert shown["commands"]["execute the failed runs once more"] == retry


def diff(call_main, *names):
    status, out, err = call_main(studies.main, "diff", *names, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


@pytest.mark.slow
def test_studies_with_another_value_are_compared_over_their_common_seeds(toy, call_main):
    for name, slope, shift, seeds in (("a", "1,2", 0, "0,6"), ("b", "1,2,3", 2, "2,9")):
        toy("-m", "task=line", f"slope={slope}", f"shift={shift}", f"seed=range({seeds})", f"study={name}")
    found = diff(call_main, "a", "b")
    assert {entry["name"]: (entry["first"], entry["second"]) for entry in found["differing"]} == {
        "shift": ("0", "2"),
        "slope": ("1.0, 2.0", "1.0, 2.0, 3.0"),
        "seed": ("0, 1, 2, 3, 4, 5", "2, 3, 4, 5, 6, 7, 8"),
    }
    assert found["common"]["runs"] == 8
    assert found["common"]["apart_from"] == ["shift"]
    assert found["equal"] > 5


@pytest.mark.slow
def test_the_difference_of_two_studies_is_that_of_their_paired_runs(toy, call_main):
    for name, level in (("a", "1"), ("b", "1.5")):
        toy("-m", "task=noisy", f"level={level}", "seed=range(0,4)", f"study={name}")
    found = diff(call_main, "a", "b")
    (row,) = found["differences"]
    assert (row["metric"], row["pairs"], row["kind"]) == ("score", 4, "paired")
    assert row["difference"] == pytest.approx(0.5)
    assert found["common"]["differing"] == {"score": 4, "curve": 4}
    assert found["common"]["largest"]["score"] == pytest.approx(0.5)
    out = call_main(studies.main, "diff", "a", "b")[1]
    assert "4 runs in common apart from level, 0 with equal results" in out
    assert "score differs in 4 runs, by at most 0.5" in out
    assert "second minus first" in out


@pytest.mark.slow
def test_versions_and_code_are_told_and_their_runs_compared(toy, call_main, tmp_path):
    toy("-m", "task=noisy", "level=1,2", "seed=range(0,5)", "study=a")
    shutil.copytree("outputs/a", "outputs/b")
    same = diff(call_main, "a", "b")
    assert (same["differing"], same["differences"]) == ([], [])
    assert same["common"]["identical"] == same["common"]["runs"] == 10
    assert same["reason"] == "all common runs have equal results, bit by bit"
    shutil.rmtree("outputs/b")
    toy("-m", "task=noisy", "level=1,2", "seed=range(0,5)", "study=b", "lanes=1")
    path = Path("outputs/b/study.json")
    data = json.loads(path.read_text())
    data["fingerprint"]["versions"]["jax"] = "0.1"
    data["fingerprint"]["code"]["noisy"] = "abc"
    path.write_text(json.dumps(data))
    kinds = {(entry["kind"], entry["name"]): entry["second"] for entry in diff(call_main, "a", "b")["differing"]}
    assert kinds == {("version", "jax"): "0.1", ("code", "noisy"): "abc", ("setting", "lanes"): "1"}


@pytest.mark.slow
def test_studies_without_common_runs_say_so(toy, call_main):
    toy("-m", "task=noisy", "seed=range(0,3)", "study=a")
    toy("-m", "task=noisy", "seed=range(3,6)", "study=b")
    assert diff(call_main, "a", "b")["reason"].startswith("the studies have no run in common")
    status, _, err = call_main(studies.main, "diff", "a", "a")
    assert (status, err) == (2, "error: outputs/a and outputs/a are the same study\n")


def test_a_renamed_study_is_resumed_by_its_new_command(toy, call_main):
    toy("-m", "task=noisy", "level=1,2", "seed=range(0,5)", "study=old")
    content = Path("outputs/old/results.csv").read_bytes()
    status, out, _ = call_main(studies.main, "mv", "old", "new")
    assert (status, out) == (0, "outputs/old is outputs/new now\n")
    assert sorted(os.listdir("outputs")) == ["new"]
    assert not Path("outputs/new/.holder.json").exists()
    command = json.loads(call_main(studies.main, "show", "new", "--json")[1])["command"]
    assert command.endswith(" study=new")
    assert "study=old" not in command
    called = toy("-m", "task=noisy", "level=1,2", "seed=range(0,6)", "study=new")
    assert "10 of them already there" in called.out
    assert Path("outputs/new/results.csv").read_bytes().startswith(content)


def test_renaming_refuses_what_would_lose_something(toy, call_main, three):
    with lock_folder(Folder(Path("outputs/half"))):
        status, _, err = call_main(studies.main, "mv", "half", "other")
        assert (status, err.count("\n")) == (2, 1)
        assert f"is in use by process {os.getpid()}" in err
    for old, new, message in [
        ("half", "whole", "outputs/whole exists; give another name"),
        ("half", "half", "outputs/half exists; give another name"),
        ("half", "a/b", "the new name must be that of a folder beside outputs/half, got 'a/b'"),
        ("half", "..", "the new name must be that of a folder"),
        ("nowhere", "other", "there is no study 'nowhere' in outputs"),
        ("broken", "other", "study.json is damaged"),
    ]:
        status, _, err = call_main(studies.main, "mv", old, new)
        assert (status, err.count("\n")) == (2, 1)
        assert message in err
    assert sorted(os.listdir("outputs")) == ["broken", "half", "whole"]


def test_removed_studies_are_gone_but_not_what_others_have_put_there(call_main, three):
    Path("outputs/half/notes.txt").write_text("mine")
    status, out, _ = call_main(studies.main, "rm", "half", "broken", "outputs/half", "--yes")
    assert (status, out) == (0, "removed outputs/half; left there: notes.txt\nremoved outputs/broken\n")
    assert sorted(os.listdir("outputs")) == ["half", "whole"]
    assert os.listdir("outputs/half") == ["notes.txt"]


def test_nothing_is_removed_if_one_study_is_in_use_or_nobody_was_asked(call_main, three, monkeypatch):
    with lock_folder(Folder(Path("outputs/half"))):
        status, _, err = call_main(studies.main, "rm", "whole", "half", "--yes")
        assert (status, err.count("\n")) == (2, 1)
    monkeypatch.setattr("sys.stdin", Stdin(is_terminal=False))
    status, _, err = call_main(studies.main, "rm", "whole")
    assert (status, err.count("\n")) == (2, 1)
    assert "give --yes" in err
    assert sorted(os.listdir("outputs")) == ["broken", "half", "whole"]
    assert require_manifest(Path("outputs/whole/study.json"))


class Stdin:
    def __init__(self, is_terminal):
        self.isatty = lambda: is_terminal


@pytest.mark.parametrize(("answer", "is_removed"), [("y", True), ("", False), ("n", False)])
def test_a_terminal_is_asked(call_main, three, monkeypatch, answer, is_removed):
    monkeypatch.setattr("sys.stdin", Stdin(is_terminal=True))
    monkeypatch.setattr("builtins.input", lambda question: answer)
    status, out, _ = call_main(studies.main, "rm", "whole")
    assert status == 0
    assert Path("outputs/whole").exists() != is_removed
    assert ("removed outputs/whole" if is_removed else "nothing was removed") in out


def test_many_studies_are_laid_out_as_few(monkeypatch, capsys):
    from runner import terminal

    header, rows = ("name", "count", "text"), [(f"n{i}", i, "wörter\nund zeilen" if i == 3 else "x") for i in range(9)]
    terminal.print_rows(header, rows, prose=("text",))
    few = capsys.readouterr().out
    monkeypatch.setattr(terminal, "MANY_ROWS", 1)
    terminal.print_rows(header, rows, prose=("text",))
    assert capsys.readouterr().out == few

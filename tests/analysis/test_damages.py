"""Damaged studies: whatever is in its files, a study is read, or refused in one line, and is always listed."""

import json
import shutil
import sys
from contextlib import suppress

import pytest
from conftest import ROOT

import runner as seedbed
from runner import compare, studies
from runner.__main__ import main as run
from runner.errors import InvalidInputError

pytestmark = pytest.mark.slow

SWEEP = ("-m", "task=noisy", "level=1,2", "seed=range(0,4)", "mode=MODE", "study=s")


def edit(old, new):
    return lambda content: content.replace(old, new)


def put(path, value):
    """A change of the value at a path of a JSON file."""

    def change(content):
        data = json.loads(content)
        *parents, last = path
        inner = data
        for key in parents:
            inner = inner[key]
        inner[last] = value
        return json.dumps(data).encode()

    return change


def drop_key(name):
    return lambda content: json.dumps({k: v for k, v in json.loads(content).items() if k != name}).encode()


ANY = {
    "empty": lambda _: b"",
    "garbage": lambda _: bytes(range(256)) * 40,
    "not UTF-8": lambda content: content[: len(content) // 2] + b"\xff\xfe" + content[len(content) // 2 :],
    "zeros": lambda content: content + bytes(100),
    "cut": lambda content: content[: len(content) // 2 + 3],
    "a folder": None,
    "missing": ...,
}
TABLE = {
    "header only": lambda content: content.splitlines(keepends=True)[0],
    "part of the header": lambda content: content[:7],
    "other columns": edit(b"score", b"points"),
    "no status": edit(b"status", b"state"),
    "semicolons": edit(b",", b";"),
    "a word in a number": edit(b"\n3,", b"\nthree,"),
    "a word in an output": lambda content: content.replace(content.split(b"\n")[2].split(b",")[5], b"much", 1),
    "a broken list": edit(b", 1.", b", x1."),
    "short lists": edit(b'"[', b'"[[1], '),
    "too few cells": lambda content: content.replace(b",\n", b"\n", 3),
    "too many cells": lambda content: content.replace(b"\n1,", b"\n1,1,1,", 1),
    "unknown status": edit(b'"ok"', b'"fine"'),
}
MANIFEST = {
    "a list": lambda _: b"[]",
    "null": lambda _: b"null",
    "an empty mapping": lambda _: b"{}",
    "format of text": put(("format",), "x"),
    "a later format": put(("format",), 99),
    "an earlier format": put(("format",), 2),
    **{f"no {name}": drop_key(name) for name in ("format", "columns", "fingerprint", "planned", "accepted", "indexes")},
    "columns of text": put(("columns",), "x"),
    "parameters of text": put(("columns", "parameters"), "x"),
    "parameters in a list": put(("columns", "parameters"), ["level"]),
    "a parameter without type": put(("columns", "parameters", "level"), 3),
    "no outputs": put(("columns", "outputs"), []),
    "outputs of numbers": put(("columns", "outputs"), [1]),
    "an unknown dtype": put(("columns", "outputs", 0, "dtype"), "float99"),
    "another dtype": put(("columns", "outputs", 0, "dtype"), "int32"),
    "a shape of text": put(("columns", "outputs", 0, "shape"), ["a"]),
    "a scalar that is a list": put(("columns", "outputs", 0, "shape"), [2]),
    "a name that is a number": put(("columns", "outputs", 0, "name"), 1),
    "fingerprint of text": put(("fingerprint",), "x"),
    "fingerprint of other keys": put(("fingerprint",), {"a": 1}),
    "versions of text": put(("fingerprint", "versions"), "x"),
    "values in a list": put(("fingerprint", "values"), [1]),
    "planned of text": put(("planned",), "x"),
    "planned null": put(("planned",), None),
    "metrics in a list": put(("metrics",), ["score"]),
    "metrics of numbers": put(("metrics",), {"score": 3}),
    "no index": put(("indexes",), []),
    "indexes of numbers": put(("indexes",), [1]),
    "segments of numbers": put(("indexes", 0, "segments"), [1]),
    "a key that is no JSON": put(("indexes", 0, "segments", 0, "key"), "x"),
    "a key of numbers": put(("indexes", 0, "segments", 0, "key"), 3),
    "axes of text": put(("indexes", 0, "axes"), "x"),
    "an axis of text": put(("indexes", 0, "axes", 0), {"level": {"dtype": "float32", "values": ["x"]}}),
}
ENVIRONMENT = {
    "a list": lambda _: b"[]",
    "null": lambda _: b"null",
    "an empty mapping": lambda _: b"{}",
    "command of numbers": put(("command",), [1, 2]),
    "command of text": put(("command",), "x"),
    "empty command": put(("command",), []),
    "versions in a list": put(("versions",), ["x"]),
    "shards of numbers": put(("shards",), [1]),
    "shards of text": put(("shards",), "x"),
    "devices of numbers": put(("devices",), 1),
}
PROGRAMS = {
    "header only": lambda content: content.splitlines(keepends=True)[0],
    "semicolons": edit(b",", b";"),
    "too few cells": lambda content: content.replace(b",\n", b"\n", 1) + b"1,2\n",
    "too many cells": lambda content: content + b"1" * 5 + b",2" * 40 + b"\n",
}
DAMAGES = [
    (file, name, damage)
    for file, own in (
        ("results.csv", TABLE),
        ("study.json", MANIFEST),
        ("environment.json", ENVIRONMENT),
        ("programs.csv", PROGRAMS),
    )
    for name, damage in {**ANY, **own}.items()
]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A study of scalars, arrays and failed runs."""
    place = tmp_path_factory.mktemp("original")
    conf = str(ROOT / "tests" / "conf")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.syspath_prepend(str(ROOT / "tests"))
        patch.setenv("HYDRA_FULL_ERROR", "0")
        patch.setattr(sys, "argv", ["runner", "--config-dir", conf, *SWEEP[:4], "study=s"])
        run()
    return place / "outputs" / "s"


def damage_file(path, damage):
    content = path.read_bytes()
    if damage in (None, ...):
        path.unlink()
    if damage is None:
        path.mkdir()
    elif damage is not ...:
        path.write_bytes(damage(content))


@pytest.mark.parametrize(("file", "name", "damage"), DAMAGES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_damaged_study_is_read_or_refused_in_a_line(original, call_main, tmp_path, file, name, damage, monkeypatch):
    shutil.copytree(original, tmp_path / "outputs" / "s")
    damage_file(tmp_path / "outputs" / "s" / file, damage)
    monkeypatch.setattr("runner.analysis.page.document.draw_pictures", lambda *_: [])  # takes a second
    with suppress(InvalidInputError):
        seedbed.read("outputs/s")
    for options in ((), ("--json",), ("--html",)):
        status, _, err = call_main(compare.main, "outputs/s", *options)
        assert (status, err.count("\n"), err[:7]) == (2, 1, "error: ") if status else not err, options
    status, out, err = call_main(studies.main)
    assert (status, err) == (0, "")
    listed = (tmp_path / "outputs" / "s" / "study.json").exists()
    assert sum(line.startswith(" s ") for line in out.splitlines()) == listed

"""The YAML files of a user: how they are read, where their errors are, and which settings they may hold."""

import json

import pytest

pytestmark = pytest.mark.slow

TASK = "# @package _global_\ntask: {name: own, _target_: toys.line}\nseed: 0\nx: {shape: [4], fill: ones}\nslope: 1\n"


@pytest.fixture
def own(runner, tmp_path):
    """Writes the YAML of a task, or of another config, into a directory and calls the command with it."""

    def call(content, *arguments, name="task/own"):
        path = tmp_path / "conf dir" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return runner("--config-dir", "conf dir", *arguments)

    return call


BROKEN = {
    "tab": (TASK + "\tfoo: 1\n", ":6:1: while scanning for the next token, found character '\\t'"),
    "key": (TASK + "seed: 1\n", ":6:1: while constructing a mapping, found duplicate key seed"),
    "tag": (TASK + "foo: !bar 1\n", ":6:6: could not determine a constructor for the tag '!bar'"),
    "open": (TASK + "foo: [1,\n", ":7:1: while parsing a flow node"),
    "anchor": (TASK + "foo: &a [*a]\n", ": nested too deeply, or an anchor that contains itself"),
    "brackets": (TASK + "foo: " + "[" * 900 + "]" * 900, ": nested too deeply, or an anchor that contains itself"),
    "null": (TASK + "foo: 'a\0'\n", ":6:8: the character '\\x00' is not allowed"),
    "latin": ((TASK + "foo: ü\n").encode("latin-1"), ":6:6: a YAML must be UTF-8, invalid start byte"),
    "utf-16": (TASK.encode("utf-16"), ":1:1: a YAML must be UTF-8, invalid start byte"),
    "list": ("- a\n", ": a YAML must be a mapping of keys to values"),
    "header": ("# @package a b\n" + TASK, ": Too many components in '@package a b'"),
}


@pytest.mark.parametrize(("content", "rule"), BROKEN.values(), ids=BROKEN)
def test_an_error_in_a_yaml_is_one_line_with_its_place(own, tmp_path, content, rule):
    called = own(content, "task=own")
    assert called.status == 2
    assert called.err.startswith(f"error: conf dir/task/own.yaml{rule}")
    assert called.err.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("name", ["experiment/own", "hydra/launcher/own", "other"])
def test_errors_in_other_yamls_have_their_place_too(own, name):
    chosen = {"experiment/own": "+experiment=own", "hydra/launcher/own": "hydra/launcher=own"}.get(name)
    called = own("a: 1\na: 2\n", *([chosen] if chosen else ["--config-name", name]), name=name)
    assert (called.status, called.err) == (
        2,
        f"error: conf dir/{name}.yaml:2:1: while constructing a mapping, found duplicate key a\n",
    )


def test_an_error_in_a_yaml_that_a_sweep_takes_in(own):
    own(TASK, "dry_run=true")
    called = own("a: 1\na: 2\n", "-m", "task=glob([own,broken])", name="task/broken")
    assert (called.status, called.err) == (
        2,
        "error: conf dir/task/broken.yaml:2:1: while constructing a mapping, found duplicate key a\n",
    )


def test_the_help_text_shows_a_yaml_with_an_error(own):
    called = own("a: 1\na: 2\n", "--help", name="task/broken")
    assert called.status == 0
    assert "broken.yaml:2:1:" in called.out
    assert "mixed_train" in called.out


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf" + TASK.encode(), TASK.replace("\n", "\r\n").encode()])
def test_a_byte_order_mark_and_line_ends_of_windows_are_read(own, content):
    assert own(content, "task=own", "dry_run=true").status == 0


def test_a_yaml_without_a_task_is_refused(own):
    called = own("", "task=own")
    assert (called.status, "task has no _target_" in called.err) == (2, True)


@pytest.mark.parametrize(("arguments", "lanes"), [((), 3), (("lanes=2",), 2), (("+experiment=five",), 5)])
def test_a_yaml_may_set_settings(own, arguments, lanes):
    own("# @package _global_\nlanes: 5\n", "dry_run=true", name="experiment/five")
    called = own(TASK + "lanes: 3\n", "task=own", *arguments)
    assert called.status == 0, called.err
    assert json.loads((called.folder / "study.json").read_text())["fingerprint"]["lanes"] == lanes


def test_a_setting_in_a_yaml_is_checked(own):
    called = own(TASK + "lanes: abc\n", "task=own")
    assert (called.status, called.err) == (2, "error: lanes must be auto or a positive integer, got 'abc'\n")

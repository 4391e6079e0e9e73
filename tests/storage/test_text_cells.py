"""Text cells: nothing in a table is executed by a spreadsheet or a terminal, and every text is read back as it was."""

import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import runner as seedbed
from runner.plan.texts import CONTROLS, LONGEST_REASON, shorten_reason
from runner.storage.text_cells import decode_text, encode_text

pytestmark = pytest.mark.slow

SPREADSHEETS = ("=", "+", "-", "@", "\t", "\r")

texts = st.text(st.one_of(st.sampled_from("'\"=+-@\t\r\n\\x0a5cu1e."), st.characters(codec=None)))


@given(texts)
def test_every_text_is_read_back(text):
    cell = encode_text(text)
    assert decode_text(cell) == text
    assert not CONTROLS.search(cell)
    assert cell.encode().decode() == cell


@given(texts)
def test_texts_that_are_harmless_keep_their_bytes(text):
    is_harmless = not CONTROLS.search(text) and not text.lstrip("'\"").startswith(
        (*SPREADSHEETS, "＝", "＋", "－", "＠")
    )
    if is_harmless and not text.startswith("'"):
        assert encode_text(text) == text


@pytest.mark.parametrize(
    ("text", "cell"),
    [("=cmd|x", "'=cmd|x"), ("-1", "-1"), ("+1e-3", "+1e-3"), ("-inf", "-inf"), ("-x", "'-x"), ("a\tb", r"'a\x09b")],
)
def test_numbers_stay_and_formulas_do_not(text, cell):
    assert encode_text(text) == cell


def write_task(folder, name, **values):
    (folder / "own" / "task").mkdir(parents=True, exist_ok=True)
    task = {"task": {"name": name, "_target_": f"toys.{values.pop('toy')}"}, "seed": 0, **values}
    (folder / "own" / "task" / "own.yaml").write_text("# @package _global_\n" + json.dumps(task))


@pytest.mark.parametrize("text", ["'=cmd|x", "\x1b[31ma\nb\0"])
def test_a_static_text_is_resumed_extended_and_compared(runner, tmp_path, text):
    write_task(tmp_path, text, toy="words", mode=text, sizes=[1])
    sweep = ("--config-dir", "own", "-m", "task=own", "study=s")
    first = runner(*sweep, "seed=0,1")
    assert first.status == 0, first.err
    assert CONTROLS.search(first.out.replace("\n", "")) is None
    table = tmp_path / "outputs" / "s" / "results.csv"
    before = table.read_bytes()
    assert "2 of them already there" in runner(*sweep, "seed=0,1").out
    assert runner(*sweep, "seed=0,1,2").status == 0
    assert table.read_bytes().startswith(before)
    frame = seedbed.read("outputs/s")
    assert frame["mode"].tolist() == frame["task"].tolist() == [text] * 3
    for row in csv.reader(table.read_text().splitlines()[1:]):
        assert not any(cell.startswith(SPREADSHEETS) for cell in row if cell != "-1")
    comparison = seedbed.compare_studies(["outputs/s"], by=["mode"])
    assert comparison.points["mode"].tolist() == [text]


def test_a_category_is_read_back(toy):
    toy("-m", "task=grade", 'among=["=1+1","\'=x","-2",plain]', "seed=range(0,8)", "study=s")
    frame = seedbed.read("outputs/s")
    assert frame["verdict"].tolist() == ["=1+1", "'=x", "-2", "plain"] * 2
    summed = toy("-m", "task=grade", 'among=["=1+1","\'=x","-2",plain]', "seed=range(0,8)", "study=s")
    assert "'=x 2, -2 2, =1+1 2, …" in summed.out


def test_the_reason_of_a_failure_is_short_and_has_no_control_characters(runner, tmp_path):
    text = "\x1b]0;title\x07\x1b[31m" + "long " * 40_000
    write_task(tmp_path, "own", toy="refuses", mode=text)
    alone = runner("--config-dir", "own", "task=own")
    assert (alone.status, len(alone.err.splitlines())) == (2, 2)  # the error, and where it was raised
    assert len(alone.err) < 1000
    assert CONTROLS.search(alone.err.replace("\n", "")) is None
    called = runner("--config-dir", "own", "-m", "task=own", "mode=ok,'a\x1bb'")
    assert called.status == 1
    assert CONTROLS.search((called.out + called.err).replace("\n", "")) is None
    assert r"ValueError: a\x1bb" in called.frame["reason"][1]
    assert CONTROLS.search(called.csv.decode().replace("\n", "")) is None


def test_reasons_are_cut():
    assert shorten_reason("short") == "short"
    assert shorten_reason("x" * LONGEST_REASON) == "x" * LONGEST_REASON
    long = shorten_reason("\x1b" * 200_000)
    assert len(long) == LONGEST_REASON
    assert long.endswith("…")


def test_markup_is_no_markup(toy):
    called = toy("-m", "task=words", "mode='[bold]x[/bold]',y", "seed=0,1", "task.outputs=['[red]t']")
    assert "[red]t mean" in called.out, called.err
    assert "[bold]x[/bold]" in called.out

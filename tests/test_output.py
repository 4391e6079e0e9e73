"""Standard output that is full, closed, or unable to encode: a study is run all the same, and the status tells."""

import io
import os
import sys

import pytest

from runner import compare, studies, terminal
from runner.layout import Column, lay_out, measure, stack_rows, wrap_words
from runner.output import CLOSED_PIPE, guard_output

pytestmark = pytest.mark.slow

SWEEP = ("-m", "task=line", "slope=1,2", "seed=range(0,4)", "study=s")


@pytest.fixture
def full():
    with open("/dev/full", "w") as stream:
        yield stream
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@pytest.fixture
def closed():
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as stream:
        yield stream


def call(monkeypatch, capsys, stream, main, *arguments):
    """The exit status of a command with another standard output, and what it says on standard error."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    try:
        main()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    return status, capsys.readouterr().err


@pytest.fixture
def commands(study):
    """The commands by name with their arguments, with a study that they can show."""
    return {
        "compare": (compare.main, "outputs/mine"),
        "json": (compare.main, "outputs/mine", "--json"),
        "list": (studies.main,),
    }


@pytest.mark.parametrize("name", ["compare", "json", "list"])
def test_a_full_disk_is_an_error_in_a_line(monkeypatch, capsys, full, commands, name):
    message = "error: cannot write to the standard output: No space left on device\n"
    assert call(monkeypatch, capsys, full, *commands[name]) == (1, message)


@pytest.mark.parametrize("name", ["compare", "json", "list"])
def test_a_closed_pipe_is_quiet(monkeypatch, capsys, closed, commands, name):
    assert call(monkeypatch, capsys, closed, *commands[name]) == (CLOSED_PIPE, "")


@pytest.mark.parametrize(("kind", "status"), [("full", 1), ("closed", CLOSED_PIPE)])
def test_the_results_of_a_sweep_are_written_all_the_same(toy, monkeypatch, tmp_path, request, kind, status):
    """The first line is printed before the first run."""
    assert toy(*SWEEP).status == 0
    before = (tmp_path / "outputs" / "s" / "results.csv").read_bytes()
    monkeypatch.setattr(sys, "stdout", request.getfixturevalue(kind))
    called = toy(*SWEEP, "overwrite=true", "report=true")
    assert called.status == status
    assert (tmp_path / "outputs" / "s" / "results.csv").read_bytes() == before
    assert (tmp_path / "outputs" / "s" / "report.html").exists()


def test_characters_that_the_encoding_lacks_are_replaced(toy, monkeypatch, commands):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    assert toy(*SWEEP).status == 0
    for main, *arguments in commands.values():
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        main()
    assert b"? 95 %" in stream.buffer.getvalue()


def test_a_usage_error_keeps_its_status(monkeypatch, capsys, closed, tmp_path):
    assert call(monkeypatch, capsys, closed, compare.main, "nowhere")[0] == 2
    with pytest.raises(SystemExit, match="3"), guard_output():
        sys.exit(3)


NAMES = Column("name", ("a long name", "b"))
NUMBERS = Column("number of runs", ("0.6357 … 1.038", "-12345.678"), is_right=True)
PROSE = Column("state", ("unfinished: the same command resumes it", "ok"), is_prose=True)


def test_a_table_that_fits_stays_as_it_is():
    columns = (NAMES, NUMBERS, PROSE)
    assert lay_out(columns, measure(columns)).columns == columns


@pytest.mark.parametrize("width", range(10, 90))
def test_no_number_and_no_name_is_broken(width):
    columns = (NAMES, Column("std", ("0.123456", ""), drop=2), NUMBERS, Column("min", ("1", "2"), drop=1), PROSE)
    layout = lay_out(columns, width)
    if layout.is_stacked:
        assert [row[1].cells[0] for row in stack_rows(columns, width)] == ["a long name", "b"]
        return
    assert measure(layout.columns) <= width
    assert [column.name for column in columns if column.name.split()[0] not in str(layout.columns)] == list(
        layout.left_out
    )
    for column in layout.columns:
        whole = next(c for c in columns if c.name.split() == column.name.split())
        assert column.is_prose or column.cells == whole.cells
        assert [cell.split() for cell in column.cells] == [cell.split() for cell in whole.cells]


def test_words_are_wrapped_by_their_width():
    assert wrap_words("one two  three", 7) == "one two\nthree"
    assert wrap_words("größer 漢字漢字 x", 9) == "größer\n漢字漢字\nx"


@pytest.mark.parametrize("columns", ["40", "80", "120", None])
def test_the_width_is_that_of_columns_also_in_a_pipe(toy, monkeypatch, columns):
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    out = toy("-m", "task=divide", "slope=1,2,0", "seed=range(0,4)").out
    assert all(len(line) <= int(columns or 1000) for line in out.splitlines() if "/" not in line)
    assert all(line == line.rstrip() for line in out.splitlines())
    assert ("left out at this width: std" in out) == (columns == "80")
    assert ("quotient mean   1" in out) == (columns == "40")


def test_a_column_that_is_left_out_can_be_seen(toy, monkeypatch):
    arguments = ("-m", "task=divide", "slope=1,2,0", "seed=range(0,4)")
    monkeypatch.setenv("COLUMNS", "80")
    needed = (
        next(line for line in toy(*arguments).out.splitlines() if "COLUMNS=" in line).split("COLUMNS=")[1].split()[0]
    )
    monkeypatch.setenv("COLUMNS", needed)
    assert "left out" not in toy(*arguments).out


def test_markup_of_names_is_shown(capsys):
    terminal.print_rows(["[red]name", ":smile:"], [["[bold]x", "a\x1bb"]])
    assert capsys.readouterr().out.splitlines()[::2] == [" [red]name   :smile:", " [bold]x     a\\x1bb"]


def test_a_comparison_fits_the_terminal(toy, monkeypatch, capsys):
    toy("-m", "task=noisy,noisier", "level=1,2", "seed=range(0,5)", "study=s")
    monkeypatch.setenv("COLUMNS", "80")
    for main, *arguments in ((compare.main, "outputs/s"), (studies.main,)):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        main()
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) <= 80
        assert "1.31 ± 2.3" in out or "noisier, noisy" in out

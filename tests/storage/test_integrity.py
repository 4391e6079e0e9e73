"""Tables that something else than their study has changed: noticed wherever it was, or grown back to the same bytes."""

import json
import random
import shutil

import pandas as pd
import pytest

import runner
from runner import studies
from runner.errors import InvalidInputError
from runner.storage.checksums import SLICE_BYTES, read_records, sum_rows, sum_table, write_records
from runner.storage.folder import Folder
from runner.storage.merge import open_saved_study
from runner.storage.recovery import TableChangedError, verify_table

pytestmark = pytest.mark.slow

SWEEP = ("-m", "task=divide,line", "slope=0.5,3,0", "seed=range(0,20)", "study=mine")


def edit(line, old, new):
    """A damage that replaces text in one line of the table; negative lines count from the end."""

    def apply(lines):
        assert old in lines[line], lines[line]
        return [*lines[:line], lines[line].replace(old, new, 1), *lines[line:][1:]]

    return apply


def put(place, *more):
    return lambda lines: [*lines[:place], *more, *lines[place:]]


def drop(start, stop):
    return lambda lines: [*lines[:start], *lines[stop:]]


def swap(a, b):
    def apply(lines):
        lines = list(lines)
        lines[a], lines[b] = lines[b], lines[a]
        return lines

    return apply


def flip(seed):
    def apply(lines):
        content, chance = bytearray(b"".join(lines)), random.Random(seed)
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        return [bytes(content)]

    return apply


def splice(seed, size):
    """Random bytes instead of as many others."""

    def apply(lines):
        content, chance = b"".join(lines), random.Random(seed)
        place = chance.randrange(len(content) - size)
        return [content[:place] + chance.randbytes(size) + content[place + size :]]

    return apply


DAMAGES = {
    "a blank line at the end": put(121, b"\n"),
    "blank lines at the end": put(121, b"\n\n\n"),
    "a blank line in the middle": put(50, b"\n"),
    "a blank line after the header": put(1, b"\n"),
    "a blank line before the header": put(0, b"\n"),
    "spaces at the end": put(121, b"   "),
    "a comment at the end": put(121, b"# done\n"),
    "half a row at the end": put(121, b"120,line,3"),
    "the last row doubled": lambda lines: [*lines, lines[-1]],
    "all rows doubled": lambda lines: [*lines, *lines[1:]],
    "a row doubled": lambda lines: [*lines[:7], lines[6], *lines[7:]],
    "the header doubled": lambda lines: [lines[0], *lines],
    "the header at the end": lambda lines: [*lines, lines[0]],
    "a row of another study at the end": put(121, b"120,line,1,2,3,,,,4,ok,\n"),
    "rows backwards": lambda lines: [lines[0], *lines[:0:-1]],
    "rows shuffled": lambda lines: [lines[0], *random.Random(0).sample(lines[1:], 120)],
    "rows sorted as text": lambda lines: [lines[0], *sorted(lines[1:])],
    "two rows swapped": swap(3, 4),
    "two far rows swapped": swap(3, 100),
    "the first and the last row swapped": swap(1, 120),
    "the first row deleted": drop(1, 2),
    "a row deleted": drop(60, 61),
    "the last row deleted": drop(120, 121),
    "the last row but one deleted": drop(119, 120),
    "ten rows deleted": drop(60, 70),
    "half of the rows deleted": drop(60, 121),
    "the header deleted": drop(0, 1),
    "only the header left": drop(1, 121),
    "nothing left": drop(0, 121),
    "a run number changed": edit(7, b"6,", b"9,"),
    "a run number that is text": edit(7, b"6,", b"x,"),
    "a run number that is missing": edit(7, b"6,", b","),
    "a negative run number": edit(7, b"6,", b"-6,"),
    "the last run number changed": edit(-1, b"119,", b"118,"),
    "the task changed": edit(7, b"divide", b"line"),
    "a seed changed": edit(7, b",6,", b",7,"),
    "a slope changed": edit(7, b"0.5", b"0.6"),
    "a result changed": edit(7, b",2,3,", b",2,4,"),
    "a digit added to a result": edit(7, b",2,3,", b",2,33,"),
    "an element of an array changed": edit(7, b"[[2, 2]", b"[[2, 3]"),
    "an element of an array removed": edit(7, b"[[2, 2]", b"[[2]"),
    "a bracket removed": edit(7, b"[[2, 2]", b"[2, 2]"),
    "a quote removed": edit(7, b'"[[', b"[["),
    "a quote added": edit(7, b"ok", b'"ok'),
    "a status changed": edit(7, b"ok", b"failed"),
    "a status of its own": edit(7, b"ok", b"fine"),
    "a status removed": edit(7, b"ok", b""),
    "nonfinite called ok": edit(45, b"nonfinite", b"ok"),
    "inf replaced": edit(45, b"inf", b"1e9"),
    "a reason invented": edit(7, b'"ok",', b'"ok",because'),
    "a cell removed": edit(7, b",0.5,", b","),
    "a cell added": edit(7, b",0.5,", b",0.5,0.5,"),
    "semicolons": lambda lines: [line.replace(b",", b";") for line in lines],
    "tabs": lambda lines: [line.replace(b",", b"\t") for line in lines],
    "decimal commas": lambda lines: [line.replace(b".", b",") for line in lines],
    "line ends of Windows": lambda lines: [line.replace(b"\n", b"\r\n") for line in lines],
    "line ends of old Macs": lambda lines: [line.replace(b"\n", b"\r") for line in lines],
    "all cells quoted": lambda lines: [b'"' + line[:-1].replace(b",", b'","') + b'"\n' for line in lines],
    "a byte order mark": put(0, b"\xef\xbb\xbf"),
    "UTF-16": lambda lines: [b"".join(lines).decode().encode("utf-16")],
    "no line end at the end": lambda lines: [*lines[:-1], lines[-1][:-1]],
    "trailing spaces": lambda lines: [line[:-1] + b" \n" for line in lines],
    "a column renamed": edit(0, b"half", b"third"),
    "columns swapped": edit(0, b"quotient,half", b"half,quotient"),
    "a column added to the header": edit(0, b"run,", b"run,id,"),
    "an index column, as pandas writes it": lambda lines: [
        b"%s,%s" % (str(number - 1 if number else "").encode(), line) for number, line in enumerate(lines)
    ],
    "rounded by a spreadsheet": lambda lines: [line.replace(b"3.0", b"3").replace(b"0.5", b"0.50") for line in lines],
    "zeros at the end": put(121, b"\0" * 5000),
    "zeros instead of the end": lambda lines: [b"".join(lines[:100]), b"\0" * len(b"".join(lines[100:]))],
    "zeros in the middle": lambda lines: [*lines[:50], b"\0" * len(lines[50]), *lines[51:]],
    "a zero in the middle": lambda lines: [*lines[:50], b"\0" + lines[50][1:], *lines[51:]],
    "a control character": edit(7, b"ok", b"o\x07"),
    "not UTF-8": edit(7, b"ok", b"\xff\xfe"),
    "a huge cell": edit(7, b"ok", b"k" * 200_000),
    "garbage at the end": lambda lines: [*lines, random.Random(1).randbytes(1000)],
    "garbage only": lambda lines: [random.Random(2).randbytes(5000)],
    **{f"a bit flipped, {seed}": flip(seed) for seed in range(8)},
    **{f"{size} random bytes": splice(size, size) for size in (3, 40, 400)},
}


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("kept") / "mine"


@pytest.fixture
def kept(toy, place):
    """The study that is damaged, made once."""
    if not place.exists():
        shutil.copytree(toy(*SWEEP).folder, place)
    return place


@pytest.fixture
def study(kept, tmp_path):
    """A copy of it, in the folder where the command expects it."""
    return Folder(shutil.copytree(kept, tmp_path / "outputs" / "mine", dirs_exist_ok=True))


def attempt(function, *arguments, **settings):
    """What a function returns, None where it refuses in one line; no other error passes."""
    try:
        return function(*arguments, **settings)
    except InvalidInputError as refusal:
        return None if "\n" not in str(refusal) else pytest.fail(str(refusal))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_changed_table_is_refused_or_grows_back(kept, study, damage):
    folder, whole = study, study.results.read_bytes()
    changed = b"".join(DAMAGES[damage](whole.splitlines(keepends=True)))
    assert changed != whole
    folder.results.write_bytes(changed)
    if (frame := attempt(runner.read, folder.path)) is not None:
        expected = runner.read(kept).iloc[: len(frame)]
        pd.testing.assert_frame_equal(frame, expected, check_dtype=False)
    if attempt(open_saved_study, folder) is None:
        assert folder.results.read_bytes() == changed
    else:
        assert whole.startswith(folder.results.read_bytes())
    attempt(open_saved_study, folder, accept=True)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("a result changed", "the first difference is in line 8"),
        ("two far rows swapped", "the first difference is in line 4"),
        ("ten rows deleted", "the first difference is in lines 61 to 62"),
        ("the header deleted", "the first difference is in line 1"),
        ("the header doubled", "the first difference is in line 2"),
    ],
)
def test_the_first_line_that_differs_is_told(toy, study, damage, told):
    lines = study.results.read_bytes().splitlines(keepends=True)
    study.results.write_bytes(b"".join(DAMAGES[damage](lines)))
    changed = study.results.read_bytes()
    called = toy(*SWEEP)
    assert (called.status, called.err.count("\n")) == (2, 1)
    assert told in called.err
    assert study.results.read_bytes() == changed


def test_a_line_end_that_was_appended_is_cut_off_and_nothing_is_run(toy, study):
    whole = study.results.read_bytes()
    study.results.write_bytes(whole + b"\n")
    called = toy(*SWEEP)
    assert (called.status, study.results.read_bytes()) == (0, whole)
    assert "truncated" in called.out
    assert "120 of them already there" in called.out


def test_an_accepted_change_is_kept_and_recorded(toy, study):
    content = study.results.read_bytes().replace(b",2,3,", b",2,4,", 1)
    study.results.write_bytes(content)
    assert toy(*SWEEP, "on_mismatch=accept").status == 0
    assert study.results.read_bytes() == content
    record = json.loads(study.manifest.read_text())
    assert record["accepted"] == ["results.csv was changed: the first difference is in line 8"]
    assert toy(*SWEEP).status == 0
    assert runner.read(study.path)["half"].tolist()[6] == 4


@pytest.mark.parametrize("damage", ["a row deleted", "two rows swapped", "a slope changed", "a status of its own"])
def test_what_is_no_row_of_the_study_is_not_accepted(toy, study, damage):
    changed = b"".join(DAMAGES[damage](study.results.read_bytes().splitlines(keepends=True)))
    study.results.write_bytes(changed)
    called = toy(*SWEEP, "on_mismatch=accept")
    assert (called.status, called.err.count("\n")) == (2, 1)
    assert study.results.read_bytes() == changed


def test_an_overwritten_study_is_whole_again(toy, study):
    whole = study.results.read_bytes()
    study.results.write_bytes(whole.replace(b"ok", b"ko", 1))
    assert toy(*SWEEP, "overwrite=true").status == 0
    assert study.results.read_bytes() == whole


def test_studies_are_verified(study, call_main):
    for name in ("edited", "gone"):
        shutil.copytree(study.path, study.path.with_name(name))
    table = study.path.with_name("edited") / "results.csv"
    table.write_bytes(table.read_bytes().replace(b"ok", b"ko", 1))
    study.path.with_name("gone").joinpath("study.json").write_text("{")
    for names, status, told in [
        (["mine"], 0, ["120", "as it was written"]),
        (["outputs/mine"], 0, ["120"]),
        ([], 1, ["as it was written", "edited", "line 2", "study.json is damaged"]),
        (["nowhere"], 2, ["there is no study 'nowhere' in outputs"]),
    ]:
        found, out, err = call_main(studies.main, "verify", *names)
        written = " ".join((out + err).split())
        assert found == status
        assert all(text in written for text in told), written


CHECKSUMS = {
    "missing": lambda content: None,
    "empty": lambda content: b"",
    "cut": lambda content: content[:80],
    "cut within a record": lambda content: content[:-3],
    "changed": lambda content: bytes([content[0], content[1], content[2], content[3], content[4] ^ 1]) + content[5:],
    "zeros at the end": lambda content: content[:-16] + b"\0" * 16,
    "doubled": lambda content: content * 2,
}


@pytest.mark.parametrize(
    "damage", ["cut", *(pytest.param(d, marks=pytest.mark.matrix) for d in CHECKSUMS if d != "cut")]
)
def test_lost_checksums_are_told(toy, study, damage):
    whole, content = study.results.read_bytes(), CHECKSUMS[damage](study.checksums.read_bytes())
    study.checksums.unlink()
    if content is not None:
        study.checksums.write_bytes(content)
    called = toy(*SWEEP)
    assert study.results.read_bytes() == whole
    assert called.status == (0 if damage == "doubled" else 2), called.err
    assert toy(*SWEEP, "on_mismatch=accept").status == 0
    assert toy(*SWEEP).status == 0
    assert study.results.read_bytes() == whole


def test_slices_cover_a_table_however_it_was_appended(tmp_path):
    rows = [b"%d,%s\n" % (number, b"x" * (number % 50)) for number in range(30_000)]
    folder = Folder(tmp_path)
    folder.results.write_bytes(b"".join(rows))
    for pieces in ([b"".join(rows)], [b"".join(rows[:7]), b"".join(rows[7:])], rows):
        write_records(folder.checksums, b"".join(map(sum_rows, pieces)))
        verify_table(folder, recorded=len(b"".join(rows)))
        assert read_records(folder.checksums)["length"].max() < 2 * SLICE_BYTES
    write_records(folder.checksums, sum_table(folder.results))
    verify_table(folder, recorded=0)
    content = bytearray(folder.results.read_bytes())
    content[-2] ^= 1
    folder.results.write_bytes(content)
    with pytest.raises(TableChangedError, match="the first difference is in lines"):
        verify_table(folder, recorded=0)


def test_a_row_with_a_huge_array_is_resumed(toy):
    sweep = ("-m", "task=constant", "size=60000,2", "study=mine")
    first = toy(*sweep)
    whole, table = first.csv, first.folder / "results.csv"
    table.write_bytes(whole[: whole.index(b"\n1,") + 1])
    assert len(table.read_bytes().splitlines()[-1]) > 131_072
    assert toy(*sweep).status == 0
    assert table.read_bytes() == whole


@pytest.mark.parametrize("is_folder", [False, True])
def test_another_content_of_a_file_that_a_task_reads_is_refused(toy, tmp_path, is_folder):
    place = tmp_path / "weights"
    file = place / "part" / "one.bin" if is_folder else place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"123")
    sweep = "-m", "task=weigh", f"place={place}", "study=weighed"
    folder = toy(*sweep, "seed=0,1").folder
    file.write_bytes(b"321")
    refused = toy(*sweep, "seed=0,1,2")
    assert refused.status == 2
    assert f"content of place={place} was" in refused.err
    file.write_bytes(b"123")
    assert toy(*sweep, "seed=0,1,2").status == 0
    assert runner.read(folder)["bytes"].tolist() == [3, 3, 3]


def test_files_are_static_parameters(toy):
    refused = toy("task=weigh", "task.files=[seed]", "place=here")
    assert refused.status == 2
    assert "files must name static parameters, got 'seed'; they are: place" in refused.err

"""Very large plans: what is counted, what stays a range, and what is refused before anything is expanded."""

import json
import resource
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hydra.core.override_parser.types import FloatRange
from hypothesis import given
from hypothesis import strategies as st

from runner import studies
from runner.analysis.comparison import compare_studies
from runner.config.float_range import DecimalRange
from runner.plan import size
from runner.plan.even_values import EvenValues, count_distinct, count_members
from runner.storage.run_index import RunIndex, SegmentKey, pack_index, unpack_index

evens = st.builds(
    lambda start, step, count: EvenValues(start + max(0, -step) * count, step, count),
    st.integers(0, 60),
    st.integers(-4, 4).filter(bool),
    st.integers(1, 40),
)


@given(evens, st.lists(st.integers(0, 300), max_size=20))
def test_even_values_are_those_of_the_array(even, wanted):
    array = np.asarray(even)
    assert array.dtype == even.dtype == np.uint32
    assert array.tolist() == list(even) == [even[place] for place in range(len(even))]
    places = even.find(np.array(wanted, dtype=np.uint32)).tolist()
    assert places == [array.tolist().index(value) if value in array else -1 for value in wanted]
    assert count_members(even, np.array(wanted, dtype=np.int64)) == len(set(wanted) & set(array.tolist()))


@given(st.lists(evens, max_size=4), st.lists(st.integers(0, 300), max_size=9))
def test_distinct_values_of_several_columns_are_counted_without_expanding_them(columns, others):
    columns = [*columns, np.array(others, dtype=np.uint32)]
    assert count_distinct(columns) == len({value for column in columns for value in np.asarray(column).tolist()})


@given(evens, evens)
def test_runs_are_found_along_even_values_and_beside_zipped_ones(even, other):
    floats = np.arange(len(even), dtype=np.float32) / 8
    plain = ({"seed": np.asarray(even), "a": floats},)
    lazy = ({"seed": even, "a": floats},)
    values = {"seed": np.asarray(other), "a": np.resize(floats, len(other))}
    indexes = [RunIndex((SegmentKey("k", {}),), axes, len(even)) for axes in (plain, lazy)]
    before, after = (index.find_runs("k", values, len(other)).tolist() for index in indexes)
    assert before == after
    assert json.dumps(pack_index(indexes[0])) == json.dumps(pack_index(indexes[1]))


def test_even_values_stay_a_range_on_disk_and_repeated_ones_an_array():
    def read(*values):
        packed = pack_index(RunIndex((SegmentKey("k", {}),), ({"seed": np.array(values, np.uint32)},), 1))
        (axis,) = unpack_index(json.loads(json.dumps(packed))).axes
        assert np.asarray(axis["seed"]).tolist() == list(values)
        return axis["seed"]

    assert read(5, 3, 1) == EvenValues(5, -2, 3)
    assert isinstance(read(5, 5), np.ndarray)  # zipped with other values
    assert isinstance(read(0, 2**32 - 1, 2**32 - 2), np.ndarray)  # even only modulo 2**32


floats = st.floats(-50, 50).map(lambda value: round(value, 3))


@given(floats, st.sampled_from([1e-3, 0.1, 0.25, 0.3, 1 / 3, 7.0, 1e-2]), st.integers(0, 300), st.booleans())
def test_a_range_of_floats_is_counted_as_hydra_counts_it(start, step, steps, is_falling):
    step = -step if is_falling else step
    for stop in (start + steps * step, round(start + steps * step, 2), float(Decimal(start) + steps * Decimal(step))):
        hydra = list(FloatRange(start, stop, step))
        ours = DecimalRange(Decimal(start), Decimal(stop), Decimal(step))
        assert (ours.count, list(ours)) == (len(hydra), hydra)


def test_long_ranges_are_counted_at_once():
    def count(*bounds):
        return DecimalRange(*map(Decimal, bounds)).count

    assert count(0, 1, 1e-9) == 10**9
    assert count(0.0, 0.2, 0.1) == 3  # the sum is rounded down
    assert count(1e20, 2e20, 1e-20) is None


REFUSED = [
    (("seed=range(0,4294967296)",), "4,294,967,296 runs, about 387 GB of results.csv; more than 1,000,000,000 need"),
    (("slope=range(0,1,1e-8)",), "100,000,000 values of ranges or lists of floats"),
    (("slope=range(0,20000000)",), "20,000,000 values of ranges or lists of floats"),
    (("shift=range(0,100000)",), "100,000 programs (100,000 runs, about 9 MB of results.csv); more than 10,000 need"),
    (("shift=range(0,10001)", "slope=1,2"), "10,001 programs (20,002 runs"),
    (("x.seed=range(0,100001)",), "100,001 combinations of values that are neither floats nor seeds"),
    (("x.fill=range(0,inf)",), "x.fill=range(0,inf): the bounds and the step of a range must be finite"),
    (("slope=range(0,nan)",), "slope=range(0,nan): the bounds and the step of a range must be finite"),
    (("slope=range(1e20,2e20,1e-20)",), "the range has no end"),
    (("task=range(0,1e9,1)",), "the config group 'task' has"),
    (("seed=range(0,4294967296)", "slope=range(0,4294967296)", "large=true"), "fewer than 2**63 runs"),
    (("seed=range(0,10000000000000000000000)",), "fewer than 2**63 runs"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=lambda value: str(value)[:50])
def test_a_plan_that_is_too_large_is_refused_in_a_line(toy, tmp_path, arguments, message):
    called = toy("-m", "task=line", *arguments, "dry_run=true")
    assert called.status == 2
    assert message in called.err
    assert len(called.err.splitlines()) == 1
    assert list(tmp_path.glob("outputs/*")) == []


def test_a_limit_itself_is_permitted_and_input_seeds_share_a_program(toy, monkeypatch):
    monkeypatch.setattr(size, "MOST_PROGRAMS", 2)
    assert toy("-m", "task=line", "shift=1,2", "dry_run=true").status == 0
    assert toy("-m", "task=line", "x.seed=range(0,5)", "dry_run=true").status == 0
    assert toy("-m", "task=line", "shift=1,2,3", "dry_run=true").status == 2
    assert toy("-m", "task=line", "shift=1,2,3", "dry_run=true", "large=true").status == 0
    assert "has 4 programs" in toy("-m", "task=line,divide", "slope=1,2", "seed=0,1", "+x.fill=ones,zeros").err


def test_too_many_runs_are_refused_before_jax_is_imported(tmp_path):
    code = """
import runpy, sys
sys.argv = ["runner", "-m", "seed=range(0,4294967296)"]
try: runpy.run_module("runner", run_name="__main__")
finally: print("jax" in sys.modules)
"""
    called = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (called.returncode, called.stdout) == (2, "False\n")


pytestmark = pytest.mark.slow


def test_all_seeds_at_once_are_planned(toy):
    """Within a second and some MB, although there are 2**32 runs."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    called = toy("-m", "task=line", "seed=range(0,4294967296)", "large=true", "dry_run=true")
    assert called.status == 0, called.err
    assert "4,294,967,296" in called.out
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


def test_a_study_of_all_seeds_is_resumed_listed_and_compared(toy):
    """Its manifest has three numbers for the seeds; that some thousand are there costs no memory for the others."""
    folder = toy("-m", "task=line", "slope=2", "seed=range(0,3000)", "study=mine").folder
    manifest = folder / "study.json"
    data = json.loads(manifest.read_text())
    assert data["indexes"][0]["axes"][0] == {"seed": {"dtype": "uint32", "start": 0, "step": 1, "count": 3000}}
    data["indexes"][0]["axes"][0]["seed"]["count"] = 2**32
    manifest.write_text(json.dumps({**data, "planned": 2**32}))
    content = folder / "results.csv"
    content.write_bytes(b"".join(content.read_bytes().splitlines(keepends=True)[:2001]))
    (row,) = studies.list_studies(folder.parent)
    assert row[2:5] == ["seed:4294967296", 2000, 2**32]
    frame = compare_studies([folder]).points
    assert frame["seeds"].tolist()[0] == 2**32
    assert "of them already there" in toy("-m", "task=line", "slope=2", "seed=range(0,2000)", "study=mine").out


@pytest.mark.parametrize(
    ("arguments", "columns", "expected"),
    [
        (("shift=range(2,0,-1.0)", "seed=range(0,2,1.0)"), ["shift", "seed"], [[2, 0], [2, 1], [1, 0], [1, 1]]),
        (("slope=range(16777215,16777219)",), ["slope"], [[2**24 - 1], [2**24], [2**24 + 2]]),
        (
            ("slope=1,2,1", "seed=range(6,3,-1)", "hydra.sweeper.zip=[slope,seed]"),
            ["slope", "seed"],
            [[1, 6], [2, 5], [1, 4]],
        ),
    ],
)
def test_ranges_of_every_kind_of_parameter_are_run_and_resumed(toy, arguments, columns, expected):
    sweep = ("-m", "task=line", *arguments, "study=mine")
    folder = toy(*sweep).folder
    table = folder / "results.csv"
    whole = table.read_bytes()
    assert pd.read_csv(table)[columns].to_numpy().tolist() == expected
    table.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    assert toy(*sweep).status == 0
    assert table.read_bytes() == whole

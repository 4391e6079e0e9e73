"""From a command to the table, on tasks with a closed form."""

import json
import resource
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import toys
from scipy import stats

import runner
from runner.execution import schedule
from runner.program import outputs

MATRIX = pytest.mark.matrix


def test_a_single_run_writes_its_row_and_shows_it(toy):
    called = toy("task=line", "slope=0.5", "shift=3", "seed=7")
    assert called.status == 0
    assert called.csv == b'run,task,seed,slope,shift,value,same_seed,status,reason\n0,"line",7,0.5,3,5,7,"ok",\n'
    assert "1 run in outputs/line-" in called.out
    assert "same_seed" in called.out
    assert sorted(p.name for p in called.folder.iterdir()) == [
        ".hydra",
        ".lock",
        "environment.json",
        "programs.csv",
        "results.crc",
        "results.csv",
        "study.json",
    ]


def test_a_sweep_has_one_row_per_run_and_the_closed_form_in_each(toy):
    frame = toy("-m", "task=line", "slope=0.5,2", "shift=0,10", "seed=range(0,70)").frame
    assert len(frame) == 2 * 2 * 70
    assert frame["run"].tolist() == list(range(280))
    assert (frame["value"] == 4 * frame["slope"] + frame["shift"]).all()
    assert (frame["same_seed"] == frame["seed"]).all()
    # programs are neighbours: static values first, then the traced ones in the order given
    assert frame["shift"].is_monotonic_increasing
    assert frame.groupby(["shift", "slope"], sort=False)["seed"].apply(list).tolist() == [list(range(70))] * 4


@pytest.mark.parametrize("seeds", [*(pytest.param(seeds, marks=MATRIX) for seeds in ("0", "0,1,2")), "range(0,20000)"])
def test_one_trace_and_one_compilation_for_each_signature(toy, seeds):
    toys.TRACES.clear()
    called = toy("-m", "task=line", f"seed={seeds}", "slope=1,2,3", "shift=5,6", "x.shape=[2],[3]")
    assert len(toys.TRACES) == 4
    programs = pd.read_csv(called.folder / "programs.csv")
    assert len(programs) == 4
    assert programs["runs"].sum() == len(called.frame)


def test_the_second_call_compiles_nothing(toy):
    arguments = ("-m", "task=line", "x.shape=[5],[6]", "seed=range(0,3)")
    first, second = toy(*arguments), toy(*arguments)
    hits = [pd.read_csv(called.folder / "programs.csv")["cache_hit"].tolist() for called in (first, second)]
    assert hits == [[False, False], [True, True]]
    assert first.csv == second.csv


@pytest.mark.parametrize(
    "setting",
    ["block=64", "threads=3", *(pytest.param(s, marks=MATRIX) for s in ("block=1", "block=100", "threads=1"))],
)
def test_blocks_and_threads_change_no_byte(toy, setting):
    arguments = ("-m", "task=divide", "slope=3,7,0", "seed=range(0,300)", "lanes=8")
    assert toy(*arguments).csv == toy(*arguments, setting).csv


@pytest.mark.matrix
def test_small_blocks_are_executed_in_batches_without_a_change_of_any_byte(toy, monkeypatch):
    sweep = ("-m", "task=line", "x.seed=range(0,70)", "x.fill=normal,ones", "shift=1,2", "seed=1,2", "slope=0.5,inf")
    whole = toy(*sweep, "threads=2")
    assert whole.status == 0
    assert whole.frame["run"].tolist() == list(range(8 * 140))
    monkeypatch.setattr(schedule, "MOST_BLOCKS", 1)
    assert toy(*sweep).csv == whole.csv


def test_a_failure_within_a_batch_costs_no_neighbour(toy, lab, monkeypatch):
    source = """
        from toys import Category
        def pick(seed, x):
            return {"verdict": Category(seed.astype("int32"), ("a", "b", "c")), "total": x.sum()}
    """
    lab({"own_pick.py": source})
    sweep = ("-m", "task=line", "task._target_=own_pick.pick", "task.outputs=[verdict,total]", "~slope", "~shift")
    called = toy(*sweep, "x.seed=range(0,9)", "x.fill=normal", "seed=range(0,5)")
    assert called.status == 1
    assert called.frame["run"].tolist() == list(range(45))
    assert called.frame["status"].tolist() == ["ok", "ok", "ok", "failed", "failed"] * 9
    assert called.frame["x.seed"].tolist() == [seed for seed in range(9) for _ in range(5)]
    monkeypatch.setattr(schedule, "MOST_BLOCKS", 1)
    assert toy(*sweep, "x.seed=range(0,9)", "x.fill=normal", "seed=range(0,5)").csv == called.csv


def test_a_result_that_is_not_finite_is_data(toy):
    called = toy("-m", "task=divide", "slope=1,0,2", "seed=0,5")
    assert called.status == 0
    frame = called.frame
    assert frame["status"].tolist() == ["ok", "ok", "nonfinite", "nonfinite", "ok", "ok"]
    assert frame["quotient"].tolist() == [1, 1, np.inf, np.inf, 0.5, 0.5]
    assert json.loads(frame["matrix"][2]) == [[np.inf] * 2] * 2
    assert json.loads(frame["matrix"][4]) == [[0.5] * 2] * 2
    assert frame["half"].tolist() == [0, 2] * 3
    assert "finite" in called.out


def test_a_group_that_cannot_be_built_costs_only_its_own_runs(toy):
    called = toy("-m", "task=only_even", "size=2,3,4", "seed=0,1")
    assert called.status == 1
    frame = called.frame
    assert frame["status"].tolist() == ["ok", "ok", "failed", "failed", "ok", "ok"]
    assert frame["total"].tolist()[:2] == [1, 2]
    assert frame["total"][2:4].isna().all()
    assert frame["reason"][2] == "task 'only_even' with seed=0, size=3: ValueError: size must be even, got 3"
    assert "2 of 6 runs have no result" in called.err
    assert "size must be even" in called.err


def test_no_study_is_left_where_no_group_can_be_built(toy, tmp_path):
    called = toy("-m", "task=only_even", "size=1,3")
    assert called.status == 2
    assert "size must be even, got 1 (and 1 other group)" in called.err
    assert list(tmp_path.glob("outputs/*")) == []


def test_axes_that_are_zipped(toy):
    frame = toy("-m", "task=line", "slope=1,2,3", "shift=10,20,30", "seed=0,1", "hydra.sweeper.zip=[slope,shift]").frame
    assert frame[["slope", "shift"]].drop_duplicates().values.tolist() == [[1, 10], [2, 20], [3, 30]]
    assert len(frame) == 6


def test_traced_axes_that_are_zipped_stay_one_program(toy):
    called = toy("-m", "task=line", "slope=1,2,3", "seed=4,5,6", "hydra.sweeper.zip=[[slope,seed]]")
    assert called.frame[["slope", "seed"]].values.tolist() == [[1, 4], [2, 5], [3, 6]]
    assert len(pd.read_csv(called.folder / "programs.csv")) == 1


def test_tasks_and_shapes_are_swept_together(toy):
    frame = toy("-m", "task=line,divide", "seed=0,1", "slope=2").frame
    assert frame["task"].tolist() == ["line", "line", "divide", "divide"]
    assert frame.columns.tolist() == [
        *("run", "task", "seed", "slope", "shift", "value", "same_seed", "quotient", "half", "matrix"),
        *("status", "reason"),
    ]
    assert frame["value"].tolist()[:2] == [8, 8]
    assert frame["quotient"].tolist()[2:] == [0.5, 0.5]
    assert frame["quotient"][:2].isna().all()


def test_swept_parts_of_an_input_are_columns(toy):
    frame = toy("-m", "task=line", "x.shape=[2],[2,3]", "x.fill=ones,linspace").frame
    assert frame["x.shape"].tolist() == ["[2]", "[2]", "[2, 3]", "[2, 3]"]
    assert frame["x.fill"].tolist() == ["ones", "linspace"] * 2
    assert frame["value"].tolist() == [2, 1, 6, 3]


def test_sweeps_of_input_seeds_share_one_program(toy):
    toys.TRACES.clear()
    frame = toy("-m", "task=line", "x.fill=normal", "x.seed=range(0,20)", "seed=0,1").frame
    assert len(toys.TRACES) == 1
    expected = [np.random.RandomState(s).standard_normal(4).astype(np.float32).sum() for s in range(20) for _ in "ab"]
    np.testing.assert_allclose(frame["value"], expected, rtol=1e-6)


def test_a_parameter_that_something_else_reads_is_applied_before_it_is_read(toy):
    frame = toy("-m", "task=follows", "seed=0,1,2").frame
    expected = [np.random.RandomState(s).standard_normal(4).astype(np.float32).sum() for s in range(3)]
    np.testing.assert_allclose(frame["value"], expected, rtol=1e-6)
    assert frame["same_seed"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "column", "expected"),
    [
        (("task=untyped",), "output", [3.0]),
        (("-m", "task=untyped", "rate=1.0,2.0", "count=1,2"), "output", [3.0, 6.0, 6.0, 12.0]),
        (("task=apply",), "total", [2.0]),
        (("-m", "task=apply", "act.path=jax.nn.relu,jax.numpy.abs"), "total", [2.0, 3.0]),
        (("task=constant",), "output", ["[1, 1]"]),
        (("-m", "task=constant", "size=1,3"), "output", ["[1]", "[1, 1, 1]"]),
        (("-m", "task=words", "mode=sum,mean", "sizes=[1],[1,2]"), "total", [4, 6, 5, 7]),
        (("task=pair", "seed=4"), "down", [-4]),
        (("-m", "task=loops", "start=5,1", "seed=0,1"), "end", [0, 0, 0, 0]),
        (("task=line", "x.values=[1.0,2.0,4.0]"), "value", [7]),
        (("task=line", "slope=1", "seed=3.0"), "same_seed", [3]),
        (("-m", "task=line", "seed=choice(9,8)"), "same_seed", [9, 8]),
        (("-m", "task=line", "seed=shuffle(range(0,4))"), "same_seed", [0, 1, 2, 3]),
        (("-m", "task=line", "slope=range(0,1,0.25)"), "value", [0, 1, 2, 3]),
        (("-m", "task=line", "seed=sort(3,1,2)"), "same_seed", [1, 2, 3]),
        (("-m", "task=glob(pai*)"), "up", [0]),
        (("-m", "task=line", "+x.seed=1,2", "x.fill=ones"), "value", [4, 4]),
    ],
)
def test_kinds_of_parameters_and_sweeps(toy, arguments, column, expected):
    called = toy(*arguments)
    assert called.status == 0, called.err
    assert called.frame[column].tolist() == expected


def test_floats_are_written_with_the_digits_that_read_back(toy):
    frame = toy("-m", "task=divide", "slope=0.1,1e-30,3,7e20").frame
    for column, values in {"slope": [0.1, 1e-30, 3, 7e20], "quotient": 1 / np.float32([0.1, 1e-30, 3, 7e20])}.items():
        assert (np.float32(frame[column]) == np.float32(values)).all()
    assert toy("task=divide", "slope=0.1").csv.splitlines()[1] == b'0,"divide",0,0.1,10,0,"[[10, 10], [10, 10]]","ok",'


def test_files_and_values_of_inputs(toy, tmp_path):
    np.save(tmp_path / "x.npy", np.array([1.0, 2.5]))
    (tmp_path / "x.csv").write_text("1,2\n3,4\n")
    assert toy("task=line", "x.file=x.npy").frame["value"].tolist() == [3.5]
    assert toy("task=line", "x.file=x.csv").frame["value"].tolist() == [10]


def test_a_plan_is_shown_and_nothing_is_run(toy, tmp_path):
    called = toy("-m", "task=line,only_even", "seed=range(0,100000)", "lanes=8", "block=1000", "dry_run=true")
    assert called.status == 0
    assert "100,000" in called.out
    row = next(line for line in called.out.splitlines() if " line " in line)
    assert "float32[4]" in row
    assert row.split()[-4:-1] == ["8", "1,000", "100"]
    assert list(tmp_path.glob("outputs/*")) == []


def test_long_summaries_are_cut_with_a_word(toy):
    called = toy("-m", "task=line", "slope=range(0,50)", "seed=0,1,2")
    assert "… 30 more points, all in the table" in called.out
    assert len(called.frame) == 150


def test_the_summary_is_that_of_the_table(toy):
    called = toy("-m", "task=divide", "slope=2,0", "seed=range(0,5)")
    row = next(line for line in called.out.splitlines() if line.split()[:2] == ["divide", "2"])
    half = called.frame.query("slope == 2")["half"]
    low, high = stats.t.interval(0.95, 4, half.mean(), stats.sem(half))
    interval = f"{(high - low) / 2:.2g}"
    assert row.split()[2:] == ["5", "0.5", "0", "0", "5", f"{half.mean():g}", interval, f"{half.std():.6g}"]


def test_a_table_that_cannot_grow_is_a_failure(toy):
    """A limit on the size of files stands for a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        called = toy("-m", "task=line", "seed=range(0,50000)", "study=full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert called.status == 1
    assert "cannot append to" in called.err
    assert "File too large" in called.err
    assert called.csv.startswith(b'run,task,seed,slope,shift,value,same_seed,status,reason\n0,"line",0,1,0,4,0,"ok",\n')


WORDS = ["identical", "", 'off by 1, "at most"', "größer"]


def test_a_single_run_shows_and_writes_its_word(toy):
    called = toy("task=grade", "seed=6", "among=[a,b,'c, \"d\"',e]")
    assert called.status == 0
    among = r'"[""a"", ""b"", ""c, \""d\"""", ""e""]"'
    header = "run,task,seed,slope,modulus,shift,among,verdict,score,status,reason"
    assert called.csv.decode() == f'{header}\n0,"grade",6,0.5,4,0,{among},"c, ""d""",3,"ok",\n'
    assert called.out.splitlines()[2].split()[-3:] == ["c,", '"d"', "3"]


@pytest.mark.parametrize("lanes", ["auto", pytest.param(1, marks=MATRIX), pytest.param(7, marks=MATRIX)])
def test_words_stand_in_the_table_and_are_read_back(toy, lanes):
    toys.TRACES.clear()
    called = toy("-m", "task=grade", "slope=0.5,2", "seed=range(0,50)", f"lanes={lanes}", "block=20")
    assert toys.TRACES == ["grade"]
    frame = runner.read(called.folder)
    assert frame["verdict"].tolist() == [WORDS[seed % 4] for seed in range(50)] * 2
    assert (frame["score"] == frame["slope"] * frame["seed"]).all()
    assert set(frame["status"]) == {"ok"}
    again = pd.read_csv(called.folder / "results.csv", keep_default_na=False)
    assert again["verdict"].tolist() == frame["verdict"].tolist()


def test_groups_with_other_words_share_a_column(toy):
    called = toy("-m", "task=grade", "modulus=2", "seed=range(0,5)", "among=[x,y],[y,'z, 0']", "study=mine")
    assert runner.read(called.folder)["verdict"].tolist() == [*"xyxyx", "y", "z, 0", "y", "z, 0", "y"]
    assert json.loads((called.folder / "study.json").read_text())["columns"]["outputs"][0] == {
        "name": "verdict",
        "shape": [],
        "dtype": "str",
    }
    extended = toy("-m", "task=grade", "modulus=3", "seed=0,1,2", "among=[p,q,'']", "study=mine")
    assert extended.status == 0
    assert runner.read(called.folder)["verdict"].tolist()[-3:] == ["p", "q", ""]


@pytest.mark.parametrize(
    "setting", ["lanes=8", *(pytest.param(setting, marks=MATRIX) for setting in ("lanes=1", "block=8", "threads=1"))]
)
def test_a_code_that_stands_for_no_word_fails_its_run_alone(toy, setting):
    """Below and above: neither the last word nor the nearest stands for it."""
    called = toy("-m", "task=grade", "modulus=8", "shift=-2", "slope=1", "seed=range(0,100)", setting)
    assert called.status == 1
    assert "50 of 100 runs have no result: the code of 'verdict' stands for none of its words" in called.err
    frame = runner.read(called.folder)
    assert frame["run"].tolist() == list(range(100))
    bad = ~(frame["seed"] % 8).isin([2, 3, 4, 5])
    assert (frame["status"] == np.where(bad, "failed", "ok")).all()
    assert (frame["reason"].notna() == bad).all()
    assert frame["verdict"][~bad].tolist() == [WORDS[seed % 8 - 2] for seed in frame["seed"][~bad]]
    assert (frame["score"] == frame["seed"])[~bad].all()
    assert frame[["verdict", "score"]][bad].isna().all(axis=None)
    assert pd.read_csv(called.folder / "programs.csv")[["runs", "failed"]].values.tolist() == [[100, 50]]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("several", "returns uint32[2] as the code of 'parity'; it is one int32 for each run"),
        ("float", "returns float32[] as the code of 'parity'; it is one int32 for each run"),
        ("text", "returns a str as 'parity', no array"),
        ("no", "returns as 'parity' one of (); categories are a tuple of one or more printable strings"),
        ("list", "returns as 'parity' one of ['even', 'odd']; categories are a tuple"),
        ("mixed", "returns as 'parity' one of ('even', 1); categories are a tuple"),
        ("lines", r"returns as 'parity' one of ('even', 'o\ndd'); categories are a tuple"),
    ],
)
def test_what_is_no_word_is_refused(toy, kind, message):
    called = toy("task=only_categories", f"kind={kind}")
    assert called.status == 2
    assert message in called.err


def test_a_code_that_would_wrap_is_refused():
    with jax.enable_x64(True), pytest.raises(TypeError, match=r"returns int64\[\] as the code of 'parity'"):
        outputs._check_category("parity", toys.Category(jnp.int64(2**32), ("even", "odd")))


def test_a_word_alone_takes_the_name_of_the_yaml(toy):
    assert toy("-m", "task=only_categories", "seed=0,1").frame["parity"].tolist() == ["even", "odd"]
    called = toy("task=only_categories", "task.outputs=[a,b]")
    assert "returns a category, but task.outputs names ['a', 'b']" in called.err


def test_a_column_holds_words_or_numbers(toy):
    assert "'parity' holds numbers, not also categories" in toy("-m", "task=only_categories", "kind=even,number").err
    assert toy("task=only_categories", "kind=even", "study=mine").status == 0
    called = toy("task=only_categories", "kind=number", "study=mine")
    assert called.status == 2
    assert "'parity' holds categories, not also numbers" in called.err


def test_the_summary_counts_words(toy):
    lines = toy("-m", "task=grade", "slope=1,2", "modulus=3", "seed=range(0,7)").out.splitlines()
    assert lines[0].split()[:4] == ["task", "slope", "runs", "verdict"]
    assert [line.split()[:4] for line in lines[2:4]] == [["grade", slope, "7", "identical"] for slope in "12"]
    assert all('  identical 3, "" 2, off by 1, "at most" 2  ' in line for line in lines[2:4])
    assert '  "" 2, identical 2, größer 1, …' in toy("-m", "task=grade", "seed=range(0,6)").out
    assert toy("-m", "task=only_categories", "seed=range(0,5)").out.splitlines()[2].split() == [
        *("only_categories", "5", "even", "3,", "odd", "2"),
    ]


def test_hydras_own_sweeper_still_works(toy, tmp_path):
    called = toy("-m", "task=line", "seed=1,2", "hydra/sweeper=basic")
    assert called.status == 0
    tables = sorted(called.folder.glob("*/results.csv"))
    assert [pd.read_csv(path)["same_seed"].tolist() for path in tables] == [[1], [2]]


def test_what_is_to_run_eagerly_is_not_compiled(toy):
    called = toy("-m", "task=whether", "mode=jit,eager", "seed=range(0,11)", "slope=0.5,2.0", "study=both")
    assert called.status == 0, called.err
    frame = called.frame
    assert (frame["traced"] == (frame["mode"] == "jit")).all()
    assert (frame["value"] == frame["slope"] * frame["seed"]).all()
    programs = pd.read_csv(called.folder / "programs.csv")
    assert (programs["compile_seconds"] > 0).tolist() == [True, False]
    before = called.csv
    (called.folder / "results.csv").write_bytes(before[: len(before) // 2])
    toy("-m", "task=whether", "mode=jit,eager", "seed=range(0,11)", "slope=0.5,2.0", "study=both")
    assert called.csv == before


def test_eager_names_static_values(toy):
    called = toy("task=whether", "+task.eager.slope=1.0")
    assert called.status == 2
    assert "eager must name static parameters, got 'slope'; they are: mode" in called.err


def test_arrays_alone_are_summarized_by_their_means(toy, tmp_path):
    sweep = ("-m", "task=constant", "size=2,3", "study=s")
    called = toy(*sweep)
    lines = called.out.splitlines()
    assert lines[0].split()[:4] == ["task", "size", "runs", "output.mean"]
    assert [line.split() for line in lines[2:4]] == [["constant", "2", "1", "1"], ["constant", "3", "1", "1"]]
    assert toy(*sweep).out.splitlines()[:4] == lines[:4]
    assert "in the table only" not in called.out


def test_a_metric_named_mean_is_named_once(toy):
    out = toy("-m", "task=pair", "seed=0,1,2", "task.outputs=[mean,up]").out
    assert out.splitlines()[0].split()[:3] == ["task", "runs", "mean"]
    assert "mean mean" not in out

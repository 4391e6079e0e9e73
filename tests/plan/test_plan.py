"""The plan: what a plan's runs are, before any is executed."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from runner.contract.task import Kind, Output, Parameter, Task
from runner.execution.schedule import size_block
from runner.execution.shards import share_spans
from runner.execution.summary import SHOWN_POINTS, add_block, empty_summary
from runner.plan.inputs import DTYPES, FILLS, Input, build_array
from runner.plan.pending import find_pending, iterate_blocks
from runner.plan.segments import Axis, Plan, Segment
from runner.program import TracedTask
from runner.storage.columns import plan_parameters
from runner.storage.run_index import RunIndex, SegmentKey, has_runs, index_plan, pack_index, unpack_index

TASK = Task(
    "toy",
    "toys.line",
    tuple(Parameter(name, kind, ()) for name, kind in [("seed", Kind.SEED), ("a", Kind.FLOAT), ("n", Kind.STATIC)]),
    (),
)

axes = st.lists(st.integers(1, 5), min_size=2, max_size=2)
statics = st.lists(st.integers(0, 2), min_size=1, max_size=5)
block_sizes = st.integers(1, 9)


def make_plan(lengths, numbers):
    segments = tuple(Segment(TASK, {"n": n}, {"seed": 0, "a": 1.0}, {}, {"n": n}) for n in numbers)
    seeds, floats = np.arange(lengths[0], dtype=np.uint32), np.arange(lengths[1], dtype=np.float32) / 8
    return Plan(segments, (Axis({"a": floats}), Axis({"seed": seeds})))


def rows_of(plan, segment, places):
    """Some runs of a segment as tuples of their values."""
    values, static = plan.traced(segment, places), plan.segments[segment].static["n"]
    return [(static, a, seed) for a, seed in zip(values["a"].tolist(), values["seed"].tolist(), strict=True)]


def all_rows(plan):
    places = np.arange(plan.runs_per_segment)
    return [row for segment in range(len(plan.segments)) for row in rows_of(plan, segment, places)]


@given(axes, statics, block_sizes)
def test_blocks_give_every_run_once_and_in_order(lengths, numbers, size):
    plan = make_plan(lengths, numbers)
    blocks = list(iterate_blocks(plan, find_pending(plan), dict.fromkeys(plan.groups, size)))
    assert [run for block in blocks for run in block.numbers] == list(range(plan.runs))
    assert all(len(block) <= size for block in blocks)
    rows = [row for block in blocks for row in rows_of(plan, block.segment, block.places)]
    assert rows == list(product(numbers, np.arange(lengths[1]) / 8, range(lengths[0])))


@given(axes, statics, axes, statics, st.data(), block_sizes)
def test_an_extension_executes_what_no_earlier_index_has(before, old, after, new, data, size):
    first, second = make_plan(before, list(dict.fromkeys(old))), make_plan(after, list(dict.fromkeys(new)))
    parameters = plan_parameters(first)
    stop = data.draw(st.integers(0, first.runs))
    done = replace(index_plan(first, parameters), stop=stop)
    assert pack_index(unpack_index(pack_index(done))) == pack_index(done)
    keys = [segment.key for segment in index_plan(second, parameters).segments]

    def is_missing(segment, places):
        return ~has_runs([done], keys[segment], second.traced(segment, places), len(places))

    expected = [row for row in all_rows(second) if row not in set(all_rows(first)[:stop])]
    pending = find_pending(second, is_missing, 100)
    blocks = list(iterate_blocks(second, pending, dict.fromkeys(second.groups, size)))
    found = [row for block in blocks for row in rows_of(second, block.segment, block.places)]
    assert found == expected
    assert [run for block in blocks for run in block.numbers] == list(range(100, 100 + len(expected)))
    assert sum(pending.counts) == sum(pending.to_execute) == len(expected)

    cuts = sorted(data.draw(st.sets(st.integers(100, 100 + len(expected)), max_size=6)))
    spans = [range(start, stop) for start, stop in zip(cuts[::2], cuts[1::2], strict=False)]
    some = replace(pending, spans=spans)
    blocks = list(iterate_blocks(second, some, dict.fromkeys(second.groups, size)))
    numbers = [run for block in blocks for run in block.numbers]
    assert numbers == [run for span in spans for run in span]
    assert [row for block in blocks for row in rows_of(second, block.segment, block.places)] == [
        expected[number - 100] for number in numbers
    ]
    assert sum(some.to_execute) == len(numbers)
    assert all(len(block) <= size for block in blocks)


def test_shares_cover_the_spans_and_are_of_one_size():
    assert share_spans([range(5, 15)], 3) == [range(5, 9), range(9, 13), range(13, 15)]
    assert share_spans([range(0, 2)], 8) == [range(0, 1), range(1, 2)]
    assert share_spans([range(0, 4), range(6, 8)], 2) == [range(0, 3), range(3, 4), range(6, 8)]


@pytest.mark.parametrize("column", [[5], [3, 1, 2], list(range(7, 5000, 3)), [*range(200), 9**9]])
def test_an_axis_is_packed_without_loss(column):
    axes = ({"seed": np.array(column, np.uint32), "a": np.array(column, np.float32) / 3},)
    packed = pack_index(RunIndex((SegmentKey("k", {}),), axes, len(column)))
    (back,) = unpack_index(json.loads(json.dumps(packed))).axes
    for name in ("seed", "a"):
        assert back[name].dtype == axes[0][name].dtype
        assert (back[name] == axes[0][name]).all()


@given(axes, statics)
def test_groups_partition_the_segments_by_signature(lengths, numbers):
    plan = make_plan(lengths, numbers)
    assert sorted(index for members in plan.groups.values() for index in members) == list(range(len(numbers)))
    assert sorted(len(members) for members in plan.groups.values()) == sorted(map(numbers.count, set(numbers)))


def test_a_signature_is_what_a_program_depends_on():
    def signature(static=4, base=0.5, names=("x",), shape=(3,), dtype="float32", seed=0):
        described = {name: Input(shape, dtype, "ones", seed) for name in names}
        return Segment(TASK, {"n": static}, {"a": base}, described).signature

    assert signature() == signature(base=0.7, seed=5)
    changed = [{"static": 5}, {"static": "4"}, {"names": ("y",)}, {"shape": (3, 1)}, {"dtype": "int32"}]
    assert len({signature(), *(signature(**change) for change in changed)}) == 1 + len(changed)


@given(st.integers(1, 10**7), st.sampled_from([1, 8, 64]), st.integers(1, 8192), st.integers(1, 64))
def test_the_rule_for_blocks_keeps_all_threads_busy(runs, lanes, wanted, threads):
    capacity = math.ceil(wanted / lanes) * lanes
    group = TracedTask("program", lambda *_: {}, {}, {}, (), lanes, capacity, False, 0)
    size = size_block(runs, group, threads)
    assert 1 <= size <= capacity
    assert size % lanes == 0
    blocks = math.ceil(runs / size)
    if blocks > threads:  # as few rounds as the capacity allows, and one for what whole lanes leave over
        assert math.ceil(blocks / threads) <= math.ceil(runs / (capacity * threads)) + 1


def test_a_million_points_need_no_memory_for_each():
    plan = Plan((Segment(TASK, {"n": 1}, {"seed": 0, "a": 0.0}, {}),), (Axis({"a": np.zeros(10**5)}),) * 3)
    assert plan.runs == 10**15
    last = np.array([plan.runs - 2, plan.runs - 1])
    assert [position.tolist() for position in plan.positions(last)] == [[99999] * 2, [99999] * 2, [99998, 99999]]


@given(axes, statics, block_sizes, st.integers(0, 2**32 - 1))
def test_the_summary_is_the_mean_and_deviation_over_the_seeds(lengths, numbers, size, seed):
    plan = make_plan(lengths, list(dict.fromkeys(numbers)))
    values = np.random.RandomState(seed).standard_normal(plan.runs).astype(np.float32) + 1e4
    values[:: seed % 5 + 2] = np.nan
    output = Output("m", (), np.dtype(np.float32))
    summary = empty_summary(plan, [output])
    for block in iterate_blocks(plan, find_pending(plan), dict.fromkeys(plan.groups, size)):
        summary = add_block(summary, block, {"m": values[block.numbers]})
    table = values.astype(np.float64).reshape(-1, lengths[0])[:SHOWN_POINTS]
    finite = np.isfinite(table).sum(axis=1)
    assert summary.runs.tolist() == [lengths[0]] * len(table)
    assert summary.count[:, 0].tolist() == finite.tolist()
    some, many = finite > 0, finite > 1
    np.testing.assert_allclose(summary.mean[some, 0], np.nanmean(table[some], axis=1), rtol=1e-12)
    np.testing.assert_allclose(summary.deviation[many, 0], np.nanstd(table[many], axis=1, ddof=1), rtol=1e-5, atol=1e-6)
    assert np.isnan(summary.deviation[~many, 0]).all()


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_filling_in_every_dtype(fill, dtype):
    array = build_array(Input((4, 3), dtype, fill, 3))
    assert (array.shape, array.dtype.name) == ((4, 3), dtype)
    assert not array.flags.writeable


def test_fillings():
    def values(fill, seed=0):
        return build_array(Input((5,), "float32", fill, seed))

    assert values("linspace").tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert values("ones").tolist() == [1] * 5
    assert values("zeros").tolist() == [0] * 5
    assert values("normal", 7).tolist() == np.random.RandomState(7).standard_normal(5).astype(np.float32).tolist()
    assert values("uniform", 7).tolist() == np.random.RandomState(7).random_sample(5).astype(np.float32).tolist()
    assert values("normal", 7).tolist() != values("normal", 8).tolist()


def test_reading_and_planning_need_no_jax():
    """Usage errors and help are answered without JAX, which takes seconds to import."""
    light = "runner.__main__, runner.export, runner.pipeline, runner.studies, hydra_plugins.seedbed.grid"
    code = f"import sys, {light}; assert not {{'jax', 'flax'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)

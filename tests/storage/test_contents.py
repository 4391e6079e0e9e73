import numpy as np

from runner.plan.even_values import EvenValues
from runner.storage.contents import list_axes, list_constants
from runner.storage.run_index import RunIndex, SegmentKey

KEY = '[["task", "fit"], ["kind", "a"]]'


def index(base, **columns):
    """The runs of one segment with these values of its own, and these columns as axes."""
    axes = tuple({name: column} for name, column in columns.items())
    return RunIndex((SegmentKey(KEY, base),), axes, int(np.prod([len(column) for column in columns.values()])))


def test_a_value_of_whole_segments_and_the_same_one_in_a_column_are_one():
    """As in a search whose best point was run with further seeds: these have all values in columns."""
    tenths, seeds = np.full(4, 0.1, np.float32), EvenValues(0, 1, 4)
    indexes = [index({"decay": 0.1, "count": 3}, seed=seeds), index({"count": 3}, decay=tenths)]
    assert [(axis.name, axis.count) for axis in list_axes(indexes)] == [("seed", 4)]
    assert list_constants(indexes) == {"fit": {"kind": "a", "decay": 0.1, "count": 3}}


def test_values_of_whole_segments_and_of_columns_are_counted_together():
    indexes = [index({"decay": 0.1}, seed=EvenValues(0, 1, 4)), index({}, decay=np.full(4, 0.5, np.float32))]
    axes = {axis.name: axis for axis in list_axes(indexes)}
    assert (axes["decay"].count, axes["decay"].values, axes["decay"].last) == (2, (0.1, 0.5), 0.5)
    assert list_constants(indexes) == {"fit": {"kind": "a"}}


def test_a_column_with_a_value_twice_has_it_once():
    indexes = [index({}, steps=np.array([30, 30, 90, 30], np.int32))]
    assert [(axis.name, axis.count, axis.values) for axis in list_axes(indexes)] == [("steps", 2, (30, 90))]

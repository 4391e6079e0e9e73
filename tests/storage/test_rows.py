"""Rows that are formatted together are those that are formatted one by one."""

from dataclasses import replace

import numpy as np
import pytest

from runner.contract.task import Kind, Output, Parameter, Task
from runner.plan.pending import Block
from runner.plan.segments import Axis, Plan, Segment
from runner.storage.columns import Columns
from runner.storage.writer import Rows, format_rows

TASK = Task("t", "toys.line", (Parameter("seed", Kind.SEED, 0),), ())
VALUES = ["text", "=1+1", "", "1", 1, 1.0, True, 0.0, -0.0, float("nan"), None, (1,), (1.0,), (True,), -1, 2**40, "x"]


def make_plan(values):
    segments = tuple(Segment(TASK, {"mode": value}, {"seed": 0}, {}) for value in values)
    return Plan(segments, (Axis({"seed": np.arange(3, dtype=np.uint32)}),))


def make_rows(values, outputs):
    return [Rows(Block(i, np.arange(3), np.arange(3) + 3 * i), outputs(i), None) for i in range(len(values))]


OUTPUTS = Output("y", (), np.dtype("float32")), Output("m", (2,), np.dtype("float32"))
COLUMNS = Columns({"seed": "uint32", "mode": "text"}, OUTPUTS)


@pytest.mark.parametrize("values", [VALUES, VALUES[::-1], ["a"] * 5, [0.0, -0.0, 0.0], [(1,), (1.0,)], [1, 2, 3]])
def test_rows_do_not_depend_on_what_is_formatted_with_them(values):
    plan = make_plan(values)
    rows = make_rows(values, lambda i: {"y": np.float32([i, np.nan, 0.5]), "m": np.full((3, 2), i, np.float32)})
    together = format_rows(plan, COLUMNS, rows)
    assert together == b"".join(format_rows(plan, COLUMNS, [each]) for each in rows)
    assert together.count(b"\n") == 3 * len(values)


def test_failures_and_other_outputs_are_formatted_apart():
    plan = make_plan(range(6))
    rows = make_rows(range(6), lambda i: {"y": np.full(3, i, np.float32 if i < 4 else np.int32)})
    rows[2] = replace(rows[2], outputs=None, reason="it failed")
    rows[3] = replace(rows[3], outputs=None, reason="it failed, too")
    together = format_rows(plan, COLUMNS, rows)
    assert together == b"".join(format_rows(plan, COLUMNS, [each]) for each in rows)
    assert together.count(b'"it failed"') == together.count(b'"it failed, too"') == 3

"""Runs that are to be made: traced and sized, then executed and appended to a table."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from runner.execution import blocks as execute
from runner.execution import schedule as ledger
from runner.execution.blocks import Result
from runner.execution.schedule import Schedule
from runner.plan.study import PendingRuns, Plan
from runner.program import programs as program
from runner.storage import table
from runner.storage.table import Columns


def opened(plan: Plan, todo: PendingRuns, *, is_begun: bool) -> Schedule:
    """The ledger of the runs that are to be made.

    Raises InvalidInputError if none of their groups can be built: but what was begun ends as it would have at once, and
    its last runs may be such.
    """
    groups = execute.trace(plan, todo.missing)
    if not is_begun:
        execute.check(groups)
    threads = _threads(plan)
    sizes = {name: execute.block_size(plan.runs_per_segment, group, threads) for name, group in groups.items()}
    return ledger.opened(plan, todo, groups, sizes)


def results(books: Schedule, columns: Columns, path: Path, stop: Callable[[], object]) -> Iterator[Result]:
    """Runs the blocks in order, and yields each one when its rows are appended to the table at `path`."""
    plan, rows = books.plan, partial(table.rows, books.plan, columns)
    blocks = plan.blocks(books.sizes, books.todo)
    with table.appending(path, columns.header) as append:
        for result in execute.execute(plan, books.groups, blocks, rows, threads=_threads(plan), stop=stop):
            append(result.rows)
            yield result


def _threads(plan: Plan) -> int:
    return plan.study.threads or program.cores()

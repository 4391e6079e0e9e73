"""Runs that are to be made: traced and sized, then executed and appended to a table."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from runner import execute, ledger, program, table
from runner.execute import Result
from runner.ledger import Ledger
from runner.plan import Plan, Todo
from runner.table import Columns


def opened(plan: Plan, todo: Todo, *, is_begun: bool) -> Ledger:
    """The ledger of the runs that are to be made.

    Raises BadInput if none of their groups can be built: but what was begun ends as it would have at once, and
    its last runs may be such.
    """
    groups = execute.trace(plan, todo.missing)
    if not is_begun:
        execute.check(groups)
    threads = _threads(plan)
    sizes = {name: execute.block_size(plan.runs_per_segment, group, threads) for name, group in groups.items()}
    return ledger.opened(plan, todo, groups, sizes)


def results(books: Ledger, columns: Columns, path: Path, stop: Callable[[], object]) -> Iterator[Result]:
    """Runs the blocks in order, and yields each one when its rows are appended to the table at `path`."""
    plan, rows = books.plan, partial(table.rows, books.plan, columns)
    blocks = plan.blocks(books.sizes, books.todo)
    with table.appending(path, columns.header) as append:
        for result in execute.execute(plan, books.groups, blocks, rows, threads=_threads(plan), stop=stop):
            append(result.rows)
            yield result


def _threads(plan: Plan) -> int:
    return plan.study.threads or program.cores()

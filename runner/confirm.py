"""Confirmation of the best points: fresh seeds that have had no part in their choice."""

from runner import terminal
from runner.analysis.comparison import Comparison
from runner.analysis.confirmation import list_variants
from runner.analysis.formats import format_label
from runner.analysis.load import load_runs
from runner.errors import InvalidInputError
from runner.extension import Extensible, check_finished, choose_fresh_seeds, open_extensible
from runner.storage.confirmations import Confirmation, read_confirmations, write_confirmations


def confirm_best(comparison: Comparison, count: int, *, accept: bool = False) -> None:
    """Executes `count` fresh seeds at the best point of each metric, unless it has been confirmed by as many.

    What an interrupted confirmation has left is executed first. Raises InvalidInputError if there is no best point, if
    it is confirmed by another number of seeds, and for a study that cannot be extended.
    """
    wanted = _choose_points(comparison, count)
    (folder,) = comparison.runs.studies
    with open_extensible(folder, accept=accept) as study:
        known = read_confirmations(folder)
        for confirmation in known:
            study.add_seeds(confirmation.points, confirmation.seeds)
        check_finished(folder)
        for point, numbers in wanted.items():
            if not any(confirmation.points == numbers for confirmation in known):
                known = [*known, _confirm(comparison, study, point, numbers, known, count)]


def _choose_points(comparison: Comparison, count: int) -> dict[int, tuple[int, ...]]:
    """The best points with the numbers of their first runs. Raises InvalidInputError if they cannot be confirmed."""
    if count < 2:
        raise InvalidInputError(f"--confirm must be at least 2 seeds, got {count}")
    if len(comparison.runs.studies) > 1:
        raise InvalidInputError("--confirm extends one study; give one folder")
    if not comparison.best:
        has = ", ".join(comparison.runs.directions) or "none"
        raise InvalidInputError(
            "--confirm needs a metric with a direction in task.metrics, and several points of one task; "
            f"with a direction are: {has}"
        )
    (folder,) = comparison.runs.studies
    points = {best.point: list_variants(comparison.runs, best.point) for best in comparison.best.values()}
    for confirmation in read_confirmations(folder):
        for point, numbers in points.items():
            if confirmation.points == numbers and len(confirmation.seeds) != count:
                raise InvalidInputError(
                    f"{_label(comparison, point)} was confirmed by {len(confirmation.seeds):,} seeds, and the number "
                    f"of seeds is chosen once; got --confirm {count}"
                )
    return points


def _confirm(
    comparison: Comparison,
    study: Extensible,
    point: int,
    numbers: tuple[int, ...],
    known: list[Confirmation],
    count: int,
) -> Confirmation:
    """Executes fresh seeds at a point, which are recorded first: an interrupted call goes on with the same ones."""
    used = load_runs([study.folder.path], []).seed.max()
    seeds = choose_fresh_seeds(int(used) + 1, count)
    confirmation = Confirmation(numbers, seeds)
    write_confirmations(study.folder, [*known, confirmation])
    terminal.print_line(f"confirming {_label(comparison, point)} by the seeds {seeds.start:,} to {seeds.stop - 1:,}")
    study.add_seeds(numbers, seeds)
    return confirmation


def _label(comparison: Comparison, point: int) -> str:
    return format_label(comparison.runs.points.iloc[point].to_dict(), list(comparison.runs.points.columns))

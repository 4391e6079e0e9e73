"""A saved study: its manifest and table as a call finds them, and what they lack of a plan."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from runner.contract.task import Output
from runner.errors import InvalidInputError
from runner.plan.pending import Block, IsMissing, PendingRuns, find_pending
from runner.plan.segments import Plan, find_gaps
from runner.plan.status import Status
from runner.storage.checksums import count_covered, read_records
from runner.storage.columns import build_columns, check_categories, plan_parameters
from runner.storage.fingerprint import Fingerprint
from runner.storage.folder import Folder, write_file
from runner.storage.manifest import Manifest, clip_retries, format_manifest, read_manifest
from runner.storage.reader import read_keyed_rows, read_run_numbers
from runner.storage.recovery import TableChangedError, TableEnd, adopt_table, read_last_row, recover_table
from runner.storage.run_index import RunIndex, find_row, has_runs, index_plan

START_AGAIN = "; overwrite=true starts the study again, another study=… leaves it alone"


@dataclass(frozen=True)
class SavedStudy:
    """A study as it is found: its manifest, None for a new study, and the number of runs that its table has.

    `table_rows` is larger where runs were repeated. The manifest's run indexes and retries end where the table
    ends. `last_sweep` is the whole product of the last call.
    `part_spans` are the runs of it that shards have executed beyond a gap and the table does not have yet.
    `incomplete_bytes` is the size of an incomplete last row that was truncated.
    """

    folder: Folder
    manifest: Manifest | None
    rows: int = 0
    table_rows: int = 0
    incomplete_bytes: int = 0
    last_sweep: RunIndex | None = None
    part_spans: tuple[range, ...] = ()

    def index_plan(self, plan: Plan) -> RunIndex:
        """The index of a plan's runs in this study's table."""
        return index_plan(plan, self.manifest.columns.parameters if self.manifest else plan_parameters(plan))

    def is_last_sweep(self, index: RunIndex) -> bool:
        """Whether the last call was about the runs of this index."""
        return self.last_sweep is not None and self.last_sweep.has_same_product(index)

    def find_pending(self, plan: Plan, index: RunIndex, numbers: range | None = None) -> PendingRuns:
        """The runs of a plan without a row; to execute are those with these numbers, or all that no shard has."""
        pending = find_pending(plan, self._missing_runs(plan, index), self.rows)
        spans = find_gaps(pending.spans[0], self.part_spans) if numbers is None else [numbers]
        return replace(pending, spans=spans)

    def find_numbers(self, index: RunIndex) -> np.ndarray:
        """The numbers in the table of the runs of an index, int64, in the order of the table."""
        assert self.manifest is not None
        found = [
            rows.numbers[index.find_runs(rows.key, rows.traced, len(rows.numbers)) >= 0]
            for rows in read_keyed_rows(self.folder, self.manifest)
        ]
        return np.concatenate([np.empty(0, dtype=np.int64), *found])

    def find_repeated(self, index: RunIndex, status: Status | None) -> tuple[Block, ...]:
        """The runs of an index whose row has this status, a block for each segment in the order of the table."""
        if self.manifest is None or status is None:
            return ()
        found: dict[int, list[np.ndarray]] = {}
        for rows in read_keyed_rows(self.folder, self.manifest):
            places = index.find_runs(rows.key, rows.traced, len(rows.numbers))
            here = places >= 0
            if rows.status is status and here.any():
                segment, within = np.divmod(places[here], max(1, index.runs_per_segment))
                for number in np.unique(segment):
                    mine = np.stack([within, rows.numbers[here]])[:, segment == number]
                    found.setdefault(int(number), []).append(mine)
        joined = {number: np.concatenate(pieces, axis=1) for number, pieces in sorted(found.items())}
        ordered = {number: columns[:, np.argsort(columns[1])] for number, columns in joined.items()}
        return tuple(Block(number, places, numbers) for number, (places, numbers) in ordered.items())

    def _missing_runs(self, plan: Plan, index: RunIndex) -> IsMissing | None:
        if self.manifest is None or not self.manifest.indexes:
            return None
        segments, indexes = index.segments, self.manifest.indexes
        if len(indexes) == 1 and indexes[0].has_same_product(index):
            size, stop = index.runs_per_segment, indexes[0].stop
            return lambda segment, places: segment * size + places >= stop
        return lambda segment, places: (
            ~has_runs(indexes, segments[segment].key, plan.traced(segment, places), len(places))
        )

    def extend_manifest(
        self,
        plan: Plan,
        index: RunIndex,
        outputs: Sequence[Output],
        fingerprint: Fingerprint,
        *,
        missing: int,
        repeated: int = 0,
        can_save: bool = False,
    ) -> Manifest:
        """The manifest with the `missing` runs of one more call, which return these outputs, and `repeated` ones.

        `can_save` says that a replay can save some of them.

        The same product again replaces its unfinished self. Raises InvalidInputError if the table has no column for
        an output, or one of another kind.
        """
        planned = self.rows + missing
        metrics = dict(pair for segment in plan.segments for pair in segment.task.metrics)
        primary = tuple(dict.fromkeys(name for segment in plan.segments for name in segment.task.primary))
        if self.manifest is None:
            columns = build_columns(plan_parameters(plan), outputs)
            return Manifest(
                columns, fingerprint, (index,), planned, metrics=metrics, can_save=can_save, primary=primary
            )
        before, end = self.manifest, self.table_rows + missing
        names = [output.name for output in before.columns.outputs]
        for output in outputs:
            if output.name not in names:
                has = ", ".join(names)
                raise InvalidInputError(
                    f"the table has no column {output.name!r}; its outputs are: {has}; give another name"
                )
        check_categories(before.columns, outputs)
        return replace(
            before,
            fingerprint=before.fingerprint.merge(fingerprint),
            metrics={**before.metrics, **metrics},
            indexes=_append_index(before.indexes, replace(index, first=self.rows)),
            retries=(*before.retries, *([range(end, end + repeated)] if repeated else ())),
            planned=planned,
            can_save=before.can_save or can_save,
            primary=primary or before.primary,
        )


def _append_index(indexes: tuple[RunIndex, ...], index: RunIndex) -> tuple[RunIndex, ...]:
    if indexes and indexes[-1].has_same_product(index):
        return (*indexes[:-1], replace(index, first=indexes[-1].first))
    return (*indexes, index)


def read_saved_study(folder: Folder, *, truncate: bool = True, accept: bool = False) -> SavedStudy:
    """The study in a folder, without its parts; what follows the last whole row is truncated unless told otherwise.

    `accept` takes a table that was changed by something else, if its rows are still the study's runs in their order.
    Raises InvalidInputError for a table without a manifest, and for a damaged or changed table or manifest.
    """
    manifest = read_manifest(folder.manifest)
    if manifest is None:
        if folder.results.exists():
            name = folder.manifest.name
            raise InvalidInputError(f"{folder.results} exists, but {name} beside it does not; use another name")
        return SavedStudy(folder, None)
    end, accepted = _recover(folder, manifest, truncate=truncate, accept=accept)
    known = replace(manifest, accepted=(*manifest.accepted, *accepted))
    retries = clip_retries(manifest.retries, end.rows)
    rows = known.count_runs(end.rows)
    indexes = list(manifest.indexes) if rows else []
    while indexes and rows <= indexes[-1].first:  # no row of this call has reached the table
        indexes.pop()
    if rows:
        indexes[-1] = replace(indexes[-1], stop=_find_last_place(folder, known, end) + 1)
    known = replace(known, indexes=tuple(indexes), retries=retries, table_bytes=end.bytes)
    saved = SavedStudy(folder, known, rows, end.rows, end.incomplete_bytes, manifest.indexes[-1])
    if truncate and (accepted or manifest.table_bytes is None):
        check_rows(saved)
        write_file(folder.manifest, format_manifest(replace(known, indexes=manifest.indexes)))
    return saved


def _recover(folder: Folder, manifest: Manifest, *, truncate: bool, accept: bool) -> tuple[TableEnd, list[str]]:
    """Where the table ends, and what of it was accepted."""
    columns, recorded = manifest.columns, manifest.table_bytes
    if recorded is None and folder.results.exists() and truncate:  # written before there were checksums
        adopt_table(folder, columns)
    try:
        return recover_table(folder, columns, recorded=recorded or 0, truncate=truncate), []
    except TableChangedError as error:
        if not accept:
            raise
        adopt_table(folder, columns)
        return recover_table(folder, columns), [f"{folder.results.name} was changed: {error.reason}"]


def _find_last_place(folder: Folder, manifest: Manifest, end: TableEnd) -> int:
    """The place of the last run, by its values, in the index of the call that added it."""
    repeated = clip_retries(manifest.retries, end.rows)
    back = 0
    while any(end.rows - 1 - back in rows for rows in repeated):
        back += 1
    cells = read_last_row(folder, manifest.columns, end, back)
    index = next(index for index in reversed(manifest.indexes) if index.first < manifest.count_runs(end.rows))
    place = find_row(index, manifest.columns, cells)
    if place < 0 or int(cells["run"]) != manifest.count_runs(end.rows) - 1:
        raise InvalidInputError(
            f"the last row of {folder.results}, run {cells['run']}, is not the last of the study's runs{START_AGAIN}"
        )
    return place


def record_end(folder: Folder) -> None:
    """Records in the manifest how much of the table has checksums, so that a loss of the checksums is noticed."""
    manifest, records = read_manifest(folder.manifest), read_records(folder.checksums)
    if manifest is not None and records is not None and count_covered(records) != manifest.table_bytes:
        write_file(folder.manifest, format_manifest(replace(manifest, table_bytes=count_covered(records))))


def check_rows(saved: SavedStudy) -> None:
    """Raises InvalidInputError unless the rows of a table are runs of the study, numbered in their order."""
    assert saved.manifest is not None
    table, manifest = saved.folder.results, saved.manifest
    numbers = read_run_numbers(saved.folder, manifest)
    expected = np.full(len(numbers), True)
    for repeated in manifest.retries:
        expected[repeated.start : repeated.stop] = False
    wrong = np.flatnonzero(numbers[expected] != np.arange(saved.rows))
    if len(numbers) != saved.table_rows or len(wrong):
        line = np.flatnonzero(expected)[wrong[0]] + 2 if len(wrong) else len(numbers) + 2
        raise InvalidInputError(f"{table} has a row too many or too few, or out of order, at line {line}{START_AGAIN}")
    for rows in read_keyed_rows(saved.folder, manifest):
        known = has_runs(manifest.indexes, rows.key, rows.traced, len(rows.numbers))
        if not known.all():
            number = rows.numbers[np.argmin(known)]
            raise InvalidInputError(f"{table}: run {number} has values that the study did not run{START_AGAIN}")

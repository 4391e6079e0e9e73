"""A saved study: its manifest and table as a call finds them, and what they lack of a plan."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from runner.errors import InvalidInputError
from runner.plan.contract import Output
from runner.plan.pending import IsMissing, PendingRuns, find_pending
from runner.plan.segments import Plan, find_gaps
from runner.storage.columns import build_columns, check_categories, plan_parameters
from runner.storage.fingerprint import Fingerprint
from runner.storage.folder import Folder
from runner.storage.manifest import Manifest, read_manifest
from runner.storage.run_index import RunIndex, find_row, has_runs, index_plan
from runner.storage.writer import recover_table


@dataclass(frozen=True)
class SavedStudy:
    """A study as it is found: its manifest, None for a new study, and the number of rows of its table.

    The manifest's run indexes end where the table ends. `last_sweep` is the whole product of the last call.
    `part_spans` are the runs of it that shards have executed beyond a gap and the table does not have yet.
    `incomplete_bytes` is the size of an incomplete last row that was truncated.
    """

    folder: Folder
    manifest: Manifest | None
    rows: int = 0
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
        self, plan: Plan, index: RunIndex, outputs: Sequence[Output], fingerprint: Fingerprint, missing: int
    ) -> Manifest:
        """The manifest with the `missing` runs of one more call, which return these outputs.

        The same product again replaces its unfinished self. Raises InvalidInputError if the table has no column for
        an output, or one of another kind.
        """
        planned = self.rows + missing
        metrics = dict(pair for segment in plan.segments for pair in segment.task.metrics)
        if self.manifest is None:
            columns = build_columns(plan_parameters(plan), outputs)
            return Manifest(columns, fingerprint, (index,), planned, metrics=metrics)
        before = self.manifest
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
            planned=planned,
        )


def _append_index(indexes: tuple[RunIndex, ...], index: RunIndex) -> tuple[RunIndex, ...]:
    if indexes and indexes[-1].has_same_product(index):
        return (*indexes[:-1], replace(index, first=indexes[-1].first))
    return (*indexes, index)


def read_saved_study(folder: Folder, *, truncate: bool = True) -> SavedStudy:
    """The study in a folder, without its parts; an incomplete last row is truncated unless told otherwise.

    Raises InvalidInputError for a table without a manifest, and for a damaged table or manifest.
    """
    manifest = read_manifest(folder.manifest)
    if manifest is None:
        if folder.results.exists():
            name = folder.manifest.name
            raise InvalidInputError(f"{folder.results} exists, but {name} beside it does not; use another name")
        return SavedStudy(folder, None)
    end = recover_table(folder.results, manifest.columns, truncate=truncate)
    last_sweep = manifest.indexes[-1]
    indexes = list(manifest.indexes) if end.rows else []
    while indexes and end.rows <= indexes[-1].first:  # no row of this call has reached the table
        indexes.pop()
    if end.rows:
        place = find_row(indexes[-1], manifest.columns, end.cells)
        if place < 0:
            raise InvalidInputError(
                f"the last row of {folder.results}, run {end.rows - 1}, is not one of the study's runs"
            )
        indexes[-1] = replace(indexes[-1], stop=place + 1)
    known = replace(manifest, indexes=tuple(indexes))
    return SavedStudy(folder, known, end.rows, end.incomplete_bytes, last_sweep)

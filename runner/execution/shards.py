"""Shards: ranges of a sweep's runs, each executed by one process into a part of the study."""

import json
import socket
from collections.abc import Callable, Sequence
from typing import Any

from runner import program
from runner.errors import InvalidInputError
from runner.execution.blocks import execute_schedule
from runner.execution.group_statistics import begin_progress
from runner.execution.schedule import make_schedule
from runner.execution.summary import add_block, empty_summary, pack_summary
from runner.execution.verification import choose_sample, verify_sample
from runner.plan.segments import Plan
from runner.storage.environment import collect_environment, write_environment
from runner.storage.fingerprint import find_mismatch, take_fingerprint
from runner.storage.folder import Folder, write_file
from runner.storage.lock import lock_folder, lock_parts
from runner.storage.manifest import Manifest
from runner.storage.merge import merge_fingerprints, write_part_fingerprint
from runner.storage.programs import format_programs
from runner.storage.recovery import recover_table
from runner.storage.saved import read_saved_study


def share_spans(spans: Sequence[range], count: int) -> list[range]:
    """The spans cut into `count` shares of about equal size, and one more for each gap between them."""
    size = -(-sum(map(len, spans)) // count)
    return [span[start : start + size] for span in spans for start in range(0, len(span), size)]


def execute_part(
    plan: Plan,
    folder: Folder,
    numbers: range,
    *,
    accept: bool,
    verify: int | None = None,
    stop: Callable[[], object],
    advance: Callable[[int], Any] = lambda _: None,
    warn: Callable[[str], Any] = lambda _: None,
) -> None:
    """Executes the runs with these numbers into a part of the study, until `stop` returns something true.

    It also ends when the study's folder has a stop request. Rows that the part has are kept. `verify` runs of each
    group are executed once more. `warn` is given a line for each group that seems to have stalled. Raises
    InvalidInputError
    if machine, code or versions differ from those of the study or of the other shards, unless `accept` is set.
    """
    part = folder.part(numbers.start)
    with lock_folder(part):
        saved = read_saved_study(folder, truncate=False)
        index = saved.index_plan(plan)
        if saved.manifest is None or not saved.is_last_sweep(index):
            raise InvalidInputError(f"{folder.path} has been continued with another sweep")
        columns = saved.manifest.columns
        _record_fingerprint(plan, folder, part, saved.manifest, accept=accept)
        write_environment(part, collect_environment(program.describe_devices()))
        rows = recover_table(part, columns).rows
        if rows >= len(numbers):
            return
        part.summary.unlink(missing_ok=True)
        pending = saved.find_pending(plan, index, numbers[rows:])
        schedule = make_schedule(plan, pending, is_resumed=True)
        progress, summary = begin_progress(schedule), empty_summary(plan, columns.outputs)
        sample = choose_sample(schedule, verify or 0)

        def is_stopped() -> bool:
            return bool(stop()) or folder.stop_request.exists()

        for result in execute_schedule(schedule, columns, part, is_stopped, warn):
            progress, summary = progress.add(result), add_block(summary, result.block, result.outputs)
            sample = sample.add(result)
            advance(len(result.block))
        verified = verify_sample(sample, is_stopped)
        write_file(part.programs, format_programs(progress.program_rows(program.describe_devices(), verified)))
        if not rows:  # the summary of a part is that of all its rows, or missing
            write_file(part.summary, json.dumps(pack_summary(summary)))


def _record_fingerprint(plan: Plan, folder: Folder, part: Folder, manifest: Manifest, *, accept: bool) -> None:
    """Records where this shard runs; the first shard of a study determines what holds for the others."""
    device = " ".join(program.describe_devices())
    fingerprint = take_fingerprint(plan, device, program.list_settings(), program.count_pool())
    with lock_parts(folder):
        known = merge_fingerprints(manifest, [other for other in folder.parts if other != part])
        mismatch = find_mismatch(known.fingerprint, known.columns.parameters, plan, fingerprint)
        if mismatch and not accept:
            raise InvalidInputError(f"on {socket.gethostname()} {mismatch}")
        write_part_fingerprint(part, fingerprint, mismatch.changes)

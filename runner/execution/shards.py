"""Shards: the runs of a sweep shared out over the jobs of a Hydra launcher, each of which makes a part of its own."""

import json
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from filelock import FileLock
from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from runner.config import overrides as sweep
from runner.errors import InvalidInputError
from runner.plan.study import Plan
from runner.storage import folder as study
from runner.storage.folder import Folder

FACTS_SECONDS = 60
"""How long a shard waits for its siblings to say where they run."""


@dataclass(frozen=True)
class Shards:
    """How many shards a sweep has, the launcher that they are handed to, and the overrides that they share."""

    count: int
    launcher: Launcher
    config: DictConfig
    """The launcher's own."""
    job: Sequence[str]

    @property
    def name(self) -> str:
        return str(self.config._target_).rpartition(".")[2]

    @property
    def is_here(self) -> bool:
        """Whether the shards run one after the other in this process."""
        return self.name == "BasicLauncher"

    def threads(self, shards: int, cores: int) -> int | None:
        """Threads of each shard: those that run at once on this machine share its cores.

        None where a shard finds out on its own: a job of SLURM has cores of its own.
        """
        if self.is_here or self.name == "SlurmLauncher":
            return None
        workers = self.config.get("n_jobs") or shards
        return max(1, cores // min(shards, workers if workers > 0 else max(1, cores + 1 + workers)))

    def launch(self, folder: Folder, spans: Sequence[range], cores: int) -> list[str]:
        """Runs the spans as jobs until all have ended, and tells what went wrong in them."""
        shared = [*self.job, f"hydra.sweep.dir={sweep.quoted(str(folder.path))}"]
        if self.name != "SlurmLauncher":  # whose jobs need nobody to wait for them
            shared.append(f"sweep.caller=[{sweep.quoted(socket.gethostname())},{os.getpid()}]")
        jobs = [[*shared, f"sweep.part=[{span.start},{span.stop}]"] for span in spans]
        threads = self.threads(len(spans), cores)
        if threads is not None and not any(line.startswith("threads=") for line in self.job):
            jobs = [[*job, f"threads={threads}"] for job in jobs]
        try:
            returned = self.launcher.launch(jobs, initial_job_idx=0)
        except (Exception, KeyboardInterrupt) as error:  # a lost worker ends the launcher; its siblings' rows stay
            return [f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"]
        return [str(each._return_value) for each in returned if each.status is JobStatus.FAILED]


def part(config: DictConfig) -> range | None:
    """The runs that a job is to make as a shard; None if it is none."""
    return range(*config.sweep.part) if config.sweep.part else None


def is_alone(config: DictConfig) -> bool:
    """Whether the call that waits for a shard is gone: for a process of another host nobody can tell."""
    if not config.sweep.caller or config.sweep.caller[0] != socket.gethostname():
        return False
    try:
        os.kill(config.sweep.caller[1], 0)
    except ProcessLookupError:
        return True
    return False


def shares(spans: Sequence[range], count: int) -> list[range]:
    """The spans cut into `count` shares of about one size, and one more for each gap between them."""
    size = -(-sum(map(len, spans)) // count)
    return [span[start : start + size] for span in spans for start in range(0, len(span), size)]


def make(
    plan: Plan,
    folder: Folder,
    numbers: range,
    *,
    accept: bool,
    stop: Callable[[], object],
    advance: Callable[[int], Any] = lambda _: None,
) -> None:
    """Makes the part of a study with the runs of these numbers, until `stop` or a file in the folder says so.

    What of the part is there is kept. Raises InvalidInputError if the machine, the code or the versions are not those of
    the study, or of the other shards.
    """
    from runner.execution import schedule as ledger
    from runner.execution import summary, work
    from runner.program import programs as program
    from runner.storage import manifest as record
    from runner.storage import merge as parts
    from runner.storage import table

    mine = folder.part(numbers.start)
    with study.held(mine):
        past = record.past(folder.record, folder.results, cut=False)
        if past.record is None or not past.is_begun(plan):
            raise InvalidInputError(f"{folder.path} has gone on to another sweep")
        columns = past.record.columns
        facts = record.facts(plan, program.devices())
        with FileLock(folder.path / "parts" / ".lock", timeout=FACTS_SECONDS):  # the first to come says what holds
            siblings = [each for each in folder.parts if each != mine]
            told = replace(past, record=parts.with_facts(past.record, siblings))
            if (found := record.differences(told, plan, facts)) and not accept:
                raise InvalidInputError(f"on {socket.gethostname()} {'; '.join(found)}")
            parts.write_facts(mine, facts, found)
        study.write_environment(mine, study.environment(program.devices()))
        done, _, _ = table.recover(mine.results, columns)
        if done >= numbers.stop:
            return
        mine.summary.unlink(missing_ok=True)
        todo = past.todo(plan, range(max(done, numbers.start), numbers.stop))
        books, totals = work.opened(plan, todo, is_begun=True), summary.summary(plan, columns.outputs)
        for result in work.results(books, columns, mine.results, lambda: stop() or folder.end.exists()):
            books, totals = ledger.entered(books, result), summary.add(totals, result.block, result.outputs)
            advance(len(result.block))
        study.write(mine.programs, ledger.text(books, program.devices()))
        if not done:
            study.write(mine.summary, json.dumps(summary.packed(totals)))

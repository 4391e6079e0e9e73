"""Shards launched as the jobs of a Hydra launcher."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from runner.config.callers import Caller
from runner.config.overrides import quote

BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
"""Hydra's launcher that runs its jobs one after the other in this process."""


class Placement(Enum):
    """Where a launcher runs its jobs, which determines the cores that they have."""

    THIS_PROCESS = "this process"
    """One after the other: each has all cores."""
    THIS_MACHINE = "this machine"
    """At once: they share the cores. Assumed of launchers that are not known."""
    OWN_ALLOCATION = "an allocation of its own"
    """Each job has cores of its own, and may wait in a queue longer than its caller lives."""


_PLACEMENTS = {
    BASIC_LAUNCHER: Placement.THIS_PROCESS,
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher": Placement.OWN_ALLOCATION,
}


@dataclass(frozen=True)
class ShardLauncher:
    """A launcher with its own config, the number of shards, and the overrides that all shards share."""

    count: int
    launcher: Launcher
    config: DictConfig
    overrides: Sequence[str]

    @property
    def placement(self) -> Placement:
        return _PLACEMENTS.get(str(self.config._target_), Placement.THIS_MACHINE)

    def count_threads(self, shards: int, cores: int, cores_per_run: int = 1) -> int | None:
        """Threads of each of so many shards on a machine with so many cores; None if each shard counts its own."""
        if self.placement is not Placement.THIS_MACHINE:
            return None
        workers = self.config.get("n_jobs") or shards
        at_once = min(shards, workers if workers > 0 else max(1, cores + 1 + workers))
        return max(1, cores // (at_once * cores_per_run))

    def launch(self, folder: Path, spans: Sequence[range], cores: int, cores_per_run: int = 1) -> list[str]:
        """Runs a shard for each span of run numbers until all have ended, and returns the messages of errors."""
        shared = [*self.overrides, f"hydra.sweep.dir={quote(str(folder))}"]
        if self.placement is not Placement.OWN_ALLOCATION:
            shared.append(f"sweep.caller=[{quote(socket.gethostname())},{os.getpid()}]")
        threads = self.count_threads(len(spans), cores, cores_per_run)
        if threads is not None and not any(line.startswith("threads=") for line in self.overrides):
            shared.append(f"threads={threads}")
        jobs = [[*shared, f"sweep.part=[{span.start},{span.stop}]"] for span in spans]
        try:
            returned = self.launcher.launch(jobs, initial_job_idx=0)
        except (Exception, KeyboardInterrupt) as error:  # a lost worker ends the launcher; rows of the others remain
            return [f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"]
        return [str(job._return_value) for job in returned if job.status is JobStatus.FAILED]


@dataclass(frozen=True)
class ShardJob:
    """What a job of a launcher has to do as a shard: the numbers of its runs, and the process that waits for it."""

    numbers: range
    caller: Caller | None
    """None if nobody waits."""

    def is_orphaned(self) -> bool:
        """Whether the process that waits for the shard is gone."""
        return self.caller is not None and self.caller.is_gone()


def read_shard_job(config: DictConfig) -> ShardJob | None:
    """The shard that a job is, None for the call itself."""
    if not config.sweep.part:
        return None
    caller = Caller(str(config.sweep.caller[0]), int(config.sweep.caller[1])) if config.sweep.caller else None
    return ShardJob(range(*config.sweep.part), caller)

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

LANES_LAUNCHER = "hydra_plugins.seedbed.lanes.LanesLauncher"
"""The launcher that executes the jobs of other sweepers as runs of one study."""


class Placement(Enum):
    """Where a launcher runs its jobs, which determines the cores that they have."""

    THIS_PROCESS = "this process"
    """One after the other: each has all cores."""
    THIS_MACHINE = "this machine"
    """At once: they share the cores. Assumed of launchers that are not known."""
    OWN_ALLOCATION = "an allocation of its own"
    """Each job has cores of its own, and may wait in a queue longer than its caller lives."""


JOBLIB_LAUNCHER = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
"""A launcher that leaves it to its jobs which GPUs they use; the others assign them."""
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"

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
        return max(1, cores // (self._count_workers(shards, cores) * cores_per_run))

    def _count_workers(self, shards: int, cores: int) -> int:
        """How many of so many shards run at once."""
        workers = self.config.get("n_jobs") or shards
        return min(shards, workers if workers > 0 else max(1, cores + 1 + workers))

    def share_gpus(self, shards: int, cores: int, gpus: Sequence[str]) -> list[list[str]]:
        """The GPUs of each shard: its share of them, or one that it shares; none where the launcher assigns them."""
        if self.config._target_ != JOBLIB_LAUNCHER or not gpus:
            return [[]] * shards
        workers = self._count_workers(shards, cores)
        return [list(gpus[i % workers :: workers]) or [gpus[i % workers % len(gpus)]] for i in range(shards)]

    def launch(self, folder: Path, spans: Sequence[range], cores: int, cores_per_run: int = 1) -> list[str]:
        """Runs a shard for each span of run numbers until all have ended, and returns the messages of errors."""
        shared = [*self.overrides, f"hydra.sweep.dir={quote(str(folder))}"]
        if self.placement is not Placement.OWN_ALLOCATION:
            shared.append(f"sweep.caller=[{quote(socket.gethostname())},{os.getpid()}]")
        threads = self.count_threads(len(spans), cores, cores_per_run)
        if threads is not None and not any(line.startswith("threads=") for line in self.overrides):
            shared.append(f"threads={threads}")
        gpus = self.share_gpus(len(spans), cores, list_gpus())
        jobs = [
            [*shared, f"sweep.part=[{span.start},{span.stop}]", f"sweep.gpus=[{','.join(map(quote, own))}]"]
            for span, own in zip(spans, gpus, strict=True)
        ]
        try:
            returned = self.launcher.launch(jobs, initial_job_idx=0)
        except (Exception, KeyboardInterrupt) as error:  # a lost worker ends the launcher; rows of the others remain
            return [f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"]
        return [str(job._return_value) for job in returned if job.status is JobStatus.FAILED]


def list_gpus() -> list[str]:
    """The GPUs that a process started now may use, as `CUDA_VISIBLE_DEVICES` names them."""
    if VISIBLE_GPUS in os.environ:
        return [name for name in os.environ[VISIBLE_GPUS].split(",") if name.strip()]
    return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


@dataclass(frozen=True)
class ShardJob:
    """What a job of a launcher has to do as a shard: the numbers of its runs, and the process that waits for it."""

    numbers: range
    caller: Caller | None
    """None if nobody waits."""
    gpus: tuple[str, ...] = ()
    """The GPUs that it may use; all that its launcher has left to it if there are none."""

    def hide_other_gpus(self) -> None:
        """Takes its own GPUs for this process; has no effect once JAX has used one."""
        if self.gpus:
            os.environ[VISIBLE_GPUS] = ",".join(self.gpus)

    def is_in_caller(self) -> bool:
        """Whether it runs in the process that waits for it."""
        return self.caller is not None and self.caller.is_here() and self.caller.process == os.getpid()

    def is_orphaned(self) -> bool:
        """Whether the process that waits for the shard is gone."""
        return self.caller is not None and self.caller.is_gone()


def read_shard_job(config: DictConfig) -> ShardJob | None:
    """The shard that a job is, None for the call itself."""
    if not config.sweep.part:
        return None
    caller = Caller(str(config.sweep.caller[0]), int(config.sweep.caller[1])) if config.sweep.caller else None
    return ShardJob(range(*config.sweep.part), caller, tuple(map(str, config.sweep.gpus)))

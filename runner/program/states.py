"""The states of loops that take long, kept on disk by orbax, so that a call that was ended goes on from there."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from runner.program.executable import StoppedError
from runner.program.loops import Lanes

FIRST_SECONDS = 10.0
"""A state is first kept after so long: what takes less is executed again."""
MOST_SHARE = 0.03
"""The part of the time for which a run may wait until states are written; orbax's own threads come on top, and all
together may take a twentieth."""


class StateKeeper:
    """Keeps the state of the runs of a block in a folder of its own, and ends them when `stop` returns something true.

    `identity` says which runs of which program they are: the state of others is not restored. `on_segment` is called
    after each segment.
    """

    def __init__(
        self,
        folder: Path,
        identity: str,
        stop: Callable[[], object] = lambda: None,
        on_segment: Callable[[], object] = lambda: None,
    ) -> None:
        self._folder, self._identity, self._stop, self._on_segment = folder, identity, stop, on_segment
        self._pointer = folder / "current.json"
        self._due = time.monotonic() + FIRST_SECONDS
        self._number = 0

    def restore(self, described: Lanes) -> Lanes | None:
        """The state that was kept, of these abstract values; None if there is none of these runs."""
        try:
            current = json.loads(self._pointer.read_text())
        except (OSError, ValueError):
            return None
        if current["identity"] != self._identity:
            return None
        import orbax.checkpoint as ocp

        self._number = int(current["number"])
        with ocp.StandardCheckpointer() as checkpointer:
            restored = checkpointer.restore(self._name(self._number), described)
        return jax.tree.map(np.asarray, restored)  # the program may be that of any device

    def visit(self, lanes: Lanes) -> None:
        """Keeps the state if that is due. Raises StoppedError, with the state kept, if the runs are to be ended."""
        self._on_segment()
        is_stopped = bool(self._stop())
        if is_stopped or time.monotonic() >= self._due:
            self._keep(lanes)
        if is_stopped:
            raise StoppedError

    def end(self, lanes: Lanes) -> None:
        """Keeps the last state, if the outputs may not come into the table because earlier runs were ended."""
        if self._stop() and self._number:
            self._keep(lanes)

    def _keep(self, lanes: Lanes) -> None:
        import orbax.checkpoint as ocp

        started = time.monotonic()
        self._number += 1
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(self._name(self._number), lanes, force=True)
        following = self._pointer.with_suffix(".new")
        following.write_text(json.dumps({"identity": self._identity, "number": self._number}))
        following.replace(self._pointer)
        shutil.rmtree(self._name(self._number - 1), ignore_errors=True)
        self._due = time.monotonic() + (time.monotonic() - started) / MOST_SHARE

    def _name(self, number: int) -> Path:
        return self._folder.absolute() / str(number)

"""What is to be exported, and what an export has done."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from runner.errors import InvalidInputError, describe_error
from runner.storage.folder import Folder
from runner.storage.manifest import Manifest


@dataclass(frozen=True)
class Request:
    """An export of a study.

    `to` is a file or folder, or the address of a storage; None is the target's own place. `project` is the name under
    which a tracker has it, None for its default. `each_run` asks for a tracker run for each run instead of each point.
    `keep` selects runs by an expression for `pandas.DataFrame.eval`. `announce` is told the number of tracker runs
    before the first one is written.
    """

    folder: Folder
    manifest: Manifest
    to: str | None = None
    project: str | None = None
    each_run: bool = False
    keep: str | None = None
    announce: Callable[[int], None] = lambda runs: None

    @property
    def sources(self) -> list[tuple[Folder, Manifest]]:
        """The folders that have rows: that of the study, and those of parts that are not merged yet."""
        parts = replace(self.manifest, retries=())
        return [(self.folder, self.manifest), *((part, parts) for part in self.folder.parts)]

    @property
    def name(self) -> str:
        return self.folder.path.resolve().name


@dataclass(frozen=True)
class Exported:
    """What was written: a number of runs or points, those of them that were there already and equal, and where."""

    written: int
    unchanged: int
    noun: str
    place: str
    notes: tuple[str, ...] = field(default=())


@contextmanager
def explain_errors(client: str, *kinds: type[Exception]) -> Iterator[None]:
    """Lets errors of a tracker's client, such as a wrong address or a missing login, end the command in a line."""
    try:
        yield
    except kinds as error:
        raise InvalidInputError(f"{client} refuses: {describe_error(error)}") from error


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """A temporary path beside a file, which takes its place if all goes well, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(number)
    try:
        yield Path(name)
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside another one, which takes its place if all goes well, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        (made / "new").mkdir()
        yield made / "new"
        if path.exists():
            os.replace(path, made / "old")
        os.replace(made / "new", path)
    finally:
        shutil.rmtree(made)

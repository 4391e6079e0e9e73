"""The user's own frames of a traceback: those in files that belong neither to Seedbed nor to a library."""

import os
import traceback
from pathlib import Path

from runner.contract.source import is_library

SHOWN = 8
"""The most frames that a message shows, the innermost ones."""

_HOME = Path(__file__).parents[2]
_SHIPPED = tuple(_HOME / name for name in ("runner", "hydra_plugins", "tasks"))


def list_own_frames(error: BaseException) -> list[str]:
    """`file:line: source` of each frame in the user's own files, outermost first; that of a syntax error is last."""
    places = [(frame.filename, frame.lineno, frame.line) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((error.filename, error.lineno, error.text))
    lines = [f"{_shorten(Path(file))}:{line}: {(text or '').strip()}" for file, line, text in places if _is_own(file)]
    return lines[-SHOWN:]


def _is_own(file: str) -> bool:
    path = Path(file)
    return (
        not file.startswith("<")
        and not any(path.is_relative_to(folder) for folder in _SHIPPED)
        and not is_library(path)
    )


def _shorten(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)

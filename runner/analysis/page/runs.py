"""The shown runs as JSON for the script of the page: where each of them is, and the command that repeats it."""

import json
import math
import shlex
from typing import Any

import numpy as np

from runner.analysis.comparison import Comparison
from runner.analysis.formats import format_label
from runner.analysis.pictures.shown import Shown
from runner.storage.folder import shorten_path

DIGITS = 5
"""Significant digits of a value; the study's table has all of them."""


def dump_runs(comparison: Comparison, shown: Shown) -> str:
    """Per shown run its study, number, point, seed and the value of each metric, null for one that is not finite."""
    runs, own = comparison.runs, shown.runs
    points, place = np.unique(runs.point[own], return_inverse=True)
    labels = [runs.points.iloc[point].to_dict() if comparison.axes else {} for point in points]
    data = {
        "commands": [_format_replay(shorten_path(folder.path)) for folder in runs.studies],
        "points": [format_label(label, comparison.axes) if label else "" for label in labels],
        "metrics": list(runs.values),
        "study": runs.study[own].tolist(),
        "number": runs.number[own].tolist(),
        "point": place.tolist(),
        "seed": runs.seed[own].tolist(),
        "values": [[_shorten(value) for value in values[own].tolist()] for values in runs.values.values()],
    }
    # a tag within a string would end the script element
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _format_replay(path: str) -> str:
    return shlex.join(["python", "-m", "runner.replay", path])


def _shorten(value: float) -> Any:
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short

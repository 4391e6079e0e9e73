"""The marks that are stretched with the panel: bands, lines, dots and whiskers, whose strokes are not."""

from collections.abc import Iterator

import numpy as np

from runner.analysis.page.geometry import name_color, place_across, place_down
from runner.analysis.pictures.scales import Scale
from runner.analysis.pictures.scene import Band, Dots, Line, Mark, Panel, Whiskers

UNITS = 2000
"""The side of the stretched square: finer than a pixel on a wide page."""


def draw_stretched(panel: Panel, mark: Mark) -> Iterator[str]:
    """The path of a mark, none if it is one of those that are placed."""
    if isinstance(mark, Band):
        yield _draw_band(panel, mark)
    elif isinstance(mark, Line):
        yield _draw_line(panel, mark)
    elif isinstance(mark, Dots) and len(mark.x):
        yield _draw_dots(panel, mark)
    elif isinstance(mark, Whiskers):
        yield _draw_whiskers(panel, mark)


def _place_units(panel: Panel, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places in the square, kept near it: far ones would need more digits than a renderer has."""
    placed = (UNITS * np.clip(share, -1, 2) for share in (place_across(panel, x), place_down(panel, y)))
    across, down = placed
    return across, down


def _draw_band(panel: Panel, band: Band) -> str:
    parts = []
    known = np.isfinite(band.low) & np.isfinite(band.high)
    for run in _find_runs(known):
        x, low = _place_units(panel, band.x[run], _limit(panel.y, band.low[run]))
        _, high = _place_units(panel, band.x[run], _limit(panel.y, band.high[run]))
        there = [f"{a:.0f},{b:.0f}" for a, b in zip(x, low, strict=True)]
        back = [f"{a:.0f},{b:.0f}" for a, b in zip(x[::-1], high[::-1], strict=True)]
        parts.append(f"M{' '.join([*there, *back])}z")
    return f'<path class="band {name_color(band.color)}" d="{"".join(parts)}"/>'


def _limit(scale: Scale, values: np.ndarray) -> np.ndarray:
    """Values that a logarithmic scale cannot place, at its lower end."""
    return np.maximum(values, scale.low) if scale.is_log else values


def _find_runs(known: np.ndarray) -> Iterator[slice]:
    """The slices of consecutive True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(np.int8)))
    for start, stop in edges.reshape(-1, 2):
        yield slice(int(start), int(stop))


def _draw_line(panel: Panel, line: Line) -> str:
    x, y = (np.repeat(line.x, 2)[1:], np.repeat(line.y, 2)[:-1]) if line.is_step else (line.x, line.y)
    parts = []
    across, down = _place_units(panel, x, y)
    for run in _find_runs(np.isfinite(across) & np.isfinite(down)):
        places = zip(across[run], down[run], strict=True)
        parts.append("M" + " ".join(f"{a:.0f},{b:.0f}" for a, b in places))
    names = [
        "line",
        name_color(line.color),
        *(["dashed"] if line.is_dashed else []),
        *(["faint"] if line.is_faint else []),
    ]
    return f'<path class="{" ".join(names)}" d="{"".join(parts)}"/>'


def _draw_dots(panel: Panel, dots: Dots) -> str:
    """All dots as one path of lines without length, whose round ends are the dots."""
    across, down = _place_units(panel, dots.x, dots.y)
    known = np.flatnonzero(np.isfinite(across) & np.isfinite(down))
    path = "".join(f"M{across[i]:.0f},{down[i]:.0f}h0" for i in known)
    return f'<path class="dots {name_color(dots.color)}" d="{path}" data-runs="{_pack(dots.runs[known])}"/>'


def _pack(numbers: np.ndarray) -> str:
    """Whole numbers as text, consecutive ones as `first-last`."""
    groups = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return " ".join(f"{own[0]}" if len(own) == 1 else f"{own[0]}-{own[-1]}" for own in groups)


def _draw_whiskers(panel: Panel, whiskers: Whiskers) -> str:
    at, low, high = whiskers.at, whiskers.low, whiskers.high
    known = np.isfinite(low) & np.isfinite(high)
    scale = panel.y if whiskers.is_upright else panel.x
    ends = [_limit(scale, bound[known]) for bound in (low, high)]
    pairs = [(at[known], end) if whiskers.is_upright else (end, at[known]) for end in ends]
    (x0, y0), (x1, y1) = (_place_units(panel, x, y) for x, y in pairs)
    path = "".join(f"M{a:.0f},{b:.0f}L{c:.0f},{d:.0f}" for a, b, c, d in zip(x0, y0, x1, y1, strict=True))
    return f'<path class="whisker {name_color(whiskers.color)}{" thin" if whiskers.is_thin else ""}" d="{path}"/>'

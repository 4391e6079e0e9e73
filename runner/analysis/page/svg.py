"""Panels as SVG that has the width of the page, with text of the same size at any width.

Places along x are percentages; lines, bands and dots lie in a square of `UNITS` that is stretched over the panel, and
their strokes are not. So nothing has to be drawn anew where the page becomes narrower.
"""

from collections.abc import Iterator
from html import escape

import numpy as np

from runner.analysis.pictures.scales import Scale
from runner.analysis.pictures.scene import (
    INK,
    MUTED,
    Band,
    Cells,
    Dots,
    Line,
    Mark,
    Panel,
    Rule,
    Star,
    Symbols,
    Whiskers,
)
from runner.analysis.pictures.shades import color_cell, is_dark

UNITS = 2000
"""The side of the stretched square: finer than a pixel on a wide page."""
CHARACTER = 6.9
"""The mean width of a character of 12 pixels; the labels' room is made for it."""
LEFT, RIGHT, TOP, BOTTOM = 10, 14, 24, 44
"""Room around a panel: `TOP` has the label of the y axis, `BOTTOM` ticks and label of the x axis."""
NARROW, WIDE = 330, 1000
"""Pixels that a panel has for its columns on a narrow page, and on a wide one."""
LONGEST_BESIDE = 18
"""Characters of the names that stand beside their rows; longer ones stand above them."""
LONGEST_CELL = 16
"""Characters of the names beside the rows of a map; longer ones are cut."""
ROW, ROW_WITH_NAME, ROW_OF_CELLS = 24, 38, 34
"""Heights of a row of dots, of one with a name above, and of cells."""
ABOVE = 0.36
"""How far a name stands above its row, as a share of it."""


def render_panel(panel: Panel, alternative: str) -> str:
    """The panel as an element of three `svg` on top of one another; `alternative` is read to those who do not see it."""
    is_above = _has_names_above(panel)
    left, height = LEFT + _measure_names(panel, is_above), _find_height(panel, is_above)
    area = f'style="left:{left}px;width:calc(100% - {left + RIGHT}px)" height="{height}"'
    stretched = "".join(part for mark in panel.marks for part in _draw_stretched(panel, mark))
    placed = "".join(part for mark in panel.marks for part in _draw_placed(panel, mark))
    is_empty = not any(isinstance(mark, Dots) for mark in panel.marks)
    return (
        f'<div class="plot" style="height:{height + TOP + BOTTOM}px" role="img" aria-label="{escape(alternative)}"'
        f"{'' if is_empty else ' tabindex=0'}>"
        f"<svg {area} class=over>{_draw_grid(panel, is_above)}</svg>"
        f'<svg {area} class=area viewBox="0 0 {UNITS} {UNITS}" preserveAspectRatio=none>{stretched}</svg>'
        f"<svg {area} class=over>{placed}{_draw_labels(panel, is_above, left)}</svg></div>"
    )


def _has_names_above(panel: Panel) -> bool:
    is_map = any(isinstance(mark, Cells) for mark in panel.marks)
    return not is_map and max(map(len, panel.y.names), default=0) > LONGEST_BESIDE


def _measure_names(panel: Panel, is_above: bool) -> int:
    if is_above:
        return 0
    texts = [_cut(name) for name in panel.y.names] if panel.y.names else [tick.text for tick in panel.y.ticks]
    return round(CHARACTER * max(map(len, texts), default=0)) + 4


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_BESIDE else f"{name[: LONGEST_CELL - 1]}…"


def _find_height(panel: Panel, is_above: bool) -> int:
    if not panel.y.names:
        return panel.height
    is_map = any(isinstance(mark, Cells) for mark in panel.marks)
    row = ROW_OF_CELLS if is_map else ROW_WITH_NAME if is_above else ROW
    return max(len(panel.y.names) * row, row * 2)


def _share_x(panel: Panel, values: np.ndarray | float) -> np.ndarray:
    return panel.x.place(values)


def _share_y(panel: Panel, values: np.ndarray | float) -> np.ndarray:
    """Shares from the top; categories begin there."""
    shares = panel.y.place(values)
    return shares if panel.y.names else 1 - shares


def _percent(share: float) -> str:
    return f"{100 * float(share):.2f}".rstrip("0").rstrip(".") + "%"


def _color(color: int) -> str:
    return {INK: "ink", MUTED: "muted"}.get(color, f"c{color}")


# what is stretched


def _draw_stretched(panel: Panel, mark: Mark) -> Iterator[str]:
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
    placed = (UNITS * np.clip(share, -1, 2) for share in (_share_x(panel, x), _share_y(panel, y)))
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
    return f'<path class="band {_color(band.color)}" d="{"".join(parts)}"/>'


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
    names = ["line", _color(line.color), *(["dashed"] if line.is_dashed else []), *(["faint"] if line.is_faint else [])]
    return f'<path class="{" ".join(names)}" d="{"".join(parts)}"/>'


def _draw_dots(panel: Panel, dots: Dots) -> str:
    """All dots as one path of lines without length, whose round ends are the dots."""
    across, down = _place_units(panel, dots.x, dots.y)
    known = np.flatnonzero(np.isfinite(across) & np.isfinite(down))
    path = "".join(f"M{across[i]:.0f},{down[i]:.0f}h0" for i in known)
    return f'<path class="dots {_color(dots.color)}" d="{path}" data-runs="{_pack(dots.runs[known])}"/>'


def _pack(numbers: np.ndarray) -> str:
    """Whole numbers as text, consecutive ones as `first-last`."""
    parts = []
    for group in np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1):
        parts.append(f"{group[0]}" if len(group) == 1 else f"{group[0]}-{group[-1]}")
    return " ".join(parts)


def _draw_whiskers(panel: Panel, whiskers: Whiskers) -> str:
    at, low, high = whiskers.at, whiskers.low, whiskers.high
    known = np.isfinite(low) & np.isfinite(high)
    scale = panel.y if whiskers.is_upright else panel.x
    ends = [_limit(scale, bound[known]) for bound in (low, high)]
    pairs = [(at[known], end) if whiskers.is_upright else (end, at[known]) for end in ends]
    (x0, y0), (x1, y1) = (_place_units(panel, x, y) for x, y in pairs)
    path = "".join(f"M{a:.0f},{b:.0f}L{c:.0f},{d:.0f}" for a, b, c, d in zip(x0, y0, x1, y1, strict=True))
    return f'<path class="whisker {_color(whiskers.color)}{" thin" if whiskers.is_thin else ""}" d="{path}"/>'


# what is placed


def _draw_placed(panel: Panel, mark: Mark) -> Iterator[str]:
    if isinstance(mark, Symbols):
        yield from _draw_symbols(panel, mark)
    elif isinstance(mark, Star):
        yield _draw_star(panel, mark)
    elif isinstance(mark, Rule):
        yield _draw_rule(panel, mark)
    elif isinstance(mark, Cells):
        yield from _draw_cells(panel, mark)


def _draw_star(panel: Panel, star: Star) -> str:
    """The star; in a map at the edge of its cell, whose value is in the middle, and around the cell a frame."""
    x, y = float(_share_x(panel, star.x)), float(_share_y(panel, star.y))
    if not any(isinstance(mark, Cells) for mark in panel.marks):
        return f'<use href="#star" x="{_percent(x)}" y="{_percent(y)}" class="star"/>'
    width, height = 1 / len(panel.x.names), 1 / len(panel.y.names)
    left, top = _percent(x - width / 2), _percent(y - height / 2)
    size = f'width="{_percent(width)}" height="{_percent(height)}"'
    frame = f'<rect class="frame" x="{left}" y="{top}" {size}/>'
    return f'{frame}<use href="#star" x="{left}" y="{top}" class="star corner"/>'


def _draw_symbols(panel: Panel, symbols: Symbols) -> Iterator[str]:
    places = zip(_share_x(panel, symbols.x), _share_y(panel, symbols.y), symbols.is_filled, symbols.titles, strict=True)
    for x, y, is_filled, title in places:
        if np.isfinite(x) and np.isfinite(y):
            kind = f"{_color(symbols.color)} {'full' if is_filled else 'hollow'}"
            yield (
                f'<use href="#{symbols.shape}" x="{_percent(x)}" y="{_percent(y)}" class="{kind}">'
                f"<title>{escape(title)}</title></use>"
            )


def _draw_rule(panel: Panel, rule: Rule) -> str:
    if rule.is_upright:
        x = _percent(float(_share_x(panel, rule.at)))
        return f'<line class="rule" x1="{x}" x2="{x}" y1="0" y2="100%"/>'
    y = _percent(float(_share_y(panel, rule.at)))
    return f'<line class="rule" x1="0" x2="100%" y1="{y}" y2="{y}"/>'


def _draw_cells(panel: Panel, cells: Cells) -> Iterator[str]:
    rows, columns = cells.shade.shape
    longest = max((len(text) for line in cells.texts for text in line), default=0)
    is_narrow = longest * CHARACTER + 4 > NARROW / columns
    for i in range(rows):
        for j in range(columns):
            shade = float(cells.shade[i, j])
            x, y = _percent(j / columns), _percent(i / rows)
            size = f'width="{_percent(1 / columns)}" height="{_percent(1 / rows)}"'
            title = f"<title>{escape(cells.titles[i][j])}</title>"
            yield f'<rect class="cell" x="{x}" y="{y}" {size} fill="{color_cell(shade)}">{title}</rect>'
            if text := cells.texts[i][j]:
                names = f"value{' dark' if is_dark(shade) else ''}{' broad' if is_narrow and text != '×' else ''}"
                x, y = _percent((j + 0.5) / columns), _percent((i + 0.5) / rows)
                yield f'<text class="{names}" x="{x}" y="{y}">{escape(text)}</text>'


# axes


def _draw_grid(panel: Panel, is_above: bool) -> str:
    if any(isinstance(mark, Cells) for mark in panel.marks):
        return ""
    across = [_percent(float(share)) for share in _share_x(panel, np.array([tick.at for tick in panel.x.ticks]))]
    lines = [f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="100%"/>' for x in across if not panel.x.names]
    down = [] if is_above else [float(s) for s in _share_y(panel, np.array([tick.at for tick in panel.y.ticks]))]
    lines += [f'<line class="grid" y1="{_percent(y)}" y2="{_percent(y)}" x1="0" x2="100%"/>' for y in down]
    return "".join(lines) + '<line class="axis" x1="0" x2="100%" y1="100%" y2="100%"/>'


def _draw_labels(panel: Panel, is_above: bool, left: int) -> str:
    parts = [*_label_columns(panel.x)]
    for i, tick in enumerate(panel.y.ticks):
        share = float(_share_y(panel, tick.at))
        if is_above:
            y = _percent(share - ABOVE / max(1, len(panel.y.names)))
            parts.append(f'<text class="above" x="2" y="{y}" dy="5">{escape(tick.text)}</text>')
        else:
            text = _cut(tick.text) if panel.y.names else tick.text
            title = f"<title>{escape(tick.text)}</title>" if text != tick.text else ""
            parts.append(f'<text class="row" x="-6" y="{_percent(share)}" dy="4">{escape(text)}{title}</text>')
    parts.append(f'<text class="label end" x="100%" y="100%" dy="38">{escape(panel.x.label)}</text>')
    parts.append(f'<text class="label" x="{4 - left}" y="0" dy="-9">{escape(panel.y.label)}</text>')
    return "".join(parts)


def _label_columns(scale: Scale) -> Iterator[str]:
    """The ticks of the x axis; those of categories as far as their names have room on narrow and on wide pages."""
    narrow, wide = (_count_every(scale, room) for room in (NARROW, WIDE))
    for i, tick in enumerate(scale.ticks):
        if i % wide:
            continue
        kind = "column broad" if i % narrow else "column"
        x = _percent(float(scale.place(tick.at)))
        text = _cut(tick.text) if scale.names else tick.text
        yield f'<text class="{kind}" x="{x}" y="100%" dy="17">{escape(text)}</text>'


def _count_every(scale: Scale, room: int) -> int:
    """Each how many-th name has a label in so many pixels."""
    if not scale.names:
        return 1
    longest = max(len(_cut(name)) for name in scale.names) * CHARACTER + 6
    return max(1, int(np.ceil(longest * len(scale.names) / room)))

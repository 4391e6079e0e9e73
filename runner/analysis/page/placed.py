"""The marks that are placed in the panel by percentages and keep their size: symbols, stars, rules and cells."""

from collections.abc import Iterator
from html import escape

import numpy as np

from runner.analysis.page.frame import NARROW
from runner.analysis.page.geometry import CHARACTER, format_percent, name_color, place_across, place_down
from runner.analysis.pictures.scene import Cells, Mark, Panel, Rule, Star, Symbols
from runner.analysis.pictures.shades import color_cell, is_dark


def draw_placed(panel: Panel, mark: Mark) -> Iterator[str]:
    """The elements of a mark, none if it is one of those that are stretched."""
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
    x, y = float(place_across(panel, star.x)), float(place_down(panel, star.y))
    if not any(isinstance(mark, Cells) for mark in panel.marks):
        return f'<use href="#star" x="{format_percent(x)}" y="{format_percent(y)}" class="star"/>'
    width, height = 1 / len(panel.x.names), 1 / len(panel.y.names)
    left, top = format_percent(x - width / 2), format_percent(y - height / 2)
    size = f'width="{format_percent(width)}" height="{format_percent(height)}"'
    frame = f'<rect class="frame" x="{left}" y="{top}" {size}/>'
    return f'{frame}<use href="#star" x="{left}" y="{top}" class="star corner"/>'


def _draw_symbols(panel: Panel, symbols: Symbols) -> Iterator[str]:
    places = zip(
        place_across(panel, symbols.x), place_down(panel, symbols.y), symbols.is_filled, symbols.titles, strict=True
    )
    for x, y, is_filled, title in places:
        if np.isfinite(x) and np.isfinite(y):
            kind = f"{name_color(symbols.color)} {'full' if is_filled else 'hollow'}"
            yield (
                f'<use href="#{symbols.shape}" x="{format_percent(x)}" y="{format_percent(y)}" class="{kind}">'
                f"<title>{escape(title)}</title></use>"
            )


def _draw_rule(panel: Panel, rule: Rule) -> str:
    if rule.is_upright:
        x = format_percent(float(place_across(panel, rule.at)))
        return f'<line class="rule" x1="{x}" x2="{x}" y1="0" y2="100%"/>'
    y = format_percent(float(place_down(panel, rule.at)))
    return f'<line class="rule" x1="0" x2="100%" y1="{y}" y2="{y}"/>'


def _draw_cells(panel: Panel, cells: Cells) -> Iterator[str]:
    rows, columns = cells.shade.shape
    longest = max((len(text) for line in cells.texts for text in line), default=0)
    is_narrow = longest * CHARACTER + 4 > NARROW / columns
    for i in range(rows):
        for j in range(columns):
            shade = float(cells.shade[i, j])
            x, y = format_percent(j / columns), format_percent(i / rows)
            size = f'width="{format_percent(1 / columns)}" height="{format_percent(1 / rows)}"'
            title = f"<title>{escape(cells.titles[i][j])}</title>"
            yield f'<rect class="cell" x="{x}" y="{y}" {size} fill="{color_cell(shade)}">{title}</rect>'
            if text := cells.texts[i][j]:
                names = f"value{' dark' if is_dark(shade) else ''}{' broad' if is_narrow and text != '×' else ''}"
                x, y = format_percent((j + 0.5) / columns), format_percent((i + 0.5) / rows)
                yield f'<text class="{names}" x="{x}" y="{y}">{escape(text)}</text>'

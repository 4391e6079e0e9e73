"""Panels as SVG that has the width of the page, with text of the same size at any width.

Places along x are percentages; lines, bands and dots lie in a square of `UNITS` that is stretched over the panel, and
their strokes are not. So nothing has to be drawn anew where the page becomes narrower.
"""

from html import escape

from runner.analysis.page.frame import draw_grid, draw_labels
from runner.analysis.page.geometry import BOTTOM, LEFT, RIGHT, TOP, find_height, has_names_above, measure_names
from runner.analysis.page.placed import draw_placed
from runner.analysis.page.stretched import UNITS, draw_stretched
from runner.analysis.pictures.scene import Dots, Panel


def render_panel(panel: Panel, alternative: str) -> str:
    """The panel as three `svg` on top of one another; `alternative` is read to those who do not see it."""
    is_above = has_names_above(panel)
    left, height = LEFT + measure_names(panel, is_above), find_height(panel, is_above)
    area = f'style="left:{left}px;width:calc(100% - {left + RIGHT}px)" height="{height}"'
    stretched = "".join(part for mark in panel.marks for part in draw_stretched(panel, mark))
    placed = "".join(part for mark in panel.marks for part in draw_placed(panel, mark))
    is_empty = not any(isinstance(mark, Dots) for mark in panel.marks)
    return (
        f'<div class="plot" style="height:{height + TOP + BOTTOM}px" role="img" aria-label="{escape(alternative)}"'
        f"{'' if is_empty else ' tabindex=0'}>"
        f"<svg {area} class=over>{draw_grid(panel, is_above)}</svg>"
        f'<svg {area} class=area viewBox="0 0 {UNITS} {UNITS}" preserveAspectRatio=none>{stretched}</svg>'
        f"<svg {area} class=over>{placed}{draw_labels(panel, is_above, left)}</svg></div>"
    )

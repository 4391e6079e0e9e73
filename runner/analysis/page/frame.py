"""What surrounds the marks of a panel: its grid, ticks and labels."""

from collections.abc import Iterator
from html import escape

import numpy as np

from runner.analysis.page.geometry import CHARACTER, cut_name, format_percent, place_across, place_down
from runner.analysis.pictures.scales import Scale
from runner.analysis.pictures.scene import Cells, Panel

NARROW, WIDE = 330, 1000
"""Pixels that a panel has for its columns on a narrow page, and on a wide one."""
ABOVE = 0.36
"""How far a name stands above its row, as a share of it."""


def draw_grid(panel: Panel, is_above: bool) -> str:
    """The lines at the ticks; those of rows only where their names stand beside them."""
    if any(isinstance(mark, Cells) for mark in panel.marks):
        return ""
    across = [
        format_percent(float(share)) for share in place_across(panel, np.array([tick.at for tick in panel.x.ticks]))
    ]
    lines = [f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="100%"/>' for x in across if not panel.x.names]
    down = [] if is_above else [float(s) for s in place_down(panel, np.array([tick.at for tick in panel.y.ticks]))]
    lines += [f'<line class="grid" y1="{format_percent(y)}" y2="{format_percent(y)}" x1="0" x2="100%"/>' for y in down]
    return "".join(lines) + '<line class="axis" x1="0" x2="100%" y1="100%" y2="100%"/>'


def draw_labels(panel: Panel, is_above: bool, left: int) -> str:
    """The ticks and the labels of both axes, `left` pixels of which are to the left of the panel."""
    parts = [*_label_columns(panel.x)]
    for tick in panel.y.ticks:
        share = float(place_down(panel, tick.at))
        if is_above:
            y = format_percent(share - ABOVE / max(1, len(panel.y.names)))
            parts.append(f'<text class="above" x="2" y="{y}" dy="5">{escape(tick.text)}</text>')
        else:
            text = cut_name(tick.text) if panel.y.names else tick.text
            title = f"<title>{escape(tick.text)}</title>" if text != tick.text else ""
            parts.append(f'<text class="row" x="-6" y="{format_percent(share)}" dy="4">{escape(text)}{title}</text>')
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
        x = format_percent(float(scale.place(tick.at)))
        text = cut_name(tick.text) if scale.names else tick.text
        yield f'<text class="{kind}" x="{x}" y="100%" dy="17">{escape(text)}</text>'


def _count_every(scale: Scale, room: int) -> int:
    """Each how many-th name has a label in so many pixels."""
    if not scale.names:
        return 1
    longest = max(len(cut_name(name)) for name in scale.names) * CHARACTER + 6
    return max(1, int(np.ceil(longest * len(scale.names) / room)))

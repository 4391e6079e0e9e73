"""Pictures of a comparison as files, PNG and SVG, by matplotlib: the same as on the page."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from runner.analysis.comparison import Comparison
from runner.analysis.pictures.gallery import draw_pictures, name_file
from runner.analysis.pictures.scales import Scale
from runner.analysis.pictures.scene import (
    INK,
    MUTED,
    Band,
    Cells,
    Dots,
    Key,
    Line,
    Mark,
    Panel,
    Picture,
    Rule,
    Star,
    Symbols,
    Whiskers,
)
from runner.analysis.pictures.shades import color_cell, is_dark

COLORS = ("#0072B2", "#C44E00", "#00795A", "#A8447F", "#8A6100", "#2F7FC1", "#444444")
"""Distinguishable by colour-blind people together with the dashes, as on the page (after Okabe and Ito, 2008)."""
DASHES: tuple[Any, ...] = ("-", (0, (9, 3)), (0, (3, 2)), (0, (9, 3, 2, 3)), (0, (14, 4)), (0, (6, 6)), (0, (2, 5)))
MARKERS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle": "^",
    "wedge": "v",
    "plus": "P",
    "cross": "X",
    "star": "*",
}
WIDTH, NARROW_WIDTH = 8.0, 4.5
"""Inches of a panel alone, and of one among several."""
MOST_COLUMNS = 3
"""Panels side by side."""
RESOLUTION = 150
DOTS_PER_INCH = 96
"""Pixels of the page's heights in an inch."""
CORNER = 0.36
"""How far the star is from the middle of its cell, which has the value."""
ROW = 0.28
"""Inches of a row of categories."""
MOST_INCHES = 120
"""The height of a file, which a picture of many rows is limited to."""
STAR: dict[str, Any] = {
    "marker": "*",
    "color": "#FFD54A",
    "markeredgecolor": "black",
    "markersize": 15,
    "linestyle": "none",
}


def write_figures(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes each picture as PNG and SVG, and returns the paths."""
    folder.mkdir(exist_ok=True)
    written = []
    for name, figure in draw_figures(comparison):
        for kind in ("png", "svg"):
            path = folder / f"{name}.{kind}"
            figure.savefig(path, dpi=RESOLUTION, metadata={"Date": None} if kind == "svg" else None)
            written.append(path)
    return written


def draw_figures(comparison: Comparison) -> Iterator[tuple[str, Figure]]:
    """The pictures of a comparison as figures, with the names of their files."""
    for picture in draw_pictures(comparison):
        yield name_file(picture), paint_picture(picture)


def paint_picture(picture: Picture) -> Figure:
    """A picture as a figure: its panels side by side, title and caption above, legends below."""
    columns = min(MOST_COLUMNS, len(picture.panels))
    rows = -(-len(picture.panels) // columns)
    width = WIDTH if columns == 1 else NARROW_WIDTH * columns
    height = min(MOST_INCHES, rows * (max(map(_measure_height, picture.panels)) + 0.9) + 0.6)
    figure = Figure(figsize=(width, height), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(places, picture.panels, strict=False):
        _paint_panel(axes, panel)
        keys = (*panel.keys, *(picture.keys if len(picture.panels) == 1 else ()))
        _add_legend(axes, keys)
    for axes in places[len(picture.panels) :]:
        axes.set_visible(False)
    figure.suptitle(_escape_math(picture.title), fontsize=11)
    return figure


def _measure_height(panel: Panel) -> float:
    return max(1.2, ROW * len(panel.y.names)) if panel.y.names else panel.height / DOTS_PER_INCH


def _escape_math(text: str) -> str:
    """A text that matplotlib does not take for a formula between dollar signs."""
    return text.replace("$", r"\$")


def _paint_panel(axes: Axes, panel: Panel) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.set_xscale("log" if panel.x.is_log else "linear")
    axes.set_yscale("log" if panel.y.is_log else "linear")
    _scale_axis(axes.xaxis, panel.x)
    _scale_axis(axes.yaxis, panel.y)
    axes.set_xlim(panel.x.low, panel.x.high)
    axes.set_ylim(*((panel.y.high, panel.y.low) if panel.y.names else (panel.y.low, panel.y.high)))
    axes.set_title(_escape_math(panel.title), fontsize=9)
    has_cells = any(isinstance(mark, Cells) for mark in panel.marks)
    if not has_cells:
        axes.grid(color="#dddddd", linewidth=0.6)
    for mark in panel.marks:
        _paint(
            axes, replace(mark, x=mark.x - CORNER, y=mark.y - CORNER) if has_cells and isinstance(mark, Star) else mark
        )


def _scale_axis(axis: Axis, scale: Scale) -> None:
    axis.set_ticks([tick.at for tick in scale.ticks], [_escape_math(tick.text) for tick in scale.ticks])
    axis.set_ticks([], minor=True)
    axis.set_label_text(_escape_math(scale.label))
    axis.set_tick_params(labelsize=8)


def _color(color: int) -> str:
    return {INK: "#17222D", MUTED: "#7C8894"}.get(color) or COLORS[color]


def _paint(axes: Axes, mark: Mark) -> None:
    if isinstance(mark, Dots):
        axes.scatter(mark.x, mark.y, s=9, color=_color(mark.color), alpha=0.45, linewidths=0)
    elif isinstance(mark, Line):
        _paint_line(axes, mark)
    elif isinstance(mark, Band):
        axes.fill_between(mark.x, mark.low, mark.high, color=_color(mark.color), alpha=0.18, linewidth=0)
    elif isinstance(mark, Whiskers):
        paint = axes.vlines if mark.is_upright else axes.hlines
        known = np.isfinite(mark.low) & np.isfinite(mark.high)
        width = 0.8 if mark.is_thin else 1.8
        paint(mark.at[known], mark.low[known], mark.high[known], color=_color(mark.color), linewidth=width)
    elif isinstance(mark, Symbols):
        _paint_symbols(axes, mark)
    elif isinstance(mark, Star):
        axes.plot([mark.x], [mark.y], zorder=5, **STAR)
    elif isinstance(mark, Rule):
        (axes.axvline if mark.is_upright else axes.axhline)(mark.at, color="#4C5B69", linewidth=1)
    else:
        _paint_cells(axes, mark)


def _paint_line(axes: Axes, line: Line) -> None:
    axes.plot(
        line.x,
        line.y,
        color=_color(line.color),
        linestyle=DASHES[max(0, line.color)],
        linewidth=0.6 if line.is_faint else 1.6,
        alpha=0.3 if line.is_faint else 1.0,
        drawstyle="steps-post" if line.is_step else "default",
    )


def _paint_symbols(axes: Axes, symbols: Symbols) -> None:
    color = _color(symbols.color)
    faces = [color if is_filled else "white" for is_filled in symbols.is_filled]
    marker = MARKERS[symbols.shape]
    axes.scatter(symbols.x, symbols.y, s=36, marker=marker, c=faces, edgecolors=color, linewidths=1.4, zorder=3)


def _paint_cells(axes: Axes, cells: Cells) -> None:
    colors = [[color_cell(float(shade)) for shade in row] for row in cells.shade]
    image = np.array([[_parse_color(color) for color in row] for row in colors])
    axes.imshow(image, aspect="auto", interpolation="nearest")
    for i, row in enumerate(cells.texts):
        for j, text in enumerate(row):
            color = "white" if is_dark(float(cells.shade[i, j])) else "black"
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color=color)


def _parse_color(color: str) -> tuple[float, ...]:
    return to_rgba(color)


def _add_legend(axes: Axes, keys: tuple[Key, ...]) -> None:
    handles = []
    for key in keys:
        if key.shape == "star":
            handles.append(Line2D([], [], label=key.text, **STAR))
            continue
        color = _color(key.color)
        face = color if key.is_filled else "white"
        style: dict[str, Any] = (
            {"linestyle": DASHES[max(0, key.color)]}
            if key.has_line
            else {"linestyle": "none", "marker": MARKERS[key.shape]}
        )
        handles.append(Line2D([], [], color=color, markerfacecolor=face, label=_escape_math(key.text), **style))
    if handles:
        axes.legend(handles=handles, frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.12), ncols=2)

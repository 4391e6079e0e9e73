"""What a picture consists of: panels with scales, and marks in the units of the data."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runner.analysis.pictures.scales import Scale

COLORS = 7
"""Colours that are told apart; colour 0 is the first one. A renderer has them for light and dark surroundings."""
SHAPES = ("circle", "square", "diamond", "triangle", "cross", "plus", "wedge")
"""A shape for each colour, for those who do not tell the colours apart."""
INK = -1
"""The colour of the text."""
MUTED = -2
"""A colour for what is in the background."""


@dataclass(frozen=True)
class Dots:
    """Runs at `x`, `y`, `(dots,)` each; `runs` are their places among the runs that are shown (see `shown`)."""

    x: np.ndarray
    y: np.ndarray
    runs: np.ndarray
    color: int = 0


@dataclass(frozen=True)
class Line:
    """A line through places `(places,)`; NaN interrupts it. Steps are horizontal until the next place."""

    x: np.ndarray
    y: np.ndarray
    color: int = 0
    is_step: bool = False
    is_dashed: bool = False
    is_faint: bool = False


@dataclass(frozen=True)
class Band:
    """The area between `low` and `high`, `(places,)`; along `y` instead of `x` if it is upright."""

    x: np.ndarray
    low: np.ndarray
    high: np.ndarray
    color: int = 0
    is_upright: bool = False


@dataclass(frozen=True)
class Whiskers:
    """Bars from `low` to `high` at `at`, `(bars,)` each, along x, or along y if they are upright; NaN has none."""

    at: np.ndarray
    low: np.ndarray
    high: np.ndarray
    color: int = INK
    is_upright: bool = False
    is_thin: bool = False


@dataclass(frozen=True)
class Symbols:
    """Symbols of estimates `(symbols,)`: `is_filled` for what is shown, hollow for what is not. `titles` name them."""

    x: np.ndarray
    y: np.ndarray
    is_filled: np.ndarray
    titles: Sequence[str]
    shape: str = "circle"
    color: int = 0


@dataclass(frozen=True)
class Star:
    """The best point."""

    x: float
    y: float


@dataclass(frozen=True)
class Rule:
    """A line across the panel, such as that of no difference."""

    at: float
    is_upright: bool = True


@dataclass(frozen=True)
class Cells:
    """A grid `(rows, columns)` of colours around whole numbers of both scales: `shade` from 0 to 1, NaN for none.

    `texts` and `titles` have the same shape; an empty text is not written.
    """

    shade: np.ndarray
    texts: Sequence[Sequence[str]]
    titles: Sequence[Sequence[str]]


Mark = Dots | Line | Band | Whiskers | Symbols | Star | Rule | Cells


@dataclass(frozen=True)
class Key:
    """An entry of the legend: a line with a symbol in a colour, or a symbol alone."""

    text: str
    color: int
    shape: str = "circle"
    has_line: bool = False
    is_filled: bool = True


@dataclass(frozen=True)
class Shades:
    """The legend of cells: the values at the ends of the colours, and between them."""

    label: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Panel:
    """One coordinate system with its legend, `height` pixels high. A y axis of categories has the first one on top."""

    x: Scale
    y: Scale
    marks: tuple[Mark, ...]
    height: int = 340
    title: str = ""
    keys: tuple[Key, ...] = ()
    shades: Shades | None = None


@dataclass(frozen=True)
class Picture:
    """Panels with what a reader needs: a caption, and a text for those who do not see the picture.

    `caption` says what the marks are, and what is left out. A main picture is shown at once, others are folded.
    """

    name: str
    metric: str
    title: str
    caption: str
    alternative: str
    panels: tuple[Panel, ...]
    keys: tuple[Key, ...] = ()
    is_main: bool = False

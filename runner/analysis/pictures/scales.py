"""Scales of a picture: numbers or categories along an axis, with ticks whose labels do not touch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from runner.analysis.formats import format_short

SPREAD = 50.0
"""The ratio of the largest to the smallest value from which values get a logarithmic scale."""
AXIS_SPREAD = 10.0
"""The same for the values of an axis, which are often chosen in powers of ten."""
MOST_CHOSEN = 15
"""Values of an axis that somebody has chosen; more are a range, whose ticks are round numbers."""
MARGIN = 0.04
"""The share of a scale that is left free at each end."""
MOST_TICKS = 5
CLOSEST = 0.13
"""The least distance of two ticks, as a share of the scale: labels of six characters fit 300 pixels then."""
STEPS = (1, 2, 2.5, 5, 10)
"""Mantissas of the ticks of a linear scale."""


@dataclass(frozen=True)
class Tick:
    """A place on a scale and its label."""

    at: float
    text: str


@dataclass(frozen=True)
class Scale:
    """How values are placed along an axis from `low` to `high`; `names` are those of categories 0, 1, …

    Ticks have labels that do not touch at 300 pixels.
    """

    label: str
    low: float
    high: float
    ticks: tuple[Tick, ...]
    is_log: bool = False
    names: tuple[str, ...] = ()

    def place(self, values: np.ndarray | float) -> np.ndarray:
        """Where values are, as shares of the scale, in the shape of `values`; beyond 0 and 1 for those outside."""
        values = np.asarray(values, dtype=float)
        if not self.is_log:
            return (values - self.low) / (self.high - self.low)
        with np.errstate(divide="ignore", invalid="ignore"):
            return (np.log(values) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))


def is_spread(values: np.ndarray, times: float = SPREAD) -> bool:
    """Whether values are positive and want a logarithmic scale."""
    finite = values[np.isfinite(values)]
    return bool(len(finite) > 1 and finite.min() > 0 and finite.max() / finite.min() >= times)


def scale_numbers(label: str, values: np.ndarray, *, is_log: bool = False) -> Scale:
    """A scale of all finite values, with round ticks. A logarithmic one leaves out those that are not positive."""
    finite = values[np.isfinite(values) & ((values > 0) | (not is_log))]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if is_log:
        low, high = _widen(math.log(low), math.log(high), 0.05)
        low, high = math.exp(low), math.exp(high)
        return Scale(label, low, high, _tick_log(low, high), is_log=True)
    low, high = _widen(low, high, abs(low) * 1e-3 or 1.0)
    return Scale(label, low, high, _tick_linear(low, high))


def scale_values(label: str, values: np.ndarray) -> Scale:
    """The scale of an axis of a study, whose ticks are at values that were run, unless there are many."""
    known = np.unique(values[np.isfinite(values)])
    made = scale_numbers(label, known, is_log=is_spread(known, AXIS_SPREAD))
    if len(known) > MOST_CHOSEN:
        return made
    ticks: list[Tick] = []
    for value in known:
        if not ticks or made.place(value) - made.place(ticks[-1].at) >= CLOSEST:
            ticks.append(Tick(float(value), format_short(float(value), 4)))
    return Scale(label, made.low, made.high, tuple(ticks), made.is_log)


def scale_names(label: str, names: Sequence[str]) -> Scale:
    """A scale of categories, the first one at 0."""
    ticks = tuple(Tick(float(i), name) for i, name in enumerate(names))
    return Scale(label, -0.5, max(0.5, len(names) - 0.5), ticks, names=tuple(names))


def _widen(low: float, high: float, least: float) -> tuple[float, float]:
    margin = MARGIN * (high - low) if high > low else least
    return low - margin, high + margin


def _tick_linear(low: float, high: float) -> tuple[Tick, ...]:
    places = MaxNLocator(nbins=MOST_TICKS, steps=list(STEPS), min_n_ticks=2).tick_values(low, high)
    shown = [float(place) + 0.0 for place in places if low <= place <= high]
    gap = max((abs(place) for place in shown), default=1.0) * 1e-9
    return tuple(Tick(0.0 if abs(place) < gap else place, format_short(place, 6)) for place in shown)


def _tick_log(low: float, high: float) -> tuple[Tick, ...]:
    """Powers of ten, thinned; with multiples between them where the scale has less than three."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
        places = [mantissa * 10.0**power for power in powers for mantissa in mantissas]
        shown = [place for place in places if low <= place <= high]
        if len(shown) >= 3:
            break
    every = math.ceil(len(shown) / (MOST_TICKS + 1)) if mantissas == (1,) else 1
    kept = _thin(shown[::every], low, high)
    return tuple(Tick(place, format_short(place)) for place in kept) if len(kept) > 1 else _tick_linear(low, high)


def _thin(places: Sequence[float], low: float, high: float) -> list[float]:
    """Places whose labels do not touch on a logarithmic scale."""
    kept: list[float] = []
    for place in places:
        if not kept or math.log(place / kept[-1]) >= CLOSEST * math.log(high / low):
            kept.append(place)
    return kept

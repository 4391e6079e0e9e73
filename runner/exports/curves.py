"""Curves of each point: the mean over its seeds at each step, with the interval of the mean."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
from scipy.special import stdtrit

from runner.contract.task import Output
from runner.exports.nested import parse_cells
from runner.storage.folder import Folder
from runner.storage.manifest import Manifest
from runner.storage.reader import iterate_batches


@dataclass(frozen=True)
class Curve:
    """The mean of the finite values at each step with Student's interval, float64 `(steps,)`; NaN for none."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass
class _Moments:
    """Number, mean and sum of squared deviations at each step, of all curves that were added."""

    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    def add(self, values: np.ndarray) -> None:
        """Adds curves `(runs, steps)`, by the formula of Chan, Golub and LeVeque (1979)."""
        self._extend(values.shape[1])
        steps, finite = slice(values.shape[1]), np.isfinite(values)
        count = finite.sum(axis=0)
        filled = np.where(finite, values, 0.0)
        mean = filled.sum(axis=0) / np.maximum(count, 1)
        squares = np.where(finite, (filled - mean) ** 2, 0.0).sum(axis=0)
        total, gap = self.count[steps] + count, mean - self.mean[steps]
        share = count / np.maximum(total, 1)
        self.squares[steps] += squares + gap**2 * self.count[steps] * share
        self.mean[steps] += gap * share
        self.count[steps] = total

    def _extend(self, steps: int) -> None:
        more = max(0, steps - len(self.count))
        self.count = np.pad(self.count, (0, more))
        self.mean, self.squares = np.pad(self.mean, (0, more)), np.pad(self.squares, (0, more))


def list_curves(manifest: Manifest) -> list[Output]:
    """The outputs that are curves: arrays of one axis, whose steps are its places."""
    return [output for output in manifest.columns.outputs if len(output.shape) == 1 and not output.is_categorical]


def average_curves(
    sources: Sequence[tuple[Folder, Manifest]], numbers: np.ndarray, points: np.ndarray, level: float
) -> dict[str, dict[int, Curve]]:
    """For each output that is a curve the curve of each point.

    `sources` are folders with tables of one study, `numbers` the runs, ascending, int64 `(runs,)`, and `points` their
    points. Each table is read once.
    """
    outputs = list_curves(sources[0][1])
    found: dict[str, dict[int, _Moments]] = {output.name: {} for output in outputs}
    if not outputs:
        return {}
    types = {"run": pa.int64(), **{output.name: pa.string() for output in outputs}}
    for batch in chain.from_iterable(iterate_batches(*source, types) for source in sources):
        runs = batch.column("run").to_numpy()
        places = np.minimum(np.searchsorted(numbers, runs), len(numbers) - 1)
        own = np.where(numbers[places] == runs, points[places], -1)
        for output in outputs:
            lists = parse_cells(batch.column(output.name), output)
            for point, values in _group_lists(lists, own):
                empty = np.zeros(0)
                found[output.name].setdefault(point, _Moments(empty.astype(int), empty, empty.copy())).add(values)
    return {name: {p: _estimate(moments, level) for p, moments in own.items()} for name, own in found.items()}


def _group_lists(lists: pa.ListArray, points: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The lists of each point as matrices `(runs, steps)`, one for each length."""
    lengths = np.diff(lists.offsets.to_numpy())
    lengths = np.where(lists.is_valid().to_numpy(zero_copy_only=False), lengths, -1)
    starts, values = lists.offsets.to_numpy()[:-1], lists.values.to_numpy(zero_copy_only=False).astype(np.float64)
    for length in np.unique(lengths[(lengths > 0) & (points >= 0)]):
        rows = np.flatnonzero((lengths == length) & (points >= 0))
        rows = rows[np.argsort(points[rows], kind="stable")]
        for own in np.split(rows, np.flatnonzero(np.diff(points[rows])) + 1):
            yield int(points[own[0]]), values[starts[own, None] + np.arange(length)]


def _estimate(moments: _Moments, level: float) -> Curve:
    count, mean = moments.count, np.where(moments.count > 0, moments.mean, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.sqrt(moments.squares / (count - 1.0))
        half = stdtrit(np.maximum(count - 1, 1), (1 + level) / 2) * deviation / np.sqrt(count)
    half = np.where(count > 1, half, np.nan)
    return Curve(mean, mean - half, mean + half)


def list_series(name: str, curve: Curve) -> Mapping[str, np.ndarray]:
    """A curve as series by their names: the mean has that of the output."""
    series = {name: curve.mean, f"{name}/low": curve.low, f"{name}/high": curve.high}
    return {key: values for key, values in series.items() if np.isfinite(values).any()}

"""Samplers: points drawn together from several intervals, by `scipy.stats.qmc`."""

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from runner.errors import InvalidInputError
from runner.plan.size import MOST_VALUES
from runner.plan.values import SEED_STOP, as_integer
from runner.search.intervals import Interval, list_logarithmic

MOST_KEPT = 1 << 20
"""Numbers of a draw that are kept in the user's cache, which take 8 MiB."""
USUAL_SAMPLES = 1 << 14
"""Points of a sequence that are drawn at once, so that the cache serves all smaller numbers of samples."""


class Sampler(StrEnum):
    """How points are drawn."""

    SOBOL = "sobol"
    """Sobol's sequence, scrambled (Owen, 1998); the most even one where the number of points is a power of 2."""
    HALTON = "halton"
    """Halton's sequence, scrambled (Owen, 2017)."""
    LHS = "lhs"
    """A Latin hypercube, which cannot be extended."""
    RANDOM = "random"
    """Independent uniform numbers."""


@dataclass(frozen=True)
class Sampling:
    """How many points are drawn, by which sampler, and with which seed of its own."""

    sampler: Sampler
    samples: int
    seed: int


def check_sampling(sampler: Any, samples: Any, seed: Any) -> Sampling:
    """The checked settings of the sweeper. Raises InvalidInputError for a value that is not valid."""
    if sampler not in list(Sampler):
        raise InvalidInputError(f"hydra.sweeper.sampler must be one of {', '.join(Sampler)}, got {sampler!r}")
    count = as_integer(samples)
    if count is None or not 1 <= count <= MOST_VALUES:
        raise InvalidInputError(f"hydra.sweeper.samples must be an integer from 1 to {MOST_VALUES:,}, got {samples!r}")
    return Sampling(Sampler(sampler), count, check_seed("hydra.sweeper.sampler_seed", seed))


def check_seed(name: str, seed: Any) -> int:
    """The seed of a sampler. Raises InvalidInputError for what is none."""
    number = as_integer(seed)
    if number is None or not 0 <= number < SEED_STOP:
        raise InvalidInputError(f"{name} must be an integer from 0 to {SEED_STOP - 1}, got {seed!r}")
    return number


@dataclass(frozen=True)
class Draw:
    """Points drawn together from the product of some intervals. They are drawn when they are first needed.

    With more samples, the points begin with the same ones, unless the sampler is `lhs`.
    """

    intervals: tuple[Interval, ...]
    sampling: Sampling

    @cached_property
    def columns(self) -> list[np.ndarray]:
        """The values of each interval, float64 `(samples,)`."""
        unit = draw_unit(self.sampling, len(self.intervals))
        return [interval.scale(unit[:, i]) for i, interval in enumerate(self.intervals)]

    @property
    def facts(self) -> dict[str, Any]:
        """What the points depend on, for the fingerprint of a study."""
        sampling = self.sampling
        facts = {
            "sampler": sampling.sampler.value,
            "sampler_seed": sampling.seed,
            "space": describe_space({interval.key: interval for interval in self.intervals}),
            "logarithmic": list_logarithmic(self.intervals),
            "version of scipy": metadata.version("scipy"),
        }
        if sampling.sampler is Sampler.LHS:
            facts["samples of a Latin hypercube, which cannot be extended,"] = sampling.samples
        return facts


@dataclass(frozen=True)
class DrawnValues:
    """The values of one interval of a draw, iterated as Python's numbers."""

    draw: Draw
    place: int

    def __len__(self) -> int:
        return self.draw.sampling.samples

    def __iter__(self) -> Iterator[int | float]:
        number = int if self.draw.intervals[self.place].is_integer else float
        return map(number, self.column.tolist())

    @property
    def column(self) -> np.ndarray:
        """The values, float64 `(samples,)`."""
        return self.draw.columns[self.place]


def describe_space(values: Mapping[str, Any]) -> str:
    """The keys of a space with their values, in Hydra's grammar and sorted, as one text."""
    return " ".join(f"{key}={values[key]}" for key in sorted(values))


def draw_unit(sampling: Sampling, dimensions: int) -> np.ndarray:
    """Points of the unit cube, float64 `(samples, dimensions)`.

    They are kept in the user's cache, unless they are many: to import SciPy's samplers takes longer than the rest of a
    small sweep. Of a sequence, which begins with the same points whatever their number, as many are drawn as serve most
    other studies, too.
    """
    if sampling.sampler is Sampler.RANDOM:
        return _draw(sampling, sampling.samples, dimensions)
    drawn = sampling.samples if sampling.sampler is Sampler.LHS else max(sampling.samples, USUAL_SAMPLES)
    drawn = drawn if drawn * dimensions <= MOST_KEPT else sampling.samples
    path = _locate(sampling, drawn, dimensions) if drawn * dimensions <= MOST_KEPT else None
    points = None if path is None else _load(path, (drawn, dimensions))
    if points is None:
        points = _draw(sampling, drawn, dimensions)
        if path is not None:
            with suppress(OSError):  # a folder that cannot be written
                _save(path, points)
    return points[: sampling.samples]


def _draw(sampling: Sampling, count: int, dimensions: int) -> np.ndarray:
    return _DRAW[sampling.sampler](np.random.default_rng(sampling.seed), count, dimensions)


def _locate(sampling: Sampling, count: int, dimensions: int) -> Path | None:
    """Where so many points are kept, by all that they depend on; None where the user has no folder."""
    versions = f"scipy-{metadata.version('scipy')}-numpy-{metadata.version('numpy')}"
    name = f"{sampling.sampler}-{count}-{dimensions}-{sampling.seed}-{versions}.npy"
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seedbed" / "points" / name
    except RuntimeError:
        return None


def _load(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    try:
        points = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # none, or a damaged file
        return None
    return points if points.shape == shape and points.dtype == np.float64 else None


def _save(path: Path, points: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        np.save(file, points)
    os.replace(file.name, path)


def _draw_sobol(random: np.random.Generator, count: int, dimensions: int) -> np.ndarray:
    from scipy.stats import qmc  # takes most of a second, which only a search has to spend

    engine = qmc.Sobol(dimensions, scramble=True, rng=random)
    return engine.random_base2(math.ceil(math.log2(count)))[:count]  # the only numbers of which scipy does not warn


def _draw_halton(random: np.random.Generator, count: int, dimensions: int) -> np.ndarray:
    from scipy.stats import qmc

    return qmc.Halton(dimensions, scramble=True, rng=random).random(count)


def _draw_hypercube(random: np.random.Generator, count: int, dimensions: int) -> np.ndarray:
    from scipy.stats import qmc

    return qmc.LatinHypercube(dimensions, rng=random).random(count)


def _draw_random(random: np.random.Generator, count: int, dimensions: int) -> np.ndarray:
    return random.random((count, dimensions))


_DRAW: Mapping[Sampler, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    Sampler.SOBOL: _draw_sobol,
    Sampler.HALTON: _draw_halton,
    Sampler.LHS: _draw_hypercube,
    Sampler.RANDOM: _draw_random,
}

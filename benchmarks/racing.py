"""How many runs a race needs until its choice is shown, against equal seeds for all points; the error rate of both.

    python benchmarks/racing.py [REPETITIONS] [--figure docs/racing.png]

Ten simulated landscapes. Both ways use the same looks, tests and levels; equal allocation only goes on to give seeds to
points that have left. A study that has not shown its choice at `MOST_SEEDS` seeds has spent its budget.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from runner.analysis.looks import spend
from runner.analysis.racing import FIRST_SEEDS, judge, next_seeds

MOST_SEEDS = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Landscape:
    """The means of points, larger ones better, and how values `(points, seeds)` are drawn around them."""

    name: str
    means: np.ndarray
    draw: Callable[[np.random.Generator, np.ndarray, int], np.ndarray]


def draw_normal(rng, means, seeds, spread=1.0, shared=0.0):
    """Normal values, of whose variance the seed has a share that all points have in common."""
    own = rng.normal(size=(len(means), seeds)) * np.sqrt(1 - shared)
    return means[:, None] + spread * (own + np.sqrt(shared) * rng.normal(size=seeds))


def draw_skewed(rng, means, seeds):
    return means[:, None] + rng.exponential(size=(len(means), seeds)) - 1


def draw_successes(rng, means, seeds):
    return (rng.random((len(means), seeds)) < means[:, None]).astype(float)


def draw_unequal(rng, means, seeds):
    """The spread grows from 0.5 to 2 along the points, the best one first."""
    return draw_normal(rng, means, seeds, spread=np.linspace(0.5, 2, len(means))[:, None])


def draw_heavy(rng, means, seeds):
    return means[:, None] + rng.standard_t(3, size=(len(means), seeds)) / np.sqrt(3)


GRID = np.stack(np.meshgrid(np.linspace(-1, 1, 7), np.linspace(-1, 1, 7)), axis=-1).reshape(-1, 2)
LANDSCAPES = (
    Landscape("one of 5 is better by 1", np.array([1.0, 0, 0, 0, 0]), draw_normal),
    Landscape("one of 20 is better by 0.5", np.array([0.5] + [0.0] * 19), draw_normal),
    Landscape("steps of 0.3 over 20 points", -0.3 * np.arange(20), draw_normal),
    Landscape("two of 20 at the top, 0.3 apart", np.array([0.3, 0.0] + [-1.0] * 18), draw_normal),
    Landscape("a parabola over 15 rates", -0.3 * np.arange(15.0) ** 2 + 0.0, draw_normal),
    Landscape("a grid of 7 × 7, curved", -4 * ((GRID - GRID[24]) ** 2).sum(axis=1), draw_normal),
    Landscape("half of the variance is the seed's", -0.2 * np.arange(10), lambda *a: draw_normal(*a, shared=0.5)),
    Landscape("unequal spreads", -0.4 * np.arange(10), draw_unequal),
    Landscape("skewed values", -0.3 * np.arange(10), draw_skewed),
    Landscape("success rates, 0.9 and less", 0.9 - 0.08 * np.arange(10), draw_successes),
)
"""The first point is the best; in the grid the one in the middle."""


@dataclass(frozen=True)
class Ended:
    """What a way of giving seeds has led to: its runs, whether a choice was shown, and whether it is the best."""

    runs: int
    is_shown: bool
    is_right: bool


def race(values: np.ndarray, best: int, *, is_equal: bool) -> Ended:
    """Gives seeds from `values`, `(points, MOST_SEEDS)`, to the points in contention, or to all."""
    points, most = values.shape
    contenders, seeds, runs, look = np.full(points, True), FIRST_SEEDS, points * FIRST_SEEDS, 1
    while True:
        standing = judge(np.where(contenders[:, None], values[:, :seeds], np.nan), contenders, spend(look, 1 - LEVEL))
        contenders = standing.contenders
        if contenders.sum() == 1 or seeds == most:
            return Ended(runs, bool(contenders.sum() == 1), standing.leader == best)
        more = min(next_seeds(seeds, 1, most), most - seeds)
        runs += more * (points if is_equal else int(contenders.sum()))
        seeds, look = seeds + more, look + 1


def simulate(landscape: Landscape, repetitions: int) -> dict[bool, list[Ended]]:
    """The ends of races (False) and of equal allocation (True) on the same values."""
    rng = np.random.default_rng(20261)
    best, ends = int(landscape.means.argmax()), {False: [], True: []}
    for _ in range(repetitions):
        values = landscape.draw(rng, landscape.means, MOST_SEEDS)
        for is_equal, own in ends.items():
            own.append(race(values, best, is_equal=is_equal))
    return ends


def describe(landscape: Landscape, ends: dict[bool, list[Ended]]) -> dict[str, float]:
    """Medians of the runs; the shares of races that have shown a choice, and that have shown a wrong one."""
    raced, equal = (np.median([end.runs for end in ends[way]]) for way in (False, True))
    shown = [end for end in ends[False] if end.is_shown]
    return {
        "points": len(landscape.means),
        "race": float(raced),
        "equal": float(equal),
        "ratio": float(equal / raced),
        "shown": len(shown) / len(ends[False]),
        "wrong": sum(not end.is_right for end in shown) / len(ends[False]),
    }


def draw_figure(rows: dict[str, dict[str, float]], path: str) -> None:
    """Runs until the choice is shown, of both ways, a line for each landscape."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4), layout="constrained")
    places = np.arange(len(rows))[::-1]
    for name, colour, marker in (("equal", "#7f7f7f", "o"), ("race", "#0072b2", "D")):
        axes.plot([row[name] for row in rows.values()], places, marker, color=colour, label=name)
    axes.hlines(
        places, [r["race"] for r in rows.values()], [r["equal"] for r in rows.values()], color="#bbbbbb", zorder=0
    )
    axes.set(xscale="log", xlabel="runs until the choice is shown (median)", yticks=places)
    axes.set_yticklabels(rows)
    figure.legend(["equal seeds for all points", "race"], loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 200
    rows = {each.name: describe(each, simulate(each, repetitions)) for each in LANDSCAPES}
    print(f"{'landscape':36}" + "".join(f"{name:>10}" for name in next(iter(rows.values()))))
    for name, row in rows.items():
        print(f"{name:36}" + "".join(f"{value:10.4g}" for value in row.values()))
    if "--figure" in sys.argv:
        draw_figure(rows, sys.argv[sys.argv.index("--figure") + 1])


if __name__ == "__main__":
    main()

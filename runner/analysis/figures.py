"""Pictures of a comparison, by matplotlib: PNG to look at, SVG to print."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from runner import compare
from runner.analysis import statistics
from runner.compare import Comparison
from runner.storage import manifest as record
from runner.storage import table

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart by the colour-blind, and in print together with the markers (Okabe and Ito, 2008)."""
MARKERS = "osD^vPX"
MOST_POINTS = 40
"""Points in one picture: more are not legible."""
MOST_DOTS = 200
"""Seeds of one point that are drawn as dots; of more the density is drawn."""
MOST_LINES = len(COLORS)
MOST_CURVES = 20_000
"""Runs whose arrays are read for learning curves."""


@dataclass(frozen=True)
class Picture:
    """A figure with the name of its file, and what it shows."""

    name: str
    title: str
    figure: Figure


def pictures(made: Comparison) -> Iterator[Picture]:
    """The pictures that a comparison gives rise to, with sensible choices of what to show."""
    for metric in made.metrics:
        rows = made.points[made.points["metric"] == metric].reset_index(drop=True)
        if not rows["mean"].notna().any():
            continue
        for name, title, draw in (
            ("points", "every seed and the interval of the mean", _points),
            ("axis", "along an axis", _along),
            ("differences", "paired differences to the baseline", _forest),
            ("heat", "over two axes", _heat),
            ("ecdf", "distribution over the seeds", _ecdf),
            ("profile", "performance profile over the tasks", _profile),
        ):
            figure = draw(made, metric, rows)
            if figure is not None:
                yield Picture(f"{_file(metric)}-{name}", f"{metric}: {title}", figure)
    yield from _curves(made)


def write(made: Comparison, folder: Path) -> list[Path]:
    """Writes each picture as PNG and SVG, and tells where."""
    folder.mkdir(exist_ok=True)
    written = []
    for picture in pictures(made):
        for kind in ("png", "svg"):
            path = folder / f"{picture.name}.{kind}"
            picture.figure.savefig(path, dpi=150, metadata={"Date": None} if kind == "svg" else None)
            written.append(path)
    return written


def _file(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)


def _plain(text: Any) -> str:
    """A name or a value in a label: matplotlib would take what is between dollars for a formula."""
    return str(text).replace("$", r"\$")


def _number(value: Any) -> str:
    return _plain(f"{value:.4g}" if isinstance(value, float | np.floating) else value)


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _label(made: Comparison, metric: str) -> str:
    goal = made.runs.directions.get(metric)
    return _plain(metric) + ({"minimize": " (less is better)", "maximize": " (more is better)"}.get(goal or "", ""))


def _names(made: Comparison, rows: pd.DataFrame) -> list[str]:
    """A name for each point, of the axes that vary."""
    if not made.axes:
        return ["all"] * len(rows)
    return [", ".join(f"{_plain(a)}={_number(row[a])}" for a in made.axes) for row in rows.to_dict("records")]


def _is_spread(values: np.ndarray, times: float = 50) -> bool:
    """Whether values want a logarithmic scale."""
    finite = values[np.isfinite(values)]
    return bool(len(finite) > 1 and finite.min() > 0 and finite.max() / finite.min() >= times)


def _seeds(made: Comparison, metric: str, rows: pd.DataFrame) -> list[np.ndarray]:
    """The finite values of each row's point."""
    labels = list(made.runs.points.itertuples(index=False, name=None))
    wanted = [tuple(row) for row in rows[list(made.axes)].itertuples(index=False, name=None)]
    place = {_key(label): i for i, label in enumerate(labels)}
    values, point = made.runs.values[metric], made.runs.point
    order = np.argsort(point, kind="stable")
    bounds = np.searchsorted(point[order], np.arange(max(1, len(labels)) + 1))
    found = []
    for label in wanted:
        i = place[_key(label)] if made.axes else 0
        own = values[order[bounds[i] : bounds[i + 1]]]
        found.append(own[np.isfinite(own)])
    return found


def _key(label: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(map(str, label))


def _points(made: Comparison, metric: str, rows: pd.DataFrame) -> Figure:
    rows = rows[:MOST_POINTS]
    seeds, names = _seeds(made, metric, rows), _names(made, rows)
    figure, axes = _axes(7, 1.2 + 0.34 * len(rows))
    if _is_spread(np.concatenate(seeds)):
        axes.set_xscale("log")
    rng = np.random.default_rng(statistics.GENERATOR)
    for i, (values, row) in enumerate(zip(seeds, rows.to_dict("records"), strict=True)):
        if 0 < len(values) <= MOST_DOTS:
            shift = rng.uniform(-0.22, 0.22, len(values))
            axes.scatter(values, i + shift, s=9, color=COLORS[0], alpha=0.45, linewidths=0)
        elif len(values):
            _density(axes, values, i)
        bounds = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]] if row["interval"] else None
        axes.errorbar([row["mean"]], [i], xerr=bounds, fmt="D", color=COLORS[1], markersize=5, capsize=3, linewidth=1.8)
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(_label(made, metric))
    what = "dots: seeds" if max(map(len, seeds)) <= MOST_DOTS else "grey: density of the seeds"
    more = len(made.runs.points) - len(rows)
    axes.set_title(
        f"{what}; diamond: mean, {100 * made.level:g} % interval" + (f"; {more:,} more points" if more > 0 else ""),
        fontsize=9,
    )
    return figure


def _density(axes: Axes, values: np.ndarray, place: int) -> None:
    """The histogram of many values, mirrored."""
    low, high = np.quantile(values, [0.001, 0.999])
    edges = np.array([low - 0.5, high + 0.5])
    if low < high:
        edges = np.geomspace(low, high, 61) if axes.get_xscale() == "log" else np.linspace(low, high, 61)
    counts, edges = np.histogram(values, edges)
    half = 0.38 * counts / max(1, counts.max())
    middle = (edges[1:] + edges[:-1]) / 2
    axes.fill_between(middle, place - half, place + half, color="#9aa7b4", alpha=0.8, linewidth=0, step="mid")


def _numeric(made: Comparison, rows: pd.DataFrame) -> list[str]:
    """The axes with numbers, those of most values first."""
    names = [name for name in made.axes if pd.api.types.is_numeric_dtype(rows[name]) and rows[name].nunique() > 2]
    return sorted(names, key=lambda name: -rows[name].nunique())


def _along(made: Comparison, metric: str, rows: pd.DataFrame) -> Figure | None:
    """The metric along the numeric axis of most values, a line for each value of a second one."""
    numeric = _numeric(made, rows)
    if not numeric:
        return None
    name = numeric[0]
    others = sorted((a for a in made.axes if a != name), key=lambda a: rows[a].nunique())
    second = others[-1] if others else None
    fixed = {other: rows[other].iloc[0] for other in others[:-1]}
    for other, value in fixed.items():
        rows = rows[rows[other] == value]
    figure, axes = _axes(7, 4.2)
    lines = list(dict.fromkeys(rows[second])) if second else [None]
    for i, value in enumerate(lines[:MOST_LINES]):
        own = (rows if second is None else rows[rows[second] == value]).sort_values(name)
        label = None if second is None else f"{_plain(second)}={_number(value)}"
        axes.plot(own[name], own["mean"], color=COLORS[i], marker=MARKERS[i], markersize=5, label=label)
        axes.fill_between(own[name], own["low"], own["high"], color=COLORS[i], alpha=0.18, linewidth=0)
    if _is_spread(rows[name].to_numpy(float), 10):
        axes.set_xscale("log")
    if _is_spread(rows["mean"].to_numpy(float)):
        axes.set_yscale("log")
    axes.set_xlabel(_plain(name))
    axes.set_ylabel(_label(made, metric))
    notes = [f"mean with {100 * made.level:g} % interval", *(f"{_plain(k)}={_number(v)}" for k, v in fixed.items())]
    notes += [f"{len(lines) - MOST_LINES:,} more values of {_plain(second)}"] if len(lines) > MOST_LINES else []
    axes.set_title("; ".join(notes), fontsize=9)
    if second:
        axes.legend(frameon=False, fontsize=9)
    return figure


def _forest(made: Comparison, metric: str, _: pd.DataFrame) -> Figure | None:
    if not len(made.differences):
        return None
    rows = made.differences[made.differences["metric"] == metric].reset_index(drop=True)
    rows = rows[rows["interval"] != ""].reset_index(drop=True)[:MOST_POINTS]
    if not len(rows):
        return None
    figure, axes = _axes(7, 1.2 + 0.34 * len(rows))
    axes.axvline(0, color="#444444", linewidth=1)
    for i, row in enumerate(rows.to_dict("records")):
        clear = row["low"] > 0 or row["high"] < 0
        color, marker = (COLORS[1], "D") if clear else (COLORS[0], "o")
        bounds = [[row["difference"] - row["low"]], [row["high"] - row["difference"]]]
        axes.errorbar([row["difference"]], [i], xerr=bounds, fmt=marker, color=color, markersize=5, capsize=3)
    axes.set_yticks(range(len(rows)), _names(made, rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    against = rows["against"].unique()
    axes.set_xlabel(f"difference of {_label(made, metric)}")
    what = f"to {_plain(against[0])}" if len(against) == 1 else "to each point's baseline"
    axes.set_title(f"{what}, with {100 * made.level:g} % interval (diamond: without zero)", fontsize=9)
    return figure


def _heat(made: Comparison, metric: str, rows: pd.DataFrame) -> Figure | None:
    wide = sorted((a for a in made.axes if rows[a].nunique() > 1), key=lambda a: -rows[a].nunique())[:2]
    if len(wide) < 2 or rows[wide[1]].nunique() > 60:
        return None
    fixed = {other: rows[other].iloc[0] for other in made.axes if other not in wide}
    for other, value in fixed.items():
        rows = rows[rows[other] == value]
    grid = rows.pivot_table(index=wide[1], columns=wide[0], values="mean", aggfunc="first", sort=False)
    if all(pd.api.types.is_numeric_dtype(rows[a]) for a in wide):
        grid = grid.sort_index(axis=0).sort_index(axis=1)
    figure, axes = _axes(7, 1.8 + 0.35 * min(12, len(grid)))
    axes.grid(visible=False)
    log = _is_spread(grid.to_numpy())
    image = axes.imshow(grid, aspect="auto", cmap="viridis", norm="log" if log else "linear")
    for axis, values in ((axes.xaxis, grid.columns), (axes.yaxis, grid.index)):
        step = -(-len(values) // 16)
        axis.set_ticks(range(0, len(values), step), [_number(value) for value in values[::step]])
    if grid.size <= 100:
        _numbers(axes, grid, image)
    axes.set_xlabel(_plain(wide[0]))
    axes.set_ylabel(_plain(wide[1]))
    figure.colorbar(image, label=_label(made, metric))
    axes.set_title(
        "; ".join(["mean over the seeds", *(f"{_plain(k)}={_number(v)}" for k, v in fixed.items())]), fontsize=9
    )
    return figure


def _numbers(axes: Axes, grid: pd.DataFrame, image: Any) -> None:
    for i, row in enumerate(grid.to_numpy()):
        for j, value in enumerate(row):
            if np.isfinite(value):
                dark = image.norm(value) < 0.6
                axes.text(
                    j, i, f"{value:.3g}", ha="center", va="center", fontsize=8, color="white" if dark else "black"
                )


def _ecdf(made: Comparison, metric: str, rows: pd.DataFrame) -> Figure | None:
    seeds = _seeds(made, metric, rows[:MOST_LINES])
    if max(map(len, seeds)) < 3:
        return None
    figure, axes = _axes(7, 4.2)
    for i, (values, name) in enumerate(zip(seeds, _names(made, rows[:MOST_LINES]), strict=True)):
        if len(values):
            shown = np.quantile(values, np.linspace(0, 1, 2001)) if len(values) > 2001 else np.sort(values)
            share = np.linspace(1 / len(shown), 1, len(shown))
            every = max(1, len(shown) // 8)
            axes.step(
                shown,
                share,
                where="post",
                color=COLORS[i],
                marker=MARKERS[i],
                markevery=every,
                markersize=5,
                label=name,
            )
    if _is_spread(np.concatenate(seeds)):
        axes.set_xscale("log")
    axes.set_xlabel(_label(made, metric))
    axes.set_ylabel("share of the seeds at most")
    axes.set_ylim(0, 1.02)
    more = len(rows) - MOST_LINES
    axes.set_title(
        "over the seeds" + (f"; the first {MOST_LINES} of {len(rows):,} points" if more > 0 else ""), fontsize=9
    )
    axes.legend(frameon=False, fontsize=9)
    return figure


def _profile(made: Comparison, metric: str, _: pd.DataFrame) -> Figure | None:
    """The share of runs that are at least as good as a threshold, averaged over tasks (Agarwal et al., 2021)."""
    whole = compare.scores(made.runs, metric)
    if not whole:
        return None
    sign = -1.0 if made.runs.directions.get(metric) == "minimize" else 1.0
    thresholds = np.quantile(np.concatenate([v for own in whole.values() for v in own]), np.linspace(0, 1, 201))
    others = [name for name in made.axes if name != "task"]
    figure, axes = _axes(7, 4.2)
    for i, (key, own) in enumerate(list(whole.items())[:MOST_LINES]):
        share = statistics.profile([sign * values for values in own], sign * thresholds)
        label = ", ".join(f"{_plain(a)}={_number(v)}" for a, v in zip(others, key, strict=True))
        axes.plot(
            thresholds, share, color=COLORS[i], marker=MARKERS[i], markevery=25, markersize=5, label=label or "all"
        )
    if _is_spread(thresholds):
        axes.set_xscale("log")
    axes.set_xlabel(_label(made, metric))
    axes.set_ylabel("share of the runs that are better")
    axes.set_title(f"averaged over {len(next(iter(whole.values())))} tasks", fontsize=9)
    axes.legend(frameon=False, fontsize=9)
    return figure


def _curves(made: Comparison) -> Iterator[Picture]:
    """Array outputs of one axis and at least three elements, as curves over their steps."""
    for folder in made.runs.studies[:1]:
        columns = record.required(folder.record).columns
        curves = [output for output in columns.outputs if len(output.shape) == 1 and output.shape[0] > 2]
        if not curves or not folder.results.exists():
            continue
        frame = table.first_rows(folder.results, columns, MOST_CURVES)
        for output in curves:
            figure = _curve(made, frame, output.name)
            if figure is not None:
                yield Picture(f"{_file(output.name)}-curves", f"{output.name}: over its steps", figure)


def _curve(made: Comparison, frame: pd.DataFrame, name: str) -> Figure | None:
    axes_here = [a for a in made.axes if a in frame]
    groups: Any = frame.groupby(axes_here, sort=False, dropna=False) if axes_here else [((), frame)]
    figure, axes = _axes(7, 4.2)
    drawn, everything = 0, []
    for label, rows in groups:
        stacked = [json.loads(text) for text in rows[name] if isinstance(text, str)]
        if not stacked or drawn == MOST_LINES:
            continue
        values = np.array([row for row in stacked if len(row) == len(stacked[0])], dtype=float)
        mean, count = values.mean(axis=0), len(values)
        values_of = label if isinstance(label, tuple) else (label,)
        text = ", ".join(f"{_plain(a)}={_number(v)}" for a, v in zip(axes_here, values_of, strict=True))
        axes.plot(
            mean,
            color=COLORS[drawn],
            marker=MARKERS[drawn],
            markevery=max(1, len(mean) // 10),
            markersize=4,
            label=text,
        )
        if count > 1:
            half = statistics.stats.t.ppf((1 + made.level) / 2, count - 1) * values.std(axis=0, ddof=1) / np.sqrt(count)
            axes.fill_between(range(len(mean)), mean - half, mean + half, color=COLORS[drawn], alpha=0.18, linewidth=0)
        drawn += 1
        everything.append(mean)
    if not drawn:
        return None
    if _is_spread(np.concatenate(everything)):
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel(_plain(name))
    axes.set_title(f"mean over the seeds with {100 * made.level:g} % interval by Student's t", fontsize=9)
    if axes_here:
        axes.legend(frameon=False, fontsize=9)
    return figure

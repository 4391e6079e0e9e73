"""Figures of a comparison, by matplotlib, as PNG and SVG."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from runner.analysis import statistics
from runner.analysis.aggregates import group_scores
from runner.analysis.comparison import Comparison
from runner.analysis.formats import format_value
from runner.storage.reader import read_arrays

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Distinguishable by colour-blind people, and in print together with the markers (Okabe and Ito, 2008)."""
MARKERS = "osD^vPX"
MOST_POINTS = 40
"""Points in one figure; more are not legible."""
MOST_DOTS = 200
"""Seeds of a point that are drawn as dots; the density is drawn of more."""
MOST_TICKS = 8
"""Values of an axis with a tick each."""
MOST_LINES = len(COLORS)
MOST_CURVES = 20_000
"""Runs of a study whose arrays are read for curves."""


@dataclass(frozen=True)
class Picture:
    """A figure with the name of its file and its title."""

    name: str
    title: str
    figure: Figure


def draw_figures(comparison: Comparison) -> Iterator[Picture]:
    """The figures that fit a comparison: per metric those that its axes allow, and curves of array outputs."""
    for metric in comparison.metrics if len(comparison.points) else ():
        rows = comparison.points[comparison.points["metric"] == metric].reset_index(drop=True)
        if not rows["mean"].notna().any():
            continue
        for name, title, draw in (
            ("points", "every seed and the interval of the mean", _draw_points),
            ("axis", "along an axis", _draw_along_axis),
            ("differences", "paired differences to the baseline", _draw_differences),
            ("heat", "over two axes", _draw_heat_map),
            ("ecdf", "distribution over the seeds", _draw_ecdf),
            ("profile", "performance profile over the tasks", _draw_profile),
        ):
            figure = draw(comparison, metric, rows)
            if figure is not None:
                yield Picture(f"{_build_file_name(metric)}-{name}", f"{metric}: {title}", figure)
    yield from _draw_curves(comparison)


def write_figures(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes each figure as PNG and SVG, and returns the paths."""
    folder.mkdir(exist_ok=True)
    written = []
    for picture in draw_figures(comparison):
        for kind in ("png", "svg"):
            path = folder / f"{picture.name}.{kind}"
            picture.figure.savefig(path, dpi=150, metadata={"Date": None} if kind == "svg" else None)
            written.append(path)
    return written


def _build_file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)


def _escape_math(text: Any) -> str:
    """A name or a value in a label; matplotlib would read text between dollar signs as a formula."""
    return str(text).replace("$", r"\$")


def _format_number(value: Any) -> str:
    return _escape_math(format_value(value, 4) if isinstance(value, float | np.floating) else value)


def _create_axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _describe_metric(comparison: Comparison, metric: str) -> str:
    goal = comparison.runs.directions.get(metric)
    hint = {"minimize": " (less is better)", "maximize": " (more is better)"}.get(goal or "", "")
    return _escape_math(metric) + hint


def _name_points(comparison: Comparison, rows: pd.DataFrame) -> list[str]:
    """A name for each point, of the axes that vary."""
    if not comparison.axes:
        return ["all"] * len(rows)
    return [
        ", ".join(f"{_escape_math(a)}={_format_number(row[a])}" for a in comparison.axes)
        for row in rows.to_dict("records")
    ]


def _is_spread(values: np.ndarray, times: float = 50) -> bool:
    """Whether values want a logarithmic scale."""
    finite = values[np.isfinite(values)]
    return bool(len(finite) > 1 and finite.min() > 0 and finite.max() / finite.min() >= times)


def _list_values(comparison: Comparison, metric: str, rows: pd.DataFrame) -> list[np.ndarray]:
    """The finite values of each row's point, `(seeds,)`."""
    return [sample.values for sample in comparison.select_samples(metric, rows)]


def _draw_points(comparison: Comparison, metric: str, rows: pd.DataFrame) -> Figure:
    rows = rows[:MOST_POINTS]
    seeds, names = _list_values(comparison, metric, rows), _name_points(comparison, rows)
    figure, axes = _create_axes(7, 1.2 + 0.34 * len(rows))
    if _is_spread(np.concatenate(seeds)):
        axes.set_xscale("log")
    rng = np.random.default_rng(statistics.GENERATOR)
    for i, (values, row) in enumerate(zip(seeds, rows.to_dict("records"), strict=True)):
        if 0 < len(values) <= MOST_DOTS:
            shift = rng.uniform(-0.22, 0.22, len(values))
            axes.scatter(values, i + shift, s=9, color=COLORS[0], alpha=0.45, linewidths=0)
        elif len(values):
            _estimate_density(axes, values, i)
        bounds = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]] if row["interval"] else None
        axes.errorbar([row["mean"]], [i], xerr=bounds, fmt="D", color=COLORS[1], markersize=5, capsize=3, linewidth=1.8)
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(_describe_metric(comparison, metric))
    what = "dots: seeds" if max(map(len, seeds)) <= MOST_DOTS else "grey: density of the seeds"
    more = len(comparison.runs.points) - len(rows)
    axes.set_title(
        f"{what}; diamond: mean, {100 * comparison.level:g} % interval"
        + (f"; {more:,} more points" if more > 0 else ""),
        fontsize=9,
    )
    return figure


def _estimate_density(axes: Axes, values: np.ndarray, place: int) -> None:
    """The histogram of many values, mirrored."""
    low, high = np.quantile(values, [0.001, 0.999])
    edges = np.array([low - 0.5, high + 0.5])
    if low < high:
        edges = np.geomspace(low, high, 61) if axes.get_xscale() == "log" else np.linspace(low, high, 61)
    counts, edges = np.histogram(values, edges)
    half = 0.38 * counts / max(1, counts.max())
    middle = (edges[1:] + edges[:-1]) / 2
    axes.fill_between(middle, place - half, place + half, color="#9aa7b4", alpha=0.8, linewidth=0, step="mid")


def _list_numeric_axes(comparison: Comparison, rows: pd.DataFrame) -> list[str]:
    """The axes with numbers, those of most values first."""
    names = [name for name in comparison.axes if pd.api.types.is_numeric_dtype(rows[name]) and rows[name].nunique() > 2]
    return sorted(names, key=lambda name: -rows[name].nunique())


def _draw_along_axis(comparison: Comparison, metric: str, rows: pd.DataFrame) -> Figure | None:
    """The metric along the numeric axis of most values, a line for each value of a second one."""
    numeric = _list_numeric_axes(comparison, rows)
    if not numeric:
        return None
    name = numeric[0]
    others = sorted((a for a in comparison.axes if a != name), key=lambda a: rows[a].nunique())
    second = others[-1] if others else None
    fixed = {other: rows[other].iloc[0] for other in others[:-1]}
    for other, value in fixed.items():
        rows = rows[rows[other] == value]
    figure, axes = _create_axes(7, 4.2)
    lines = list(dict.fromkeys(rows[second])) if second else [None]
    for i, value in enumerate(lines[:MOST_LINES]):
        own = (rows if second is None else rows[rows[second] == value]).sort_values(name)
        label = None if second is None else f"{_escape_math(second)}={_format_number(value)}"
        axes.plot(own[name], own["mean"], color=COLORS[i], marker=MARKERS[i], markersize=5, label=label)
        axes.fill_between(own[name], own["low"], own["high"], color=COLORS[i], alpha=0.18, linewidth=0)
    if _is_spread(rows[name].to_numpy(float), 10):
        axes.set_xscale("log")
        if len(values := sorted(set(rows[name]))) <= MOST_TICKS:  # those that were run, not powers of ten
            axes.set_xticks(values, [_format_number(value) for value in values])
            axes.xaxis.minorticks_off()
    if _is_spread(rows["mean"].to_numpy(float)):
        axes.set_yscale("log")
    axes.set_xlabel(_escape_math(name))
    axes.set_ylabel(_describe_metric(comparison, metric))
    notes = [
        f"mean with {100 * comparison.level:g} % interval",
        *(f"{_escape_math(k)}={_format_number(v)}" for k, v in fixed.items()),
    ]
    notes += [f"{len(lines) - MOST_LINES:,} more values of {_escape_math(second)}"] if len(lines) > MOST_LINES else []
    axes.set_title("; ".join(notes), fontsize=9)
    if second:
        axes.legend(frameon=False, fontsize=9)
    return figure


def _draw_differences(comparison: Comparison, metric: str, _: pd.DataFrame) -> Figure | None:
    if not len(comparison.differences):
        return None
    rows = comparison.differences[comparison.differences["metric"] == metric].reset_index(drop=True)
    rows = rows[rows["interval"] != ""].reset_index(drop=True)[:MOST_POINTS]
    if not len(rows):
        return None
    figure, axes = _create_axes(7, 1.2 + 0.34 * len(rows))
    axes.axvline(0, color="#444444", linewidth=1)
    for i, row in enumerate(rows.to_dict("records")):
        clear = row["low"] > 0 or row["high"] < 0
        color, marker = (COLORS[1], "D") if clear else (COLORS[0], "o")
        bounds = [[row["difference"] - row["low"]], [row["high"] - row["difference"]]]
        axes.errorbar([row["difference"]], [i], xerr=bounds, fmt=marker, color=color, markersize=5, capsize=3)
    axes.set_yticks(range(len(rows)), _name_points(comparison, rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    against = rows["against"].unique()
    axes.set_xlabel(f"difference of {_describe_metric(comparison, metric)}")
    what = f"to {_escape_math(against[0])}" if len(against) == 1 else "to each point's baseline"
    axes.set_title(f"{what}, with {100 * comparison.level:g} % interval (diamond: without zero)", fontsize=9)
    return figure


def _draw_heat_map(comparison: Comparison, metric: str, rows: pd.DataFrame) -> Figure | None:
    wide = sorted((a for a in comparison.axes if rows[a].nunique() > 1), key=lambda a: -rows[a].nunique())[:2]
    if len(wide) < 2 or rows[wide[1]].nunique() > 60:
        return None
    fixed = {other: rows[other].iloc[0] for other in comparison.axes if other not in wide}
    for other, value in fixed.items():
        rows = rows[rows[other] == value]
    grid = rows.pivot_table(index=wide[1], columns=wide[0], values="mean", aggfunc="first", sort=False)
    if all(pd.api.types.is_numeric_dtype(rows[a]) for a in wide):
        grid = grid.sort_index(axis=0).sort_index(axis=1)
    figure, axes = _create_axes(7, 1.8 + 0.35 * min(12, len(grid)))
    axes.grid(visible=False)
    log = _is_spread(grid.to_numpy())
    image = axes.imshow(grid, aspect="auto", cmap="viridis", norm="log" if log else "linear")
    for axis, values in ((axes.xaxis, grid.columns), (axes.yaxis, grid.index)):
        step = -(-len(values) // 16)
        axis.set_ticks(range(0, len(values), step), [_format_number(value) for value in values[::step]])
    if grid.size <= 100:
        _annotate_cells(axes, grid, image)
    axes.set_xlabel(_escape_math(wide[0]))
    axes.set_ylabel(_escape_math(wide[1]))
    figure.colorbar(image, label=_describe_metric(comparison, metric))
    axes.set_title(
        "; ".join(["mean over the seeds", *(f"{_escape_math(k)}={_format_number(v)}" for k, v in fixed.items())]),
        fontsize=9,
    )
    return figure


def _annotate_cells(axes: Axes, grid: pd.DataFrame, image: Any) -> None:
    for i, row in enumerate(grid.to_numpy()):
        for j, value in enumerate(row):
            if np.isfinite(value):
                dark = image.norm(value) < 0.6
                axes.text(
                    j, i, f"{value:.3g}", ha="center", va="center", fontsize=8, color="white" if dark else "black"
                )


def _draw_ecdf(comparison: Comparison, metric: str, rows: pd.DataFrame) -> Figure | None:
    seeds = _list_values(comparison, metric, rows[:MOST_LINES])
    if max(map(len, seeds)) < 3:
        return None
    figure, axes = _create_axes(7, 4.2)
    for i, (values, name) in enumerate(zip(seeds, _name_points(comparison, rows[:MOST_LINES]), strict=True)):
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
    axes.set_xlabel(_describe_metric(comparison, metric))
    axes.set_ylabel("share of the seeds at most")
    axes.set_ylim(0, 1.02)
    more = len(rows) - MOST_LINES
    axes.set_title(
        "over the seeds" + (f"; the first {MOST_LINES} of {len(rows):,} points" if more > 0 else ""), fontsize=9
    )
    axes.legend(frameon=False, fontsize=9)
    return figure


def _draw_profile(comparison: Comparison, metric: str, _: pd.DataFrame) -> Figure | None:
    """The share of runs that are at least as good as a threshold, averaged over tasks (Agarwal et al., 2021)."""
    groups = group_scores(comparison.runs, comparison.samples, metric)
    if not groups:
        return None
    sign = -1.0 if comparison.runs.directions.get(metric) == "minimize" else 1.0
    thresholds = np.quantile(np.concatenate([v for own in groups.values() for v in own]), np.linspace(0, 1, 201))
    others = [name for name in comparison.axes if name != "task"]
    figure, axes = _create_axes(7, 4.2)
    for i, (key, own) in enumerate(list(groups.items())[:MOST_LINES]):
        share = statistics.profile([sign * values for values in own], sign * thresholds)
        label = ", ".join(f"{_escape_math(a)}={_format_number(v)}" for a, v in zip(others, key, strict=True))
        axes.plot(
            thresholds, share, color=COLORS[i], marker=MARKERS[i], markevery=25, markersize=5, label=label or "all"
        )
    if _is_spread(thresholds):
        axes.set_xscale("log")
    axes.set_xlabel(_describe_metric(comparison, metric))
    axes.set_ylabel("share of the runs that are better")
    axes.set_title(f"averaged over {len(next(iter(groups.values())))} tasks", fontsize=9)
    axes.legend(frameon=False, fontsize=9)
    return figure


def _draw_curves(comparison: Comparison) -> Iterator[Picture]:
    """Array outputs of one axis and at least three elements of the first study, as curves over their steps."""
    runs = comparison.runs
    here = np.flatnonzero(runs.study == 0)[:MOST_CURVES]
    outputs = runs.manifests[0].columns.outputs
    for output in [output for output in outputs if len(output.shape) == 1 and output.shape[0] > 2]:
        arrays = read_arrays(runs.studies[0], runs.manifests[0], output.name, runs.number[here])
        figure = _draw_output_curves(comparison, output.name, runs.point[here], arrays)
        if figure is not None:
            yield Picture(f"{_build_file_name(output.name)}-curves", f"{output.name}: over its steps", figure)


def _draw_output_curves(
    comparison: Comparison, name: str, points: np.ndarray, arrays: Sequence[np.ndarray | None]
) -> Figure | None:
    """The mean curve of the first points with its interval; `points` has the point of each array."""
    figure, axes = _create_axes(7, 4.2)
    means: list[np.ndarray] = []
    for point in dict.fromkeys(points.tolist()):
        curves = [array for array, own in zip(arrays, points, strict=True) if own == point and array is not None]
        if not curves or len(means) == MOST_LINES:
            continue
        values = np.array([curve for curve in curves if len(curve) == len(curves[0])])
        label = _label_point(comparison, point)
        _draw_curve(axes, values, COLORS[len(means)], MARKERS[len(means)], label, comparison.level)
        means.append(values.mean(axis=0))
    if not means:
        return None
    if _is_spread(np.concatenate(means)):
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel(_escape_math(name))
    axes.set_title(f"mean over the seeds with {100 * comparison.level:g} % interval by Student's t", fontsize=9)
    if comparison.axes:
        axes.legend(frameon=False, fontsize=9)
    return figure


def _draw_curve(axes: Axes, values: np.ndarray, color: str, marker: str, label: str, level: float) -> None:
    """The mean of curves `(seeds, steps)` with its interval by Student's t at each step."""
    mean, count = values.mean(axis=0), len(values)
    axes.plot(mean, color=color, marker=marker, markevery=max(1, len(mean) // 10), markersize=4, label=label)
    if count > 1:
        half = statistics.mean_half_width(values.std(axis=0, ddof=1), count, level)
        axes.fill_between(range(len(mean)), mean - half, mean + half, color=color, alpha=0.18, linewidth=0)


def _label_point(comparison: Comparison, point: int) -> str:
    """The values of a point's axes."""
    values = comparison.runs.points.iloc[point].tolist() if comparison.axes else []
    return ", ".join(f"{_escape_math(a)}={_format_number(v)}" for a, v in zip(comparison.axes, values, strict=True))

"""The tables of a comparison as text."""

import math
from typing import Any

from runner.analysis.comparison import Comparison
from runner.analysis.formats import format_interval, format_value


def list_estimates(comparison: Comparison, metric: str) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of one metric's estimates, as text."""
    if not len(comparison.points):  # no run has the metric
        return [], []
    rows = comparison.points[comparison.points["metric"] == metric]
    counts = [name for name in ("nonfinite", "failed") if rows[name].any()]
    interval = f"{100 * comparison.level:g} % interval"
    header = [*comparison.axes, "seeds", *counts]
    header += ["mean", interval, "by", "median", "IQM", "std", "min", "max"]
    is_directed = comparison.runs.directions.get(metric) is not None
    lines = []
    for row in rows.to_dict("records"):
        seeds = f"{row['finished']:,}" + ("" if row["finished"] == row["seeds"] else f" of {row['seeds']:,}")
        share = f" ({100 * row['nonfinite_share']:.3g} %)" if row["nonfinite"] else ""
        texts = {"nonfinite": format_value(row["nonfinite"]) + share, "failed": format_value(row["failed"])}
        line = [*(format_value(row[name]) for name in comparison.axes), seeds, *(texts[name] for name in counts)]
        line += [format_value(row["mean"]), format_interval(row["low"], row["high"]), row["interval"]]
        line += [format_value(row[name]) for name in ("median", "iqm", "std")]
        line += [_format_end(row, end) for end in ("min", "max")]
        lines.append([*line, format_value(row["worst_seed"])] if is_directed else line)
    return [*header, "worst seed"] if is_directed else header, lines


def _format_end(row: dict[str, Any], end: str) -> str:
    """The smallest or largest value with its seed."""
    seed = row[f"{end}_seed"]
    return format_value(row[end]) + ("" if seed is None else f" (seed {seed})")


def list_differences(comparison: Comparison, metric: str) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of one metric's differences to the baseline, as text."""
    frame = comparison.differences
    rows = frame[frame["metric"] == metric] if len(frame) else frame
    interval = f"{100 * comparison.level:g} % interval"
    share = "P(better)" if metric in comparison.runs.directions else "P(greater)"
    header = [*comparison.axes, "against", "the seeds show", "pairs", "difference", interval, "by", "p"]
    header += ["effect", share, f"interval of {share}", "could show", "seeds for 80 % power"]
    lines = []
    for row in rows.to_dict("records"):
        pairs = format_value(row["pairs"]) + ("" if row["kind"] == "paired" else f" ({row['kind']})")
        line = [*(format_value(row[name]) for name in comparison.axes), row["against"], row["verdict"], pairs]
        line += [format_value(row["difference"]), format_interval(row["low"], row["high"]), row["interval"]]
        line += [format_value(row["p_adjusted"], 2)]
        line += [format_value(row["effect"], 3), format_value(row["improvement"], 2)]
        line += [
            format_interval(row["improvement_low"], row["improvement_high"], 2),
            format_value(row["detectable"], 3),
        ]
        needed = row["seeds_needed"]
        lines.append([*line, "" if needed is None or math.isnan(needed) else f"{int(needed):,}"])
    return header, lines


def list_aggregates(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of the aggregates over all tasks, as text."""
    others = [name for name in comparison.axes if name != "task"]
    header = [*others, "metric", "tasks", "runs", "IQM", f"{100 * comparison.level:g} % interval", "mean", "median"]
    lines = []
    for row in comparison.aggregates.to_dict("records"):
        line = [format_value(row[name]) for name in (*others, "metric", "tasks", "runs", "iqm")]
        line += [format_interval(row["low"], row["high"]), format_value(row["mean"]), format_value(row["median"])]
        line += [format_value(row["improvement"], 2)]
        lines.append([*line, format_interval(row["improvement_low"], row["improvement_high"], 2)])
    return [*header, "P(improvement)", "interval of P(improvement)"], lines

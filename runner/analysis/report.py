"""The report of a comparison: one page that opens without a network."""

import base64
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from runner.analysis.comparison import Comparison
from runner.analysis.figures import draw_figures
from runner.analysis.formats import format_value
from runner.analysis.load import STATUS_CODES
from runner.analysis.tables import list_differences, list_estimates
from runner.plan.status import Status
from runner.storage.environment import format_command, list_repositories, read_environment
from runner.storage.folder import Folder, write_file
from runner.storage.manifest import Manifest
from runner.storage.programs import read_programs
from runner.storage.reader import count_reasons

MOST_ROWS = 500
"""Rows of a table in the page; `--csv` has all of them."""
MOST_RUNS = 2000
"""Runs in the parallel coordinates, evenly chosen from all."""
PICTURE_BYTES = 800_000
"""What the pictures may take: the page stays below 6 MB, of which the parallel coordinates are 4.8."""

SECTIONS = {
    "what": "What was run",
    "tables": "Comparison",
    "pictures": "Figures",
    "interactive": "Runs, axis by axis",
    "reasons": "Nonfinite and failed runs",
    "programs": "Programs",
    "glossary": "Glossary",
}

GLOSSARY = (
    ("point", "One value for each axis: the configuration that is compared. Its runs differ in the seed only."),
    ("mean, median", "The sum of the values over their number; the value that half of the runs do not exceed."),
    (
        "IQM",
        "The interquartile mean: the mean without the lowest and the highest quarter of the runs. A few bad seeds "
        "hardly move it, and it wants fewer seeds than the median.",
    ),
    (
        "interval",
        "A range made by a rule that covers the true mean in 95 of 100 studies (at the level 95 %). By t: "
        "Student's, which holds its level at few seeds. By BCa: a bootstrap, from 30 seeds to 500. "
        "It is no range of the runs.",
    ),
    ("std", "The sample standard deviation: how much the seeds differ, whatever their number."),
    (
        "nonfinite, failed",
        "Runs with NaN or infinity in a result, and runs without one. Estimates are of the finite "
        "values only, and would look better than the method is if these were not counted.",
    ),
    ("paired difference", "The same seed at both points, subtracted: what the seeds have in common cancels out."),
    (
        "p (t), p (rank)",
        "How often chance alone would show a difference at least as large, by the paired t-test and by "
        "Wilcoxon's signed ranks; adjusted by Holm for the number of rows, so that many comparisons do not find one "
        "by their number. A large p is no proof of equality.",
    ),
    ("effect", "The mean difference in units of its standard deviation (d_z)."),
    (
        "P(better)",
        "The share of seeds at which the point is better than its baseline, ties by half, with Wilson's "
        "interval: what to expect of one more run.",
    ),
    ("could show", "The smallest difference that so many pairs would have shown in four of five studies (power 80 %)."),
    (
        "seeds for 80 % power",
        "The seeds at which a difference as large as the observed one would be shown so often, by "
        "one paired t-test without adjustment. Observed differences of few seeds tend to be too large.",
    ),
)


NUMBERS = {
    "difference": "difference", "p (t)": "p_t_holm", "p (rank)": "p_rank_holm", "effect": "effect", "mean": "mean",
    "P(better)": "improvement", "P(greater)": "improvement", "median": "median", "IQM": "iqm", "std": "std",
    "min": "min", "max": "max", "could show": "detectable", "seeds for 80 % power": "seeds_needed", "pairs": "pairs",
    "seeds": "finished", "nonfinite": "nonfinite", "failed": "failed",
}  # fmt: skip
"""The columns of a comparison's frames by which the shown columns are sorted."""


@dataclass(frozen=True)
class Column:
    """The header of a column; numeric ones are aligned to the right."""

    name: str
    is_numeric: bool


@dataclass(frozen=True)
class Cell:
    """The text of a cell, and the number by which a numeric column is sorted, empty if there is none."""

    text: str
    sort_key: str | None


@dataclass(frozen=True)
class Table:
    """A table of the page; `left_out` rows are not shown."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    left_out: int


def write_report(comparison: Comparison, path: Path) -> Path:
    """Writes the page and returns its path. Raises StudyFailedError if the disk refuses."""
    write_file(path, render_report(comparison))
    return path


def render_report(comparison: Comparison, *, is_interactive: bool = True) -> str:
    """The page as one text; without the interactive part it is a tenth of the size."""
    files = resources.files("runner.analysis")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((files / "report.html.jinja").read_text())
    parallel = _build_parallel(comparison) if is_interactive else None
    pictures, left_out = _encode_pictures(comparison)
    runs = comparison.runs
    programs = [table for folder in runs.studies if (table := _build_programs(folder))]
    present = {"pictures": pictures, "interactive": parallel, "programs": programs}
    return template.render(
        title=" and ".join(folder.path.name for folder in runs.studies),
        lead=_describe_comparison(comparison),
        sections={key: name for key, name in SECTIONS.items() if present.get(key, True)},
        style=(files / "report.css").read_text(),
        script=(files / "report.js").read_text(),
        plotly=get_plotlyjs() if parallel else "",
        studies=[_describe_study(folder, known) for folder, known in zip(runs.studies, runs.manifests, strict=True)],
        notes=comparison.notes,
        metrics=[_build_metric(comparison, metric) for metric in comparison.metrics],
        aggregates=_build_aggregates(comparison),
        pictures=pictures,
        pictures_left_out=left_out,
        parallel=parallel,
        reasons=_collect_reasons(comparison),
        bad_runs=_build_bad_runs(comparison),
        programs=programs,
        glossary=GLOSSARY,
    )


def _describe_comparison(comparison: Comparison) -> str:
    runs = comparison.runs
    counts = {status: int((runs.status == code).sum()) for status, code in STATUS_CODES.items()}
    facts = [f"{len(runs):,} runs at {max(1, len(runs.points)):,} points"]
    facts += [f"metrics: {', '.join(comparison.metrics) or 'none'}"]
    facts += [f"{counts[status]:,} {status}" for status in (Status.NONFINITE, Status.FAILED) if counts[status]]
    return "; ".join([*facts, *([f"{runs.pending:,} pending"] if runs.pending else [])])


def _build_table(
    header: Sequence[str], rows: Sequence[Sequence[Any]], values: Sequence[Sequence[Any]] | None = None
) -> Table:
    """A table of texts; columns whose `values` (by default the cells) are numbers are sorted by these."""
    values = rows if values is None else values
    columns = [Column(name, all(_is_number(row[i]) for row in values)) for i, name in enumerate(header)]
    cells = [
        [_build_cell(*cell) for cell in zip(row, raw, columns, strict=True)]
        for row, raw in zip(rows[:MOST_ROWS], values[:MOST_ROWS], strict=True)
    ]
    return Table(columns, cells, max(0, len(rows) - MOST_ROWS))


def _build_cell(text: Any, value: Any, column: Column) -> Cell:
    return Cell(str(text), _get_sort_key(value) if column.is_numeric else None)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float | np.number) and not isinstance(value, bool))


def _get_sort_key(value: Any) -> str:
    return "" if value is None or not np.isfinite(value) else repr(float(value))


def _describe_study(folder: Folder, manifest: Manifest) -> dict[str, Any]:
    environment = read_environment(folder) or {}
    entries = {**manifest.fingerprint.describe()}
    entries |= {f"accepted ({i})": line for i, line in enumerate(manifest.accepted, 1)}
    entries |= {
        name: environment[name] for name in ("note", "tags", "started", "python", "devices") if environment.get(name)
    }
    entries |= list_repositories(environment)
    entries |= {f"devices of shard {i}": shard["devices"] for i, shard in enumerate(environment.get("shards", []), 1)}
    entries |= environment.get("versions", {})
    rows = [[name, value if isinstance(value, str) else json.dumps(value)] for name, value in entries.items()]
    command = format_command(folder) if environment else ""
    return {"name": folder.path.name, "command": command, "entries": _build_table(["what", "value"], rows)}


def _build_metric(comparison: Comparison, metric: str) -> dict[str, Any]:
    tables = []
    for frame, (header, rows) in (
        (comparison.points, list_estimates(comparison, metric)),
        (comparison.differences, list_differences(comparison, metric)),
    ):
        if rows:
            tables.append(_build_table(header, rows, _list_values(frame[frame["metric"] == metric], header, rows)))
    return {"name": metric, "direction": comparison.runs.directions.get(metric), "tables": tables}


def _list_values(frame: pd.DataFrame, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[Any]]:
    columns = []
    for i, name in enumerate(header):
        column = NUMBERS.get(name, name)
        columns.append(frame[column].tolist() if column in frame else [row[i] for row in rows])
    return [list(row) for row in zip(*columns, strict=True)]


def _build_aggregates(comparison: Comparison) -> Table | None:
    if not len(comparison.aggregates):
        return None
    values = comparison.aggregates.to_numpy(object).tolist()
    return _build_table(list(comparison.aggregates), [list(map(format_value, row)) for row in values], values)


def _encode_pictures(comparison: Comparison) -> tuple[list[dict[str, str]], int]:
    """The figures as base64 PNG while they fit the page, and the number of those left out."""
    shown, bytes_left, left_out = [], PICTURE_BYTES, 0
    for picture in draw_figures(comparison):
        out = io.BytesIO()
        picture.figure.savefig(out, format="png", dpi=110)
        data = base64.b64encode(out.getvalue()).decode()
        if len(data) > bytes_left:
            left_out += 1
            continue
        bytes_left -= len(data)
        shown.append({"title": picture.title, "data": data})
    return shown, left_out


def _build_parallel(comparison: Comparison) -> dict[str, str] | None:
    """Parallel coordinates over the axes and the metrics of some of the runs, as the JSON that plotly draws."""
    runs = comparison.runs
    finite = np.all([np.isfinite(values) for values in runs.values.values()], axis=0)
    chosen = np.flatnonzero(finite)
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(MOST_RUNS, len(chosen))).astype(int)] if len(chosen) else chosen
    if len(chosen) < 2 or not comparison.axes:
        return None
    dimensions = [_build_dimension(name, runs.points[name].iloc[runs.point[chosen]]) for name in comparison.axes]
    metrics = list(range(len(dimensions), len(dimensions) + len(runs.values)))
    dimensions += [{"label": escape(name), "values": values[chosen].tolist()} for name, values in runs.values.items()]
    last = dimensions[-1]["values"]
    low, high = np.quantile(last, [0.02, 0.98])
    line = {"color": last, "colorscale": "Viridis", "showscale": True, "cmin": float(low), "cmax": float(high)}
    figure = go.Figure(go.Parcoords(dimensions=dimensions, line=line, labelangle=0))
    figure.update_layout(margin={"l": 70, "r": 30, "t": 60, "b": 30}, font={"size": 12}, template="plotly_white")
    data = {**json.loads(figure.to_json()), "metrics": metrics}
    text = json.dumps(data).replace("<", "\\u003c")
    selection = f"{len(chosen):,} of {len(runs):,} runs, evenly chosen; " if len(chosen) < len(runs) else ""
    return {"selection": selection, "data": text}


def _build_dimension(name: str, values: pd.Series) -> dict[str, Any]:
    # plotly reads labels as HTML
    if pd.api.types.is_numeric_dtype(values):
        return {"label": escape(name), "values": values.astype(float).tolist()}
    codes, texts = pd.factorize(values.map(str))
    ticks = [escape(text) for text in texts]
    return {"label": escape(name), "values": codes.tolist(), "tickvals": list(range(len(texts))), "ticktext": ticks}


def _collect_reasons(comparison: Comparison) -> dict[str, int]:
    """How many of the compared runs failed for which reason."""
    runs, counts = comparison.runs, Counter[str]()
    if (runs.status == STATUS_CODES[Status.FAILED]).any():
        for i, folder in enumerate(runs.studies):
            counts.update(count_reasons(folder, runs.manifests[i], runs.numbers_of(i)))
    return dict(list(counts.items())[:MOST_ROWS])


def _build_bad_runs(comparison: Comparison) -> Table | None:
    runs, names = comparison.runs, list(Status)
    bad = np.flatnonzero(runs.status != STATUS_CODES[Status.OK])
    if not len(bad):
        return None
    header = [*comparison.axes, "seed", "status", *comparison.metrics]
    rows, values = [], []
    for run in bad[:MOST_ROWS]:
        label = runs.points.iloc[runs.point[run]].tolist() if comparison.axes else []
        head = [*label, int(runs.seed[run]), names[runs.status[run]].value]
        results = [float(column[run]) for column in runs.values.values()]
        rows.append([*head, *map(str, results)])
        values.append([*head, *results])
    table = _build_table(header, rows, values)
    return Table(table.columns, table.rows, len(bad) - len(rows))


def _build_programs(folder: Folder) -> Table | None:
    rows = read_programs(folder.programs)
    if len(rows) < 2:
        return None
    return _build_table(rows[0], rows[1:], [[_parse_number(cell) for cell in row] for row in rows[1:]])


def _parse_number(cell: str) -> Any:
    try:
        return float(cell) if cell else None
    except ValueError:
        return cell

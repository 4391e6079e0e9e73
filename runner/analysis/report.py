"""One page about a comparison: a file that opens without a network."""

import base64
import csv
import io
import json
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from runner import compare
from runner.analysis import figures
from runner.analysis.load import FAILED, NONFINITE
from runner.compare import Comparison
from runner.storage import folder as study
from runner.storage import manifest as record
from runner.storage import table
from runner.storage.folder import Folder

MOST_ROWS = 500
"""Rows of a table in the page; all are in `--csv`."""
MOST_RUNS = 2000
"""Runs in the parallel coordinates, evenly chosen from all."""
PICTURE_BYTES = 800_000
"""What the pictures may take: the page stays below 6 MB, of which the parallel coordinates are 4.8."""

STYLE = """
:root { color-scheme: light; --line: #d8dde3; --soft: #f5f7f9; --ink: #1b2733; --mark: #0072B2; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem 1.2rem 4rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; margin: 0.6rem 0 0.2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 0.6rem; border-bottom: 2px solid var(--line); padding-bottom: 0.2rem; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 0.4rem; overflow-wrap: anywhere; }
p.lead { color: #51606f; margin: 0; }
nav { display: flex; flex-wrap: wrap; gap: 0.3rem 1.1rem; margin: 0.8rem 0; font-size: 0.92rem; }
a { color: var(--mark); }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 6px; padding: 0.6rem 0.8rem;
  margin: 0.3rem 0;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.85rem; }
button.copy { float: right; font: inherit; font-size: 0.8rem; padding: 0.1rem 0.7rem; cursor: pointer; }
.scroll { overflow-x: auto; margin: 0.4rem 0 1rem; }
table { border-collapse: collapse; font-size: 0.86rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.28rem 0.7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { background: var(--soft); position: sticky; top: 0; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--mark); }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
td.text, th.text { text-align: left; }
td.wide { white-space: normal; min-width: 16rem; text-align: left; }
.notes li { margin: 0.2rem 0; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; padding: 0.5rem; break-inside: avoid; }
figure img { width: 100%; height: auto; display: block; }
figcaption { font-size: 0.85rem; color: #51606f; padding: 0.3rem 0.2rem 0; overflow-wrap: anywhere; }
#parallel { width: 100%; height: 26rem; }
dt { font-weight: 600; margin-top: 0.6rem; }
dd { margin: 0 0 0 1rem; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, button.copy, #interactive { display: none; }
  table { font-size: 7.5pt; }
  th, td { padding: 1px 4px; white-space: normal; }
  .scroll { overflow: visible; }
}
"""

SCRIPT = """
for (const header of document.querySelectorAll("th button")) header.addEventListener("click", () => {
  const th = header.parentElement, table = th.closest("table"), column = th.cellIndex;
  const up = th.getAttribute("aria-sort") !== "ascending";
  for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
  th.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => { const cell = row.cells[column], v = cell.dataset.v;
    return v === undefined ? cell.textContent : v === "" ? NaN : Number(v); };
  const rows = [...table.tBodies[0].rows].map(row => [key(row), row]);
  rows.sort(([a], [b]) => {
    if (typeof a === "number" && typeof b === "number") {
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return up ? a - b : b - a;
    }
    return up ? String(a).localeCompare(String(b)) : String(b).localeCompare(String(a));
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
});
for (const button of document.querySelectorAll("button.copy")) button.addEventListener("click", async () => {
  await navigator.clipboard.writeText(button.nextElementSibling.textContent);
  button.textContent = "copied";
});
const holder = document.getElementById("parallel");
if (holder) {
  const data = JSON.parse(document.getElementById("parallel-data").textContent);
  const told = document.getElementById("brushed");
  Plotly.newPlot(holder, data.data, data.layout, {displaylogo: false, responsive: true});
  const tell = () => {
    const dimensions = holder.data[0].dimensions, count = dimensions[0].values.length;
    const inside = (value, range) => range === undefined ||
      (Array.isArray(range[0]) ? range : [range]).some(([low, high]) => low <= value && value <= high);
    let kept = [];
    for (let i = 0; i < count; i++) if (dimensions.every(d => inside(d.values[i], d.constraintrange))) kept.push(i);
    const means = dimensions.filter((d, k) => data.metrics.includes(k)).map(d => {
      const values = kept.map(i => d.values[i]).filter(Number.isFinite);
      const mean = values.reduce((a, b) => a + b, 0) / values.length;
      const label = new DOMParser().parseFromString(d.label, "text/html").body.textContent;
      return label + ": mean " + mean.toPrecision(5);
    });
    const runs = kept.length.toLocaleString("en") + " of " + count.toLocaleString("en") + " runs";
    told.textContent = [runs, ...means].join("; ");
  };
  holder.on("plotly_restyle", tell);
  tell();
}
"""

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


def write(made: Comparison, path: Path) -> Path:
    """Writes the page, and tells where. Raises StudyFailedError if the disk refuses."""
    study.write(path, page(made))
    return path


def page(made: Comparison, *, interactive: bool = True) -> str:
    """The page as one text; without what is interactive it is a tenth of the size."""
    names = " and ".join(folder.path.name for folder in made.runs.studies)
    sections = [
        ("what", "What was run", _what(made)),
        ("tables", "Comparison", "".join(_tables(made))),
        ("pictures", "Pictures", _pictures(made)),
        ("interactive", "Runs, axis by axis", _parallel(made) if interactive else ""),
        ("reasons", "Nonfinite and failed runs", _reasons(made)),
        ("programs", "Programs", "".join(_programs(folder) for folder in made.runs.studies)),
        ("glossary", "What the words mean", _glossary()),
    ]
    sections = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{key}">{escape(title)}</a>' for key, title, _ in sections)
    body = "".join(f'<section id="{key}"><h2>{escape(title)}</h2>{text}</section>' for key, title, text in sections)
    policy = (
        "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'"
    )
    plotly = f"<script>{get_plotlyjs()}</script>" if 'id="parallel"' in body else ""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(names)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(names)}</h1>{_lead(made)}<nav>{links}</nav>{body}{plotly}<script>{SCRIPT}</script>"
        "</body></html>\n"
    )


def _lead(made: Comparison) -> str:
    runs, failed = len(made.runs), int((made.runs.status == FAILED).sum())
    nonfinite = int((made.runs.status == NONFINITE).sum())
    metrics = ", ".join(made.metrics) or "none"
    words = [f"{runs:,} runs at {max(1, len(made.runs.points)):,} points", f"metrics: {metrics}"]
    words += [f"{nonfinite:,} nonfinite"] if nonfinite else []
    words += [f"{failed:,} failed"] if failed else []
    words += [f"{made.runs.unfinished:,} still to be made"] if made.runs.unfinished else []
    return f'<p class="lead">{escape("; ".join(words))}</p>'


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]], values: Sequence[Sequence[Any]] | None = None) -> str:
    """A table whose columns sort: by `values` where they are numbers, else by what is shown."""
    values = values if values is not None else rows
    numeric = [all(_is_number(row[i]) for row in values) for i in range(len(header))]
    head = "".join(
        f'<th{"" if numeric[i] else " class=text"} scope="col"><button>{escape(name)}</button></th>'
        for i, name in enumerate(header)
    )
    lines = []
    for row, raw in zip(rows[:MOST_ROWS], values[:MOST_ROWS], strict=True):
        cells = [_cell(text, value, number) for text, value, number in zip(row, raw, numeric, strict=True)]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    more = (
        f"<p>{len(rows) - MOST_ROWS:,} more rows: python -m runner.compare … --csv</p>" if len(rows) > MOST_ROWS else ""
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>{more}'
    )


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float | np.number) and not isinstance(value, bool))


def _cell(text: Any, value: Any, number: bool) -> str:
    shown = escape(str(text))
    if number:
        sortable = "" if value is None or not np.isfinite(value) else repr(float(value))
        return f'<td data-v="{sortable}">{shown}</td>'
    return f'<td class="{"wide" if len(str(text)) > 60 else "text"}">{shown}</td>'


def _what(made: Comparison) -> str:
    text = []
    for folder in made.runs.studies:
        told = json.loads(folder.environment.read_text()) if folder.environment.exists() else {}
        known = record.required(folder.record)
        if len(made.runs.studies) > 1:
            text.append(f"<h3>{escape(folder.path.name)}</h3>")
        if told:
            text.append(f'<button class="copy">copy</button><pre>{escape(study.command(folder))}</pre>')
        facts = {**known.facts, **{f"accepted ({i + 1})": line for i, line in enumerate(known.accepted)}}
        facts |= {name: told[name] for name in ("started", "python", "devices") if told.get(name)}
        facts |= {f"devices of shard {i}": shard["devices"] for i, shard in enumerate(told.get("shards", []), 1)}
        facts |= told.get("versions", {})
        rows = _table(["what", "value"], [[name, _shown(value)] for name, value in facts.items()])
        text.append(f"<details><summary>values, versions, devices</summary>{rows}</details>")
    return "".join(text)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _tables(made: Comparison) -> Iterator[str]:
    if made.notes:
        yield f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in made.notes)}</ul>'
    for metric in made.metrics:
        goal = made.runs.directions.get(metric)
        yield f"<h3>{escape(metric)}{escape(f' ({goal})') if goal else ''}</h3>"
        for frame, (header, rows) in (
            (made.points, compare.points_table(made, metric)),
            (made.differences, compare.differences_table(made, metric)),
        ):
            if rows:
                yield _table(header, rows, _values(frame[frame["metric"] == metric], header, rows))
    if len(made.aggregates):
        yield "<h3>Over all tasks</h3>"
        rows = made.aggregates.to_numpy(object).tolist()
        yield _table(list(made.aggregates), [[_short(value) for value in row] for row in rows], rows)


NUMBERS = {
    "difference": "difference", "p (t)": "p_t_holm", "p (rank)": "p_rank_holm", "effect": "effect", "mean": "mean",
    "P(better)": "improvement", "P(greater)": "improvement", "median": "median", "IQM": "iqm", "std": "std",
    "min": "min", "max": "max", "could show": "detectable", "seeds for 80 % power": "seeds_needed", "pairs": "pairs",
    "seeds": "finished", "nonfinite": "nonfinite", "failed": "failed",
}  # fmt: skip
"""The columns of a comparison's frames that printed columns are sorted by."""


def _values(frame: pd.DataFrame, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[Any]]:
    columns = []
    for i, name in enumerate(header):
        own = NUMBERS.get(name, name)
        columns.append(frame[own].tolist() if own in frame else [row[i] for row in rows])
    return [list(row) for row in zip(*columns, strict=True)]


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) and np.isfinite(value) else "" if value != value else str(value)


def _pictures(made: Comparison) -> str:
    shown, bytes_left, left_out = [], PICTURE_BYTES, 0
    for picture in figures.pictures(made):
        out = io.BytesIO()
        picture.figure.savefig(out, format="png", dpi=110)
        text = base64.b64encode(out.getvalue()).decode()
        if len(text) > bytes_left:
            left_out += 1
            continue
        bytes_left -= len(text)
        title = escape(picture.title)
        image = f'<img src="data:image/png;base64,{text}" alt="{title}">'
        shown.append(f"<figure>{image}<figcaption>{title}</figcaption></figure>")
    more = f"<p>{left_out} more pictures: python -m runner.compare … --figures</p>" if left_out else ""
    return f'<div class="pictures">{"".join(shown)}</div>{more}' if shown else ""


def _parallel(made: Comparison) -> str:
    """Parallel coordinates over the axes and the metrics of some of the runs, with brushing."""
    runs = made.runs
    finite = np.all([np.isfinite(values) for values in runs.values.values()], axis=0)
    chosen = np.flatnonzero(finite)
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(MOST_RUNS, len(chosen))).astype(int)] if len(chosen) else chosen
    if len(chosen) < 2 or not made.axes:
        return ""
    dimensions = [_dimension(name, runs.points[name].iloc[runs.point[chosen]]) for name in made.axes]
    metrics = list(range(len(dimensions), len(dimensions) + len(runs.values)))
    dimensions += [{"label": escape(name), "values": values[chosen].tolist()} for name, values in runs.values.items()]
    last = dimensions[-1]["values"]
    low, high = np.quantile(last, [0.02, 0.98])
    line = {"color": last, "colorscale": "Viridis", "showscale": True, "cmin": float(low), "cmax": float(high)}
    figure = go.Figure(go.Parcoords(dimensions=dimensions, line=line, labelangle=0))
    figure.update_layout(margin={"l": 70, "r": 30, "t": 60, "b": 30}, font={"size": 12}, template="plotly_white")
    data = {**json.loads(figure.to_json()), "metrics": metrics}
    text = json.dumps(data).replace("<", "\\u003c")
    some = f"{len(chosen):,} of {len(runs):,} runs, evenly chosen; " if len(chosen) < len(runs) else ""
    return (
        f"<p>{some}drag along an axis to keep a range, click it to let go. "
        f'<strong id="brushed"></strong></p><div id="parallel"></div>'
        f'<script type="application/json" id="parallel-data">{text}</script>'
    )


def _dimension(name: str, values: pd.Series) -> dict[str, Any]:
    if pd.api.types.is_numeric_dtype(values):
        return {"label": escape(name), "values": values.astype(float).tolist()}
    codes, texts = pd.factorize(values.map(str))
    ticks = [escape(text) for text in texts]
    return {"label": escape(name), "values": codes.tolist(), "tickvals": list(range(len(texts))), "ticktext": ticks}


def _reasons(made: Comparison) -> str:
    runs = made.runs
    bad = np.flatnonzero(runs.status != 0)
    if not len(bad):
        return "<p>None.</p>"
    told: dict[str, str] = {}
    for folder in runs.studies:
        told |= table.reasons(folder.results, record.required(folder.record).columns, MOST_ROWS)
    status = {NONFINITE: "nonfinite", FAILED: "failed"}
    header = [*made.axes, "seed", "status", *made.metrics]
    rows, values = [], []
    for run in bad[:MOST_ROWS]:
        label = runs.points.iloc[runs.point[run]].tolist() if made.axes else []
        own = [float(column[run]) for column in runs.values.values()]
        rows.append([*label, int(runs.seed[run]), status[int(runs.status[run])], *map(str, own)])
        values.append([*label, int(runs.seed[run]), status[int(runs.status[run])], *own])
    reasons = "".join(f"<li>{escape(count)}: {escape(reason)}</li>" for reason, count in told.items())
    more = f"<p>{len(bad):,} in all.</p>" if len(bad) > MOST_ROWS else ""
    return (f"<ul>{reasons}</ul>" if reasons else "") + _table(header, rows, values) + more


def _programs(folder: Folder) -> str:
    if not folder.programs.exists():
        return ""
    rows = list(csv.reader(io.StringIO(folder.programs.read_text())))
    values = [[_float(cell) for cell in row] for row in rows[1:]]
    return f"<p>Of the last call that ran something.</p>{_table(rows[0], rows[1:], values)}" if len(rows) > 1 else ""


def _float(cell: str) -> Any:
    try:
        return float(cell) if cell else None
    except ValueError:
        return cell


def _glossary() -> str:
    return f"<dl>{''.join(f'<dt>{escape(word)}</dt><dd>{escape(text)}</dd>' for word, text in GLOSSARY)}</dl>"

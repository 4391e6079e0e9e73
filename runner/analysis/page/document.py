"""The document: answer, then for each metric its main picture, its table, and what is folded."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from runner.analysis.answer import answer
from runner.analysis.comparison import Comparison
from runner.analysis.history import find_search
from runner.analysis.page.geometry import name_color
from runner.analysis.page.glossary import GLOSSARY
from runner.analysis.page.origins import describe_study, list_failures
from runner.analysis.page.runs import dump_runs
from runner.analysis.page.svg import render_panel
from runner.analysis.pictures.gallery import draw_pictures
from runner.analysis.pictures.scene import Panel, Picture
from runner.analysis.pictures.shades import color_cell
from runner.analysis.pictures.shown import choose_shown
from runner.analysis.standings import describe_goal
from runner.analysis.tables import Table, list_aggregates, list_differences, list_estimates, list_standings
from runner.storage.folder import write_file

MOST_ROWS = 20
"""Rows of a table that are not folded."""
MOST_PRINTED = 12
"""Columns of a table that fit a printed page."""
MOST_CELLS = 40_000
"""Cells of all full tables, which are left out beyond that: `--csv` has them."""
GRADIENT = 9
"""Colours of the legend of a map."""


@dataclass(frozen=True)
class Section:
    """What the page has of a metric; `full` are tables of all columns by their captions."""

    name: str
    goal: str
    is_exploratory: bool
    main: Sequence[Picture]
    others: Sequence[Picture]
    table: Table
    full: Sequence[tuple[str, Table]]
    left_out: str


def write_report(comparison: Comparison, path: Path) -> Path:
    """Writes the page and returns its path. Raises StudyFailedError if the disk refuses."""
    write_file(path, render_report(comparison))
    return path


def render_report(comparison: Comparison) -> str:
    """The page as one text."""
    files = resources.files("runner.analysis.page")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((files / "page.html.jinja").read_text())
    shown = choose_shown(comparison.runs)
    pictures = list(draw_pictures(comparison, shown))
    runs = comparison.runs
    return template.render(
        title=" and ".join(folder.path.name for folder in runs.studies),
        style=(files / "page.css").read_text(),
        script=(files / "page.js").read_text(),
        answer=answer(comparison),
        metrics=_build_sections(comparison, pictures),
        aggregates=list_aggregates(comparison) if len(comparison.aggregates) else None,
        front=next((picture for picture in pictures if picture.name == "front"), None),
        curves=[picture for picture in pictures if picture.name == "curves"],
        threads=next((picture for picture in pictures if picture.name == "threads"), None),
        notes=comparison.notes,
        studies=[describe_study(folder, known) for folder, known in zip(runs.studies, runs.manifests, strict=True)],
        failures=list_failures(comparison),
        glossary=GLOSSARY,
        runs=dump_runs(comparison, shown),
        most_rows=MOST_ROWS,
        most_printed=MOST_PRINTED,
        draw=_draw,
        color_name=name_color,
        gradient=",".join(color_cell(i / (GRADIENT - 1)) for i in range(GRADIENT)),
        sort_key=_format_sort_key,
        tie=lambda text: text.replace(" %", "\u00a0%"),
    )


def _draw(panel: Panel, alternative: str) -> Markup:
    return Markup(render_panel(panel, alternative))


def _format_sort_key(value: float) -> str:
    return "" if value is None or not math.isfinite(value) else f"{float(value):.9g}"


def _build_sections(comparison: Comparison, pictures: Sequence[Picture]) -> list[Section]:
    full = {metric: _list_full(comparison, metric) for metric in comparison.metrics}
    cells = sum(len(table.rows) * len(table.header) for tables in full.values() for _, table in tables)
    left_out = (
        "" if cells <= MOST_CELLS else "All columns: python -m runner.compare … --csv points, or --csv differences."
    )
    sections = []
    for metric in _order_metrics(comparison):
        own = [
            picture for picture in pictures if picture.metric == metric and picture.name not in ("curves", "threads")
        ]
        sections.append(
            Section(
                name=metric,
                goal=describe_goal(comparison, metric),
                is_exploratory=metric not in comparison.primary,
                main=[picture for picture in own if picture.is_main],
                others=[picture for picture in own if not picture.is_main],
                table=list_standings(comparison, metric),
                full=[] if left_out else full[metric],
                left_out=left_out,
            )
        )
    return sections


def _order_metrics(comparison: Comparison) -> list[str]:
    """The metrics in the order of the page: first what a search was to improve."""
    search = find_search(comparison.runs)
    return list(dict.fromkeys([*(search.objectives if search else ()), *comparison.metrics]))


def _list_full(comparison: Comparison, metric: str) -> list[tuple[str, Table]]:
    tables = [
        ("Estimates: all columns", list_estimates(comparison, metric)),
        ("Differences: all columns", list_differences(comparison, metric)),
    ]
    return [(caption, table) for caption, table in tables if table.rows]

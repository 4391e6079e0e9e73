"""The pictures that fit a comparison: per metric one main picture made for its axes, then the others."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from runner.analysis.comparison import Comparison
from runner.analysis.history import Search, find_search
from runner.analysis.pictures.curve import draw_curve
from runner.analysis.pictures.differences import draw_differences
from runner.analysis.pictures.distribution import draw_distribution, draw_profile
from runner.analysis.pictures.front import draw_front
from runner.analysis.pictures.heat import draw_heat_maps
from runner.analysis.pictures.history import draw_history, draw_rungs
from runner.analysis.pictures.importance import draw_importance
from runner.analysis.pictures.lines import draw_lines
from runner.analysis.pictures.points import draw_points
from runner.analysis.pictures.scene import COLORS, Dots, Panel, Picture
from runner.analysis.pictures.shown import Shown, choose_shown
from runner.analysis.pictures.slices import draw_slices
from runner.analysis.pictures.steps import draw_steps
from runner.analysis.pictures.subject import Subject, list_subjects
from runner.analysis.pictures.threads import draw_threads

MAIN: Sequence[Callable[[Subject], Picture | None]] = (draw_curve, draw_heat_maps, draw_lines, draw_points)
"""In this order the first that fits the axes is the main picture; those after it are drawn as well."""
FEWEST_SEARCHED = 3
"""Points of a search from which on it has pictures of its own."""
MOST_ON_CURVE = 300
"""Points of a curve with symbols and bars; of more, dots and medians tell more."""
MOST_TASKS = 6
"""Tasks with panels of their own in a picture."""


def draw_pictures(comparison: Comparison, shown: Shown | None = None) -> Iterator[Picture]:
    """All pictures of a comparison; the first one of each metric is its main picture."""
    shown = choose_shown(comparison.runs) if shown is None else shown
    search = find_search(comparison.runs)
    for metric in comparison.metrics if len(comparison.points) else ():
        yield from _draw_metric(comparison, metric, shown, search)
    if search is not None and (front := draw_front(comparison, search, shown)) is not None:
        yield front
    yield from draw_steps(comparison)
    threads = draw_threads(comparison, shown, search)
    if threads is not None:
        yield threads


def name_file(picture: Picture) -> str:
    """The name of a picture's file, without its ending."""
    return "-".join(re.sub(r"[^\w.-]+", "_", part) for part in (picture.metric, picture.name) if part)


def _draw_metric(comparison: Comparison, metric: str, shown: Shown, search: Search | None) -> Iterator[Picture]:
    subjects = list(list_subjects(comparison, metric, shown))
    if not subjects:
        return
    if search is not None and len(subjects) == 1 and len(subjects[0].rows) >= FEWEST_SEARCHED:
        yield from (_tell_dots(made, shown) for made in _draw_search(subjects[0], search))
    else:
        for i, made in enumerate(_draw_each(MAIN, subjects)):
            yield replace(_tell_dots(made, shown), is_main=i == 0)
    for made in _draw_each((draw_differences, draw_distribution), subjects):
        yield replace(made, is_main=False)
    profile = draw_profile(subjects[0])
    if profile is not None:
        yield profile


def _draw_search(subject: Subject, search: Search) -> Iterator[Picture]:
    """The pictures of a metric of a search: at once its history and slices along the axes, folded what is left."""
    drawn = [draw_history(subject, search), draw_rungs(subject, search)]
    along = draw_curve(subject) if len(subject.rows) <= MOST_ON_CURVE else None
    drawn += [along or draw_slices(subject, search), draw_importance(subject, search)]
    drawn += [draw_lines(subject)] if _has_few_lines(subject) and not search.budget else []
    main = ("history", "rungs", "slices", "axis")
    for picture in (*drawn, draw_points(subject)):
        if picture is not None:
            yield replace(picture, is_main=picture.name in main)


def _has_few_lines(subject: Subject) -> bool:
    """Whether a drawn axis is crossed with others of few values, so that it has lines of several points."""
    counts = [subject.rows[name].map(str).nunique() for name in subject.axes]
    others = math.prod(sorted(counts)[:-1])
    return len(counts) > 1 and others <= COLORS and len(subject.rows) >= FEWEST_SEARCHED * others


def _draw_each(draw: Sequence[Callable[[Subject], Picture | None]], subjects: Sequence[Subject]) -> Iterator[Picture]:
    """What each function draws of the tasks, as one picture with panels for each of them."""
    for function in draw:
        made = [picture for subject in subjects[:MOST_TASKS] if (picture := function(subject)) is not None]
        if made:
            yield _join(made, len(subjects))


def _join(pictures: Sequence[Picture], tasks: int) -> Picture:
    first = pictures[0]
    if len(pictures) == 1 and tasks == 1:
        return first
    caption = f"{first.caption} Each task has its own scales."
    if tasks > len(pictures):
        caption += f" {len(pictures)} of {tasks} tasks; choose others by --filter."
    panels = tuple(panel for picture in pictures for panel in _keep_lines(picture))
    keys = tuple(dict.fromkeys(key for picture in pictures for key in picture.keys if not key.has_line))
    alternative = " ".join(f"Task {picture.panels[0].title}: {picture.alternative}" for picture in pictures)
    return replace(first, caption=caption, panels=panels, keys=keys, alternative=alternative)


def _keep_lines(picture: Picture) -> tuple[Panel, ...]:
    """The panels of a picture, the last one with the legend of its lines, which have other meanings in other tasks."""
    *others, last = picture.panels
    return *others, replace(last, keys=tuple(key for key in picture.keys if key.has_line))


def _tell_dots(picture: Picture, shown: Shown) -> Picture:
    """The picture with a word about the runs that are not drawn, if it has dots."""
    if not shown.left_out or not any(map(_has_dots, picture.panels)):
        return picture
    return replace(picture, caption=f"{picture.caption} {shown.left_out}.")


def _has_dots(panel: Panel) -> bool:
    return any(isinstance(mark, Dots) for mark in panel.marks)

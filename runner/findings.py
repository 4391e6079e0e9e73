"""What a search has found: its best points with what the seeds show of them, and the commands that confirm them."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from runner import terminal
from runner.config.command import Call
from runner.config.overrides import quote
from runner.config.searches import SEED, SearchCall
from runner.plan.values import freeze
from runner.search.objectives import Reduction
from runner.search.points import Trial
from runner.storage.columns import format_cell
from runner.storage.counting import find_first_metric
from runner.storage.folder import Folder, shorten_path
from runner.storage.manifest import Manifest

if TYPE_CHECKING:  # imports pandas and scipy, which most calls need not
    from runner.analysis.comparison import BestPoints

CONFIRMING_SEEDS = 20
"""Fresh seeds of the command that confirms the best points."""
MOST_RUNS = 2_000
"""Runs of a drawn study whose end says what the seeds show; of more, the comparison does."""
CONFIRM = "confirm by fresh seeds: "
OF_RUNGS = "The rungs before the last one have chosen by the same seeds, which this does not allow for."
_OWN = ("sweep.", "hydra.", "hydra/", "study=")
_OPTIONS = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp")


def tell_search(call: Call, search: SearchCall, folder: Folder, manifest: Manifest, ranked: Sequence[Trial]) -> None:
    """Prints what the seeds show of the best points of a search, `ranked`, and how to confirm them."""
    metrics = [objective.output for objective in search.objectives]
    found = _find_best(folder, metrics)
    _print_found(found)
    if search.binder.pinned is not None and found.best:
        terminal.print_prose(OF_RUNGS)
    if not _has_seed(manifest):
        return
    if _is_found(search, found, ranked):
        _print_confirmation(folder, found)
        return
    if found.best:
        terminal.print_prose(
            f"The search has chosen {_explain_choice(search)}, and so another point than the best mean."
        )
    terminal.print_line(f"{CONFIRM}{format_confirmation(call, search, ranked[0])}")


def tell_drawn(folder: Folder, manifest: Manifest, runs: int) -> None:
    """Prints what the seeds show of the best point of a study of drawn points, and how to confirm it."""
    metric = next((name for name in manifest.primary if name in manifest.metrics), find_first_metric(manifest))
    if metric is None or not _has_seed(manifest):
        return
    if runs > MOST_RUNS:
        terminal.print_line(f"{CONFIRM}{_format_compare(folder, [metric])}")
        return
    found = _find_best(folder, [metric])
    _print_found(found)
    _print_confirmation(folder, found)


def _find_best(folder: Folder, metrics: Sequence[str]) -> "BestPoints":
    from runner.analysis.comparison import find_best_points

    return find_best_points(folder.path, metrics)


def _print_found(found: "BestPoints") -> None:
    from runner.analysis.answer import tell_best
    from runner.analysis.formats import format_label
    from runner.analysis.standings import name_goal

    axes = list(found.runs.points.columns)
    for metric, best in found.best.items():
        name = format_label(found.runs.points.iloc[best.point].to_dict(), axes)
        goal = name_goal(found.runs.directions[metric])
        terminal.print_prose(tell_best(best, f"{metric} ({goal})", name, found.rivals[metric]))


def _print_confirmation(folder: Folder, found: "BestPoints") -> None:
    left = [metric for metric, best in found.best.items() if best.confirmed is None]
    if left:
        terminal.print_line(f"{CONFIRM}{_format_compare(folder, left)}")


def _format_compare(folder: Folder, metrics: Sequence[str]) -> str:
    named = [word for metric in metrics for word in ("--metric", metric)]
    words = ["python", "-m", "runner.compare", shorten_path(folder.path), *named, "--confirm", str(CONFIRMING_SEEDS)]
    return shlex.join(words)


def _has_seed(manifest: Manifest) -> bool:
    return manifest.columns.parameters.get(SEED) == "uint32"


def _is_found(search: SearchCall, found: "BestPoints", ranked: Sequence[Trial]) -> bool:
    """Whether the best points by their means are what the search has chosen: its best, or points of its front."""
    if not found.best:
        return False
    chosen = ranked[:1] if len(search.objectives) == 1 else ranked
    return all(
        any(_is_point(row, search.complete(trial)) for trial in chosen)
        for row in (found.runs.points.iloc[best.point].to_dict() for best in found.best.values())
    )


def _is_point(row: Mapping[Any, Any], point: Mapping[str, Any]) -> bool:
    """Whether a point of a comparison, by the axes that it has, is one of the search."""
    from runner.analysis.load import is_same

    shared = [name for name in row if name in point]
    texts = {name: format_cell(freeze(point[name])) for name in shared}
    return bool(shared) and all(is_same(row[n], point[n]) or str(row[n]) == texts[n] for n in shared)


def _explain_choice(search: SearchCall) -> str:
    def explain() -> Iterator[str]:
        reduction = search.objectives[0].reduction
        if reduction is not Reduction.MEAN:
            yield f"by the {reduction} of the seeds"
        if search.constraints:
            yield f"among points with {', '.join(map(str, search.constraints))}"
        if search.binder.pinned is not None:
            yield f"among points with the largest {search.binder.pinned}"

    return " and ".join(explain()) or "by all runs, nonfinite ones included"


def format_confirmation(call: Call, search: SearchCall, best: Trial) -> str:
    """The command that runs a point with fresh seeds, in a study of its own."""
    names = set(search.binder.keys) - {search.binder.pinned}
    lines = yaml.safe_load(call.config_files["overrides.yaml"]) or []
    fixed = [line for line in lines if line.lstrip("+").split("=")[0] not in names and not line.startswith(_OWN)]
    point = [f"{key}={_format_override(value)}" for key, value in best.point.items()]
    used = [int(value) for keys in search.binder.crossed for key in keys if key.key == SEED for value in key.values]
    start = max(used, default=0) + 1
    seeds = f"seed=range({start},{start + CONFIRMING_SEEDS})"
    options = list(_list_options(call.origin.command))
    return shlex.join(
        ["python", "-m", "runner", *options, "-m", *fixed, *point, seeds, f"study={call.folder.name}-confirmed"]
    )


def _list_options(command: Sequence[str]) -> Iterator[str]:
    """The options of a command that say where configs are."""
    for word, following in zip(command, [*command[1:], ""], strict=True):
        if word in _OPTIONS:
            yield from (word, following)
        elif word.partition("=")[0] in _OPTIONS:
            yield word


def _format_override(value: Any) -> str:
    if isinstance(value, float):
        return str(np.float32(value))
    return quote(value) if isinstance(value, str) and not value.replace("_", "").isalnum() else str(value)

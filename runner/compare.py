"""Studies compared across seeds: `python -m runner.compare outputs/lr_scan`."""

import argparse
import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis import statistics
from runner.analysis.load import FAILED, OK, Runs, load
from runner.errors import InvalidInputError
from runner.storage import folder as study
from runner.storage.folder import Folder

MOST_POINTS = 5000
"""Points that are compared; of more, those that come first in the tables."""
SHOWN_ROWS = 20


@dataclass(frozen=True)
class Comparison:
    """What the seeds show, a row for each point and metric; the columns are those of the README.

    `points` are estimates, `differences` those to the baseline, `aggregates` those over several tasks (empty if
    there is one), `notes` what a reader has to know.
    """

    runs: Runs
    level: float
    metrics: tuple[str, ...]
    axes: tuple[str, ...]
    points: pd.DataFrame
    differences: pd.DataFrame
    aggregates: pd.DataFrame
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Values:
    """The finite values of one metric at one point with their replicates, `(seeds,)`, sorted by these."""

    values: np.ndarray
    replicate: np.ndarray
    seed: np.ndarray
    finished: int
    nonfinite: int
    failed: int


def compare(
    folders: Sequence[Path | str],
    *,
    metrics: Sequence[str] | None = None,
    by: Sequence[str] | None = None,
    baseline: Mapping[str, Any] | None = None,
    level: float = 0.95,
    keep: str | None = None,
) -> Comparison:
    """Compares the points of studies by their seeds.

    `metrics` are scalar outputs, or parts of arrays such as `y.mean`; all scalars if None. `by` are the axes that
    make points; all that vary if None. `baseline` gives values of axes: each point is compared with the one that
    has these instead of its own; with the first point, of its task, if None. `keep` filters the runs by an
    expression of pandas. Raises InvalidInputError for what is not there.
    """
    if not 0.5 <= level < 1:
        raise InvalidInputError(f"the level of confidence must be at least 0.5 and less than 1, got {level}")
    runs = load([Path(folder) for folder in folders], metrics, by, keep)
    against, notes = _baselines(runs, baseline), _notes(runs)
    points: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    labels = runs.points.to_dict("records") if len(runs.points.columns) else [{}]
    for metric in runs.values:
        found = _by_point(runs, metric)
        direction = runs.directions.get(metric, "")
        rows = [_estimates(values, level, direction, int(runs.planned[i])) for i, values in enumerate(found)]
        points += [{**labels[i], "metric": metric, **row} for i, row in enumerate(rows) if row["seeds"]]
        pairs = [(i, j) for i, j in enumerate(against) if i != j and i < len(found) and j < len(found)]
        pairs = [(i, j) for i, j in pairs if len(found[i].values) and len(found[j].values)]
        compared = [_difference(found[i], found[j], level, direction) for i, j in pairs]
        _adjust(compared, level)
        names = [_named(labels[j], list(runs.points.columns)) for _, j in pairs]
        differences += [
            {**labels[i], "metric": metric, "against": name, **row}
            for (i, _), name, row in zip(pairs, names, compared, strict=True)
        ]
    for row in differences:
        row["command"] = _command(runs, row.pop("more"))
    aggregates = _aggregates(runs, baseline, level)
    axes = tuple(runs.points.columns)
    made = pd.DataFrame(points), pd.DataFrame(differences), pd.DataFrame(aggregates)
    return Comparison(runs, level, tuple(runs.values), axes, *made, (*notes, *_about(made[0], made[1])))


def _baselines(runs: Runs, baseline: Mapping[str, Any] | None) -> list[int]:
    """For each point the one that it is compared with."""
    count, frame = min(len(runs.points), MOST_POINTS), runs.points
    if baseline is None:  # other tasks have other scales: each has its own first point
        tasks = frame["task"].tolist() if "task" in frame else [""] * count
        firsts = {task: tasks.index(task) for task in dict.fromkeys(tasks)}
        return [firsts[task] for task in tasks[:count]]
    for name, value in baseline.items():
        if name not in frame:
            raise InvalidInputError(f"the baseline names {name!r}; the axes are: {', '.join(frame.columns) or 'none'}")
        if not frame[name].map(lambda has, value=value: _same(has, value)).any():
            has = ", ".join(dict.fromkeys(map(str, frame[name])))
            raise InvalidInputError(f"the baseline has {name}={value}; there is: {has}")
    keys = [tuple(row) for row in frame.itertuples(index=False, name=None)]
    place = {key: i for i, key in enumerate(keys)}
    chosen = {name: next(has for has in frame[name] if _same(has, value)) for name, value in baseline.items()}
    partner = [tuple(chosen.get(name, own) for name, own in zip(frame, key, strict=True)) for key in keys[:count]]
    return [place.get(key, i) for i, key in enumerate(partner)]


def _same(has: Any, value: Any) -> bool:
    try:
        return bool(np.float32(has) == np.float32(value))
    except (TypeError, ValueError):
        return str(has) == str(value)


def _by_point(runs: Runs, metric: str) -> list[Values]:
    count = min(len(runs.points), MOST_POINTS) if len(runs.points.columns) else 1
    order = np.lexsort((runs.replicate, runs.point))
    bounds = np.searchsorted(runs.point[order], np.arange(count + 1))
    values, status = runs.values[metric], runs.status
    found = []
    for i in range(count):
        rows = order[bounds[i] : bounds[i + 1]]
        own, state = values[rows], status[rows]
        finite = np.isfinite(own)
        given = finite | (state != OK)  # a task without this output has an empty cell, and no doubt about its runs
        failed = int((state == FAILED).sum())
        finished = int(given.sum()) - failed
        kept = rows[finite]
        found.append(Values(own[finite], runs.replicate[kept], runs.seed[kept], finished, finished - len(kept), failed))
    return found


def _estimates(found: Values, level: float, direction: str, planned: int) -> dict[str, Any]:
    """A point's row: the estimates are of the finite values."""
    values = found.values
    counts = {
        "seeds": planned if found.finished + found.failed else 0,
        "finished": found.finished,
        "nonfinite": found.nonfinite,
        "nonfinite_share": found.nonfinite / found.finished if found.finished else math.nan,
        "failed": found.failed,
    }
    empty = dict.fromkeys(("mean", "low", "high", "median", "iqm", "std", "min", "max"), math.nan)
    if not len(values):
        return {**counts, **empty, "interval": "", "min_seed": -1, "max_seed": -1, "worst_seed": -1}
    interval = statistics.mean_interval(values, level)
    least, most = int(np.argmin(values)), int(np.argmax(values))
    worst = {"minimize": int(found.seed[most]), "maximize": int(found.seed[least])}.get(direction, -1)
    return {
        **counts,
        "mean": float(values.mean()),
        "low": interval.low,
        "high": interval.high,
        "interval": interval.method,
        "median": float(np.median(values)),
        "iqm": statistics.iqm(values),
        "std": float(values.std(ddof=1)) if len(values) > 1 else math.nan,
        "min": float(values[least]),
        "min_seed": int(found.seed[least]),
        "max": float(values[most]),
        "max_seed": int(found.seed[most]),
        "worst_seed": worst,
    }


def _difference(a: Values, b: Values, level: float, direction: str) -> dict[str, Any]:
    """A point less its baseline: paired over the common seeds, or by Welch where there are none."""
    alpha, sign = 1 - level, {"minimize": -1.0}.get(direction, 1.0)
    common, left, right = np.intersect1d(a.replicate, b.replicate, return_indices=True)
    if len(common):
        x, y = a.values[left], b.values[right]
        gaps, pairs, kind = x - y, len(common), "paired"
        interval, (t, rank) = statistics.mean_interval(gaps, level), statistics.paired_p(gaps)
        size = statistics.effect(gaps)
        wins = float((sign * gaps > 0).sum() + 0.5 * (gaps == 0).sum())
        share, shared = wins / pairs, statistics.share_interval(wins, pairs, level)
        least, spread = statistics.smallest_p(pairs), float(gaps.std(ddof=1)) if pairs > 1 else math.nan
        gap, needed = float(gaps.mean()), statistics.seeds_needed(size, alpha)
    else:
        x, y, kind = a.values, b.values, "Welch"
        pairs, gap = min(len(x), len(y)), float(x.mean() - y.mean())
        interval, (t, rank) = statistics.welch_interval(x, y, level), statistics.welch_p(x, y)
        size, share = statistics.effect_of(x, y), statistics.improvement(sign * x, sign * y)
        shared = statistics.improvement_interval(sign * x, sign * y, level)
        least, spread, needed = statistics.smallest_p(len(x), len(y)), math.nan, None
    return {
        "kind": kind,
        "pairs": pairs,
        "difference": gap,
        "low": interval.low,
        "high": interval.high,
        "interval": interval.method,
        "p_t": t,
        "p_rank": rank,
        "smallest_p_rank": least,
        "effect": size,
        "improvement": share,
        "improvement_low": shared.low,
        "improvement_high": shared.high,
        "detectable": statistics.detectable(pairs, alpha) * spread if pairs > 1 else math.nan,
        "seeds_needed": needed,
        "more": max(0, needed - pairs) if needed and needed <= 10**6 else 0,
        "better": {1: "yes", -1: "no"}.get(int(np.sign(sign * gap)), "equal") if direction else "",
    }


def _adjust(rows: list[dict[str, Any]], level: float) -> None:
    """Adjusts the p-values of one metric's comparisons for their number, and says what they show."""
    for name in ("p_t", "p_rank"):
        adjusted = statistics.holm(np.array([row[name] for row in rows], dtype=float))
        for row, p in zip(rows, adjusted, strict=True):
            row[f"{name}_holm"] = float(p)
    for row in rows:
        row["verdict"] = _verdict(row, len(rows), 1 - level)


def _verdict(row: Mapping[str, Any], comparisons: int, alpha: float) -> str:
    """What the seeds show of a difference, and no more than that."""
    if row["pairs"] < 2:
        return "one seed shows no difference"
    word = {"yes": "better", "no": "worse"}.get(row["better"], "differs")
    t, rank = row["p_t_holm"] < alpha, row["p_rank_holm"] < alpha
    reach = min(1.0, row["smallest_p_rank"] * comparisons)
    if reach >= alpha:
        seeds = f"{row['pairs']} seeds"
        words = f"by rank {seeds} cannot reach {alpha:.2g} (at best {reach:.3g})"
        return f"{word} by t; {words}" if t else f"not shown; {words}"
    if t and rank:
        return word
    return f"{word} by {'t' if t else 'rank'} only" if t or rank else "not shown"


def _command(runs: Runs, more: int) -> str:
    """The command that adds so many seeds to the study; empty where there is nothing to add."""
    folder = runs.studies[0]
    if more <= 0 or len(runs.studies) > 1 or not folder.environment.exists() or runs.seed.max() < 0:
        return ""
    other = ("seed=", "study=", "overwrite=")
    words = [word for word in shlex.split(study.command(folder)) if not word.startswith(other)]
    is_sweep = any(word in ("-m", "--multirun") for word in words[3:]) or any("experiment=" in word for word in words)
    first = int(runs.seed.max()) + 1
    added = [*([] if is_sweep else ["-m"]), f"seed=range({first},{first + more})", f"study={folder.path.name}"]
    return shlex.join([*words, *added])


def _named(label: Mapping[str, Any], axes: Sequence[str]) -> str:
    return " ".join(f"{name}={_text(label[name])}" for name in axes) or "–"


def _notes(runs: Runs) -> list[str]:
    notes = []
    if runs.unfinished:
        notes.append(
            f"{runs.unfinished:,} planned runs are still to be made; this is of the {len(runs):,} that are done"
        )
    if runs.pooled:
        notes.append(
            f"each point has the runs of all values of {', '.join(runs.pooled)}, paired by them and by the seed"
        )
    if runs.categories:
        notes.append(f"{', '.join(runs.categories)}: words, which are in the table and not compared")
    if len(runs.points) > MOST_POINTS:
        notes.append(f"the first {MOST_POINTS:,} of {len(runs.points):,} points; choose others by --filter")
    return notes


def _about(points: pd.DataFrame, differences: pd.DataFrame) -> list[str]:
    notes = []
    if len(points) and (points["finished"] <= 1).all():
        notes.append("one seed for each point: no interval and no test, for nothing tells how much seeds differ")
    if len(points) and points["nonfinite"].sum():
        notes.append(
            f"{points['nonfinite'].sum():,} values of {points['finished'].sum():,} are not finite; "
            "estimates are of the finite ones"
        )
    if len(differences) and (differences["kind"] == "Welch").any():
        notes.append("points without a common seed are compared by Welch's test, unpaired: common seeds show more")
    return notes


def scores(runs: Runs, metric: str) -> dict[tuple[Any, ...], list[np.ndarray]]:
    """For each point of the axes but the task the finite values `(seeds,)` of each task, where all tasks have some.

    Empty where there is one task only.
    """
    if "task" not in runs.points or runs.points["task"].nunique() < 2 or len(runs.points) > MOST_POINTS:
        return {}
    others = [name for name in runs.points if name != "task"]
    found = _by_point(runs, metric)
    gathered: dict[tuple[Any, ...], list[np.ndarray]] = {}
    for values, key in zip(found, runs.points[others].itertuples(index=False, name=None), strict=True):
        gathered.setdefault(tuple(key), []).append(values.values)
    tasks = max(map(len, gathered.values()))
    return {key: own for key, own in gathered.items() if len(own) == tasks and min(map(len, own)) > 0}


def _aggregates(runs: Runs, baseline: Mapping[str, Any] | None, level: float) -> list[dict[str, Any]]:
    """A row for each point over all tasks: its aggregate, and how probably it improves on its baseline."""
    wanted = {name: value for name, value in (baseline or {}).items() if name != "task"}
    others = [name for name in runs.points if name != "task"]
    made = []
    for metric in runs.values:
        sign = {"minimize": -1.0}.get(runs.directions.get(metric, ""), 1.0)
        whole = scores(runs, metric)
        for key, own in whole.items():
            base = tuple(wanted.get(name, has) for name, has in zip(others, key, strict=True))
            base = base if wanted else next(iter(whole))
            other = next((s for k, s in whole.items() if all(map(_same, k, base))), own)
            share, interval = math.nan, statistics.NO_INTERVAL
            if other is not own:
                mine, theirs = ([sign * values for values in side] for side in (own, other))
                share, interval = statistics.average_improvement(mine, theirs, level)
            found = statistics.aggregate(own, level)
            row = {"tasks": found.tasks, "runs": found.runs, "iqm": found.iqm, "low": found.iqm_interval.low}
            row |= {"high": found.iqm_interval.high, "mean": found.mean, "median": found.median, "improvement": share}
            row |= {"improvement_low": interval.low, "improvement_high": interval.high}
            made.append({**dict(zip(others, key, strict=True)), "metric": metric, **row})
    return made


# --- what is printed ---


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float | np.floating):
        return f"{value:.5g}"
    return f"{value:,}" if isinstance(value, int | np.integer) else str(value)


def _short(value: float, digits: int = 3) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}g}"


def _bounds(low: float, high: float, digits: int = 4) -> str:
    return "" if math.isnan(low) else f"{low:.{digits}g} … {high:.{digits}g}"


def points_table(made: Comparison, metric: str) -> tuple[list[str], list[list[str]]]:
    """The estimates of one metric as they are printed."""
    rows = made.points[made.points["metric"] == metric]
    percent = f"{100 * made.level:g} %"
    header = [*made.axes, "seeds", *(["nonfinite"] if rows["nonfinite"].any() else [])]
    header += ["failed"] if rows["failed"].any() else []
    shown = [*header, "mean", f"{percent} interval", "by", "median", "IQM", "std", "min", "max"]
    is_directed = made.runs.directions.get(metric) is not None
    lines = []
    for row in rows.to_dict("records"):
        seeds = (
            _text(row["finished"]) if row["finished"] == row["seeds"] else f"{row['finished']:,} of {row['seeds']:,}"
        )
        cells = {**{name: _text(row[name]) for name in made.axes}, "seeds": seeds}
        share = f" ({100 * row['nonfinite_share']:.3g} %)" if row["nonfinite"] else ""
        cells |= {"nonfinite": _text(row["nonfinite"]) + share, "failed": _text(row["failed"])}
        estimates = [row["mean"], _bounds(row["low"], row["high"]), row["interval"], row["median"], row["iqm"]]
        ends = [
            row["std"],
            f"{_text(row['min'])} (seed {row['min_seed']})",
            f"{_text(row['max'])} (seed {row['max_seed']})",
        ]
        lines.append([*(cells[name] for name in header), *map(_text, [*estimates, *ends])])
        lines[-1] += [_text(row["worst_seed"])] if is_directed else []
    return shown + (["worst seed"] if is_directed else []), lines


def differences_table(made: Comparison, metric: str) -> tuple[list[str], list[list[str]]]:
    """The differences of one metric to the baseline as they are printed; in units that fit a terminal."""
    rows = made.differences[made.differences["metric"] == metric] if len(made.differences) else made.differences
    percent, share = f"{100 * made.level:g} %", "P(better)" if metric in made.runs.directions else "P(greater)"
    header = [
        *made.axes,
        "against",
        "the seeds show",
        "pairs",
        "difference",
        f"{percent} interval",
        "p (t)",
        "p (rank)",
    ]
    lines = []
    for row in rows.to_dict("records"):
        pairs = _text(row["pairs"]) + ("" if row["kind"] == "paired" else " (unpaired)")
        bounds = _bounds(row["low"], row["high"]), _bounds(row["improvement_low"], row["improvement_high"], 2)
        shares = [_short(row["effect"]), _short(row["improvement"], 2), bounds[1]]
        needed = row["seeds_needed"]
        shows = [_short(row["detectable"]), "" if needed is None or math.isnan(needed) else f"{int(needed):,}"]
        labels = [*(_text(row[name]) for name in made.axes), row["against"], row["verdict"], pairs]
        tests = [_short(row["p_t_holm"], 2), _short(row["p_rank_holm"], 2)]
        lines.append([*labels, _text(row["difference"]), bounds[0], *tests, *shares, *shows])
    return [*header, "effect", share, f"{percent} interval ", "could show", "seeds for 80 % power"], lines


def printed(made: Comparison, rows: int = SHOWN_ROWS) -> None:
    """Prints the comparison."""
    from runner import terminal as console

    for metric in made.metrics:
        goal = made.runs.directions.get(metric)
        console.say(f"{metric}{f' ({goal})' if goal else ''}")
        for header, lines in (points_table(made, metric), differences_table(made, metric)):
            if lines:
                console.print_rows(header, lines[:rows])
            if len(lines) > rows:
                console.say(f"… {len(lines) - rows:,} more rows: --rows, --csv or --html")
    if len(made.aggregates):
        console.say("over all tasks (interquartile mean, bootstrap stratified by task)")
        console.print_rows(list(made.aggregates), [list(map(_text, row)) for row in made.aggregates.to_numpy(object)])
    for note in made.notes:
        console.say(f"note: {note}")
    for command in [row["command"] for row in _wanting(made)][:1]:
        console.say(f"the seeds that the smallest observed difference asks for, at 80 % power: {command}")
    if len(made.differences):
        console.say("p-values are Holm-adjusted over each metric's rows; “could show”: the smallest with 80 % power")


def _wanting(made: Comparison) -> list[dict[str, Any]]:
    """The differences that more seeds would show, the one that asks for most of them first."""
    if not len(made.differences):
        return []
    rows = made.differences[
        (made.differences["command"] != "") & made.differences["verdict"].str.startswith("not shown")
    ]
    return rows.sort_values("seeds_needed", ascending=False).to_dict("records")


def as_json(made: Comparison) -> str:
    """The comparison for programs; what is not a number is null."""
    frames = {"points": made.points, "differences": made.differences, "aggregates": made.aggregates}
    tables = {name: json.loads(frame.to_json(orient="records", double_precision=15)) for name, frame in frames.items()}
    studies = [str(folder.path) for folder in made.runs.studies]
    return json.dumps(
        {"studies": studies, "level": made.level, "axes": made.axes, **tables, "notes": made.notes}, indent=1
    )


def _baseline(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    pairs = [pair.partition("=") for pair in shlex.split(text.replace(",", " "))]
    if not pairs or not all(middle for _, middle, _ in pairs):
        raise InvalidInputError(f"the baseline must be axis=value pairs such as 'lr=0.1 hidden=4', got {text!r}")
    return {name: value for name, _, value in pairs}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.compare", description="Compares studies across their seeds."
    )
    parser.add_argument("studies", nargs="+", type=Path, help="folders of studies, such as outputs/lr_scan")
    parser.add_argument("--metric", action="append", help="an output, or a part of an array: y.mean, y.0 (repeatable)")
    parser.add_argument("--by", action="append", help="an axis to compare by; others are pooled (repeatable)")
    parser.add_argument("--baseline", help="what to compare with, as 'lr=0.1' or 'lr=0.1 hidden=4'")
    parser.add_argument("--level", type=float, default=0.95, help="of confidence, 0.95 unless told")
    parser.add_argument("--filter", help="which runs, as 'lr < 0.1 and seed < 100'")
    parser.add_argument("--rows", type=int, default=SHOWN_ROWS, help="rows of a table that are printed")
    parser.add_argument("--json", action="store_true", help="the comparison for programs")
    parser.add_argument("--csv", choices=["points", "differences"], help="one of its tables as CSV")
    parser.add_argument("--figures", action="store_true", help="writes figures/ beside the table, PNG and SVG")
    parser.add_argument("--html", action="store_true", help="writes report.html beside the table")
    return parser


def main() -> None:
    """The command. Exit status 2 for what is not there."""
    given = _parser().parse_args()
    try:
        made = compare(
            given.studies,
            metrics=given.metric,
            by=given.by,
            baseline=_baseline(given.baseline),
            level=given.level,
            keep=given.filter,
        )
        _write(made, given)
    except (InvalidInputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _write(made: Comparison, given: argparse.Namespace) -> None:
    from runner import terminal as console

    if given.json:
        print(as_json(made))
    elif given.csv:
        frame: pd.DataFrame = getattr(made, given.csv)
        print(frame.to_csv(index=False), end="")
    else:
        printed(made, given.rows)
    folder: Folder = made.runs.studies[0]
    if given.figures:
        from runner.analysis import figures

        written = figures.write(made, folder.path / "figures")
        if not given.json and not given.csv:
            console.say(f"{len(written)} figures in {folder.path / 'figures'}")
    if given.html:
        from runner.analysis import report

        path = report.write(made, folder.report)
        if not given.json and not given.csv:
            console.say(f"the report is {path}")


if __name__ == "__main__":
    main()

"""A study as one of Optuna: a trial for each point, with the means of the metrics that have a direction as its values.

Trials cannot be changed once they are complete, so that an update writes all of them again.
"""

import json
import math
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from runner.errors import InvalidInputError
from runner.exports.request import Exported, Request, explain_errors, replace_file
from runner.exports.tracked import TrackedRun, TrackedStudy, open_tracked

MARK = "seedbed.study"
"""The attribute of studies that an export has written."""


def export(request: Request) -> Exported:
    """Writes the trials of a study, in place of those that an earlier export has written."""
    study = open_tracked(request)
    if not study.metrics:
        raise InvalidInputError(
            f"{request.name} has no metric with a direction, which a trial needs; declare one as task.metrics in the "
            "YAML of its task and call its command again"
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if request.to and "://" in request.to:
        with explain_errors("Optuna", OptunaError, SQLAlchemyError, ImportError):
            return _write(request.to, study, request.to)
    target = Path(request.to) if request.to else request.folder.exports / "optuna.db"
    with replace_file(target) as path:
        return _write(f"sqlite:///{path}", study, f"sqlite:///{target}")


def _write(storage: str, study: TrackedStudy, place: str) -> Exported:
    name, trials = study.request.project or study.name, list(_list_trials(study))
    opened = RDBStorage(storage) if storage.startswith("sqlite") else optuna.storages.get_storage(storage)
    _delete_earlier(name, opened, study)
    created = optuna.create_study(storage=opened, study_name=name, directions=list(study.metrics.values()))
    created.set_user_attr(MARK, study.key)
    for label, text in {"command": study.command, "note": study.note, "tags": list(study.tags), **study.facts}.items():
        created.set_user_attr(label, text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # its interface may change
        created.set_metric_names(list(study.metrics))
    created.add_trials(trials)
    _upload_report(study, created)
    if isinstance(opened, RDBStorage):
        opened.engine.dispose()
    return Exported(len(trials), 0, study.noun, f"study {name} in {place}")


def _delete_earlier(name: str, storage: BaseStorage, study: TrackedStudy) -> None:
    """Deletes what an earlier export has written. Raises InvalidInputError if somebody else has written it."""
    known = {found.study_name: found for found in optuna.get_all_study_summaries(storage, include_best_trial=False)}
    if name not in known:
        return
    if MARK not in known[name].user_attrs:
        raise InvalidInputError(f"{name} exists in that storage, and no export has written it; give another --project")
    optuna.delete_study(study_name=name, storage=storage)


def _upload_report(study: TrackedStudy, created: optuna.Study) -> None:
    folder = study.request.folder.exports / "optuna-artifacts"
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    report = study.write_report(folder)
    upload_artifact(artifact_store=FileSystemArtifactStore(folder), file_path=str(report), study_or_trial=created)
    report.unlink()


def _list_trials(study: TrackedStudy) -> Iterator[FrozenTrial]:
    runs = list(study)
    distributions = {name: _find_distribution([run.parameters.get(name) for run in runs]) for name in _list_names(runs)}
    for run in runs:
        yield _make_trial(study, run, distributions)


def _list_names(runs: list[TrackedRun]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.parameters))


def _find_distribution(values: list[Any]) -> BaseDistribution:
    """The least distribution that has all values: a range of numbers, or categories."""
    given = [value for value in values if value is not None]
    if all(isinstance(value, int) and not isinstance(value, bool) for value in given):
        return IntDistribution(min(given), max(given))
    if all(isinstance(value, float) and math.isfinite(value) for value in given):
        return FloatDistribution(min(given), max(given))
    return CategoricalDistribution(list(dict.fromkeys(given)))


def _make_trial(study: TrackedStudy, run: TrackedRun, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    values = [run.scalars.get(metric, math.nan) for metric in study.metrics]
    is_complete = all(map(math.isfinite, values))
    attributes = {"name": run.name, **run.scalars}
    if run.seeds is not None:
        attributes["seeds"] = json.dumps([run.seeds.header, *run.seeds.rows])
    curve = next((run.series[name] for name in study.curves if name in run.series), None)
    steps = {} if curve is None else {i: value for i, value in enumerate(curve.tolist()) if math.isfinite(value)}
    return create_trial(
        state=TrialState.COMPLETE if is_complete else TrialState.FAIL,
        values=values if is_complete else None,
        params=dict(run.parameters),
        distributions={name: distributions[name] for name in run.parameters},
        user_attrs=attributes,
        intermediate_values=steps,
    )

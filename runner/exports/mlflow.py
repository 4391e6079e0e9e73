"""A study as an experiment of MLflow: a run for each point, below one for the study, which has the report.

Runs are found again by their tags. One with the same content is left alone; another one is replaced by a new one with
the tags that users have given it, because MLflow keeps all values that a metric ever had. Where MLflow writes to is
what its own settings say, unless `--to` has an address.
"""

import logging
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from runner.exports.request import Exported, Request, explain_errors
from runner.exports.tracked import TrackedRun, TrackedStudy, make_key, open_tracked

KEY, STUDY, DIGEST = "seedbed.key", "seedbed.study", "seedbed.digest"
OWN_TAGS = ("seedbed.", "mlflow.parentRunId", "mlflow.runName", "mlflow.user", "mlflow.source.", "mlflow.log")
"""How tags begin that no user has given."""
MOST_METRICS, MOST_PARAMETERS, LONGEST_VALUE = 1000, 100, 6000
"""What MLflow takes in one call, and the longest value of a parameter."""
PAGE = 1000


def export(request: Request) -> Exported:
    """Writes the runs of a study that MLflow does not have, or has with another content."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of each table that it makes in SQLite
    study = open_tracked(request)
    with explain_errors("MLflow", MlflowException):
        if request.to:
            mlflow.set_tracking_uri(request.to)
        return _write(MlflowClient(), study)


def _write(client: MlflowClient, study: TrackedStudy) -> Exported:
    name = study.request.project or study.name
    experiment = client.get_experiment_by_name(name)
    number = experiment.experiment_id if experiment is not None else client.create_experiment(name)
    known = {run.data.tags.get(KEY): run for run in _search(client, number, study)}
    parent = _write_parent(client, number, study, known)
    written = unchanged = 0
    for run in study:
        before = known.get(run.key)
        if before is not None and before.data.tags.get(DIGEST) == run.digest:
            unchanged += 1
            continue
        _write_run(client, number, run, _list_tags(study, run, parent, before))
        if before is not None:
            client.delete_run(before.info.run_id)
        written += 1
    return Exported(written, unchanged, study.noun, f"experiment {name} in {mlflow.get_tracking_uri()}")


def _search(client: MlflowClient, experiment: str, study: TrackedStudy) -> Iterator[Run]:
    token, condition = None, f"tags.`{STUDY}` = '{study.key}'"
    while True:
        page = client.search_runs([experiment], condition, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _write_parent(client: MlflowClient, experiment: str, study: TrackedStudy, known: Mapping[str | None, Run]) -> str:
    """The run of the study itself, with the report and the facts, which an update overwrites."""
    key = make_key(study, "study")
    tags = {KEY: key, STUDY: study.key, "mlflow.note.content": study.note, "seedbed.command": study.command}
    tags |= {"seedbed.tags": ", ".join(study.tags)} | {f"seedbed.{name}": text for name, text in study.facts.items()}
    tags = {name: text[:LONGEST_VALUE] for name, text in tags.items() if text}
    if key in known:
        number = known[key].info.run_id
        for name, text in tags.items():
            client.set_tag(number, name, text)
    else:
        number = client.create_run(experiment, tags=tags, run_name=study.name).info.run_id
    with tempfile.TemporaryDirectory() as made:
        client.log_artifact(number, str(study.write_report(Path(made))))
    client.log_artifact(number, str(study.request.folder.manifest))
    client.set_terminated(number)
    return number


def _list_tags(study: TrackedStudy, run: TrackedRun, parent: str, before: Run | None) -> dict[str, str]:
    """The tags of a new run: its own, and those that users have given the one that it replaces."""
    given = {} if before is None else before.data.tags
    kept = {name: text for name, text in given.items() if not name.startswith(OWN_TAGS)}
    return {**kept, KEY: run.key, STUDY: study.key, "mlflow.parentRunId": parent}


def _write_run(client: MlflowClient, experiment: str, run: TrackedRun, tags: Mapping[str, str]) -> None:
    """Writes a run; its digest at last, so that one that is incomplete is replaced the next time."""
    now = int(time.time() * 1000)
    number = client.create_run(experiment, tags=dict(tags), run_name=run.name).info.run_id
    parameters = [Param(name, str(value)[:LONGEST_VALUE]) for name, value in run.parameters.items()]
    metrics = [Metric(name, value, now, 0) for name, value in run.scalars.items()]
    for name, series in run.series.items():
        steps = enumerate(series.tolist())
        metrics += [Metric(name, value, now, step) for step, value in steps if math.isfinite(value)]
    for chunk in _split(parameters, MOST_PARAMETERS):
        client.log_batch(number, params=chunk)
    for chunk in _split(metrics, MOST_METRICS):
        client.log_batch(number, metrics=chunk)
    if run.seeds is not None:
        columns = zip(*run.seeds.rows, strict=True)
        client.log_table(number, dict(zip(run.seeds.header, map(list, columns), strict=True)), "seeds.json")
    client.log_batch(number, tags=[RunTag(DIGEST, run.digest)])
    client.set_terminated(number, "FAILED" if run.is_failed else "FINISHED")


def _split(items: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + most] for start in range(0, len(items), most))

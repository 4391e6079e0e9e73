"""A study as a project of Weights & Biases: a run for each point, and one for the study, which has the report.

The identifiers of runs depend on the study only. A run whose identifier exists is overwritten, and one that was written
offline, and not synced yet, is removed. Where it writes to, and as whom, is what the client's own settings say.
"""

import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import wandb

from runner.errors import InvalidInputError
from runner.exports.request import Exported, Request, explain_errors
from runner.exports.tracked import TrackedRun, TrackedStudy, make_key, open_tracked

LONGEST_NOTE, LONGEST_TAG = 4000, 64


def export(request: Request) -> Exported:
    """Writes a run for each point of a study, and one for the study."""
    study = open_tracked(request)
    project = request.project or study.name
    if re.search(r"[/\\#?%:]", project) or len(project) > 128:
        raise InvalidInputError(f"a project of W&B cannot be named {project!r}; give another --project")
    if request.to:
        Path(request.to).mkdir(parents=True, exist_ok=True)
    written = 0
    with explain_errors("W&B", wandb.errors.Error):
        place = _write_study(study, project)
        for run in study:
            _write_run(study, project, run)
            written += 1
    return Exported(written, 0, study.noun, f"project {project} in {place}")


def _start(study: TrackedStudy, project: str, key: str, **more: Any) -> AbstractContextManager[Any]:
    """A run that belongs to the study; nothing of this process and machine, which have not executed it, is recorded."""
    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_save_requirements=False,
    )
    tags = [tag[:LONGEST_TAG] for tag in study.tags]
    return wandb.init(
        project=project,
        id=key,
        group=study.name,
        notes=study.note[:LONGEST_NOTE] or None,
        tags=tags,
        dir=study.request.to,
        settings=settings,
        reinit="finish_previous",
        **more,
    )


def _write_study(study: TrackedStudy, project: str) -> str:
    """The run of the study itself; returns where its files are, or its address."""
    config = {"command": study.command, **study.facts}
    key = make_key(study, "study")
    with tempfile.TemporaryDirectory() as made:
        report = study.write_report(Path(made))
        with _start(study, project, key, name=study.name, job_type="study", config=config) as run:
            artifact = wandb.Artifact(f"report-{key}", type="report")
            artifact.add_file(str(report))
            artifact.add_file(str(study.request.folder.manifest))
            run.log_artifact(artifact)
            folder = Path(run.dir).parent
            place = str(folder.parent) if run.offline else str(run.url)
    _remove_earlier(folder, key)
    return place


def _write_run(study: TrackedStudy, project: str, tracked: TrackedRun) -> None:
    config, name = dict(tracked.parameters), tracked.name
    with _start(study, project, tracked.key, name=name, job_type=study.noun, config=config) as run:
        for step in range(max(map(len, tracked.series.values()), default=0)):
            run.log(_take_step(tracked.series, step), step=step)
        if tracked.seeds is not None:
            run.log(
                {"seeds": wandb.Table(columns=list(tracked.seeds.header), data=list(map(list, tracked.seeds.rows)))}
            )
        run.summary.update(dict(tracked.scalars))
        folder = Path(run.dir).parent
    _remove_earlier(folder, tracked.key)


def _take_step(series: Mapping[str, Any], step: int) -> dict[str, float]:
    return {name: float(values[step]) for name, values in series.items() if step < len(values)}


def _remove_earlier(folder: Path, key: str) -> None:
    """Removes what earlier exports have written of a run offline, so that a sync sends the last one only."""
    for earlier in folder.parent.glob(f"offline-run-*-{key}"):
        if earlier != folder and not list(earlier.glob("*.synced")):
            shutil.rmtree(earlier)

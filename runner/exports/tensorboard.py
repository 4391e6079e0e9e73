"""A study as TensorBoard's files: for each point a folder with scalars, curves, hyperparameters and a table of seeds.

The files have names and times that depend on the study only, so that the same study gives the same bytes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalars
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

from runner.errors import InvalidInputError
from runner.exports.request import Exported, Request, replace_folder
from runner.exports.tracked import TrackedRun, TrackedStudy, format_table, open_tracked

FILE = "events.out.tfevents.0.seedbed"
VERSION = "brain.Event:2"
LONGEST_NAME = 120
NOT_IN_PATHS = str.maketrans(dict.fromkeys('/\\:*?"<>|', "_"))

Write = Callable[[Any, int], None]
"""Writes a summary at a step."""


def export(request: Request) -> Exported:
    """Writes a folder of logs, in place of an earlier one. Raises InvalidInputError if something else is there."""
    study = open_tracked(request)
    target = Path(request.to) if request.to else request.folder.exports / "tensorboard"
    if target.exists() and not (target / FILE).is_file():
        raise InvalidInputError(f"{target} exists, and is no folder that an export has written; give another --to")
    began, written = request.folder.results.stat().st_mtime, 0
    with replace_folder(target) as folder:
        study.write_report(folder)
        with open_log(folder, began) as write:
            for summary in _describe_study(study):
                write(summary, 0)
        for run in study:
            written += 1
            with open_log(folder / _name_folder(run, request), began) as write:
                _write_run(write, run)
    return Exported(written, 0, study.noun, str(target))


@contextmanager
def open_log(folder: Path, time: float) -> Iterator[Write]:
    """A file of TensorBoard's events, which all have the same time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("wb") as file:
        records = RecordWriter(file)
        records.write(event_pb2.Event(wall_time=time, file_version=VERSION).SerializeToString())

        def write(summary: Any, step: int) -> None:
            records.write(event_pb2.Event(wall_time=time, step=step, summary=summary).SerializeToString())

        yield write


def _name_folder(run: TrackedRun, request: Request) -> str:
    """The label of a run without what a path cannot have; where labels could be equal, they have the run's key."""
    name = run.name.translate(NOT_IN_PATHS)
    if request.each_run or (name == run.name and len(name) <= LONGEST_NAME):
        return name
    return f"{name[:LONGEST_NAME]} {run.key}"


def _write_run(write: Write, run: TrackedRun) -> None:
    values = {name: value if isinstance(value, int | float) else str(value) for name, value in run.parameters.items()}
    write(hparams.hparams_pb(values, trial_id=run.key, start_time_secs=0), 0)
    for name, value in run.scalars.items():
        write(_make_scalar(name, value), 0)
    for name, series in run.series.items():
        for step, value in enumerate(series.tolist()):
            write(_make_scalar(name, value), step)
    if run.seeds is not None:
        write(text_pb("seeds", format_table(run.seeds)), 0)


def _make_scalar(name: str, value: float) -> Any:
    """A number, which TensorBoard stores as a float32."""
    return summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=name, simple_value=value)])


def _describe_study(study: TrackedStudy) -> Iterator[Any]:
    facts = {"command": study.command, "note": study.note, "tags": ", ".join(study.tags), **study.facts}
    rows = [f"| {name} | {value} |" for name, value in facts.items() if value]
    yield text_pb("study", "\n".join(["| what | value |", "|---|---|", *rows]))
    metrics = [hparams.Metric(name) for name in study.comparison.metrics]
    yield hparams.hparams_config_pb([hparams.HParam(name) for name in study.comparison.axes], metrics, 0)
    if study.curves and not study.request.each_run:
        yield _lay_out_bands(study)


def _lay_out_bands(study: TrackedStudy) -> Any:
    """The dashboard of custom scalars: each curve as its mean with a band."""
    margin = layout_pb2.MarginChartContent
    charts = [
        layout_pb2.Chart(
            title=name, margin=margin(series=[margin.Series(value=name, lower=f"{name}/low", upper=f"{name}/high")])
        )
        for name in study.curves
    ]
    layout = layout_pb2.Layout(category=[layout_pb2.Category(title=study.name, chart=charts)])
    tensor = tensor_util.make_tensor_proto(layout.SerializeToString(), dtype="string")
    metadata = custom_scalars.create_summary_metadata()
    value = summary_pb2.Summary.Value(tag=custom_scalars.CONFIG_SUMMARY_TAG, metadata=metadata, tensor=tensor)
    return summary_pb2.Summary(value=[value])

"""Exports to trackers, read back by the trackers' own readers: a run for each point, and an update the second time."""

import json
import shutil
import struct
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import runner as seedbed
from runner import export
from runner.errors import InvalidInputError
from runner.exports.curves import average_curves
from runner.exports.request import Request
from runner.exports.tracked import TrackedStudy, open_tracked
from runner.storage.folder import Folder
from runner.storage.manifest import require_manifest

SWEEP = ("-m", "task=noisy", "level=1,2,-1", "study=s")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


def write_small_report(study, folder):
    path = folder / "report.html"
    path.write_text(f"<html>{study.name}</html>")
    return path


@pytest.fixture
def study(toy, kept, monkeypatch):
    """Three points, of which one is never finite, with a curve of five steps each; they are executed once."""
    monkeypatch.setattr(TrackedStudy, "write_report", write_small_report)  # its pictures take seconds
    if not (kept / "s").exists():
        path = toy(*SWEEP, "seed=range(0,4)").folder / "environment.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "note": "first", "tags": ["paper"]}))
        shutil.copytree("outputs/s", kept / "s")
    else:
        shutil.copytree(kept / "s", "outputs/s")
    return Path("outputs/s")


def load(name):
    """A tracker's library, whose own warnings are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"the extra {name} is not installed")


def make_request(folder, **options):
    place = Folder(Path(folder))
    return Request(place, require_manifest(place.manifest), **options)


def mean(level, column="score"):
    frame = seedbed.read("outputs/s")
    return np.mean(np.stack(frame[frame["level"] == level][column].to_numpy()), axis=0)


def test_a_point_has_estimates_curves_and_its_seeds(study):
    tracked = open_tracked(make_request(study))
    runs = {run.parameters["level"]: run for run in tracked}
    assert len(tracked) == len(runs) == 3
    one = runs[1.0]
    assert (one.name, one.is_failed) == ("level=1", False)
    assert one.parameters == {"task": "noisy", "level": 1.0, "steps": 5}
    assert one.scalars["score"] == pytest.approx(mean(1))
    assert one.scalars["score/low"] < one.scalars["score"] < one.scalars["score/high"]
    np.testing.assert_allclose(one.series["curve"], mean(1, "curve"), rtol=1e-6)
    assert (one.series["curve/low"] < one.series["curve"]).all()
    assert one.seeds.header == ("run", "seed", "status", "score")
    assert [row[:3] for row in one.seeds.rows] == [(i, i, "ok") for i in range(4)]
    assert runs[-1.0].scalars == {"runs/finished": 4, "runs/nonfinite": 4, "runs/failed": 0}
    assert runs[-1.0].series == {}
    assert (tracked.note, tracked.tags) == ("first", ("paper",))


@pytest.mark.matrix
def test_the_report_is_that_of_the_comparison(toy, tmp_path):
    folder = toy(*SWEEP, "seed=range(0,4)").folder
    text = open_tracked(make_request(folder, keep="level > 0")).write_report(tmp_path).read_text()
    assert text.startswith("<!")
    assert "score" in text


def test_keys_stay_when_a_study_is_extended_and_digests_change(study, toy):
    before = {run.key: run.digest for run in open_tracked(make_request(study))}
    again = {run.key: run.digest for run in open_tracked(make_request(study))}
    assert before == again
    toy("-m", "task=noisy", "level=1,2,-1,3", "seed=range(0,4)", "study=s")
    more = {run.key: run.digest for run in open_tracked(make_request(study))}
    assert before.keys() < more.keys()
    toy("-m", "task=noisy", "level=1,2,-1,3", "seed=range(0,5)", "study=s")
    longer = {run.key: run.digest for run in open_tracked(make_request(study))}
    assert longer.keys() == more.keys()
    assert not longer.items() & more.items()


def test_each_run_can_be_tracked(study):
    tracked = open_tracked(make_request(study, each_run=True))
    runs, frame = list(tracked), seedbed.read(study)
    assert len(tracked) == len(runs) == len({run.key for run in runs}) == 12
    assert [run.scalars.get("score") for run in runs[:8]] == frame["score"].tolist()[:8]
    np.testing.assert_array_equal(runs[5].series["curve"], frame["curve"][5])
    assert runs[5].parameters == {"task": "noisy", "seed": 1, "level": 2.0, "steps": 5}
    assert len(list(open_tracked(make_request(study, each_run=True, keep="level == 1 and seed < 3")))) == 3


def test_more_points_than_are_compared_are_refused(study, monkeypatch):
    monkeypatch.setattr("runner.analysis.comparison.MOST_POINTS", 2)
    with pytest.raises(
        InvalidInputError, match="s has 3 points, and at most 2 are compared; select some with --filter"
    ):
        open_tracked(make_request(study))
    assert len(list(open_tracked(make_request(study, keep="level > 0")))) == 2


def test_a_curve_is_the_mean_of_the_finite_values_over_all_batches(toy, monkeypatch):
    folder = Folder(toy("-m", "task=keep", "rate=1,2", "steps=4,5", "seed=range(0,40)", "study=s").folder)
    frame, manifest = seedbed.read(folder.path), require_manifest(folder.manifest)
    points = (frame["rate"] == 2).to_numpy().astype(int)
    monkeypatch.setattr("runner.storage.reader.BATCH_BYTES", 1500)
    curves = average_curves([(folder, manifest)], frame["run"].to_numpy(), points, 0.9)
    from scipy import stats

    for point in (0, 1):
        values = np.stack(frame["curve"][points == point].to_numpy()).astype(float)
        curve = curves["curve"][point]
        for step, column in enumerate(values.T):
            finite = column[np.isfinite(column)]
            if len(finite) > 1:
                half = stats.t.ppf(0.95, len(finite) - 1) * stats.sem(finite)
                expected = (finite.mean(), finite.mean() - half, finite.mean() + half)
                np.testing.assert_allclose((curve.mean[step], curve.low[step], curve.high[step]), expected, atol=1e-6)


@pytest.mark.matrix
@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_what_was_written(study, call_main, toy):
    load("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.custom_scalar import layout_pb2

    def read(path):
        events = EventAccumulator(str(path))
        events.Reload()
        return events

    status, out, err = call_main(export.main, "outputs/s", "tensorboard")
    assert (status, out, err) == (0, "3 points written: outputs/s/exports/tensorboard\n", "")
    folder = study / "exports" / "tensorboard"
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["level=-1", "level=1", "level=2"]
    assert (folder / "report.html").read_text() == "<html>s</html>"
    events = read(folder / "level=2")
    assert events.Scalars("score")[0].value == pytest.approx(mean(2), rel=1e-6)
    curve = events.Scalars("curve")
    assert [event.step for event in curve] == list(range(5))
    np.testing.assert_allclose([event.value for event in curve], mean(2, "curve"), rtol=1e-6)
    assert {"curve/low", "curve/high", "score/low", "score/high"} <= set(events.Tags()["scalars"])
    (text,) = events.Tensors("seeds")
    assert b"| run | seed | status | score |" in text.tensor_proto.string_val[0]
    (layout,) = read(folder).Tensors("custom_scalars__config__")
    (chart,) = layout_pb2.Layout.FromString(layout.tensor_proto.string_val[0]).category[0].chart
    assert (chart.margin.series[0].value, chart.margin.series[0].lower) == ("curve", "curve/low")

    before = {path: path.read_bytes() for path in folder.rglob("events*")}
    call_main(export.main, "outputs/s", "tensorboard")
    assert {path: path.read_bytes() for path in folder.rglob("events*")} == before
    toy(*SWEEP, "seed=range(0,6)")
    call_main(export.main, "outputs/s", "tensorboard")
    assert before.keys() == set(folder.rglob("events*"))
    assert read(folder / "level=2").Scalars("runs/finished")[0].value == 6
    Path("mine").mkdir()
    status, _, err = call_main(export.main, "outputs/s", "tensorboard", "--to", "mine")
    assert (status, err.count("\n")) == (2, 1)
    assert "mine exists, and is no folder that an export has written" in err
    status, out, _ = call_main(export.main, "outputs/s", "tensorboard", "--all", "--to", "all")
    assert status == 0
    assert out.startswith("18 runs at about ")
    assert len(list(Path("all").glob("run */events*"))) == 18


@pytest.mark.matrix
@pytest.mark.filterwarnings("ignore")
def test_optuna_reads_what_was_written(study, call_main, toy):
    optuna = load("optuna")

    def read(place="sqlite:///outputs/s/exports/optuna.db"):
        return optuna.load_study(study_name="s", storage=place)

    status, out, err = call_main(export.main, "outputs/s", "optuna")
    assert (status, err) == (0, "")
    assert "3 points written: study s in sqlite:///outputs/s/exports/optuna.db" in out
    found = read()
    states = [trial.state.name for trial in found.trials]
    assert states == ["COMPLETE", "COMPLETE", "FAIL"]
    assert found.direction.name == "MINIMIZE"
    assert found.best_trial.params == {"task": "noisy", "level": 1.0, "steps": 5}
    assert found.best_value == pytest.approx(mean(1))
    np.testing.assert_allclose(list(found.trials[1].intermediate_values.values()), mean(2, "curve"), rtol=1e-6)
    assert json.loads(found.trials[0].user_attrs["seeds"])[0] == ["run", "seed", "status", "score"]
    assert found.user_attrs["note"] == "first"
    assert len(list((study / "exports" / "optuna-artifacts").iterdir())) == 1
    toy(*SWEEP, "seed=range(0,6)")
    for _ in "ab":
        assert call_main(export.main, "outputs/s", "optuna")[0] == 0
        assert call_main(export.main, "outputs/s", "optuna", "--to", "sqlite:///mine.db")[0] == 0
    for place in ((), ("sqlite:///mine.db",)):
        assert len(read(*place).trials) == 3
        assert read(*place).trials[0].user_attrs["runs/finished"] == 6
    optuna.create_study(study_name="theirs", storage="sqlite:///mine.db")
    for options, message in [
        (("--to", "sqlite:///mine.db", "--project", "theirs"), "no export has written it"),
        (("--to", "nosuch://mine"), "Optuna refuses: "),
    ]:
        status, _, err = call_main(export.main, "outputs/s", "optuna", *options)
        assert (status, err.count("\n")) == (2, 1), err
        assert message in err
    toy("-m", "task=line", "seed=range(0,2)", "study=t")
    status, _, err = call_main(export.main, "outputs/t", "optuna")
    assert (status, err.count("\n")) == (2, 1)
    assert "t has no metric with a direction" in err


@pytest.mark.matrix
@pytest.mark.filterwarnings("ignore")
def test_mlflow_reads_what_was_written(study, call_main, toy, monkeypatch):
    load("mlflow")
    from mlflow.tracking import MlflowClient

    address = f"sqlite:///{Path.cwd()}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    client = MlflowClient(address)

    def read(name="s"):
        experiment = client.get_experiment_by_name(name)
        runs = client.search_runs([experiment.experiment_id])
        return {run.info.run_name: run for run in runs}

    status, out, err = call_main(export.main, "outputs/s", "mlflow")
    assert status == 0, err
    assert f"3 points written: experiment s in {address}" in out
    runs = read()
    assert set(runs) == {"s", "level=1", "level=2", "level=-1"}
    one = runs["level=1"]
    assert one.data.params == {"task": "noisy", "level": "1.0", "steps": "5"}
    assert one.data.metrics["score"] == pytest.approx(mean(1))
    assert one.data.tags["mlflow.parentRunId"] == runs["s"].info.run_id
    history = sorted((m.step, m.value) for m in client.get_metric_history(one.info.run_id, "curve"))
    np.testing.assert_allclose([value for _, value in history], mean(1, "curve"), rtol=1e-6)
    assert [file.path for file in client.list_artifacts(one.info.run_id)] == ["seeds.json"]
    assert {file.path for file in client.list_artifacts(runs["s"].info.run_id)} == {"report.html", "study.json"}
    assert runs["s"].data.tags["mlflow.note.content"] == "first"

    client.set_tag(one.info.run_id, "mine", "kept")
    _, out, _ = call_main(export.main, "outputs/s", "mlflow")
    assert "0 points written, 3 points unchanged" in out
    assert {name: run.info.run_id for name, run in read().items()} == {n: run.info.run_id for n, run in runs.items()}
    toy(*SWEEP, "seed=range(0,6)")
    _, out, _ = call_main(export.main, "outputs/s", "mlflow")
    assert "3 points written" in out
    runs = read()
    assert len(runs) == 4
    assert runs["level=1"].data.metrics["runs/finished"] == 6
    assert runs["level=1"].data.tags["mine"] == "kept"
    _, out, _ = call_main(export.main, "outputs/s", "mlflow", "--all", "--project", "all", "--filter", "seed < 2")
    assert out.startswith("6 runs at about 31 a second: 1 second\n")
    assert len(read("all")) == 7
    status, _, err = call_main(export.main, "outputs/s", "mlflow", "--to", "nosuch://x")
    assert (status, err.count("\n")) == (2, 1), err


def read_records(path):
    """The records of a run that W&B has written offline: a log in LevelDB's format."""
    from wandb.proto import wandb_internal_pb2

    content, place, parts = path.read_bytes(), 7, []
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts.append(content[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(b"".join(parts))
            parts = []


def wait_for_exit(path):
    """All records of a run; the client's service may write the last ones after the client has returned."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        records = list(read_records(path))
        if any(record.HasField("exit") for record in records):
            return records
        time.sleep(0.1)
    raise AssertionError(f"{path} has no end")


@pytest.mark.matrix
@pytest.mark.filterwarnings("ignore")
def test_wandb_has_written_what_a_sync_would_send(study, call_main, toy, monkeypatch):
    load("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")

    def read():
        found = {}
        for path in Path("wandb").glob("offline-run-*/*.wandb"):
            records = wait_for_exit(path)
            (run,) = [record.run for record in records if record.HasField("run")][:1]
            found[run.display_name] = (run, records)
        return found

    def list_history(records, name):
        rows = [record.history.item for record in records if record.HasField("history")]
        rows = [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row} for row in rows]
        return [row[name] for row in rows if name in row]

    status, out, err = call_main(export.main, "outputs/s", "wandb")
    assert status == 0, err
    assert "3 points written: project s in " in out
    runs = read()
    assert set(runs) == {"s", "level=1", "level=2", "level=-1"}
    run, records = runs["level=1"]
    assert (run.project, run.run_group, run.job_type, list(run.tags), run.notes) == (
        "s",
        "s",
        "point",
        ["paper"],
        "first",
    )
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config | {"task": "noisy", "level": 1.0, "steps": 5} == config
    np.testing.assert_allclose(list_history(records, "curve"), mean(1, "curve"), rtol=1e-6)
    assert list_history(records, "seeds/nrows") == [4]
    summary = {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for record in records
        if record.HasField("summary")
        for item in record.summary.update
    }
    assert summary["score"] == pytest.approx(mean(1))
    (artifact,) = [record.artifact for record in runs["s"][1] if record.HasField("artifact")]
    assert artifact.type == "report"
    assert {entry.path for entry in artifact.manifest.contents} == {"report.html", "study.json"}

    toy(*SWEEP, "seed=range(0,6)")
    call_main(export.main, "outputs/s", "wandb")
    assert len(list(Path("wandb").glob("offline-run-*"))) == 4
    assert {name: run.run_id for name, (run, _) in read().items()} == {
        name: run.run_id for name, (run, _) in runs.items()
    }
    assert list_history(read()["level=1"][1], "seeds/nrows") == [6]
    status, _, err = call_main(export.main, "outputs/s", "wandb", "--project", "a/b")
    assert (status, err.count("\n")) == (2, 1)
    assert "a project of W&B cannot be named 'a/b'" in err

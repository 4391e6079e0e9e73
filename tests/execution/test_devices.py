"""Blocks on several devices, of which CPUs pretend to be some; no test here has met a GPU."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import PATIENCE, ROOT
from omegaconf import OmegaConf

from runner import program
from runner.config import launch
from runner.config.launch import BASIC_LAUNCHER, JOBLIB_LAUNCHER, ShardLauncher
from runner.errors import InvalidInputError
from runner.execution.compilation import KeptPrograms
from runner.execution.placement import Copies, Turns
from runner.execution.verification import Verification, compare_outputs
from runner.program import executable
from runner.storage.programs import COLUMNS, join_programs

SEVERAL = """
import sys
from runner.__main__ import main
for devices in ("1", "auto", "0,2"):
    sys.argv[1:] = ["--config-dir", CONF, "-m", "task=divide,line", "slope=3,7,0", "seed=range(0,300)", "lanes=8",
                    "block=32", "verify=2", f"devices={devices}", f"study=on-{devices.replace(',', '-')}"]
    main()
sys.argv[1:] = ["--config-dir", CONF, "task=line", "devices=5"]
main()
"""


@pytest.mark.slow
def test_any_number_of_devices_gives_the_same_bytes(tmp_path):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    script = SEVERAL.replace("CONF", repr(str(ROOT / "tests" / "conf")))
    environment = {**os.environ, **flags, "HYDRA_FULL_ERROR": "0"}
    called = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert called.returncode == 2, called.stderr
    pool = "XLA's pool has 4 threads in this process, one for each of its 4 CPU devices, and not cores_per_run=1"
    assert f"warning: {pool}; the study records 4\n" in called.stderr
    assert called.stderr.endswith("devices=5: this process has 4 of the kind 'cpu'\n")
    assert called.stdout.count("verified 4 runs of 2 groups alone") == 3
    studies = [tmp_path / "outputs" / f"on-{name}" for name in ("1", "auto", "0-2")]
    assert len({(study / "results.csv").read_bytes() for study in studies}) == 1
    devices = [set(pd.read_csv(study / "programs.csv")["devices"]) for study in studies]
    assert devices == [{"cpu"}, {"4 x cpu"}, {"2 x cpu"}]
    fingerprints = [json.loads((study / "study.json").read_text())["fingerprint"]["device"] for study in studies]
    assert fingerprints == ["cpu"] * 3


@pytest.mark.parametrize("value", ["0", "-1", "[]", "[1,1]", "[-1]", "1.5", "some", "true", "null"])
def test_devices_are_a_number_or_a_list(toy, value):
    called = toy("task=line", f"devices={value}")
    assert called.status == 2
    assert "devices must be auto, how many devices, or a list of their numbers from 0 on, got" in called.err


def test_the_devices_are_those_of_this_process(toy):
    assert "devices: there is no device 7 of the kind 'cpu'; there are: 0" in toy("task=line", "devices=[0,7]").err
    assert toy("task=line", "devices=0,7").status == 2
    assert toy("task=line", "devices=1").csv == toy("task=line", "devices=[0]").csv == toy("task=line").csv
    with pytest.raises(InvalidInputError, match="devices=2: this process has 1"):
        program.select_devices(2)


def test_blocks_and_groups_go_to_the_devices_in_turn():
    turns = Turns((0, 2), ["a", "b", "c"])
    assert [turns.take("a") for _ in range(3)] == [0, 1, 0]
    assert [turns.take("b"), turns.take("c")] == [1, 0]
    assert Turns((0,), ["a"]).devices == (None,)  # what it compiles is what it is without a choice of devices


@pytest.fixture
def traced():
    return program.TracedTask("program", None, {}, {}, (), 1, 4, is_eager=False, bytes=0, device=0)


@pytest.fixture
def compiled(monkeypatch):
    """Compilations that hit the cache or not, as the test says, instead of those of XLA: `compiled([True, False])`."""

    def expect(hits):
        left, seen = iter(hits), []

        def compile_(traced):
            seen.append(traced)
            return program.Program(traced, None, 1.0, next(left), 1000)

        monkeypatch.setattr(executable, "_compile", compile_)
        return seen

    return expect


@pytest.mark.parametrize(
    ("hits", "is_shared", "device"),
    [([True, True], True, 1), ([False, True, True], True, 1), ([False, False], False, 0), ([True, False], True, 0)],
)
def test_gpus_run_one_binary_from_the_cache_or_leave_the_program_where_it_is(
    traced, compiled, monkeypatch, hits, is_shared, device
):
    monkeypatch.setattr(executable, "shares_binaries", lambda: True)
    seen = compiled(hits)
    first = program.compile_program(traced)
    assert first.is_shared == is_shared
    assert program.copy_program(first, 1).traced.device == device
    assert len(seen) == len(hits)  # a binary that no other device can load is not compiled for them


def test_other_devices_compile_once_each(traced, compiled):
    seen = compiled([False, False])
    first = program.compile_program(traced)

    class Source:
        kept = KeptPrograms()

        def get(self, signature):
            return first

    copies = Copies(Source())
    on_second = copies.on(1)
    assert on_second.get("a") is on_second.get("a")
    assert copies.on(0).get("a") is first
    assert [task.device for task in seen] == [0, 1]


def test_a_program_is_narrowed_until_two_blocks_fit_into_an_accelerator(traced, monkeypatch):
    monkeypatch.setattr(executable, "count_device_memory", lambda: 4096)
    sizes = []

    def compile_(traced):
        sizes.append((traced.lanes, traced.capacity))
        return program.Program(traced, None, 1.0, False, 100 * traced.capacity + 500 * traced.lanes)

    monkeypatch.setattr(executable, "_compile", compile_)
    wide = replace(traced, lanes=8, capacity=32)
    assert program.compile_program(replace(wide, may_narrow=True)).traced.lanes == 2
    assert sizes == [(8, 32), (8, 16), (8, 8), (4, 4), (2, 2)]
    assert program.compile_program(wide).traced.lanes == 8  # lanes that were given stay


def test_runs_that_are_verified_are_the_same_alone(toy):
    arguments = ("-m", "task=divide,line", "slope=3,0", "seed=range(0,50)")
    called = toy(*arguments, "verify=3")
    assert called.status == 0
    assert called.csv == toy(*arguments).csv
    programs = pd.read_csv(called.folder / "programs.csv")
    assert (programs["verified"].tolist(), programs["differing"].tolist()) == ([3, 3], [0, 0])
    assert "verified 6 runs of 2 groups alone, with one lane: identical" in called.out


def test_a_group_that_cannot_be_traced_is_not_verified(toy):
    called = toy("-m", "task=only_even", "size=2,3", "seed=range(0,50)", "verify=3")
    assert called.status == 1
    programs = pd.read_csv(called.folder / "programs.csv")
    traceable = programs["lanes"].notna()
    assert set(programs["verified"][traceable]) == {3}
    assert programs["verified"][~traceable].isna().all()
    assert "verified 3 runs of 1 group alone, with one lane: identical" in called.out


def test_shards_verify_their_runs(toy):
    called = toy("-m", "task=line", "seed=range(0,40)", "verify=2", "hydra.sweeper.shards=2")
    assert called.status == 0
    assert "verified 4 runs of 1 group alone, with one lane: identical" in called.out


def test_failed_runs_are_verified_and_a_difference_is_told(toy, monkeypatch):
    import toys

    monkeypatch.setattr(toys, "BROKEN", {1, 2})
    arguments = ("-m", "task=fragile", "seed=0,1,2", "verify=3")
    assert "verified 3 runs of 1 group alone, with one lane: identical" in toy(*arguments).out
    mended = [SimpleNamespace(outputs={"value": np.float32([1.0])})]
    monkeypatch.setattr("runner.execution.verification.execute_alone", lambda *_: mended)
    told = toy(*arguments).out
    assert "3 values differ, by at most inf (relative inf; status)" in told


@pytest.mark.parametrize(
    ("values", "alone", "differing", "largest", "relative"),
    [
        ([1.0, np.nan, np.inf], [1.0, np.nan, np.inf], 0, 0.0, 0.0),
        ([1.0, 4.0], [1.5, 5.0], 2, 1.0, 1 / 3),
        ([0.0], [-0.0], 1, 0.0, 0.0),
        ([1.0], [np.nan], 1, np.inf, np.inf),
        ([1.0], [np.inf], 1, np.inf, np.inf),
    ],
)
def test_values_are_compared_exactly(values, alone, differing, largest, relative):
    found = compare_outputs({"a": np.float32([values])}, {"a": np.float32([alone])})
    assert found == Verification(1, differing, largest, pytest.approx(relative), "a" if differing else "")


def test_a_run_that_fails_one_way_only_differs_in_its_status():
    outputs = {"a": np.float32([1.0])}
    assert compare_outputs(None, None) == Verification(1)
    assert compare_outputs(outputs, None) == compare_outputs(None, outputs)
    assert compare_outputs(outputs, None).output == "status"


def test_rows_of_programs_of_an_earlier_version_are_kept():
    old = "group,task,reason\n0,line,\n"
    joined = join_programs(old, ",".join(COLUMNS) + "\n" + ",".join(["1", "line", *[""] * (len(COLUMNS) - 2)]) + "\n")
    assert [line.count(",") for line in joined.splitlines()] == [len(COLUMNS) - 1] * 3
    assert joined.splitlines()[1].startswith("0,line,")


def test_determinism_is_recorded(toy, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    called = toy("task=line", "deterministic=true", "study=mine")
    settings = json.loads((called.folder / "study.json").read_text())["fingerprint"]["settings"]
    assert settings == {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}
    assert toy("task=line", "deterministic=true", "study=mine").status == 0
    monkeypatch.setenv("XLA_FLAGS", "")
    assert "setting XLA_FLAGS was" in toy("task=line", "study=mine", "seed=1").err


@pytest.mark.parametrize(
    ("target", "workers", "gpus", "shares"),
    [
        (JOBLIB_LAUNCHER, -1, "0123", ["02", "13"]),
        (JOBLIB_LAUNCHER, 1, "01", ["01", "01"]),
        (JOBLIB_LAUNCHER, 2, "3", ["3", "3"]),
        (JOBLIB_LAUNCHER, 2, "", ["", ""]),
        (BASIC_LAUNCHER, 2, "01", ["", ""]),
    ],
)
def test_shards_of_joblib_share_the_gpus(target, workers, gpus, shares):
    launcher = ShardLauncher(2, None, OmegaConf.create({"_target_": target, "n_jobs": workers}), [])
    assert ["".join(own) for own in launcher.share_gpus(2, 8, list(gpus))] == shares


def test_the_gpus_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    assert launch.list_gpus() == ["3", "GPU-5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert launch.list_gpus() == []
    launch.ShardJob(range(1), None).hide_other_gpus()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    launch.ShardJob(range(1), None, ("3",)).hide_other_gpus()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"

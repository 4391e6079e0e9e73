"""What it costs to replay the best of 1,200 trainings, against that run alone by the study's own program.

    python benchmarks/replay.py [--quick]

Both programs are compiled in one process, without JAX's cache; the two executions are taken in turn. The whole command
is timed too, in a process of its own, with that of the run alone.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from throughput import ROOT

RATES = "0.0001,0.0003,0.001,0.002,0.003,0.005,0.01,0.02,0.03,0.05,0.1,0.3"
CHOICE = "--best", "1", "--metric", "validation_loss"


def call(*arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cwd / "cache")}
    started = perf_counter()
    subprocess.run([sys.executable, "-m", *arguments], cwd=cwd, env=environment, check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - started


def measure_programs(study, rounds):
    """Seconds of compiling and of executing the run: by the study's program, and by that of the replay."""
    from runner import program
    from runner.analysis.winners import Choice, choose_runs
    from runner.config.recall import recall_call
    from runner.execution.replay import match_runs, trace_groups
    from runner.pipeline import take_call_fingerprint
    from runner.storage.folder import Folder
    from runner.storage.rows import read_runs
    from runner.storage.saved import read_saved_study

    (number,) = choose_runs(study, Choice(best=1, metric="validation_loss"))
    with recall_call(study) as recalled:
        take_call_fingerprint(recalled.call)
        saved, plan = read_saved_study(Folder(study), truncate=False), recalled.call.plan
        (run,) = read_runs(saved.folder, saved.manifest, [number]).values()
        (group,) = trace_groups(plan, match_runs(plan, saved.index_plan(plan), [run]))
    inputs = {name: program.put_input(value) for name, value in group.segments[0].inputs.items()}
    alone, replay = (program.compile_program(traced) for traced in (group.traced, group.task.traced))
    seconds = {"alone": [], "replay": []}
    for _ in range(rounds):
        for name, compiled in (("alone", alone), ("replay", replay)):
            started = perf_counter()
            program.run_program(compiled, 1, run.traced, inputs)
            seconds[name].append(perf_counter() - started)
    executed = {name: statistics.median(values) for name, values in seconds.items()}
    return number, (alone.compile_seconds, replay.compile_seconds), executed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps and rounds")
    quick = parser.parse_args().quick
    os.environ.setdefault("NPROC", "1")
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        os.environ["XDG_CACHE_HOME"] = str(folder / "other")
        train = ("runner", "-m", "task=train", "optimizer=adam,adamw,sgd,rmsprop,lion", f"lr={RATES}")
        steps = f"steps={30 if quick else 300}"
        study = call(*train, "seed=range(0,20)", steps, "study=all", cwd=folder)
        os.chdir(folder)
        number, (own, other), executed = measure_programs(folder / "outputs" / "all", 3 if quick else 15)
        command = call("runner.replay", "outputs/all", *CHOICE, "--save", cwd=folder)
        saved = f"outputs/all/checkpoints/run-{number}"
        again = call("runner", "--config-dir", saved, f"task=run-{number}", "study=again", cwd=folder)
    ratio = executed["replay"] / executed["alone"]
    print(f"1,200 runs: {study:.1f} s; the best is run {number}")
    print(f"compilation: {own:.2f} s alone, {other:.2f} s for the replay ({other / own:.2f})")
    print(
        f"execution: {1000 * executed['alone']:.1f} ms alone, {1000 * executed['replay']:.1f} ms replayed ({ratio:.2f})"
    )
    print(
        f"whole commands: {again:.1f} s for the run alone, {command:.1f} s replayed and saved ({command / again:.2f})"
    )


if __name__ == "__main__":
    main()

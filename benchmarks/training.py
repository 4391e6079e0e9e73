"""What training costs and reaches: runs of `+experiment=digits_optimizers` against the same written by hand.

    python benchmarks/training.py [--quick] [speed bits memory accuracy]

- speed: the 1,200 runs against a loop over runs of one jitted training for each optimizer, at most 0.5, and against the
  best of four widths of `jit(vmap)`, at most 1.0, both in processes of their own with XLA's default settings
  (`by_hand.py`). Imports and compilations are left out: of ours by the difference of a call with few seeds.
- bits: the curve of a run alone, in the study, in two shards, and after kill -9.
- memory: the peak of few and many runs, of few and many steps, of few and many lanes, and with large data.
- accuracy: the mean of 20 seeds on the test part of the digits, at the point that the validation part chooses by other
  seeds: an MLP at least 0.97, a CNN at least 0.985.

`stopping.py` beside it has what ends early and what is kept. Each side is measured in turn; of several rounds the
median counts, and the range is printed beside it.
"""

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("NPROC", "1")

import numpy as np
import pandas as pd
from throughput import ROOT, spread, timed

import runner

MOST_SECONDS = 300
"""jaxlib 0.10 can hang with XLA's default settings."""
WIDTHS = (4, 16, 60, 240)
HANGS = np.full(2, np.inf)
"""The seconds of what did not end."""


def call(place, *command, default_pool=False):
    """The output of a process of its own, and its seconds by the clock and of CPU; None if it hangs."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(place / "cache")}
    if default_pool:
        del environment["NPROC"]
    started = read_clocks()
    try:
        done = subprocess.run(
            [sys.executable, *command], cwd=place, env=environment, stdout=subprocess.PIPE, timeout=MOST_SECONDS
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}")
    return done.stdout.decode(), read_clocks() - started


def read_clocks():
    """The seconds of the clock, and those of CPU of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return np.array([time.perf_counter(), usage.ru_utime + usage.ru_stime])


def study(place, name, *overrides):
    """The seconds of `+experiment=digits_optimizers` with other values."""
    arguments = ("+experiment=digits_optimizers", f"study={name}", "overwrite=true", *overrides)
    made = call(place, "-m", "runner", *arguments)
    if made is None:
        raise SystemExit(f"{name} took more than {MOST_SECONDS} s")
    return made[1]


def by_hand(place, width, seeds):
    """The seconds of all calls, and those of the whole process."""
    made = call(place, str(ROOT / "benchmarks" / "by_hand.py"), str(width), str(seeds), default_pool=True)
    return (HANGS, HANGS) if made is None else (np.array(made[0].split(), float), made[1])


def measure_speed(place, quick):
    seeds, few, rounds = (4, 1, 1) if quick else (20, 2, 3)
    first = study(place, "first", f"seed=range(0,{seeds})")
    ours, loops, widths, whole = [], [], {width: [] for width in WIDTHS}, []
    for _ in range(rounds):
        many = study(place, "many", f"seed=range(0,{seeds})")
        ours.append((many - study(place, "few", f"seed=range(0,{few})")) * seeds / (seeds - few))
        loop, process = by_hand(place, 1, seeds)
        loops.append(loop)
        whole.append(many / process)
        for width, made in widths.items():
            made.append(by_hand(place, width, seeds)[0])
    for clock, (label, *targets) in enumerate((("s", "≤ 0.5", "≤ 1.0"), ("CPU s", "", ""))):
        best = min(WIDTHS, key=lambda width: np.median(widths[width], axis=0)[clock])
        columns = [[each[clock] for each in made] for made in (ours, loops, widths[best])]
        mine, loop, wide = columns
        print(f"| {label} for {60 * seeds:,} runs of 300 steps | {spread(mine)} |  |")
        print(f"| the same in a loop over runs by hand | {spread(loop)} |  |")
        print(f"| ratio | {spread([a / b for a, b in zip(mine, loop, strict=True)])} | {targets[0]} |")
        print(f"| the same by `jit(vmap)` by hand, {best} wide | {spread(wide)} |  |")
        print(f"| ratio | {spread([a / b for a, b in zip(mine, wide, strict=True)])} | {targets[1]} |")
        print(f"| whole process against the loop's, {label} | {spread([each[clock] for each in whole])} |  |")
    print(f"| the first call, with nothing in the cache, s | {first[0]:.1f} |  |", flush=True)


def read(place, name):
    return (place / "outputs" / name / "results.csv").read_bytes()


def measure_bits(place, quick):
    """Prints how the bytes compare; raises SystemExit if they differ."""
    values = ("optimizer=adam,sgd", "lr=0.01,0.1", f"seed=range(0,{4 if quick else 20})")
    study(place, "whole", *values)
    study(place, "shards", *values, "hydra.sweeper.shards=2", "hydra/launcher=joblib", "lanes=auto")
    killed = kill_and_resume(place, values, 2 if quick else 5)
    call(place, "-m", "runner", "task=train", "optimizer=adam", "lr=0.1", "seed=3", "every=50", "horizon=300",
         "study=alone", "overwrite=true")  # fmt: skip
    table, alone = (pd.read_csv(place / "outputs" / name / "results.csv", dtype=str) for name in ("whole", "alone"))
    row = table[(table["optimizer"] == "adam") & (table["lr"] == "0.1") & (table["seed"] == "3")].iloc[0]
    curves = [name for name in table if name.endswith("_curve")]
    same = {
        "alone": all(row[name] == alone[name][0] for name in curves),
        "in two shards": read(place, "shards") == read(place, "whole"),
        f"after kill -9, {killed} times": read(place, "killed") == read(place, "whole"),
    }
    for way, is_same in same.items():
        print(f"| curves {way} have the bytes of the study | {'yes' if is_same else 'NO'} | yes |", flush=True)


def kill_and_resume(place, values, times):
    """How many of the calls of one study were killed before they ended; the last one is not."""
    command = (sys.executable, "-m", "runner", "+experiment=digits_optimizers", "study=killed", *values)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(place / "cache")}
    shutil.rmtree(place / "outputs" / "killed", ignore_errors=True)
    killed = 0
    for number in range(times):
        process = subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.DEVNULL)
        table = place / "outputs" / "killed" / "results.csv"
        before = table.stat().st_size if table.exists() else 0
        while process.poll() is None and (not table.exists() or table.stat().st_size <= before):
            time.sleep(0.01)
        time.sleep(0.1 * number)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    subprocess.run(command, cwd=place, env=environment, stdout=subprocess.DEVNULL, check=True)
    return killed


def measure_memory(place, quick):
    """Prints the peak of processes in MB, beside those of a run alone."""
    wide = ("model.hidden=[1024]", "optimizer=adam")
    big = ("data=gaussians", f"data.examples={50_000 if quick else 1_000_000}", "data.features=32", "threads=1")
    cases = {
        "10 runs of 20 steps": ("seed=range(0,10)", "steps=20", "block=10"),
        "2,000 runs of 20 steps": (f"seed=range(0,{100 if quick else 2000})", "steps=20"),
        "10 runs of 5,000 steps": ("seed=range(0,10)", f"steps={100 if quick else 5000}", "block=10"),
        "1 lane of 76,800 parameters": ("seed=range(0,32)", "steps=5", *wide, "lanes=1"),
        "32 lanes of 76,800 parameters": ("seed=range(0,64)", "steps=5", *wide, "lanes=32"),
        "data of 77 MB for training, 1 lane": ("seed=range(0,2)", "steps=5", *big, "lanes=1"),
        "data of 77 MB for training, 32 lanes": ("seed=range(0,64)", "steps=5", *big, "lanes=32"),
    }
    for label, values in cases.items():
        command = ("-m", "runner", "-m", "task=train", *values, "study=memory", "overwrite=true")
        peaks = [timed(*command, cwd=place, cache=place / "cache")[1] for _ in range(2)]
        print(f"| peak MB, {label} | {peaks[-1] / 1e6:.0f} |  |", flush=True)  # the first one compiles


CANDIDATES = {
    "MLP": (
        ("model=mlp", "steps=2000", "schedule=cosine"),
        {"model.hidden": "[128],[256],[256,256]", "lr": "0.0005,0.001,0.002"},
    ),
    "CNN": (
        ("model=cnn", "steps=2000", "schedule=cosine"),
        {"model.channels": "[16,32],[32,64]", "model.dropout": "0.0,0.3", "lr": "0.002,0.005"},
    ),
}
"""What may be chosen, fixed beforehand: the values that all have in common, and the axes."""
LEAST = {"MLP": 0.97, "CNN": 0.985}


def measure_accuracy(place, quick):
    """Chooses by the mean validation loss of five seeds, and prints the test accuracy of twenty others."""
    tried, fresh = ("range(0,2)", "range(100,102)") if quick else ("range(0,5)", "range(100,120)")
    for name, (common, axes) in CANDIDATES.items():
        sweep = [f"{axis}={values}" for axis, values in axes.items()]
        losses = (
            train(place, f"{name}-tried", *common, *sweep, f"seed={tried}")
            .groupby(list(axes))["validation_loss"]
            .mean()
        )
        chosen = [
            f"{axis}={value if isinstance(value, str) else f'{value:g}'}".replace(" ", "")
            for axis, value in zip(axes, losses.idxmin(), strict=True)
        ]
        made = train(place, f"{name}-chosen", *common, *chosen, f"seed={fresh}")["test_accuracy"].astype(float)
        label = f"test accuracy of {name}, {' '.join(chosen)}, mean of {len(made)} seeds (standard deviation)"
        print(f"| {label} | {made.mean():.4f} ({made.std():.4f}) | ≥ {LEAST[name]} |", flush=True)


def train(place, name, *values):
    """The table of a study of the digits."""
    if call(place, "-m", "runner", "-m", "task=train", *values, f"study={name}") is None:
        raise SystemExit(f"{name} took more than {MOST_SECONDS} s")
    return runner.read(place / "outputs" / name)


SECTIONS = {"speed": measure_speed, "bits": measure_bits, "memory": measure_memory, "accuracy": measure_accuracy}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs and rounds: the script works, no more")
    parser.add_argument("sections", nargs="*", help=f"what to measure: {', '.join(SECTIONS)}; everything if left out")
    given = parser.parse_args()
    for name in given.sections or SECTIONS:
        with tempfile.TemporaryDirectory() as folder:
            print(f"\n{name}; load {os.getloadavg()[0]:.1f}\n\n| figure | measured | target |\n|---|--:|--:|")
            SECTIONS[name](Path(folder), given.quick)
            print(f"\nload {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()

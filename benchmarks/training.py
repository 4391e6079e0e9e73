"""What training costs and reaches: runs of `+experiment=digits_optimizers` against the same written by hand.

    python benchmarks/training.py [--quick] [speed bits memory stopping keeping accuracy]

- speed: the 1,200 runs against a loop over runs of one jitted training for each optimizer, at most 0.5, and against the
  best of four widths of `jit(vmap)`, at most 1.0, both in processes of their own with XLA's default settings
  (`by_hand.py`). Imports and compilations are left out: of ours by the difference of a call with few seeds.
- bits: the curve of a run alone, in the study, in two shards, and after kill -9.
- memory: the peak of few and many runs, of few and many steps, and with a large set of data.
- stopping: a study whose runs end at widely different steps against its share of the steps, at most 1.3; and what
  frozen lanes, and a block that waits for its slowest lane, would cost.
- keeping: what it costs to keep the states of long runs, at most 5 %.
- accuracy: the mean of 20 seeds on the test part of the digits, at the point that the validation part chooses by other
  seeds: an MLP at least 0.97, a CNN at least 0.985.

Each side is measured in turn; of several rounds the median counts, and the range is printed beside it.
"""

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("NPROC", "1")

import pandas as pd
from throughput import ROOT, spread

MOST_SECONDS = 300
"""jaxlib 0.10 can hang with XLA's default settings."""
WIDTHS = (4, 16, 60, 240)


def call(place, *command, default_pool=False):
    """The output and the seconds of a process of its own; None if it hangs."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(place / "cache")}
    if default_pool:
        del environment["NPROC"]
    started = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, *command], cwd=place, env=environment, stdout=subprocess.PIPE, timeout=MOST_SECONDS
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}")
    return done.stdout.decode(), time.perf_counter() - started


def study(place, name, *overrides):
    """The seconds of `+experiment=digits_optimizers` with other values."""
    arguments = ("+experiment=digits_optimizers", f"study={name}", "overwrite=true", *overrides)
    made = call(place, "-m", "runner", *arguments)
    if made is None:
        raise SystemExit(f"{name} took more than {MOST_SECONDS} s")
    return made[1]


def by_hand(place, width, seeds):
    """The seconds of all calls, and those of the whole process; endless if it hangs."""
    made = call(place, str(ROOT / "benchmarks" / "by_hand.py"), str(width), str(seeds), default_pool=True)
    return (float("inf"),) * 2 if made is None else (float(made[0]), made[1])


def measure_speed(place, quick):
    seeds, few, rounds = (4, 1, 1) if quick else (20, 2, 3)
    first = study(place, "first", f"seed=range(0,{seeds})")
    ours, loops, widths, whole = [], [], [], []
    for _ in range(rounds):
        many = study(place, "many", f"seed=range(0,{seeds})")
        ours.append((many - study(place, "few", f"seed=range(0,{few})")) * seeds / (seeds - few))
        loop = by_hand(place, 1, seeds)
        loops.append(loop[0])
        whole.append((many, loop[1]))
        widths.append({width: by_hand(place, width, seeds)[0] for width in WIDTHS})
    best = min(WIDTHS, key=lambda width: statistics.median(each[width] for each in widths))
    runs = 60 * seeds
    print(f"| s for {runs:,} runs of 300 steps | {spread(ours)} |  |")
    print(f"| s for a loop over runs by hand | {spread(loops)} |  |")
    print(f"| ratio | {spread([a / b for a, b in zip(ours, loops, strict=True)])} | ≤ 0.5 |")
    print(f"| s for `jit(vmap)` by hand, {best} wide | {spread([each[best] for each in widths])} |  |")
    print(f"| ratio | {spread([a / each[best] for a, each in zip(ours, widths, strict=True)])} | ≤ 1.0 |")
    print(f"| s of the whole process against the loop's | {spread([a / b for a, b in whole])} |  |")
    print(f"| the same at the first call, with nothing in the cache | {first / whole[0][1]:.2f} |  |", flush=True)


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


@contextmanager
def temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


SECTIONS = {"speed": measure_speed, "bits": measure_bits}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs and rounds: the script works, no more")
    parser.add_argument("sections", nargs="*", help=f"what to measure: {', '.join(SECTIONS)}; everything if left out")
    given = parser.parse_args()
    for name in given.sections or SECTIONS:
        with temporary() as place:
            print(f"\n{name}; load {os.getloadavg()[0]:.1f}\n\n| figure | measured | target |\n|---|--:|--:|")
            SECTIONS[name](place, given.quick)
            print(f"\nload {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()

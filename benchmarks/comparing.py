"""Whether the intervals of a comparison hold their level, and what a large comparison takes.

    python benchmarks/comparing.py [--quick]

- coverage of the nominal 95 % interval of the mean, by simulation: of normal data with 3, 5, 10, 20 and 50 seeds
  within 93–97 %; of lognormal data it is shown, and held to nothing;
- a table of 1,000 points × 1,000 seeds: at most 10 s and 2 GB, as a whole process;
- one of 2,000 nearly equal points × 500 seeds × 3 metrics: at most 10 s and 1 GB;
- one of 10,000,000 runs, as a whole process.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from runner.analysis.intervals import mean_bounds

ROOT = Path(__file__).parents[1]


def coverage(draw, mean, seeds, studies):
    """The share of studies whose interval has the true mean in it."""
    values = draw(np.random.default_rng(seeds), (studies, seeds))
    low, high = mean_bounds(values.mean(axis=1), values.std(axis=1, ddof=1), np.full(studies, seeds), 0.05)
    return float(((low <= mean) & (mean <= high)).mean())


def measured(place, *arguments):
    """Seconds and peak gigabytes of a command that must succeed; the peak is that of the largest child so far."""
    begun = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=place, env=environment, capture_output=True, text=True, check=True
    )
    assert out.stdout
    return time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6


def _write_wide(place, points, seeds):
    """A study of twice the points and half the seeds, whose three metrics hardly differ: its folder."""
    wide, folder, rng = place / "outputs" / "wide", place / "outputs" / "equal", np.random.default_rng(0)
    folder.mkdir()
    manifest = json.loads((wide / "study.json").read_text())
    outputs = [{"name": name, "shape": [], "dtype": "float32"} for name in "abc"]
    manifest["columns"]["outputs"] = outputs
    runs = points * (seeds // 2) * 2
    manifest |= {"metrics": dict.fromkeys("abc", "minimize"), "table_bytes": None, "planned": runs, "retries": []}
    (folder / "study.json").write_text(json.dumps(manifest))
    first = pd.read_csv(wide / "results.csv", nrows=1).iloc[0]
    lr, seed = np.divmod(np.arange(runs), seeds // 2)
    parameters = {name: first[name] for name in manifest["columns"]["parameters"]}
    frame = {"run": np.arange(runs), "task": "mixed_train", **parameters}
    frame |= {"lr": (lr + 1) / 1000, "seed": seed}
    shared = rng.normal(size=seeds // 2)[seed]
    frame |= {name: (shared + 1e-4 * rng.normal(size=runs)).astype(np.float32) for name in "abc"}
    pd.DataFrame({**frame, "status": "ok", "reason": ""}).to_csv(folder / "results.csv", index=False)
    return "outputs/equal"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer simulations and runs: the script works, no more")
    quick = parser.parse_args().quick
    studies, points, seeds, many = (100, 20, 50, 20_000) if quick else (4000, 1000, 1000, 10_000_000)
    for name, draw, mean in (
        ("normal", lambda rng, n: rng.normal(size=n), 0.0),
        ("lognormal", lambda rng, n: rng.lognormal(size=n), np.exp(0.5)),
    ):
        for n in (3, 5, 10, 20, 50):
            share = coverage(draw, mean, n, studies)
            target = "93–97" if name == "normal" else ""
            print(
                f"| coverage of nominal 95 % with {n} seeds, {name} data, % | {100 * share:.1f} | {target} |",
                flush=True,
            )
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        sweep = "runner", "-m", "task=mixed_train", f"lr=range(0.001,{points / 1000 + 0.0005},0.001)"
        measured(place, *sweep, f"seed=range(0,{seeds})", "study=wide")
        _, before = measured(place, "runner.studies")
        took, peak = measured(place, "runner.compare", "outputs/wide", "--metric", "loss_after")
        print(f"| comparing {points:,} points × {seeds:,} seeds, s | {took:.1f} | ≤ 10 |")
        print(f"| its peak, GB (at most: the sweep's own was {before:.2f}) | {peak:.2f} | ≤ 2 |", flush=True)
        took, peak = measured(place, "runner.compare", _write_wide(place, points, seeds))
        size = f"{2 * points:,} nearly equal points × {seeds // 2:,} seeds × 3 metrics"
        print(f"| comparing {size}, s | {took:.1f} | ≤ 10 |")
        print(f"| its peak, GB (at most: the sweep's own was {before:.2f}) | {peak:.2f} | ≤ 1 |", flush=True)
        measured(place, "runner", "-m", "task=mixed_train", "lr=0.1,0.2", f"seed=range(0,{many // 2})", "study=long")
        took, peak = measured(place, "runner.compare", "outputs/long", "--metric", "loss_after")
        print(f"| comparing {many:,} runs, s | {took:.1f} | |")
        print(f"| its peak, GB | {peak:.2f} | |")


if __name__ == "__main__":
    main()

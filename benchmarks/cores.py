"""What a pool of one thread costs, and which sizes of the pool give the same bytes.

    python benchmarks/cores.py [--quick]

Sweeps are executed by two threads with `cores_per_run` 1, 2, 4 and 8, taken in turn, as whole processes that read their
programs from the cache; of several rounds the median of the ratios to a pool of one thread counts. The bytes are those
of `results.csv`.
"""

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
CORES = (1, 2, 4, 8)
REDUCE = """
import jax
import jax.numpy as jnp


def reduce(seed: int, rows: int) -> dict[str, jax.Array]:
    x = jax.random.normal(jax.random.key(seed), (rows, 4))
    return {"product": (x.T @ x).reshape(-1), "sum": x.sum()}


def draw(seed: int, count: int) -> dict[str, jax.Array]:
    x = jax.random.normal(jax.random.key(seed), (count,))
    return {"sum": x.sum(), "squares": (x * x).sum()}
"""
YAML = {
    "reduce": """# @package _global_
task: {name: reduce, _target_: reduce_lab.reduce}
seed: 0
rows: 1000000
""",
    "draw": """# @package _global_
task: {name: draw, _target_: reduce_lab.draw}
seed: 0
count: 4000000
""",
}


def list_sweeps(quick):
    runs, layers, large, drawn = (2_000, 20, 2, 2) if quick else (2_000_000, 2_000, 40, 200)
    return {
        f"`mixed_train`, {runs:,} runs": ("task=mixed_train", f"seed=range(0,{runs})"),
        f"`dense_forward` 64×512 to 512, {layers:,} runs": (
            *("task=dense_forward", "x.shape=[64,512]", "features=512"),
            f"seed=range(0,{layers})",
        ),
        f"sums and a product of 1,000,000×4, {large} runs": ("task=reduce", f"seed=range(0,{large})"),
        f"4,000,000 normal numbers and their sums, {drawn} runs": ("task=draw", f"seed=range(0,{drawn})"),
    }


def execute(place, arguments, **variables):
    """Seconds of a sweep in a process of its own, and the digest of its table."""
    folder = place / f"study-{time.monotonic_ns()}"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{place}", "XDG_CACHE_HOME": str(place / "cache"), **variables}
    environment.pop("NPROC", None)
    command = [sys.executable, "-m", "runner", *arguments, f"hydra.sweep.dir={folder}"]
    started = time.perf_counter()
    subprocess.run(command, cwd=place, env=environment, stdout=subprocess.DEVNULL, check=True)
    seconds = time.perf_counter() - started
    return seconds, hashlib.sha256((folder / "results.csv").read_bytes()).hexdigest()


def compare(sweep, sizes, run, rounds):
    """Prints a row for each size: the seconds of `run(size)` against those of the first, and whether bytes differ."""
    seconds, digests = {size: [] for size in sizes}, {size: set() for size in sizes}
    for size in sizes:
        run(size)
    for number in range(rounds):
        for size in sizes if number % 2 else reversed(sizes):
            spent, digest = run(size)
            seconds[size].append(spent)
            digests[size].add(digest)
    first = sizes[0]
    for size in sizes:
        ratios = [mine / one for mine, one in zip(seconds[size], seconds[first], strict=True)]
        is_same = "yes" if digests[size] == digests[first] and len(digests[first]) == 1 else "no"
        cells = f"{statistics.median(seconds[size]):.1f} | {statistics.median(ratios):.2f} | {is_same}"
        print(f"| {sweep} | {size} | {cells} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs and rounds: the script works, no more")
    quick = parser.parse_args().quick
    print("| sweep | `cores_per_run` | s | against 1 | bytes of 1 |\n|---|--:|--:|--:|---|")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "conf" / "task").mkdir(parents=True)
        for task, text in YAML.items():
            (place / "conf" / "task" / f"{task}.yaml").write_text(text)
        (place / "reduce_lab.py").write_text(REDUCE)
        for sweep, arguments in list_sweeps(quick).items():
            words = ("--config-dir", "conf", "-m", *arguments, "threads=2")
            compare(
                sweep, CORES, lambda n, words=words: execute(place, (*words, f"cores_per_run={n}")), 1 if quick else 3
            )


if __name__ == "__main__":
    main()

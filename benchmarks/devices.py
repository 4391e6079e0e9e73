"""What several devices bring, and whether the bytes stay those of one.

    python benchmarks/devices.py [--quick]

Sweeps are executed on 1, 2 and 4 devices, taken in turn, as whole processes that read their programs from the cache; of
several rounds the median of the ratios to one device counts. The bytes are those of `results.csv`. A machine without an
accelerator pretends to have four CPU devices, which share its cores: then the ratio says what the division costs, and a
device has no thread of its own beyond the cores. With accelerators, as many of 1, 2, 4 and 8 as there are.
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

import jax

ROOT = Path(__file__).parents[1]
PRETENDED = 4


def list_sweeps(quick):
    runs, layers = (20_000, 50) if quick else (2_000_000, 2_000)
    return {
        f"`mixed_train`, {runs:,} runs": ("task=mixed_train", f"seed=range(0,{runs})"),
        f"`dense_forward` 64×512 to 512, {layers:,} runs": (
            *("task=dense_forward", "x.shape=[64,512]", "features=512"),
            f"seed=range(0,{layers})",
        ),
    }


def execute(place, devices, arguments, *, is_accelerated):
    """Seconds of a sweep, and the digest of its table."""
    folder = place / f"{devices}-{time.monotonic_ns()}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(place / "cache")}
    if not is_accelerated:
        environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={PRETENDED}"
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "runner", "-m", *arguments, f"devices={devices}", f"hydra.sweep.dir={folder}"],
        cwd=place,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    seconds = time.perf_counter() - started
    return seconds, hashlib.sha256((folder / "results.csv").read_bytes()).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs and rounds: the script works, no more")
    quick = parser.parse_args().quick
    kind, found = jax.devices()[0].device_kind, len(jax.devices())
    is_accelerated = jax.default_backend() != "cpu"
    counts = [count for count in (1, 2, 4, 8) if count <= (found if is_accelerated else PRETENDED)]
    print(f"device: {kind}{'' if is_accelerated else f', {PRETENDED} pretended'}\n")
    print("| sweep | devices | s | against 1 | bytes of 1 |\n|---|--:|--:|--:|---|")
    with tempfile.TemporaryDirectory() as name:
        for sweep, arguments in list_sweeps(quick).items():
            seconds, digests = {count: [] for count in counts}, {count: set() for count in counts}
            for count in counts:
                execute(Path(name), count, arguments, is_accelerated=is_accelerated)
            for number in range(1 if quick else 3):
                for count in counts if number % 2 else reversed(counts):
                    spent, digest = execute(Path(name), count, arguments, is_accelerated=is_accelerated)
                    seconds[count].append(spent)
                    digests[count].add(digest)
            for count in counts:
                ratios = [mine / one for mine, one in zip(seconds[count], seconds[1], strict=True)]
                is_same = "yes" if digests[count] == digests[1] and len(digests[1]) == 1 else "no"
                cells = f"{statistics.median(seconds[count]):.1f} | {statistics.median(ratios):.2f} | {is_same}"
                print(f"| {sweep} | {count} | {cells} |", flush=True)


if __name__ == "__main__":
    main()

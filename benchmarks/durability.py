"""What it costs that a study lasts, and whether it does.

    python benchmarks/durability.py [--quick]

- 50 kills at random moments, start-up and compilation included, and after each the same command: the table of
  every study must have the bytes of one that was never interrupted;
- resuming a finished study of 1,000,000 runs, beyond the imports: at most 3 s;
- extending one of 1,000,000 runs by 1,000, beyond imports and compilation: at most 4 s;
- the marginal cost of a run with syncing against the same without: at most 1.10.

The seconds beyond imports and compilation are those of a whole process less those of a process that runs a single
run of the same signature from the cache.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
NO_SYNC = "import os; os.fsync = lambda descriptor: None; from runner.__main__ import main; main()"


def start(place, *arguments, code=None):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(place / "cache")}
    program = ["-c", code] if code else ["-m", "runner"]
    return subprocess.Popen(
        [sys.executable, *program, *arguments], cwd=place, env=environment, stdout=subprocess.DEVNULL
    )


def seconds(place, *arguments, code=None):
    """The seconds of a call that must succeed."""
    begun = time.perf_counter()
    if start(place, *arguments, code=code).wait():
        raise SystemExit(f"failed: {' '.join(arguments)}")
    return time.perf_counter() - begun


def sweep(study, runs):
    return "-m", "task=mixed_train", "lr=0.1,0.2", f"seed=range(0,{runs // 2})", f"study={study}"


def killed(place, kills, runs, longest):
    """How many kills there were, and how many of the studies they befell ended with the right bytes."""
    seconds(place, *sweep("whole", runs))
    whole = (place / "outputs" / "whole" / "results.csv").read_bytes()
    chance, done, right, studies = random.Random(0), 0, 0, 0
    while done < kills:
        studies += 1
        command = sweep(f"killed{studies}", runs)
        for _ in range(chance.randint(1, 5)):
            process = start(place, *command)
            try:
                process.wait(timeout=chance.uniform(0.1, longest))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                done += 1
        seconds(place, *command)
        table = place / "outputs" / f"killed{studies}" / "results.csv"
        right += table.read_bytes() == whole
        table.unlink()
    return done, right, studies


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs and rounds: the script works, no more")
    quick = parser.parse_args().quick
    kills, some, many, rounds = (3, 20_000, 50_000, 1) if quick else (50, 400_000, 1_000_000, 3)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        seconds(place, "lr=0.1")
        alone = statistics.median(seconds(place, "lr=0.1") for _ in range(rounds))

        seconds(place, *sweep("big", many))
        resumed = [seconds(place, *sweep("big", many)) - alone for _ in range(rounds)]
        extended = [seconds(place, *sweep("big", many + 1000 * (i + 1))) - alone for i in range(rounds)]
        for what, values, most in ((f"resuming {many:,} runs", resumed, 3), ("extending them by 1,000", extended, 4)):
            print(f"| {what}, s beyond a single run | {statistics.median(values):.1f} | ≤ {most} |", flush=True)

        costs = []
        for i in range(rounds):
            pair = []
            for code in (None, NO_SYNC):
                few, lot = (
                    seconds(place, *sweep(f"cost{runs}-{i}-{code is None}", runs), code=code)
                    for runs in (some, 4 * some)
                )
                pair.append(lot - few)
            costs.append(pair[0] / pair[1])
        print(f"| marginal cost with syncing against without | {statistics.median(costs):.2f} | ≤ 1.10 |", flush=True)

        done, right, studies = killed(place, kills, some, longest=2 * alone)
        print(f"| kills, studies that they befell, of these with the right bytes | {done}, {studies}, {right} | all |")


if __name__ == "__main__":
    main()

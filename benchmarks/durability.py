"""What it costs that a study lasts, and whether it does.

    python benchmarks/durability.py [--quick]

- 50 kills at random moments, start-up and compilation included, and after each the same command: the table of
  every study must have the bytes of one that was never interrupted. In every second study the runs are shared out
  over two processes by joblib, so that merges are hit, too;
- resuming a finished study of 1,000,000 runs, beyond the imports: at most 3 s;
- extending one of 1,000,000 runs by 1,000, beyond imports and compilation: at most 4 s;
- what the checksums of 1,000,000 rows take of the time of their sweep: at most 3 %; verifying them: at most 0.1 s;
- the marginal cost of a run with syncing against the same without: at most 1.10;
- the marginal cost of a run in two shards by joblib, merge included, against one process with two threads: at
  most 1.15.

The seconds beyond imports and compilation are those of a whole process less those of a process that runs a single
run of the same signature from the cache.
"""

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runner.storage.checksums import read_records, sum_rows, verify_content
from runner.storage.folder import Folder
from runner.storage.lock import is_locked

ROOT = Path(__file__).parents[1]
SHARDS = ("hydra.sweeper.shards=2", "hydra/launcher=joblib")
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


def ratio_of(place, rounds, some, one, other, code=None):
    """The marginal cost of a run with some overrides against that with others, and with other code; the median."""
    ratios = []
    for _ in range(rounds):
        costs = []
        for overrides, own in ((one, None), (other, code)):
            few, lot = (
                seconds(place, *sweep("cost", runs), "overwrite=true", *overrides, code=own)
                for runs in (some, 4 * some)
            )
            costs.append(lot - few)
            for old in place.glob("outputs/cost*"):
                shutil.rmtree(old)
        ratios.append(costs[0] / costs[1])
    return statistics.median(ratios)


def checksum_seconds(folder, rows=8192):
    """The seconds of summing a table in blocks of so many rows, and of verifying it; the medians of five."""
    lines = folder.results.read_bytes().splitlines(keepends=True)
    blocks = [b"".join(lines[start : start + rows]) for start in range(0, len(lines), rows)]
    summing, verifying = [], []
    for _ in range(5):
        begun = time.perf_counter()
        for block in blocks:
            sum_rows(block)
        summed = time.perf_counter()
        verification = verify_content(folder.results, read_records(folder.checksums))
        verifying.append(time.perf_counter() - summed)
        summing.append(summed - begun)
        assert verification.lines == len(lines)
    return statistics.median(summing), statistics.median(verifying)


def killed(place, kills, runs, longest):
    """How many kills there were, how many of them left parts behind, and how the studies that they befell ended."""
    seconds(place, *sweep("whole", runs))
    whole = (place / "outputs" / "whole" / "results.csv").read_bytes()
    chance, done, merging, right, studies = random.Random(0), 0, 0, 0, 0
    while done < kills:
        studies += 1
        folder = Folder(place / "outputs" / f"killed{studies}")
        command = [*sweep(folder.path.name, runs), *(SHARDS if studies % 2 else ())]
        for _ in range(chance.randint(1, 5)):
            process = start(place, *command)
            try:
                process.wait(timeout=chance.uniform(0.1, longest))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                done += 1
                merging += folder.results.exists() and any(folder.parts)
                while any(map(is_locked, [folder, *folder.parts])):  # shards without a parent end on their own
                    time.sleep(0.1)
        seconds(place, *command)
        right += folder.results.read_bytes() == whole and not folder.parts
        shutil.rmtree(folder.path)
    return done, merging, right, studies


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs and rounds: the script works, no more")
    quick = parser.parse_args().quick
    kills, some, many, rounds = (3, 20_000, 50_000, 1) if quick else (50, 400_000, 1_000_000, 3)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        seconds(place, "lr=0.1")
        alone = statistics.median(seconds(place, "lr=0.1") for _ in range(rounds))

        whole = seconds(place, *sweep("big", many)) - alone
        summing, verifying = checksum_seconds(Folder(place / "outputs" / "big"))
        print(f"| checksums of {many:,} rows, share of their sweep | {summing / whole:.1%} | ≤ 3 % |", flush=True)
        print(f"| verifying {many:,} rows, s | {verifying:.3f} | ≤ 0.1 |", flush=True)
        resumed = [seconds(place, *sweep("big", many)) - alone for _ in range(rounds)]
        extended = [seconds(place, *sweep("big", many + 1000 * (i + 1))) - alone for i in range(rounds)]
        for what, values, most in ((f"resuming {many:,} runs", resumed, 3), ("extending them by 1,000", extended, 4)):
            print(f"| {what}, s beyond a single run | {statistics.median(values):.1f} | ≤ {most} |", flush=True)

        ratio = ratio_of(place, rounds, some, (), (), code=NO_SYNC)
        print(f"| marginal cost with syncing against without | {ratio:.2f} | ≤ 1.10 |", flush=True)

        ratio = ratio_of(place, rounds, 4 * some, SHARDS, ("threads=2",))
        print(f"| marginal cost in two joblib shards against two threads | {ratio:.2f} | ≤ 1.15 |", flush=True)

        done, merging, right, studies = killed(place, kills, some, longest=2.5 * alone)
        print(f"| kills, of them while parts were merged | {done}, {merging} | ≥ 50 |")
        print(f"| studies killed, of these with the right bytes | {studies}, {right} | all |")


if __name__ == "__main__":
    main()

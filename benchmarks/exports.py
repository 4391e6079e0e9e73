"""What exports and lists of studies take: seconds, and memory that is no mapped file.

    python benchmarks/exports.py [--quick]

- the export of 1,000,000 runs to Parquet, as a whole process: at most 3 s, with the memory of an export of 100,000;
- the list of 1,000 studies, as a whole process: at most 1 s, also where no table was read before.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
WATCHED = """
import sys, threading, time
peak = 0
def watch():
    global peak
    while True:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith("RssAnon"):
                    peak = max(peak, int(line.split()[1]))
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
sys.argv = ["command", *sys.argv[2:]]
from {module} import main
main()
print(peak, file=sys.stderr)
"""


def call(place, *arguments):
    """Runs a command that must succeed: its seconds by the clock and of CPU, and what it wrote to standard error."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(place / "cache")}
    begun, before = time.perf_counter(), os.times()
    done = subprocess.run([sys.executable, *arguments], cwd=place, env=environment, capture_output=True, text=True)
    seconds, after = time.perf_counter() - begun, os.times()
    assert done.returncode == 0, done.stderr
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return seconds, cpu, done.stderr


def call_watched(place, module, *arguments):
    """Seconds of a command, those of CPU, and its peak of anonymous memory in MB, measured in a second call."""
    seconds, cpu, _ = call(place, "-m", module, *arguments)
    _, _, err = call(place, "-c", WATCHED.format(module=module), "-", *arguments)
    return seconds, cpu, int(err.split()[-1]) / 1000


def make_study(place, name, runs):
    call(place, "-m", "runner", "-m", "task=mixed_train", "lr=0.1", f"seed=range(0,{runs})", f"study={name}")
    return place / "outputs" / name


def show(what, value, target=""):
    print(f"| {what} | {value} | {target} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs and studies: the script works, no more")
    quick = parser.parse_args().quick
    runs, studies = (20_000, 50) if quick else (1_000_000, 1000)
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        for count in (runs // 10, runs):
            study = make_study(place, f"s{count}", count)
            for target in ("parquet", "csv"):
                seconds, cpu, memory = call_watched(place, "runner.export", f"outputs/{study.name}", target)
                limit = "3" if count == runs and target == "parquet" else ""
                show(f"{count:,} runs to {target}, s; of CPU", f"{seconds:.2f}; {cpu:.2f}", limit)
                show(f"{count:,} runs to {target}, MB", f"{memory:.0f}")
            size = sum(path.stat().st_size for path in (study / "exports").glob("*.parquet"))
            show(
                f"{count:,} runs, MB of the table, of the Parquet file",
                f"{(study / 'results.csv').stat().st_size / 1e6:.0f}, {size / 1e6:.0f}",
            )
        small = make_study(place, "small", 100)
        for number in range(studies):
            shutil.copytree(small, place / "many" / f"s{number}")
        for what in ("first list", "second list"):
            seconds, cpu, _ = call(place, "-m", "runner.studies", "many")
            show(f"{what} of {studies:,} studies, s; of CPU", f"{seconds:.2f}; {cpu:.2f}", "1")
        seconds, cpu, _ = call(place, "-c", "pass")
        show("start of Python, s; of CPU", f"{seconds:.2f}; {cpu:.2f}")


if __name__ == "__main__":
    main()

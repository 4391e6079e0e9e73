"""`runner.run` of 100,000 runs against the same call of the shell, less the start of Python.

    python benchmarks/notebook.py [--rounds 5]

Both are processes of their own, in turn, after one that fills the cache of executables. Of the shell's call the time of
`python -c pass` is subtracted; that of `runner.run` is taken within its process, imports included. A second call in the
same process, for which everything is imported already, is shown beside it. CPU seconds depend less on what else the
machine does than those of the clock.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from throughput import ROOT, spread

SHELL = (
    "-m",
    "runner",
    "-m",
    "task=mixed_train",
    "lr=0.01,0.1",
    "seed=range(0,50000)",
    "study=timed",
    "overwrite=true",
)
SCRIPT = """
import json, time
started, used = time.perf_counter(), time.process_time()
import runner
call = {"task": "mixed_train", "lr": [0.01, 0.1], "seed": range(50_000), "study": "timed", "overwrite": True}
times = []
for _ in range(2):
    runner.run(**call)
    times.append((time.perf_counter() - started, time.process_time() - used))
    started, used = time.perf_counter(), time.process_time()
print(json.dumps(times))
"""


def start(*arguments, cwd):
    """Seconds of the clock and of CPU of a Python process, which must succeed, and the last line that it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cwd / "cache")}
    started = perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True
    )
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    return perf_counter() - started, usage.ru_utime + usage.ru_stime, output.splitlines()[-1:]


def measure(cwd):
    """Seconds of the clock and of CPU: of the shell's call less those of Python, of the first call and the second."""
    bare, shell = start("-c", "pass", cwd=cwd), start(*SHELL, cwd=cwd)
    first, second = json.loads(start("-c", SCRIPT, cwd=cwd)[2][0])
    return [(shell[i] - bare[i], first[i], second[i]) for i in (0, 1)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as place:
        cwd = Path(place)
        start(*SHELL, cwd=cwd)
        measured = [measure(cwd) for _ in range(rounds)]
    for i, unit in enumerate(("seconds of the clock", "CPU seconds")):
        shell, first, second = zip(*(times[i] for times in measured), strict=True)
        print(f"{unit}: the shell's call less the start of Python {spread(shell)}")
        print(f"  runner.run {spread(first)}, its second call in the same process {spread(second)}")
        ratios = [one / other for one, other in zip(first, shell, strict=True)]
        print(f"  ratio of the first call to the shell's {spread(ratios)}, at most 1.1")


if __name__ == "__main__":
    main()

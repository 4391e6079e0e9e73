"""What groups and values of `x.seed` cost: programs compiled on one core and on all, loaded from the cache, and reused.

    python benchmarks/compilation.py [--quick]

Every figure is that of whole processes; what is the same for few and for many is subtracted. The two sides of a ratio
are taken in turn. CPU seconds are printed beside those of the clock, which depend on what else the machine does.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from throughput import ROOT, spread


def timed(*arguments, cwd, cache, cores):
    """Seconds of the clock and of CPU of a call in a process of its own, kept to these cores; it must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-m", "runner", *arguments, "overwrite=true", "study=timed"]
    started = perf_counter()
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, cores)
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return perf_counter() - started, usage.ru_utime + usage.ru_stime


def groups(count):
    return "-m", "task=mixed_train", f"hidden=range(1,{count + 1})"


def slope(sweep, few, many, rounds, **place):
    """Seconds of the clock, and of CPU, that one more group or value takes, round by round."""
    pairs = [(timed(*sweep(few), **place), timed(*sweep(many), **place)) for _ in range(rounds)]
    return [[(high[i] - low[i]) / (many - few) for low, high in pairs] for i in (0, 1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer groups and rounds: the script works, no more")
    quick = parser.parse_args().quick
    cold, warm, seeds, rounds = (3, 6, 200, 1) if quick else (20, 60, 2000, 3)
    everything = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        one, all_cores = [], []
        for i in range(rounds):
            for seconds, cores in ((one, {min(everything)}), (all_cores, everything)):
                base = timed(*groups(1), cwd=place, cache=place / f"{i}-{len(cores)}", cores=cores)[0]
                cache = place / f"cold-{i}-{len(cores)}"
                seconds.append(timed(*groups(cold), cwd=place, cache=cache, cores=cores)[0] - base)
        ratios = [a / b for a, b in zip(all_cores, one, strict=True)]
        print(f"| s to compile {cold - 1} more programs on one core | {spread(one)} |  |")
        print(f"| the same on {len(everything)} cores | {spread(all_cores)} |  |")
        print(f"| ratio | {spread(ratios)} | ≤ 0.60 on two |", flush=True)

        kept = {"cwd": place, "cache": place / "warm", "cores": everything}
        timed(*groups(warm), **kept)
        clock, cpu = slope(groups, 2, warm, rounds, **kept)
        label = f"s for each group that is in the cache (CPU: {statistics.median(cpu):.3f})"
        print(f"| {label} | {spread(clock, 3)} | ≤ 0.080 |", flush=True)

        def inputs(count):
            return "-m", "task=dense_forward", f"x.seed=range(0,{count})"

        timed(*inputs(2), **kept)
        clock, cpu = ([1e3 * s for s in side] for side in slope(inputs, 10, seeds, rounds, **kept))
        print(f"| ms for each value of x.seed (CPU: {statistics.median(cpu):.2f}) | {spread(clock)} | ≤ 0.30 |")


if __name__ == "__main__":
    main()

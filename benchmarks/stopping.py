"""What it costs that runs of a training end at different steps, and that their states are kept.

    python benchmarks/stopping.py [--quick]

An MLP learns the digits by Adam, at learning rates from 0.0005 to 0.05, and each run ends after four evaluations
without a better validation loss. One thread executes the runs; each way is compared with its share: the steps that the
runs took, at the cost of a step where all runs take equally many in the runner's program.

- refill: the runner's program, whose lanes take the next run;
- waiting: `jit(vmap(while_loop))`, in which a block ends with its slowest lane;
- frozen: `jit(vmap)` of the most steps of any run, in which lanes that have ended compute on.

Then the same program with a state that is kept as often as `MOST_SHARE` permits, from the first second on, against
none. The ways are taken in turn; given are medians and ranges, of CPU seconds, and of those of the clock for states,
because writing them also waits for a disk.
"""

import argparse
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("NPROC", "1")

import jax
import numpy as np
import optax
from throughput import spread

from runner import program
from runner.contract.task import load_task
from runner.plan.segments import Segment
from runner.program import states
from runner.program.loops import run_loop
from tasks.train import train
from tasks.training.architectures import Mlp
from tasks.training.data import load_digits
from tasks.training.loop import Loop

STEPS, EVERY, WAIT, NEVER = 3000, 50, 4, 10**6
DATA = load_digits(standardize="whole", stratify=True)


def train_digits(seed: int, lr: float, steps: int, patience: int) -> Loop:
    """The loop of a run."""
    rules = {"steps": steps, "patience": patience, "every": EVERY, "horizon": STEPS}
    return train(seed, DATA, partial(Mlp, hidden=[128]), optax.adam(lr), **rules)


def columns(runs: int, steps: int, patience: int) -> dict[str, np.ndarray]:
    rates = 0.0005 * 100 ** np.random.RandomState(0).uniform(0, 1, runs)
    whole = {"steps": np.full(runs, steps, np.int32), "patience": np.full(runs, patience, np.int32)}
    return {"seed": np.arange(runs, dtype=np.uint32), "lr": rates.astype(np.float32), **whole}


def call_loop(scalars):
    return run_loop(train_digits(**scalars))["steps_taken"]


def call_frozen(scalars):
    loop = train_digits(**scalars)
    return loop.finish(jax.lax.fori_loop(0, STEPS // EVERY, lambda _, state: loop.advance(state), loop.state))[
        "steps_taken"
    ]


def prepare_program(lanes):
    """The lanes, and a function that gives the steps of runs by the runner's program."""
    task = load_task("case", "stopping.train_digits", (), (), (), ("steps", "patience"))
    base = {"seed": 0, "lr": 0.01, "steps": STEPS, "patience": WAIT}
    compiled = program.compile_program(program.trace_segment(Segment(task, {}, base, {}), lanes=lanes))

    def execute(scalars, keeper=None):
        size, runs = compiled.traced.capacity, len(scalars["seed"])
        cuts = [slice(start, start + size) for start in range(0, runs, size)]
        parts = [{name: column[cut] for name, column in scalars.items()} for cut in cuts]
        made = [program.run_program(compiled, len(part["seed"]), part, {}, keeper) for part in parts]
        return np.concatenate([each["steps_taken"] for each in made])

    return compiled.traced.lanes, execute


def prepare_vmap(function, width):
    """A function that gives the steps of runs by blocks of this width."""
    shapes = jax.tree.map(lambda column: jax.ShapeDtypeStruct((width,), column.dtype), columns(1, STEPS, WAIT))
    compiled = jax.jit(jax.vmap(function)).lower(shapes).compile()

    def execute(scalars):
        blocks = range(0, len(scalars["seed"]), width)
        return np.concatenate([compiled({n: c[i : i + width] for n, c in scalars.items()}) for i in blocks])

    return execute


def measure(execute, *arguments):
    """The result, CPU seconds and those of the clock."""
    cpu, clock = time.process_time(), time.perf_counter()
    return execute(*arguments), time.process_time() - cpu, time.perf_counter() - clock


def measure_stopping(runs, rounds):
    stopped, whole = columns(runs, STEPS, WAIT), columns(max(8, runs // 4), STEPS // 3, NEVER)
    chosen, by_rule = prepare_program(None)
    ways = {
        f"refill, {chosen} lanes by the rule": by_rule,
        "refill, 8 lanes": prepare_program(8)[1],
        "waiting, 8 wide": prepare_vmap(call_loop, 8),
        "frozen, 8 wide": prepare_vmap(call_frozen, 8),
    }
    taken = by_rule(stopped)
    share = taken.sum() / whole["steps"].sum()
    ratios = {way: [] for way in ways}
    for _ in range(rounds):
        base = {way: measure(execute, whole)[1] for way, execute in ways.items() if way.startswith("refill")}
        for way, execute in ways.items():
            steps, seconds, _ = measure(execute, stopped)
            assert abs(steps.sum() / taken.sum() - 1) < 0.05  # other lanes, other last bits, other ends
            ratios[way].append(seconds / (share * base.get(way, base["refill, 8 lanes"])))
    print(f"| steps of {runs} runs: least, mean, most | {taken.min()}, {taken.mean():.0f}, {taken.max()} |  |")
    for way, values in ratios.items():
        print(f"| {way}: cost against its share of the steps | {spread(values)} | {'≤ 1.3' if 'rule' in way else ''} |")


def measure_keeping(runs, rounds):
    states.FIRST_SECONDS = 1.0
    (_, execute), scalars = prepare_program(8), columns(runs, STEPS, NEVER)
    cpu, clock, kept = [], [], []
    execute(columns(8, EVERY, NEVER))
    with tempfile.TemporaryDirectory() as name:
        for number in range(rounds):
            bare = measure(execute, scalars)
            keeper = states.StateKeeper(Path(name) / str(number), "these")
            keeping = measure(execute, scalars, keeper)
            cpu.append(keeping[1] / bare[1])
            clock.append(keeping[2] / bare[2])
            kept.append(keeper._number)
    print(f"| keeping {statistics.median(kept):.0f} states of {runs} runs, CPU seconds | {spread(cpu)} | ≤ 1.05 |")
    print(f"| the same by the clock | {spread(clock)} | ≤ 1.05 |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs and rounds: the script works, no more")
    quick = parser.parse_args().quick
    program.dispatch_in_caller()
    print(f"load {os.getloadavg()[0]:.1f}\n\n| figure | measured | target |\n|---|--:|--:|")
    measure_stopping(*((32, 1) if quick else (128, 5)))
    measure_keeping(*((8, 1) if quick else (128, 3)))
    print(f"\nload {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

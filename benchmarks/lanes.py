"""Which number of lanes is fastest, which one the rule chooses, and what hand-written `jit(vmap)` reaches at its best.

    python benchmarks/lanes.py [--quick]

Tasks of five sizes, from one small step to a loop of training. The ways compute the same runs and fetch their outputs,
in one process, round by round, with a thread for each core, or two for an accelerator:

- the runner's program with each number of lanes, block by block;
- `jax.jit(jax.vmap(task))` over as many runs as it is wide, the runs being divided among the threads.

The last column is the rate with the lanes of the rule against that of the best width of `jit(vmap)`, the median of the
rounds. The pool of XLA has one thread, as in a study. On another device than a CPU the script needs no change.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

os.environ.setdefault("NPROC", "1")

import jax
import numpy as np
import optax
from flax import linen as nn

from runner import program
from runner.contract.task import load_function, load_task
from runner.execution.schedule import count_threads
from runner.plan.inputs import Input, build_array
from runner.plan.segments import Segment

WIDTHS = (1, 4, 16, 64, 256)
"""Those of both ways, on a CPU; an accelerator has four times as many."""

MOST_CALLS = 20_000
"""Calls of `jit(vmap)` from Python; with more of them it is not the best width."""


def train_mlp(seed: int, lr: float, x: jax.Array, y: jax.Array, width: int, steps: int) -> jax.Array:
    """The losses before and after `steps` of Adam on all of `x`."""
    model, optimizer = nn.Sequential([nn.Dense(width), nn.relu, nn.Dense(y.shape[-1])]), optax.adam(lr)
    params = model.init(jax.random.key(seed), x)

    def step(state, _):
        params, opt = state
        value, grads = jax.value_and_grad(lambda p: ((model.apply(p, x) - y) ** 2).mean())(params)
        updates, opt = optimizer.update(grads, opt, params)
        return (optax.apply_updates(params, updates), opt), value

    return jax.lax.scan(step, (params, optimizer.init(params)), None, length=steps)[1][:: max(1, steps - 1)]


@dataclass(frozen=True)
class Case:
    """A task with its values; `runs` take about a second of one core."""

    label: str
    target: str
    static: dict[str, int]
    inputs: dict[str, tuple[int, ...]]
    runs: int
    has_rate: bool = True

    def segment(self) -> Segment:
        """The values as the runner plans them."""
        task = load_task("case", self.target, ())
        inputs = {name: Input(shape, "float32", fill="normal") for name, shape in self.inputs.items()}
        return Segment(task, self.static, {"seed": 0} | ({"lr": 0.01} if self.has_rate else {}), inputs)


STEP, TRAIN, LAYER = "tasks.mixed_train.mixed_train_step", "lanes.train_mlp", "tasks.dense_forward.dense_forward"
CASES = (
    Case("one step, 8 → 4 → 3", STEP, {"hidden": 4}, {"x": (8,), "y": (3,)}, 400_000),
    Case("one step, 64 → 64 → 10, batch 32", STEP, {"hidden": 64}, {"x": (32, 64), "y": (32, 10)}, 8_000),
    Case("100 steps, 16 → 32 → 4, batch 32", TRAIN, {"width": 32, "steps": 100}, {"x": (32, 16), "y": (32, 4)}, 1_024),
    Case("100 steps, 64 → 256 → 10, batch 64", TRAIN, {"width": 256, "steps": 100}, {"x": (64, 64), "y": (64, 10)}, 64),
    Case("a layer, 512 → 512, batch 64", LAYER, {"features": 512}, {"x": (64, 512)}, 256, has_rate=False),
)


def split(runs: int, width: int) -> list[range]:
    return [range(start, min(runs, start + width)) for start in range(0, runs, width)]


def columns(segment: Segment, runs: range, width: int) -> dict[str, np.ndarray]:
    """The scalars of some runs, the last repeated so that there are `width`."""
    seeds = np.minimum(np.arange(runs.start, runs.start + width), runs.stop - 1).astype(np.uint32)
    return {"seed": seeds} | ({"lr": np.full(width, 0.01, np.float32)} if "lr" in segment.traced else {})


def time_all(execute: Callable[[range], object], spans: Sequence[range], threads: int) -> float:
    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        list(pool.map(execute, spans))
        return time.perf_counter() - started


def prepare_program(segment: Segment, lanes: int | None, runs: int, threads: int) -> tuple[int, Callable[[], float]]:
    """The lanes of the runner's program, and a function that executes all runs and returns the seconds."""
    compiled = program.compile_program(program.trace_segment(segment, lanes=lanes))
    inputs = {name: program.put_input(value) for name, value in segment.inputs.items()}
    size = compiled.traced.capacity
    even = -(-runs // threads) if runs < size * threads else size

    def execute(span: range) -> object:
        return program.run_program(compiled, len(span), columns(segment, span, len(span)), inputs)

    return compiled.traced.lanes, lambda: time_all(execute, split(runs, even), threads)


def prepare_vmap(segment: Segment, width: int, runs: int, threads: int) -> Callable[[], float]:
    """A function that executes all runs by `jit(vmap)` of this width and returns the seconds."""
    function = load_function(segment.task)
    inputs = {name: jax.device_put(build_array(value)) for name, value in segment.inputs.items()}

    def call(scalars: dict[str, jax.Array], inputs: dict[str, jax.Array]) -> jax.Array:
        return jax.vmap(lambda scalars: function(**scalars, **inputs, **segment.static))(scalars)

    shapes = jax.eval_shape(lambda: columns(segment, range(width), width))
    compiled = jax.jit(call).lower(shapes, inputs).compile()

    def execute(span: range) -> object:
        return jax.tree.map(np.asarray, compiled(columns(segment, span, width), inputs))

    return lambda: time_all(execute, split(runs, width), threads)


def measure(case: Case, widths: Sequence[int], rounds: int, scale: int, threads: int) -> None:
    """Prints the rows of a task."""
    segment, runs = case.segment(), max(threads, case.runs // scale)
    chosen, by_rule = prepare_program(segment, None, runs, threads)
    ways = {("rule", chosen): by_rule}
    fitting = [width for width in widths if width * threads <= runs]
    ways |= {("lanes", width): prepare_program(segment, width, runs, threads)[1] for width in fitting}
    called = [width for width in fitting if runs // width <= MOST_CALLS]
    ways |= {("vmap", width): prepare_vmap(segment, width, runs, threads) for width in called}
    for way in ways.values():
        way()
    seconds = [{key: way() for key, way in ways.items()} for _ in range(rounds)]
    rate = {key: runs / statistics.median(each[key] for each in seconds) for key in ways}
    best = max((key for key in ways if key[0] == "vmap"), key=rate.__getitem__)
    ratio = statistics.median(each[best] / each["rule", chosen] for each in seconds)
    lanes = " | ".join(f"{rate['lanes', width]:,.0f}" if width in fitting else "" for width in widths)
    by_hand = f"{rate[best]:,.0f} ({best[1]})"
    print(f"| {case.label} | {lanes} | {rate['rule', chosen]:,.0f} ({chosen}) | {by_hand} | {ratio:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs and rounds: the script works, no more")
    quick = parser.parse_args().quick
    program.dispatch_in_caller()
    kind, threads = program.describe_devices()[0], count_threads(1, 1)
    scale = 4 if program.is_accelerated() else 1
    widths = tuple(width * scale if width > 1 else 1 for width in WIDTHS)
    print(f"device: {kind}; threads: {threads}; runs per second\n")
    print(f"| task | {' | '.join(f'{w} lanes' for w in widths)} | by rule | `jit(vmap)` at its best width | ratio |")
    print("|---|" + "--:|" * (len(widths) + 3))
    for case in CASES:
        measure(case, widths, 1 if quick else 7, 20 if quick else 1, threads)


if __name__ == "__main__":
    main()

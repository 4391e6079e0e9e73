"""What Seedbed costs, as ratios within one session of one machine.

    python benchmarks/throughput.py [--quick]

Five questions, each with the target that the project sets itself:

- the marginal cost of a run, from the call to the synced CSV, against `jit(vmap)` over all runs and `to_csv`;
- Hydra's basic launcher with a function that does nothing, per run;
- a single run, against a bare script that does the same steps;
- how many programs are compiled, at the first call and at the second;
- the peak memory of many runs against that of few.

Every figure is that of whole processes. The marginal cost is the slope between two sizes, the two ways taken in
turn; of several rounds the median ratio counts, and the range is printed beside it.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]

VMAP = """
import sys
import jax, numpy as np, pandas as pd
from tasks.mixed_train import mixed_train_step
runs = int(sys.argv[1])
x = np.random.RandomState(0).standard_normal(8).astype(np.float32)
y = np.random.RandomState(1).standard_normal(3).astype(np.float32)
seeds, lrs = np.arange(runs, dtype=np.uint32), np.full(runs, 0.1, np.float32)
losses = np.asarray(jax.jit(jax.vmap(lambda seed, lr: mixed_train_step(seed, x, y, lr)))(seeds, lrs))
table = {"run": np.arange(runs), "task": "mixed_train", "seed": seeds, "lr": lrs, "hidden": 4,
         "loss_before": losses[:, 0], "loss_after": losses[:, 1],
         "status": np.where(np.isfinite(losses).all(axis=1), "ok", "nonfinite"), "reason": ""}
pd.DataFrame(table).to_csv("vmap.csv", index=False)
"""

BARE = """
import flax.linen as nn, hydra, jax, jax.numpy as jnp, numpy as np, omegaconf, pandas
from flax import nnx
x = np.random.RandomState(0).standard_normal(8).astype(np.float32)
y = np.random.RandomState(1).standard_normal(3).astype(np.float32)
@jax.jit
def step(seed, lr):
    linear = nnx.Linear(8, 4, rngs=nnx.Rngs(jax.random.key(seed)))
    params = {"kernel": linear.kernel[...], "bias": linear.bias[...]}
    dense = nn.Dense(3)
    variables = dense.init(jax.random.PRNGKey(seed + 1), jnp.zeros((4,)))
    def loss(params, variables):
        return jnp.mean((dense.apply(variables, jax.nn.relu(x @ params["kernel"] + params["bias"])) - y) ** 2)
    grads = jax.grad(loss, argnums=(0, 1))(params, variables)
    stepped = jax.tree.map(lambda p, g: p - lr * g, (params, variables), grads)
    return jnp.stack([loss(params, variables), loss(*stepped)])
print(step(np.uint32(0), np.float32(0.1)))
"""

HYDRA = """
import hydra
@hydra.main(version_base="1.3", config_path=None)
def nothing(config):
    return None
nothing()
"""


def timed(*arguments, cwd, cache=None):
    """Seconds and peak bytes of a process of its own, which must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment |= {"XDG_CACHE_HOME": str(cache)} if cache else {}
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], cwd=cwd, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))} ended with {process.returncode}")
    return time.perf_counter() - started, usage.ru_maxrss * 1024


def sweep(runs):
    return "-m", "runner", "-m", "task=mixed_train", "lr=0.1", f"seed=range(0,{runs})"


def marginal(place, cache, few, many, rounds):
    """Seconds per run of both ways, and the ratio, round by round."""
    (place / "vmap.py").write_text(VMAP)
    ours, theirs = [], []
    timed(*sweep(few), cwd=place, cache=cache)
    for _ in range(rounds):
        for seconds, command in ((ours, sweep), (theirs, lambda runs: ("vmap.py", str(runs)))):
            low = timed(*command(few), cwd=place, cache=cache)[0]
            high = timed(*command(many), cwd=place, cache=cache)[0]
            seconds.append((high - low) / (many - few))
    return ours, theirs


def compilations(place, cache):
    """Programs compiled for four signatures of many runs, at the first call and at the second."""
    command = ("-m", "runner", "-m", "task=mixed_train", "hidden=4,8", "x.shape=[8],[9]", "seed=range(0,5000)")
    fresh = []
    for call in ("first", "second"):
        folder = place / call
        timed(*command, f"hydra.sweep.dir={folder}", cwd=place, cache=cache)
        with (folder / "programs.csv").open() as file:
            fresh.append([row["cache_hit"] for row in csv.DictReader(file)])
    return [hits.count("False") for hits in fresh], len(fresh[0])


def spread(values, digits=2):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs and rounds: the script works, no more")
    quick = parser.parse_args().quick
    few, many, most, rounds, jobs = (
        (1_000, 50_000, 100_000, 1, 10) if quick else (100_000, 2_000_000, 5_000_000, 3, 100)
    )
    with tempfile.TemporaryDirectory() as name:
        place, cache = Path(name), Path(name) / "cache"
        ours, theirs = marginal(place, cache, few, many, rounds)
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        print(f"| marginal µs per run, {few:,} to {many:,} runs | {spread([1e6 * s for s in ours])} |  |")
        print(f"| the same by jit(vmap) and to_csv | {spread([1e6 * s for s in theirs])} |  |")
        print(f"| ratio | {spread(ratios)} | ≤ 0.40 |", flush=True)

        (place / "nothing.py").write_text(HYDRA)
        one = timed("nothing.py", "-m", "+x=1", cwd=place)[0]
        hydra = (timed("nothing.py", "-m", f"+x=range(0,{jobs})", cwd=place)[0] - one) / (jobs - 1)
        times = hydra / statistics.median(ours)
        print(f"| Hydra's basic launcher, ms per run that does nothing | {1e3 * hydra:.0f} |  |")
        print(f"| times as long | {times:,.0f} | ≥ 20,000 |", flush=True)

        (place / "bare.py").write_text(BARE)
        pairs = []
        for _ in range(1 if quick else 7):
            single = timed("-m", "runner", "task=mixed_train", "lr=0.1", cwd=place, cache=cache)[0]
            pairs.append(single / timed("bare.py", cwd=place)[0])
        print(f"| a single run against a bare script | {spread(pairs)} | ≤ 1.25 |", flush=True)

        compiled, programs = compilations(place, Path(name) / "empty")
        print(f"| compilations of {programs} signatures, at two calls | {compiled[0]}, {compiled[1]} | {programs}, 0 |")

        low, high = (timed(*sweep(runs), cwd=place, cache=cache)[1] for runs in (few, most))
        print(f"| peak MB at {few:,} and at {most:,} runs | {low / 1e6:.0f}, {high / 1e6:.0f} |  |")
        print(f"| ratio | {high / low:.2f} | ≤ 1.25 |")


if __name__ == "__main__":
    main()

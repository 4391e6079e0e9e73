"""Rebuilds docs/parity.md and its pictures: each Linen layer compared with its NNX port.

    python docs/parity.py [--quick]

Runs `+experiment=parity_matrix` and `+experiment=parity_native`, or goes on with those under `outputs/`.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import runner
from tasks.parity.cases import CASES
from tasks.porting.layers import PORTS

ROOT = Path(__file__).parents[1]
VERDICTS = ("identical", "close", "different")
COLOURS = dict(zip((*VERDICTS, "none"), ("#4c9f70", "#f2c14e", "#b23a48", "#d9d9d9"), strict=True))
EMPTY = "none"
"""NNX has no layer that takes Linen's variables."""
QUICK = ("layer=Dense,LayerNorm", "seed=0", "mode=jit")


def study(name: str, quick: bool) -> pd.DataFrame:
    asked = (f"+experiment={name}", f"study={name}", *(QUICK if quick else ()))
    subprocess.run([sys.executable, "-m", "runner", "-m", *asked], check=True)
    return runner.read(f"outputs/{name}")


def matrix(frame: pd.DataFrame) -> pd.DataFrame:
    """The worst verdict over the seeds, a row for each case and a column for each dtype and mode."""
    places = frame.assign(place=frame["verdict"].map(VERDICTS.index))
    worst = places.groupby(["layer", "dtype", "mode"], sort=False)["place"].max().map(VERDICTS.__getitem__)
    table = worst.unstack(["dtype", "mode"])
    layers = [name for name, case in CASES.items() if type(case.make(None)) in PORTS]
    return table.reindex([*layers, *(name for name in table.index if name not in layers)]).fillna(EMPTY)


def picture(table: pd.DataFrame, title: str, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(6.5, 0.26 * len(table) + 1.4), layout="constrained")
    for row, (_, verdicts) in enumerate(table.iterrows()):
        for column, verdict in enumerate(verdicts):
            axes.add_patch(plt.Rectangle((column, row), 0.96, 0.92, color=COLOURS[verdict]))
            axes.text(column + 0.48, row + 0.5, verdict, ha="center", va="center", fontsize=7)
    axes.set(xlim=(0, len(table.columns)), ylim=(len(table), 0), title=title)
    axes.set_xticks([column + 0.48 for column in range(len(table.columns))], [" ".join(c) for c in table.columns])
    axes.set_yticks([row + 0.46 for row in range(len(table))], table.index)
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def markdown(table: pd.DataFrame) -> str:
    head = "| layer | " + " | ".join(" ".join(column) for column in table.columns) + " |"
    rows = [f"| {name} | " + " | ".join(row) + " |" for name, row in zip(table.index, table.to_numpy(), strict=True)]
    return "\n".join([head, "|" + "---|" * (len(table.columns) + 1), *rows])


def reasons() -> str:
    lines = [f"- `{kind.__name__}` ({port.kind}): {port.why}." for kind, port in PORTS.items() if port.why]
    return "\n".join(dict.fromkeys(lines))


def gaps(frame: pd.DataFrame) -> str:
    """The largest differences of what is not identical."""
    differ = frame[frame["verdict"] != "identical"]
    groups = ("outputs", "params", "inputs", "state", "steps")
    found = differ.groupby(["layer", "dtype", "mode"], sort=False)[[f"{name}_relative" for name in groups]].max()
    rows = [
        "| " + " ".join(names) + " | " + " | ".join(f"{value:.1e}" if value else "0" for value in row) + " |"
        for names, row in zip(found.index, found.to_numpy(), strict=True)
    ]
    return "\n".join(["| layer | " + " | ".join(groups) + " |", "|---|" + "--:|" * len(groups), *rows])


PAGE = """# Parity of layers

Do a Linen layer and the NNX layer with the same variables compute the same values? For each layer, in float32 and
bfloat16, jitted and eager, over {seeds} seeds with random variables and inputs. A cell has the worst verdict over the
outputs, the gradients of the parameters and of the inputs, the mutable state, and parameters, state and losses after
two steps of adamw. *identical* means the same bits; *close* is within 1e-5 of the largest value of an array in float32,
2e-2 in bfloat16.

Measured on a CPU with JAX {jax} and flax {flax}. `python docs/parity.py` rebuilds this page from two studies,
`+experiment=parity_matrix` and `+experiment=parity_native`.

## Exact ports of `tasks.porting`

{counts} runs, {identical} of them identical.

![Each layer by its exact port](parity/matrix.png)

{matrix}

These layers are not NNX's own with its defaults, for this reason:

{reasons}

## NNX's own layers, with their defaults

The result of a migration by hand. *none*: NNX has no such layer, or none that can hold Linen's variables.

![Each layer by NNX's own](parity/native.png)

{native}

The largest differences, relative to the largest value of each array. The gradients of a norm's inputs and of an
attention to a single key are zero but for rounding, so their relative differences mean little, yet adamw turns them
into steps:

{gaps}
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="two layers only, and nothing written")
    quick = parser.parse_args().quick
    exact, native = study("parity_matrix", quick), study("parity_native", quick)
    facts = json.loads(Path("outputs/parity_matrix/environment.json").read_text())["versions"]
    page = PAGE.format(
        seeds=exact["seed"].nunique(),
        counts=len(exact),
        identical=(exact["verdict"] == "identical").sum(),
        matrix=markdown(matrix(exact)),
        native=markdown(matrix(native)),
        reasons=reasons(),
        gaps=gaps(native),
        **facts,
    )
    folder = Path("outputs") if quick else ROOT / "docs" / "parity"
    folder.mkdir(exist_ok=True)
    picture(matrix(exact), "Linen's layers in NNX, by their exact ports", folder / "matrix.png")
    picture(matrix(native), "Linen's layers in NNX, by NNX's own with their defaults", folder / "native.png")
    (folder.parent / "parity.md" if not quick else folder / "parity.md").write_text(page)
    print(page if quick else f"written: {folder.parent / 'parity.md'}")


if __name__ == "__main__":
    main()

"""Rebuilds the example of the documentation: a study of three axes, its comparison, its pictures and its page.

python docs/example.py
"""

import shutil
import subprocess
import sys
from pathlib import Path

from runner.analysis import figures
from runner.analysis.comparison import compare_studies
from runner.analysis.page.document import write_report

HERE = Path(__file__).parent / "example"
SWEEP = ("task=mixed_train", "lr=0.02,0.05,0.1,0.2,0.5", "hidden=4,16", "x.shape=[8],[32]", "seed=range(0,30)")
SHOWN = ("heat", "lines", "points")


def main():
    call = [sys.executable, "-m", "runner", "-m", *SWEEP, "study=example", "overwrite=true", "report=true"]
    subprocess.run(call, cwd=HERE.parents[1], check=True)
    folder = HERE.parents[1] / "outputs" / "example"
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    comparison = compare_studies([folder], metrics=["loss_after"])
    write_report(comparison, HERE / "report.html")
    for name, figure in figures.draw_figures(comparison):
        if name.rpartition("-")[2] in SHOWN:
            figure.savefig(HERE / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()

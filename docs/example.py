"""Rebuilds the example of the documentation: a study of three axes, its comparison, its pictures and its page.

    python docs/example.py

The page in `docs/example/` is the one without parallel coordinates, whose library alone has five megabytes; the
one with them is `outputs/example/report.html`.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from runner.analysis import figures, report
from runner.analysis.comparison import compare_studies

HERE = Path(__file__).parent / "example"
SWEEP = ("task=mixed_train", "lr=0.02,0.05,0.1,0.2,0.5", "hidden=4,16", "x.shape=[8],[32]", "seed=range(0,30)")
SHOWN = ("axis", "differences", "heat", "points")


def main():
    call = [sys.executable, "-m", "runner", "-m", *SWEEP, "study=example", "overwrite=true", "report=true"]
    subprocess.run(call, cwd=HERE.parents[1], check=True)
    folder = HERE.parents[1] / "outputs" / "example"
    comparison = compare_studies([folder], metrics=["loss_after"], baseline={"lr": 0.05})
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    (HERE / "report.html").write_text(report.render_report(comparison, is_interactive=False))
    for picture in figures.draw_figures(comparison):
        if picture.name.rpartition("-")[2] in SHOWN:
            picture.figure.savefig(HERE / f"{picture.name}.png", dpi=110)


if __name__ == "__main__":
    main()

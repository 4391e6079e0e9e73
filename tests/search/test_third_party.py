"""A third-party sweeper with the launcher lanes, in a process of its own: Hydra finds plugins at its start."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import PATIENCE, start_command

SWEEPER = '''
"""Halves an interval around the best of three values, three at a time."""
import json
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper


@dataclass
class Conf:
    _target_: str = "hydra_plugins.thirds.sweeper.Thirds"


ConfigStore.instance().store(group="hydra/sweeper", name="thirds", node=Conf, provider="thirds")


class Thirds(Sweeper):
    def setup(self, *, hydra_context, task_function, config):
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments):
        best, width, told = 0.0, 2.0, []
        for batch in range(3):
            levels = [best - width, best, best + width]
            jobs = [(*arguments, f"level={level}", f"seed={batch}") for level in levels]
            returned = self.launcher.launch(jobs, initial_job_idx=3 * batch)
            values = [job.return_value for job in returned]
            told.append([[list(job.overrides) for job in returned], values])
            best, width = min(zip(values, levels))[1], width / 2
        with open(f"{self.config.hydra.sweep.dir}/told.json", "w") as file:
            json.dump(told, file)
'''


@pytest.mark.matrix
def test_a_sweeper_is_told_the_objective_of_each_job(tmp_path):
    plugin = tmp_path / "hydra_plugins" / "thirds"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").touch()
    (plugin / "sweeper.py").write_text(SWEEPER)
    process = start_command(
        tmp_path, "-m", "hydra/sweeper=thirds", "hydra/launcher=lanes", "task=noisy", "steps=2", "study=t"
    )
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    folder = tmp_path / "outputs" / "t"
    frame = pd.read_csv(folder / "results.csv")
    told = json.loads((folder / "told.json").read_text())
    values = [value for _, values in told for value in values]
    assert len(frame) == len(values) == 9
    assert np.allclose([np.nan if v is None else v for v in values], frame["score"], equal_nan=True)
    assert told[1][0][0][-1] == "seed=1"

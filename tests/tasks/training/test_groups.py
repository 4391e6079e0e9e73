"""The config groups of training, composed by Hydra."""

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

TASK = """
# @package _global_
defaults:
  - /optimizer: adamw
  - /schedule: constant
  - /clip: none
  - /data: digits
  - _self_
lr: 0.1
steps: 300
"""


@pytest.fixture
def composed(tmp_path):
    """Composes a task that has the groups: `composed("schedule=cosine")`."""
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "trained.yaml").write_text(TASK)
    (tmp_path / "primary.yaml").write_text(
        f"hydra: {{searchpath: ['file://{ROOT}/conf']}}\ndefaults: [task: trained, _self_]\n"
    )

    def call(*overrides):
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            return OmegaConf.to_container(compose("primary", list(overrides)), resolve=True)

    return call


def names(group):
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


def test_the_default_leaves_the_rate_and_clips_nothing(composed):
    config = composed()
    assert config["optimizer"]["learning_rate"] == 0.1
    assert config["clip"] is None
    assert composed("optimizer=prodigy")["optimizer"]["learning_rate"] == 1.0
    assert "learning_rate" not in composed("optimizer=polyak_sgd")["optimizer"]


@pytest.mark.parametrize("name", [name for name in names("schedule") if name != "constant"])
def test_a_schedule_takes_the_place_of_the_rate(composed, name):
    config = composed(f"schedule={name}", "lr=0.5", "steps=40")
    rate = config["optimizer"]["learning_rate"]
    assert rate["_target_"] == f"tasks.training.schedules.{name}"
    assert 0.5 in rate.values()
    assert 40 in rate.values()
    assert config["optimizer"]["b1"] == 0.9


def test_arguments_of_a_schedule_are_set_below_the_rate(composed):
    rate = composed("schedule=cosine", "optimizer.learning_rate.alpha=0.1", "optimizer=lion")["optimizer"]
    assert rate["_target_"] == "optax.lion"
    assert rate["learning_rate"]["alpha"] == 0.1


@pytest.mark.parametrize("name", names("clip"))
def test_clipping_is_beside_the_optimizer(composed, name):
    assert (composed(f"clip={name}")["clip"] is None) == (name == "none")


def test_data_are_described(composed):
    assert composed("data=moons", "data.noise=0.3")["data"]["noise"] == 0.3

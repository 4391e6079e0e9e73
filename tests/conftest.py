"""What the tests share: strict JAX, one cache for the whole session, and the two ways to run a study."""

import gc
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import invalidate_caches
from itertools import product
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

os.environ["NPROC"] = "1"  # the tests use JAX before a call of the runner can set it, and jaxlib 0.10 may hang

import jax
import numpy as np
import omegaconf
import pandas as pd
import pytest
from hydra._internal.hydra import Hydra
from omegaconf import grammar_parser

if TYPE_CHECKING:
    from runner.analysis.comparison import Comparison

ROOT = Path(__file__).parents[1]

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
gc.set_threshold(20_000, 20, 20)  # JAX is called by each collection, and full ones visit all that was imported


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test in a folder of its own; the toys can be imported as a user's own module could."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)  # the width of whoever runs the tests
    monkeypatch.syspath_prepend(str(ROOT / "tests"))


@pytest.fixture
def standard_promotion() -> Iterator[None]:
    """For Linen's norms and optax, which mix dtypes and ranks; also in the threads that compile."""
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    jax.config.update("jax_numpy_rank_promotion", "allow")
    yield
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session", autouse=True)
def _compose_once() -> Iterator[None]:
    """What costs most of a small command is done once: Hydra's second composition, and what a text is parsed to.

    Hydra composes each command twice, the first time for `hydra.mode` alone, which only an experiment's YAML or an
    override has here. The trees of interpolations depend on the text alone, and nothing changes them.
    """
    find_mode = Hydra.get_mode

    def get_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        may_have_one = any("experiment" in override or "hydra" in override for override in overrides)
        return find_mode(self, config_name, overrides) if may_have_one else None

    parse = lru_cache(maxsize=4096)(grammar_parser.parse)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hydra, "get_mode", get_mode)
        for user in (omegaconf.base, omegaconf._utils):
            patch.setattr(user, "parse", parse)
        yield


@pytest.fixture(scope="session", autouse=True)
def _ask_git_once() -> Iterator[None]:
    """The state of this checkout, in which the toys are, is the same for all tests; others are asked for theirs."""
    from runner.storage import repositories

    find, describe = repositories._find_root, repositories.describe_repository
    find_own, describe_own = lru_cache(find), lru_cache(describe)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repositories, "_find_root", lambda at: (find_own if at.is_relative_to(ROOT) else find)(at))
        patch.setattr(repositories, "describe_repository", lambda at: (describe_own if at == ROOT else describe)(at))
        yield


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Executables are kept for this session only, so that counts of compilations start from nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@dataclass(frozen=True)
class Called:
    """What a command left behind."""

    status: int
    out: str
    err: str
    folder: Path | None

    @property
    def csv(self) -> bytes:
        assert self.folder is not None, self.err
        return (self.folder / "results.csv").read_bytes()

    @property
    def frame(self) -> pd.DataFrame:
        assert self.folder is not None, self.err
        return pd.read_csv(self.folder / "results.csv")


Runner = Callable[..., Called]


CallMain = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CallMain:
    """A command's `main` within this process: its exit status, standard output and standard error."""

    def call(main: Callable[[], None], *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        capsys.readouterr()
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call_main: CallMain) -> Runner:
    """The command line within this process: `runner("-m", "seed=1,2")`."""
    from runner.__main__ import main

    def call(*arguments: str) -> Called:
        before = set(tmp_path.glob("outputs/*"))
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        status, out, err = call_main(main, *arguments)
        made = set(tmp_path.glob("outputs/*")) - before
        return Called(status, out, err, made.pop() if made else None)

    return call


@pytest.fixture
def toy(runner: Runner) -> Runner:
    """The command line with the tests' own configs, whose tasks have a closed form: `toy("task=line")`."""
    return lambda *arguments: runner("--config-dir", str(ROOT / "tests" / "conf"), *arguments)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, str]], None]]:
    """Writes a user's own modules and YAML into the working directory: `lab({"my_lab.py": "…"})`.

    The modules are forgotten afterwards, so that another test may have some of the same name.
    """
    from runner.contract.task import load_task

    monkeypatch.syspath_prepend(str(tmp_path))
    load_task.cache_clear()

    def write(contents: dict[str, str]) -> None:
        for name, text in contents.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text))
        invalidate_caches()

    yield write
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), "")
        if Path(file).is_relative_to(tmp_path):
            del sys.modules[name]
    load_task.cache_clear()


PATIENCE = 300.0
"""Seconds that a test waits for another process: far longer than it takes, for a machine that has other work."""


def wait_until(is_so: Callable[[], Any]) -> bool:
    """Whether something becomes so while a test has patience."""
    end = time.monotonic() + PATIENCE
    while not (result := bool(is_so())) and time.monotonic() < end:
        time.sleep(0.02)
    return result


def start_command(cwd: Path, *arguments: str) -> "subprocess.Popen[str]":
    """The command in a process of its own, with the tests' configs and tasks."""
    conf = str(ROOT / "tests" / "conf")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "HYDRA_FULL_ERROR": "0"}
    call = [sys.executable, "-m", "runner", "--config-dir", conf, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(call, cwd=cwd, env=environment, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture(scope="session")
def original_study(tmp_path_factory) -> Path:
    """A study of three points with eight seeds each, made once."""
    from runner.__main__ import main

    place, conf = tmp_path_factory.mktemp("study"), ROOT / "tests" / "conf"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.syspath_prepend(str(ROOT / "tests"))
        patch.setenv("HYDRA_FULL_ERROR", "0")
        sweep = ["-m", "task=noisy", "level=1,2,1.5", "seed=range(0,8)", "study=mine"]
        patch.setattr(sys, "argv", ["runner", "--config-dir", str(conf), *sweep])
        main()
    return place / "outputs" / "mine"


@pytest.fixture
def study(original_study, tmp_path) -> Path:
    """A copy of that study."""
    return Path(shutil.copytree(original_study, tmp_path / "outputs" / "mine"))


Simulate = Callable[..., "Comparison"]


@pytest.fixture
def simulate(study, monkeypatch) -> Simulate:
    """A comparison of simulated runs: `simulate({"lr": [0.1, 0.2]}, seeds=8, metrics={"loss": "minimize"})`.

    The mean of a metric falls and rises along the axes; `spoil` may change the values `(runs,)` of a metric by the
    points of the runs.
    """
    from runner.analysis import comparison as comparisons
    from runner.analysis.load import load_runs

    def make(axes, seeds=8, metrics=None, spoil=None, **options):
        metrics = {"loss": "minimize"} if metrics is None else metrics
        points = pd.DataFrame(list(product(*axes.values())), columns=list(axes))
        place = np.array([[list(axes[n]).index(v) for n, v in row.items()] for row in points.to_dict("records")])
        base = ((place - np.array([len(v) // 2 for v in axes.values()])) ** 2).sum(axis=1) + 1.0
        point, seed = np.repeat(np.arange(len(points)), seeds), np.tile(np.arange(seeds), len(points))
        rng = np.random.default_rng(0)
        values = {name: base[point] + rng.normal(0, 0.3, len(point)) for name in metrics}
        if spoil is not None:
            values = {name: spoil(own, point) for name, own in values.items()}
        status = np.zeros(len(point), dtype=np.int8)
        for own in values.values():
            status[~np.isfinite(own)] = 1
        runs = replace(
            load_runs([study], ["score"]),
            points=points,
            study=np.zeros(len(point), dtype=np.int64),
            number=np.arange(len(point)),
            point=point,
            seed=seed,
            replicate=seed,
            variant=np.zeros(len(point), dtype=np.int64),
            status=status,
            values=values,
            directions={name: way for name, way in metrics.items() if way},
            planned=np.full(len(points), seeds),
            resolutions=dict.fromkeys(metrics, 2.0**-23),
            **options,
        )
        monkeypatch.setattr(comparisons, "load_runs", lambda *_: runs)
        return comparisons.compare_studies([study])

    return make

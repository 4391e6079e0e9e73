"""What the tests share: strict JAX, one cache for the whole session, and the two ways to run a study."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import invalidate_caches
from pathlib import Path
from textwrap import dedent

os.environ["NPROC"] = "1"  # the tests use JAX before a call of the runner can set it, and jaxlib 0.10 may hang

import jax
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


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


def start_command(cwd: Path, *arguments: str) -> "subprocess.Popen[str]":
    """The command in a process of its own, with the tests' configs and tasks."""
    conf = str(ROOT / "tests" / "conf")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "HYDRA_FULL_ERROR": "0"}
    call = [sys.executable, "-m", "runner", "--config-dir", conf, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(call, cwd=cwd, env=environment, stdout=pipe, stderr=pipe, text=True)

"""Tasks by their source: signatures without an import, and the modules that belong to a task's code."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from runner.contract.code import collect_sources
from runner.contract.signature import MISSING, Declared, read_declaration
from runner.contract.source import find_definition, read_source, split_target
from runner.contract.task import Kind, load_function, load_task
from runner.errors import InvalidInputError

SHIPPED = sorted([*ROOT.glob("conf/task/*.yaml"), *ROOT.glob("tests/conf/task/*.yaml")])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_source_and_import_give_the_same_parameters(path):
    """`load_function` compares them."""
    target = OmegaConf.load(path).task._target_
    if path.stem not in ("train", "fit"):  # they have annotations that only an import can tell
        assert read_declaration(target) is not None
    assert load_function(load_task(path.stem, target, ())).__name__ == target.rpartition(".")[2]


HEADER = """
    from __future__ import annotations
    import typing as t
    from collections.abc import Callable, Mapping
    from typing import Any, Optional, Union
    import jax, numpy as np
    import jax.numpy as jnp
    import jax.typing
    from jax import Array
"""

ANNOTATIONS = [
    "int",
    "'float'",
    "str | None",
    "Optional[float]",
    "Union[int, str, None]",
    "t.Union[bool, 'int']",
    "tuple[int, ...]",
    "list[str] | tuple[str, ...]",
    "t.List[int]",
    "dict[str, Any]",
    "Any",
    "t.Any",
    "None",
    "Callable[[jax.Array], jax.Array]",
    "Mapping[str, int]",
    "Array",
    "jax.Array | None",
    "jnp.ndarray",
    "np.ndarray",
    "jax.typing.ArrayLike",
    "'jax.Array'",
    "object",
    "Missing",
    "t.Literal['a']",
    "Own",
    "np.typing.NDArray[np.float32]",
]
CERTAIN = len(ANNOTATIONS) - 4


@pytest.mark.parametrize("header", ["", "postponed"])
@pytest.mark.parametrize("annotation", ANNOTATIONS)
def test_every_annotation_reads_as_after_the_import(lab, annotation, header):
    preamble = HEADER if header else HEADER.replace("from __future__ import annotations", "")
    if not header and annotation in ("Missing", "t.Union[bool, 'int']"):
        pytest.skip("Python refuses the module, or quotes within an annotation are evaluated by typing only")
    body = f"    class Own: ...\n    def task(seed: int, a: {annotation}, b=2, *, c: float = -0.5) -> Array | None: ..."
    lab({"lab_annotated.py": preamble + body + "\n"})
    task = load_task("own", "lab_annotated.task", ())
    load_function(task)
    assert [task.parameter(name).kind for name in "bc"] == [Kind.STATIC, Kind.FLOAT]
    if annotation in ANNOTATIONS[:CERTAIN] and "'int'" not in annotation:
        assert read_declaration("lab_annotated.task") is not None


UNCERTAIN = {
    "decorated": "import functools\n@functools.cache\ndef task(seed): ...",
    "class": "class task: ...",
    "conditional": "if True:\n    def task(seed): ...",
    "twice": "def task(seed): ...\ndef task(seed, a): ...",
    "assigned": "def other(seed): ...\ntask = other",
    "replaced": "def task(seed): ...\ntask = task",
    "attribute": "def task(seed): ...\ntask.__defaults__ = (3,)",
    "global": "def task(seed): ...\ndef change():\n    global task\n    task = 1",
    "walrus": "def task(seed): ...\n[task := 1 for _ in range(0)]",
    "star": "from os.path import *\ndef task(seed): ...",
    "open": "def task(*seeds): ...",
    "keywords": "def task(**seeds): ...",
    "positional": "def task(seed, /): ...",
    "default": "def task(seed, a=float('inf')): ...",
    "result": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import x\ndef task(seed) -> 'x': ...",
    "lambda": "task = lambda seed: seed",
    "async": "async def task(seed): ...",
    "method": "class A:\n    def task(seed): ...",
}


@pytest.mark.parametrize("case", UNCERTAIN)
def test_what_is_not_certain_is_left_to_the_import(lab, case):
    lab({"lab_uncertain.py": UNCERTAIN[case]})
    assert read_declaration("lab_uncertain.task") is None


def test_re_exports_are_followed_and_nothing_is_executed(lab):
    lab(
        {
            "lab_exports/__init__.py": "raise SystemExit\nfrom .a import first as task\nfrom .a import loop\n",
            "lab_exports/a.py": "from lab_exports.b.c import last as first\nfrom . import loop\n",
            "lab_exports/b/c.py": "def last(seed, rate: float = 1e-3): ...\n",
        }
    )
    seed = Declared("seed", None, MISSING)
    assert read_declaration("lab_exports.task") == (seed, Declared("rate", (float,), 1e-3))
    assert read_declaration("lab_exports:task") == read_declaration("lab_exports.task")
    assert read_declaration("lab_exports.loop") is None
    assert split_target("lab_exports.b.c.last.x") == ("lab_exports.b.c", ["last", "x"])
    assert read_declaration("lab_exports.b.c.last.x") is None
    assert not [name for name in sys.modules if name.startswith("lab_exports")]


def test_a_function_that_is_not_the_one_of_the_source_is_refused(lab):
    lab({"lab_changed.py": "def task(seed: int, a: int = 1): ...\nglobals()['task'] = lambda seed: seed\n"})
    task = load_task("own", "lab_changed.task", ())
    with pytest.raises(InvalidInputError, match=r"'lab_changed.task' has other parameters than its source declares"):
        load_function(task)


def test_usage_errors_are_answered_without_jax(tmp_path):
    """In a process of its own, because JAX is imported in this one; `x.seed` is an array's, `lr` the task's."""
    spy = (
        "import sys, runner.__main__ as m\n"
        "for a in ('lr=abc', 'x.seed=-1', '+rate=3', 'hidden=1.5'):\n"
        "    sys.argv = ['runner', 'task=mixed_train', a]\n"
        "    try: m.main()\n"
        "    except SystemExit as end: assert end.code == 2\n"
        "print({'jax', 'tasks'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-c", spy]
    called = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert called.stdout == "set()\n"
    assert called.stderr.count("error: task 'mixed_train'") == 4


def modules(target):
    return sorted(collect_sources(find_definition(target).source))


def test_the_code_of_a_package(lab):
    lab(
        {
            "pack/__init__.py": '"""Only imports and definitions."""\nfrom pack.unused import x\n__all__ = ["x"]\n',
            "pack/unused.py": "x = 1\n",
            "pack/task.py": """
                import json, pack.named
                from pack.exports import used as mine
                from . import sub, typed_only
                from typing import TYPE_CHECKING
                if TYPE_CHECKING:
                    from pack.types import T
                def task(seed):
                    from .late import late
                    import lab_beside
            """,
            "pack/exports.py": "from .defines import used\nfrom .defines_other import other\n",
            "pack/defines.py": "def used(): ...\n",
            "pack/defines_other.py": "def other(): ...\n",
            "pack/named.py": "",
            "pack/sub/__init__.py": "from . import deeper\n",
            "pack/sub/deeper.py": "def broken(:\n",
            "pack/typed_only.py": "from json import *\n",
            "pack/late.py": "from pack import task\n",
            "pack/types.py": "T = int\n",
            "lab_beside.py": "",
        }
    )
    named = ["defines", "late", "named", "sub", "sub.deeper", "task", "typed_only", "unused"]
    assert modules("pack.task.task") == ["pack", *(f"pack.{name}" for name in named)]


def test_modules_that_act_when_they_are_imported_count(lab):
    lab(
        {
            "acts/__init__.py": "from acts.quiet import q\nfrom acts.setup import prepare\nprepare()\n",
            "acts/quiet.py": "def q(): ...\n",
            "acts/setup.py": "def prepare(): ...\n",
            "acts/own/task.py": "def task(seed): ...\n",
        }
    )
    assert modules("acts.own.task.task") == ["acts", "acts.own.task", "acts.quiet", "acts.setup"]
    lab({"acts/__init__.py": "from acts.quiet import q\nif __name__ == '__main__':\n    q()\n"})
    assert modules("acts.own.task.task") == ["acts.own.task"]


def test_the_code_beside_a_module_of_no_package(lab):
    lab(
        {
            "lab_main.py": "import numpy\nfrom lab_helper import f\ndef task(seed):\n    import lab_pack.inner\n",
            "lab_helper.py": "import lab_second as second\n",
            "lab_second.py": "",
            "lab_other.py": "",
            "lab_pack/inner.py": "",
        }
    )
    assert modules("lab_main.task") == ["lab_helper", "lab_main", "lab_pack.inner", "lab_second"]


def test_a_task_among_the_installed_libraries_does_not_count_them():
    assert list(collect_sources(read_source("typing_extensions"))) == ["typing_extensions"]


def test_a_helper_beside_the_task_belongs_to_the_study(lab, toy, tmp_path, monkeypatch):
    """A changed helper is other code: its results do not go into the same table."""
    lab(
        {
            "lab_with_helper.py": "import lab_factor\ndef task(seed: int, a: float):\n    return lab_factor.times(a)\n",
            "lab_factor.py": "def times(a):\n    return 2 * a\n",
            "my_conf/task/helped.yaml": """
                # @package _global_
                task: {name: helped, _target_: lab_with_helper.task}
                seed: 0
                a: 1.0
            """,
        }
    )
    own = ("--config-dir", str(tmp_path / "my_conf"), "task=helped", "study=helped")
    assert toy(*own).status == 0
    lab({"lab_factor.py": "def times(a):\n    return 3 * a\n"})
    again = toy(*own, "seed=1")
    assert again.status == 2
    assert "code of task helped was" in again.err

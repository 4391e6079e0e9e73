"""The programs of many groups: compiled once, in order, a few ahead of the blocks, and dropped when these are done."""

import gc
import subprocess
import sys
import weakref

import jax
import pytest
from conftest import ROOT

from runner import program
from runner.program import structure

SWEEP = ("-m", "task=constant", "size=range(11,31)", "threads=2")


@pytest.fixture
def compiled(monkeypatch):
    """The outputs' shapes of the programs in the order of their compilation, and references to the executables."""
    shapes, references, compile_program = [], [], program.compile_program

    def watch(traced):
        shapes.append(traced.outputs[0].shape)
        made = compile_program(traced)
        references.append(weakref.ref(made.executable))
        return made

    monkeypatch.setattr(program, "compile_program", watch)
    return shapes, references


def test_each_group_is_compiled_once_in_the_order_of_the_table(toy, compiled):
    sweep = ("-m", "task=constant", "size=range(51,58)")
    assert toy(*sweep, "threads=1").status == 0
    assert compiled[0] == [(size,) for size in range(51, 58)]
    compiled[0].clear()
    assert toy(*sweep, "threads=2").status == 0
    assert sorted(compiled[0]) == [(size,) for size in range(51, 58)]


def test_programs_are_compiled_only_a_few_ahead_and_dropped_when_their_runs_are_done(toy, compiled, monkeypatch):
    from runner.execution import blocks

    alive, make_result = [], blocks._make_result

    def count(*arguments):
        gc.collect()
        alive.append(sum(reference() is not None for reference in compiled[1]))
        return make_result(*arguments)

    monkeypatch.setattr(blocks, "_make_result", count)
    assert toy(*SWEEP).status == 0
    assert max(alive) <= 10  # of 20: four blocks under way, two groups ahead, and those that are just being dropped
    gc.collect()
    assert not any(reference() for reference in compiled[1])


def test_a_group_that_returns_later_in_the_table_keeps_its_program(toy, compiled):
    called = toy("-m", "task=line", "x.seed=1,2,3", "shift=5,6", "seed=1,2", "block=1")
    assert called.status == 0
    assert len(compiled[0]) == 2
    assert len(called.frame) == 12


def test_a_group_that_xla_cannot_compile_costs_only_its_own_runs(toy, monkeypatch):
    compile_program = program.compile_program

    def refuse(traced):
        if traced.outputs[0].shape == (13,):
            raise program.CompilationError("XLA refuses it")
        return compile_program(traced)

    monkeypatch.setattr(program, "compile_program", refuse)
    called = toy(*SWEEP)
    assert called.status == 1
    frame = called.frame
    assert frame["size"][frame["status"] == "failed"].tolist() == [13]
    assert frame["reason"].dropna().tolist() == ["XLA refuses it"]
    assert len(frame) == 20


def test_the_collector_is_as_it_was_before(toy):
    before = gc.get_freeze_count()
    with program.freeze_heap():
        frozen = gc.get_freeze_count()
        with program.freeze_heap():
            assert gc.get_freeze_count() == frozen > 0
        assert gc.get_freeze_count() == frozen
    assert gc.get_freeze_count() == before


def test_a_dry_run_counts_the_programs_that_are_in_the_cache(toy):
    def preview(sizes):
        return toy("-m", "task=constant", *sizes.split(), "dry_run=true").out.splitlines()[-1]

    sweep = "size=range(41,46)"
    assert preview(sweep) == "5 programs: 0 in the cache, 5 to compile"
    assert toy("-m", "task=constant", "size=42,44").status == 0
    assert preview(sweep) == "5 programs: 2 in the cache, 3 to compile"
    assert preview("size=42") == "1 program: 1 in the cache, 0 to compile"
    assert preview("size=42 lanes=2") == "1 program: 0 in the cache, 1 to compile"


def test_a_name_is_the_same_in_every_process_and_differs_with_the_structure():
    functions = jax.nn.relu, jax.nn.relu, jax.nn.silu, lambda x: x * 2, lambda x: x * 3
    jaxprs = [jax.make_jaxpr(function)(1.0).jaxpr for function in functions]
    names = [structure.name_program(jaxpr, 1, 8) for jaxpr in jaxprs]
    assert names[0] == names[1]
    assert len(set(names)) == 4
    assert structure.name_program(jaxprs[0], 2, 8) != names[0]
    jaxpr = "jax.make_jaxpr(jax.nn.relu)(1.0).jaxpr"
    code = f"import jax; from runner.program.structure import name_program; print(name_program({jaxpr}, 1, 8))"
    other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == names[0]


def test_without_a_cache_a_dry_run_counts_programs_only(toy, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert toy("-m", "task=constant", "size=2,3", "dry_run=true").out.splitlines()[-1] == "2 programs to compile"

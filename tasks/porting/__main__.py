"""The command that ports a checkpoint: `python -m tasks.porting SOURCE TARGET --linen my_lab:Net --verify …`."""

import argparse
import inspect
import pkgutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import yaml
from flax import nnx
from flax.errors import FlaxError
from rich.console import Console

from tasks.porting import checkpoints
from tasks.porting.differences import VERDICTS, measure_difference
from tasks.porting.models import port_model
from tasks.porting.optimizers import dump_optimizer, load_optimizer
from tasks.porting.variables import dump, flatten_variables, list_slots, load, make_abstract

SAY = Console(stderr=True, highlight=False, emoji=False)


class RefusedError(Exception):
    """A usage error with a one-line message."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tasks.porting",
        description="Ports a Linen checkpoint to NNX, or with --to linen an NNX checkpoint back, and verifies it.",
        epilog="python -m tasks.porting runs/42 nnx/42 --linen my_lab:Net --nnx my_lab:NewNet --input 1,28,28 --verify",
    )
    parser.add_argument("source", type=Path, help="a checkpoint: a folder of orbax, .msgpack or .safetensors")
    parser.add_argument(
        "target", type=Path, help="what to write: with --to linen by its ending, else a folder of orbax"
    )
    parser.add_argument("--linen", metavar="PATH", help="the Linen module by import path: my_lab:Net")
    parser.add_argument("--linen-args", metavar="YAML", default="{}", help="its arguments: '{features: 4}'")
    parser.add_argument("--nnx", metavar="PATH", help="the NNX module; without it the Linen one is ported as it is")
    parser.add_argument("--nnx-args", metavar="YAML", default="{}", help="its arguments, beside rngs")
    parser.add_argument("--input", metavar="SHAPE", action="append", default=[], help="of the call: 8,28,28 or 8,16:11")
    parser.add_argument("--call", metavar="YAML", default="{}", help="keywords of the call: '{train: false}'")
    parser.add_argument("--mapping", type=Path, metavar="FILE", help="a YAML of Linen's names and NNX's")
    parser.add_argument("--cast", action="store_true", help="cast to the types of the NNX module")
    parser.add_argument("--ignore", action="append", default=[], metavar="COLLECTION", help="leave a collection out")
    parser.add_argument(
        "--optimizer", metavar="PATH", help="what made the optimizer: optax:adamw; its state goes along"
    )
    parser.add_argument("--optimizer-args", metavar="YAML", default="{}", help="'{learning_rate: 0.001}'")
    parser.add_argument("--to", choices=("nnx", "linen"), default="nnx", help="which way (nnx)")
    parser.add_argument("--verify", action="store_true", help="compare the outputs of both modules on random inputs")
    parser.add_argument("--seeds", type=int, default=3, help="random inputs to verify with (3)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0; 1 if the outputs differ; 2 after a usage error. Nothing is written unless it is 0."""
    sys.path.insert(0, str(Path.cwd()))  # as python -m does
    asked = _parser().parse_args(arguments)
    try:
        return _port_back(asked) if asked.to == "linen" else _port(asked)
    except (RefusedError, ValueError, OSError, FlaxError) as refusal:
        SAY.print(f"error: {refusal}", style="red", markup=False, soft_wrap=True)
        return 2


def _port(asked: argparse.Namespace) -> int:
    _check(asked)
    mapping = _mapping(asked.mapping)
    with _telling("reading", asked.source) as told:
        state = checkpoints.read_train_state(asked.source) if asked.optimizer else None
        variables = state.variables if state else checkpoints.read(asked.source)
        variables = {name: tree for name, tree in variables.items() if name not in asked.ignore}
        told(_size(variables))
    linen, inputs, given = _linen(asked), _inputs(asked.input), _yaml("--call", asked.call)
    with _telling("porting", asked.nnx or asked.linen) as told:
        if asked.nnx:
            module = make_abstract(lambda: _make("--nnx", asked.nnx, asked.nnx_args, rngs=nnx.Rngs(0)))
            load(module, variables, mapping=mapping, dtype="cast" if asked.cast else "strict")
            told(f"{len(list_slots(module))} variables")
        else:
            ported = port_model(linen, variables, *_shapes(inputs), **given)
            module = ported.module
            told(f"{len(list_slots(module))} variables; " + _kinds(ported.report))
        optimizer = _optimizer(asked, module)
        if optimizer is not None:
            assert state is not None
            load_optimizer(optimizer, module, _wanted(state.opt_state), step=state.step, mapping=mapping)
    if asked.verify:
        with _telling("verifying", f"{asked.seeds} random inputs") as told:
            words, status = _verified(linen, variables, module, inputs, given, asked.seeds)
            told(words)
        if status:
            SAY.print("nothing is written")
            return status
    with _telling("writing", asked.target) as told:
        checkpoints.save_nnx(asked.target, module, optimizer)
        told("an NNX checkpoint; read it with orbax, or tasks.porting.checkpoints.load_nnx")
    return 0


def _port_back(asked: argparse.Namespace) -> int:
    if not asked.nnx:
        raise RefusedError("--to linen needs --nnx, the module whose checkpoint it is")
    _check(asked)
    mapping = _mapping(asked.mapping)
    made = make_abstract(lambda: _make("--nnx", asked.nnx, asked.nnx_args, rngs=nnx.Rngs(0)))
    optimizer = _optimizer(asked, made)
    with _telling("reading", asked.source) as told:
        checkpoints.load_nnx(asked.source, made, optimizer)
        told(f"{len(list_slots(made))} variables")
    linen, inputs, given = _linen(asked), _inputs(asked.input), _yaml("--call", asked.call)
    like = None
    if linen is not None and inputs:
        like = jax.eval_shape(lambda: linen.init(_keys(), *_drawn(inputs, 0), **given))
    elif mapping or optimizer:
        raise RefusedError("the names of Linen are needed: give --linen and --input")
    with _telling("writing", asked.target) as told:
        variables = dump(made, like=like, mapping=mapping)
        tree = None
        if optimizer is not None and like is not None:
            empty = jax.eval_shape(_transformation(asked).init, like["params"])
            tree = dump_optimizer(optimizer, made, empty, mapping=mapping)
        checkpoints.write(asked.target, variables, tree, int(optimizer.step[...]) if optimizer else None)
        told(_size(variables))
    return 0


def _check(asked: argparse.Namespace) -> None:
    """Checks that the options fit together, before anything is read."""
    if not asked.nnx and not (asked.linen and asked.input):
        raise RefusedError("give --nnx, or --linen with --input to port that module as it is")
    if asked.verify and not (asked.linen and asked.input):
        raise RefusedError("--verify compares with the Linen module: give --linen and --input")
    if asked.seeds < 1:
        raise RefusedError(f"--seeds must be at least 1, got {asked.seeds}")
    if asked.target.exists():
        raise RefusedError(f"{asked.target} is there already")
    for option, path in (("--linen", asked.linen), ("--nnx", asked.nnx), ("--optimizer", asked.optimizer)):
        if path:
            _resolved(option, path)


class _telling:  # noqa: N801 - reads as a statement
    """Shows a spinner while a step runs, and a line with its time when it is done."""

    def __init__(self, doing: str, what: Any) -> None:
        self.doing, self.what, self.words = doing, what, ""

    def __enter__(self) -> Callable[[str], None]:
        self.status, self.started = SAY.status(f"{self.doing} {self.what}"), time.perf_counter()
        self.status.start()
        return lambda words: setattr(self, "words", words)

    def __exit__(self, kind: Any, *_: Any) -> None:
        self.status.stop()
        if kind is None:
            seconds = time.perf_counter() - self.started
            SAY.print(
                f"{self.doing:9} {self.what}: {self.words or 'done'}, {seconds:.1f} s", markup=False, soft_wrap=True
            )


def _size(variables: Any) -> str:
    found = flatten_variables(variables)
    return f"{len(found)} arrays, {sum(leaf.nbytes for leaf in found.values()) / 1e6:,.1f} MB"


def _kinds(report: Sequence[Any]) -> str:
    counts: dict[str, int] = {}
    for entry in report:
        counts[entry.kind] = counts.get(entry.kind, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def _yaml(option: str, text: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RefusedError(f"{option} is no YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise RefusedError(f"{option} takes a YAML of names and values, such as '{{features: 4}}', got {text!r}")
    return values


def _mapping(path: Path | None) -> dict[str, str] | None:
    return None if path is None else {k: str(v) for k, v in _yaml("--mapping", path.read_text()).items()}


def _resolved(option: str, path: str) -> Any:
    try:
        return pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise RefusedError(f"{option}: cannot import {path!r}: {error}") from error


def _make(option: str, path: str, arguments: str, **more: Any) -> Any:
    """Calls what an import path names with its arguments, and with further ones."""
    function, given = _resolved(option, path), _yaml(f"{option}-args", arguments)
    try:
        return function(**given, **more)
    except Exception as error:  # the user's own code
        raise RefusedError(f"{option}: {path} refuses these arguments: {type(error).__name__}: {error}") from error


def _linen(asked: argparse.Namespace) -> nn.Module | None:
    return _make("--linen", asked.linen, asked.linen_args) if asked.linen else None


def _transformation(asked: argparse.Namespace) -> optax.GradientTransformation:
    return _make("--optimizer", asked.optimizer, asked.optimizer_args)


def _optimizer(asked: argparse.Namespace, module: nnx.Module) -> Any:
    if not asked.optimizer:
        return None
    transformation = _transformation(asked)
    return nnx.eval_shape(lambda: nnx.Optimizer(module, transformation, wrt=nnx.Param))


def _wanted(opt_state: Any) -> Any:
    if opt_state is None:
        raise RefusedError("the checkpoint has no opt_state; leave --optimizer out")
    return opt_state


Input = tuple[tuple[int, ...], int]
"""A shape, and the exclusive upper bound of its integers; 0 for floats."""


def _inputs(texts: Sequence[str]) -> list[Input]:
    made = []
    for text in texts:
        shape, _, below = text.partition(":")
        try:
            made.append((tuple(int(size) for size in shape.split(",") if size), int(below or 0)))
        except ValueError:
            raise RefusedError(
                f"--input takes a shape, 8,28,28, or one of integers below a number, 8,16:11, got {text!r}"
            ) from None
    return made


def _shapes(inputs: Sequence[Input]) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(shape, jnp.int32 if below else jnp.float32) for shape, below in inputs]


def _drawn(inputs: Sequence[Input], seed: int) -> list[jax.Array]:
    keys = jax.random.split(jax.random.key(seed), max(1, len(inputs)))
    return [
        jax.random.randint(key, shape, 0, below) if below else jax.random.normal(key, shape)
        for key, (shape, below) in zip(keys, inputs, strict=False)
    ]


def _keys() -> dict[str, jax.Array]:
    return {"params": jax.random.key(0), "dropout": jax.random.key(1)}


def _verified(
    linen: Any, variables: Any, module: nnx.Module, inputs: Sequence[Input], given: Mapping[str, Any], seeds: int
) -> tuple[str, int]:
    """The worst verdict as text, and the exit status; both modules are jitted, in evaluation mode.

    Of the keywords of the call, the NNX module gets those that it takes.
    """
    module.eval()
    graph, state = nnx.split(module)
    old = jax.jit(lambda variables, *inputs: linen.apply(variables, *inputs, **given))
    taken = inspect.signature(module.__call__).parameters
    own = given if any(p.kind is p.VAR_KEYWORD for p in taken.values()) else {n: given[n] for n in given if n in taken}
    new = jax.jit(lambda state, *inputs: nnx.merge(graph, state, copy=True)(*inputs, **own))
    found = []
    for arrays in (_drawn(inputs, seed) for seed in range(seeds)):
        try:
            expected, made = old(variables, *arrays), new(state, *arrays)
        except Exception as error:  # the user's own code
            words = str(error).splitlines()[0]
            raise RefusedError(f"--verify: the modules cannot be called so: {type(error).__name__}: {words}") from error
        found.append(measure_difference(expected, made))
    worst = max(int(each.verdict) for each in found)
    bits, gap = sum(int(each.bits) for each in found), max(float(each.absolute) for each in found)
    return VERDICTS[worst] + (f" ({bits} bits, at most {gap:.3g} apart)" if worst else " to the bit"), int(worst == 2)


if __name__ == "__main__":
    sys.exit(main())

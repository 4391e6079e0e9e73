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

CONSOLE = Console(stderr=True, highlight=False, emoji=False)


class UsageError(Exception):
    """A usage error with a one-line message."""


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tasks.porting",
        description="Ports a Linen checkpoint to NNX, or with --to linen an NNX checkpoint back, and verifies it.",
        epilog="python -m tasks.porting runs/42 nnx/42 --linen my_lab:Net --nnx my_lab:NewNet --input 1,28,28 --verify",
    )
    parser.add_argument("source", type=Path, help="a checkpoint: an orbax folder, .msgpack or .safetensors")
    parser.add_argument(
        "target",
        type=Path,
        help="the checkpoint to write: an orbax folder; with --to linen also .msgpack or .safetensors",
    )
    parser.add_argument("--linen", metavar="PATH", help="the Linen module by import path: my_lab:Net")
    parser.add_argument("--linen-args", metavar="YAML", default="{}", help="its arguments: '{features: 4}'")
    parser.add_argument("--nnx", metavar="PATH", help="the NNX module; without it the unchanged Linen module is ported")
    parser.add_argument("--nnx-args", metavar="YAML", default="{}", help="its arguments, beside rngs")
    parser.add_argument(
        "--input",
        metavar="SHAPE",
        action="append",
        default=[],
        help="shape of an argument of the call, 8,28,28; with :11, integers below 11; repeatable",
    )
    parser.add_argument("--call", metavar="YAML", default="{}", help="keyword arguments of the call: '{train: false}'")
    parser.add_argument("--mapping", type=Path, metavar="FILE", help="a YAML file from Linen names to NNX names")
    parser.add_argument("--cast", action="store_true", help="cast to the dtypes of the NNX module")
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="COLLECTION", help="a collection to leave out; repeatable"
    )
    parser.add_argument(
        "--optimizer", metavar="PATH", help="the constructor of the optimizer, optax:adamw; its state is ported too"
    )
    parser.add_argument("--optimizer-args", metavar="YAML", default="{}", help="'{learning_rate: 0.001}'")
    parser.add_argument("--to", choices=("nnx", "linen"), default="nnx", help="format of the target (nnx)")
    parser.add_argument("--verify", action="store_true", help="compare the outputs of both modules on random inputs")
    parser.add_argument("--seeds", type=int, default=3, help="number of random inputs to verify with (3)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0; 1 if the outputs differ; 2 after a usage error. Nothing is written unless it is 0."""
    sys.path.insert(0, str(Path.cwd()))  # as python -m does
    options = _make_parser().parse_args(arguments)
    try:
        return _port_back(options) if options.to == "linen" else _port(options)
    except (UsageError, ValueError, OSError, FlaxError) as error:
        CONSOLE.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return 2


def _port(options: argparse.Namespace) -> int:
    _check(options)
    mapping = _read_mapping(options.mapping)
    with _Step("reading", options.source) as report:
        state = checkpoints.read_train_state(options.source) if options.optimizer else None
        variables = state.variables if state else checkpoints.read(options.source)
        variables = {name: tree for name, tree in variables.items() if name not in options.ignore}
        report(_format_size(variables))
    linen, inputs, given = _make_linen(options), _parse_inputs(options.input), _parse_yaml("--call", options.call)
    with _Step("porting", options.nnx or options.linen) as report:
        if options.nnx:
            module = make_abstract(lambda: _make("--nnx", options.nnx, options.nnx_args, rngs=nnx.Rngs(0)))
            load(module, variables, mapping=mapping, dtype="cast" if options.cast else "strict")
            report(f"{len(list_slots(module))} variables")
        else:
            ported = port_model(linen, variables, *_make_shapes(inputs), **given)
            module = ported.module
            report(f"{len(list_slots(module))} variables; " + _count_kinds(ported.report))
        optimizer = _make_optimizer(options, module)
        if optimizer is not None:
            assert state is not None
            load_optimizer(optimizer, module, _require_opt_state(state.opt_state), step=state.step, mapping=mapping)
    if options.verify:
        with _Step("verifying", f"{options.seeds} random inputs") as report:
            verdict, status = _verify(linen, variables, module, inputs, given, options.seeds)
            report(verdict)
        if status:
            CONSOLE.print("nothing was written")
            return status
    with _Step("writing", options.target) as report:
        checkpoints.save_nnx(options.target, module, optimizer)
        report("an NNX checkpoint; read it with orbax, or tasks.porting.checkpoints.load_nnx")
    return 0


def _port_back(options: argparse.Namespace) -> int:
    if not options.nnx:
        raise UsageError("--to linen needs --nnx, the module of the checkpoint")
    _check(options)
    mapping = _read_mapping(options.mapping)
    module = make_abstract(lambda: _make("--nnx", options.nnx, options.nnx_args, rngs=nnx.Rngs(0)))
    optimizer = _make_optimizer(options, module)
    with _Step("reading", options.source) as report:
        checkpoints.load_nnx(options.source, module, optimizer)
        report(f"{len(list_slots(module))} variables")
    linen, inputs, given = _make_linen(options), _parse_inputs(options.input), _parse_yaml("--call", options.call)
    like = None
    if linen is not None and inputs:
        like = jax.eval_shape(lambda: linen.init(_make_keys(), *_draw_inputs(inputs, 0), **given))
    elif mapping or optimizer:
        raise UsageError("--mapping and --optimizer need the Linen names: give --linen and --input")
    with _Step("writing", options.target) as report:
        variables = dump(module, like=like, mapping=mapping)
        tree = None
        if optimizer is not None and like is not None:
            empty = jax.eval_shape(_make_transformation(options).init, like["params"])
            tree = dump_optimizer(optimizer, module, empty, mapping=mapping)
        checkpoints.write(options.target, variables, tree, int(optimizer.step[...]) if optimizer else None)
        report(_format_size(variables))
    return 0


def _check(options: argparse.Namespace) -> None:
    """Checks that the options fit together, before anything is read."""
    if not options.nnx and not (options.linen and options.input):
        raise UsageError("give --nnx, or --linen with --input to port that module unchanged")
    if options.verify and not (options.linen and options.input):
        raise UsageError("--verify compares with the Linen module: give --linen and --input")
    if options.seeds < 1:
        raise UsageError(f"--seeds must be at least 1, got {options.seeds}")
    if options.target.exists():
        raise UsageError(f"{options.target} exists already")
    for option, path in (("--linen", options.linen), ("--nnx", options.nnx), ("--optimizer", options.optimizer)):
        if path:
            _resolve(option, path)


class _Step:
    """Shows a spinner while a step runs, and a line with its time when it is done."""

    def __init__(self, doing: str, what: Any) -> None:
        self.doing, self.what, self.result = doing, what, ""

    def __enter__(self) -> Callable[[str], None]:
        self.status, self.started = CONSOLE.status(f"{self.doing} {self.what}"), time.perf_counter()
        self.status.start()
        return lambda result: setattr(self, "result", result)

    def __exit__(self, kind: Any, *_: Any) -> None:
        self.status.stop()
        if kind is None:
            seconds = time.perf_counter() - self.started
            CONSOLE.print(
                f"{self.doing:9} {self.what}: {self.result or 'done'}, {seconds:.1f} s", markup=False, soft_wrap=True
            )


def _format_size(variables: Any) -> str:
    flat = flatten_variables(variables)
    return f"{len(flat)} arrays, {sum(leaf.nbytes for leaf in flat.values()) / 1e6:,.1f} MB"


def _count_kinds(report: Sequence[Any]) -> str:
    counts: dict[str, int] = {}
    for entry in report:
        counts[entry.kind] = counts.get(entry.kind, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def _parse_yaml(option: str, text: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{option} is not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{option} takes a YAML of names and values, such as '{{features: 4}}', got {text!r}")
    return values


def _read_mapping(path: Path | None) -> dict[str, str] | None:
    return None if path is None else {k: str(v) for k, v in _parse_yaml("--mapping", path.read_text()).items()}


def _resolve(option: str, path: str) -> Any:
    try:
        return pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"{option}: cannot import {path!r}: {error}") from error


def _make(option: str, path: str, arguments: str, **more: Any) -> Any:
    """Calls what an import path names with its arguments, and with further ones."""
    function, given = _resolve(option, path), _parse_yaml(f"{option}-args", arguments)
    try:
        return function(**given, **more)
    except Exception as error:  # the user's own code
        raise UsageError(f"{option}: {path} refuses these arguments: {type(error).__name__}: {error}") from error


def _make_linen(options: argparse.Namespace) -> nn.Module | None:
    return _make("--linen", options.linen, options.linen_args) if options.linen else None


def _make_transformation(options: argparse.Namespace) -> optax.GradientTransformation:
    return _make("--optimizer", options.optimizer, options.optimizer_args)


def _make_optimizer(options: argparse.Namespace, module: nnx.Module) -> Any:
    if not options.optimizer:
        return None
    transformation = _make_transformation(options)
    return nnx.eval_shape(lambda: nnx.Optimizer(module, transformation, wrt=nnx.Param))


def _require_opt_state(opt_state: Any) -> Any:
    if opt_state is None:
        raise UsageError("the checkpoint has no opt_state; leave --optimizer out")
    return opt_state


Input = tuple[tuple[int, ...], int]
"""A shape, and the exclusive upper bound of its integers; 0 for floats."""


def _parse_inputs(texts: Sequence[str]) -> list[Input]:
    inputs = []
    for text in texts:
        shape, _, below = text.partition(":")
        try:
            inputs.append((tuple(int(size) for size in shape.split(",") if size), int(below or 0)))
        except ValueError:
            raise UsageError(
                f"--input takes a shape, 8,28,28, or one of integers below a number, 8,16:11, got {text!r}"
            ) from None
    return inputs


def _make_shapes(inputs: Sequence[Input]) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(shape, jnp.int32 if below else jnp.float32) for shape, below in inputs]


def _draw_inputs(inputs: Sequence[Input], seed: int) -> list[jax.Array]:
    keys = jax.random.split(jax.random.key(seed), max(1, len(inputs)))
    return [
        jax.random.randint(key, shape, 0, below) if below else jax.random.normal(key, shape)
        for key, (shape, below) in zip(keys, inputs, strict=False)
    ]


def _make_keys() -> dict[str, jax.Array]:
    return {"params": jax.random.key(0), "dropout": jax.random.key(1)}


def _verify(
    linen: Any, variables: Any, module: nnx.Module, inputs: Sequence[Input], given: Mapping[str, Any], seeds: int
) -> tuple[str, int]:
    """The worst verdict as text, and the exit status; both modules are jitted, in evaluation mode.

    The NNX module gets those keyword arguments of the call that its signature has.
    """
    module.eval()
    graph, state = nnx.split(module)
    old = jax.jit(lambda variables, *inputs: linen.apply(variables, *inputs, **given))
    taken = inspect.signature(module.__call__).parameters
    own = given if any(p.kind is p.VAR_KEYWORD for p in taken.values()) else {n: given[n] for n in given if n in taken}
    new = jax.jit(lambda state, *inputs: nnx.merge(graph, state, copy=True)(*inputs, **own))
    differences = []
    for arrays in (_draw_inputs(inputs, seed) for seed in range(seeds)):
        try:
            expected, actual = old(variables, *arrays), new(state, *arrays)
        except Exception as error:  # the user's own code
            words = str(error).splitlines()[0]
            raise UsageError(f"--verify: calling the modules failed: {type(error).__name__}: {words}") from error
        differences.append(measure_difference(expected, actual))
    worst = max(int(each.verdict) for each in differences)
    bits, gap = sum(int(each.bits) for each in differences), max(float(each.absolute) for each in differences)
    return VERDICTS[worst] + (f" ({bits} bits, at most {gap:.3g} apart)" if worst else " to the bit"), int(worst == 2)


if __name__ == "__main__":
    sys.exit(main())

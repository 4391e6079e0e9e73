"""The command that ports a checkpoint: `python -m tasks.porting SOURCE TARGET --linen my_lab:Net --verify …`."""

import argparse
import logging
import pkgutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import yaml
from flax import errors, nnx
from rich.console import Console

from tasks.porting import checkpoints
from tasks.porting.inputs import FORM, Inputs, parse_call, parse_inputs
from tasks.porting.models import Entry, PortedModel, port_model
from tasks.porting.optimizers import dump_optimizer, load_optimizer
from tasks.porting.variables import (
    Mismatch,
    MismatchKind,
    VariableMismatchError,
    cast_variables,
    dump,
    flatten_variables,
    list_slots,
    load,
    make_abstract,
    raise_mismatches,
)
from tasks.porting.verification import Verification, describe

CONSOLE = Console(stderr=True, highlight=False, emoji=False)
DESCRIPTION = """\
Ports a Linen checkpoint to NNX, or with --to linen an NNX checkpoint back, and verifies it.
With --try it prints what each layer of a model would become and the verdict, and writes nothing."""
EPILOG = """\
exit status: 0; 1 if the outputs differ; 2 if the checkpoint, the modules or the arguments do not fit; 3 after an
unexpected error. Nothing is written unless it is 0.

  python -m tasks.porting runs/42 nnx/42 --linen my_lab:Net --nnx my_lab:NewNet --input 1,28,28 --verify
  python -m tasks.porting --try my_lab:Net --input 32,8 --call train=false --call train=true"""


class Status(IntEnum):
    """The exit statuses."""

    DONE = 0
    DIFFERENT = 1
    MISUSED = 2
    FAILED = 3


class UsageError(Exception):
    """A usage error with a one-line message."""


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tasks.porting", description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("source", type=Path, nargs="?", help="a checkpoint: a folder of orbax or flax, .msgpack or .safetensors")
    add("target", type=Path, nargs="?", help="what to write: an orbax folder; with --to linen also .msgpack, …")
    add("--try", dest="trial", metavar="PATH", help="the Linen module to try, with random variables: my_lab:Net")
    add("--linen", metavar="PATH", help="the Linen module by import path: my_lab:Net")
    add("--linen-args", metavar="YAML", default="{}", help="its arguments: '{features: 4}'")
    add("--nnx", metavar="PATH", help="the NNX module; without it the unchanged Linen module is ported")
    add("--nnx-args", metavar="YAML", default="{}", help="its arguments, beside rngs")
    add(
        "--input",
        metavar="[NAME=]SPEC",
        action="append",
        default=[],
        help=f"an argument of the call: {FORM}; repeatable",
    )
    add("--call", metavar="ARGUMENTS", action="append", default=[], help=CALL_HELP)
    add(
        "--rng", metavar="NAME", action="append", default=["dropout"], help="a random stream beside dropout; repeatable"
    )
    add("--axis-name", metavar="NAME", action="append", default=[], help="a mapped axis of the call; repeatable")
    add("--mapping", type=Path, metavar="FILE", help="a YAML file from Linen names to NNX names")
    add("--cast", action="store_true", help="cast to the dtypes of the module")
    add("--allow-misfits", action="store_true", help="accept variables that --linen does not use, and other dtypes")
    add("--ignore", action="append", default=[], metavar="COLLECTION", help="a collection to leave out; repeatable")
    add("--optimizer", metavar="PATH", help="the constructor of the optimizer, optax:adamw; its state is ported too")
    add("--optimizer-args", metavar="YAML", default="{}", help="'{learning_rate: 0.001}'")
    add("--to", choices=("nnx", "linen"), default="nnx", help="format of the target (nnx)")
    add("--verify", action="store_true", help="compare both modules on random inputs, in each call")
    add("--seeds", type=int, default=3, help="number of random inputs to verify with (3)")
    return parser


CALL_HELP = "keyword arguments of the call: train=false; repeatable: the first is traced, --verify compares in each"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns a `Status`. Errors are one line; nothing is written unless it is 0."""
    sys.path.insert(0, str(Path.cwd()))  # as python -m does
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax logs an error before it raises it
    options = _make_parser().parse_args(arguments)
    try:
        return _choose(options)(options)
    except (UsageError, ValueError, OSError) as error:
        _print_error(str(error) if isinstance(error, VariableMismatchError) else _shorten(error))
        return Status.MISUSED
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        _print_error(f"{type(error).__name__}: {_shorten(error)} ({frame.filename}:{frame.lineno})")
        return Status.FAILED


def _choose(options: argparse.Namespace) -> Callable[[argparse.Namespace], int]:
    if options.trial:
        return _try
    return _port_back if options.to == "linen" else _port


def _print_error(message: str) -> None:
    CONSOLE.print(f"error: {message}", style="red", markup=False, soft_wrap=True)


def _shorten(error: Exception) -> str:
    """The first line of a message."""
    return next(iter(str(error).splitlines()), "no message")


def _port(options: argparse.Namespace) -> int:
    _check(options)
    mapping, given = _read_mapping(options.mapping), _parse_call_arguments(options)
    with _Step("reading", options.source) as report:
        state = checkpoints.read_train_state(options.source) if options.optimizer else None
        variables = state.variables if state else checkpoints.read(options.source)
        variables = {name: tree for name, tree in variables.items() if name not in options.ignore}
        report(_format_size(variables))
    linen = _make_linen(options)
    with _Step("porting", options.nnx or options.linen) as report:
        if options.nnx:
            module = make_abstract(lambda: _make("--nnx", options.nnx, options.nnx_args, rngs=nnx.Rngs(0)))
            load(module, variables, mapping=mapping, dtype="cast" if options.cast else "strict")
            report(f"{len(list_slots(module))} variables")
        else:
            assert linen is not None
            variables = _cast(options, linen, variables, given)
            ported = _port_unchanged(options, linen, variables, given)
            module = ported.module
            report(f"{len(list_slots(module))} variables; " + _count_kinds(ported.report))
        optimizer = _make_optimizer(options, module)
        if optimizer is not None:
            assert state is not None
            load_optimizer(optimizer, module, _require_opt_state(state.opt_state), step=state.step, mapping=mapping)
    if options.verify and (status := _verify(options, given, linen, variables, module)):
        CONSOLE.print("nothing was written")
        return status
    with _Step("writing", options.target) as report:
        checkpoints.save_nnx(options.target, module, optimizer)
        report("an NNX checkpoint; read it with orbax, or tasks.porting.checkpoints.load_nnx")
    return Status.DONE


CallArguments = tuple[Inputs, list[dict[str, Any]]]
"""The array arguments, and the keywords of each call."""


def _parse_call_arguments(options: argparse.Namespace) -> CallArguments:
    return parse_inputs(options.input), [parse_call(text) for text in options.call] or [{}]


def _cast(
    options: argparse.Namespace, linen: nn.Module, variables: dict[str, Any], given: CallArguments
) -> dict[str, Any]:
    return cast_variables(variables, _init_abstract(options, linen, given)) if options.cast else variables


def _port_unchanged(
    options: argparse.Namespace, linen: nn.Module, variables: Mapping[str, Any], given: CallArguments
) -> PortedModel:
    """Ports a Linen module; refuses variables that it accepts, but would not have made, unless they are allowed."""
    inputs, calls = given
    ported = [_port_call(options, linen, variables, inputs, call) for call in calls]
    if not options.allow_misfits:
        raise_mismatches(_intersect([each.mismatches for each in ported]))
    return ported[0]


def _intersect(found: Sequence[Sequence[Mismatch]]) -> list[Mismatch]:
    """The mismatches of the first call, of unused variables only those that no call uses."""
    return [
        mismatch
        for mismatch in found[0]
        if mismatch.kind is not MismatchKind.UNEXPECTED or all(mismatch in other for other in found)
    ]


def _port_call(
    options: argparse.Namespace, linen: nn.Module, variables: Mapping[str, Any], inputs: Inputs, call: dict[str, Any]
) -> PortedModel:
    positional, named = inputs.abstract
    keys = {name: jax.random.key(0) for name in options.rng}
    with _ModelCode(f"calling {options.linen or options.trial}"):
        return port_model(linen, variables, *positional, rngs=keys, axis_names=options.axis_name, **named, **call)


class _ModelCode:
    """Turns what the user's own code raises into a usage error of one line."""

    def __init__(self, doing: str) -> None:
        self.doing = doing

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: Any, _: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, VariableMismatchError):
            raise UsageError(
                f"{self.doing} failed: {type(error).__name__}: {_shorten(error)}{_advise(error)}"
            ) from error


def _advise(error: Exception) -> str:
    """The option that supplies what the call lacks; Python's own NameError has the name, and JAX's for an axis none."""
    if isinstance(error, NameError) and error.name is None:
        return " (give the axis by --axis-name NAME)"
    if any(isinstance(each, errors.InvalidRngError) for each in (error, error.__cause__)):
        return " (give the stream by --rng NAME)"
    return ""


def _init_abstract(options: argparse.Namespace, linen: nn.Module, given: CallArguments) -> Any:
    """The shapes of the variables that the Linen module has in the first call."""
    (positional, named), (call, *_) = given[0].abstract, given[1]

    def init(positional: Any, named: Any) -> Any:
        return linen.init(_make_keys(options), *positional, **named, **call)

    for name in options.axis_name:
        init = jax.vmap(init, in_axes=None, out_axes=None, axis_size=1, axis_name=name)
    with _ModelCode(f"initializing {options.linen or options.trial}"):
        return jax.eval_shape(init, positional, named)


def _port_back(options: argparse.Namespace) -> int:
    _check(options)
    mapping, given = _read_mapping(options.mapping), _parse_call_arguments(options)
    linen, like = _make_linen(options), None
    if linen is not None and given[0]:
        like = nn.meta.unbox(_init_abstract(options, linen, given))
    elif mapping or options.optimizer:
        raise UsageError("--mapping and --optimizer need the Linen names: give --linen and --input")
    module = _make_abstract_module(options, linen, like, given)
    optimizer = _make_optimizer(options, module)
    with _Step("reading", options.source) as report:
        checkpoints.load_nnx(options.source, module, optimizer)
        report(f"{len(list_slots(module))} variables")
    with _Step("writing", options.target) as report:
        variables = dump(module, like=like, mapping=mapping)
        tree = None
        if optimizer is not None and like is not None:
            empty = jax.eval_shape(_make_transformation(options).init, like["params"])
            tree = dump_optimizer(optimizer, module, empty, mapping=mapping)
        checkpoints.write(options.target, variables, tree, int(optimizer.step[...]) if optimizer else None)
        report(_format_size(variables))
    return Status.DONE


def _make_abstract_module(options: argparse.Namespace, linen: Any, like: Any, given: CallArguments) -> nnx.Module:
    """The module of an NNX checkpoint: a module of one's own, or the Linen module that was ported unchanged."""
    if options.nnx:
        return make_abstract(lambda: _make("--nnx", options.nnx, options.nnx_args, rngs=nnx.Rngs(0)))

    def make() -> nnx.Module:
        empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        return _port_call(options, linen, empty, given[0], given[1][0]).module

    return nnx.eval_shape(make)


def _try(options: argparse.Namespace) -> int:
    """Ports a module with random variables, prints what each layer becomes, and compares both."""
    if options.source or options.nnx or options.linen or not options.input:
        raise UsageError("--try takes --input, no checkpoint, and neither --linen nor --nnx")
    given = _parse_call_arguments(options)
    linen = _make("--try", options.trial, options.linen_args)
    variables = _draw_variables(_init_abstract(options, linen, given))
    with _Step("porting", options.trial) as report:
        ported = _port_call(options, linen, variables, given[0], given[1][0])
        report(_count_kinds(ported.report))
    _print_report(ported.report)
    return _verify(options, given, linen, variables, ported.module)


def _draw_variables(shapes: Any) -> Any:
    """Random variables near those of a trained model: no bias is zero, no scale one, variances are positive."""
    leaves, tree = jax.tree.flatten_with_path(nn.meta.unbox(shapes))
    keys = jax.random.split(jax.random.key(0), max(1, len(leaves)))

    def draw(key: jax.Array, path: Any, leaf: Any) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        scale = 1 / max(1, leaf.size // leaf.shape[-1]) ** 0.5 if leaf.ndim > 1 else 0.5
        values = scale * jax.random.normal(key, leaf.shape, leaf.dtype)
        return values if path[0].key == "params" else abs(values) + jnp.asarray(0.5, leaf.dtype)

    return jax.tree.unflatten(tree, [draw(key, *leaf) for key, leaf in zip(keys, leaves, strict=False)])


def _print_report(report: Sequence[Entry]) -> None:
    columns = [("path", "layer", "becomes", "why"), *((e.path or ".", e.layer, str(e.kind), e.why) for e in report)]
    widths = [max(map(len, column)) for column in list(zip(*columns, strict=True))[:3]]
    for row in columns:
        print("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[3]]).rstrip())


def _verify(
    options: argparse.Namespace, given: CallArguments, linen: Any, variables: Mapping[str, Any], module: nnx.Module
) -> int:
    inputs, calls = given
    what = f"{options.seeds} random inputs" + (f" in each of {len(calls)} calls" if len(calls) > 1 else "")
    with _Step("verifying", what) as report:
        verification = Verification(inputs, calls, options.rng, options.axis_name, options.seeds)
        with _ModelCode("--verify: calling the modules"):
            words, same = describe(verification.compare(linen, variables, module))
        report(words)
    return Status.DONE if same else Status.DIFFERENT


def _check(options: argparse.Namespace) -> None:
    """Checks that the options fit together, before anything is read."""
    if options.source is None or options.target is None:
        raise UsageError("give a checkpoint to read and one to write, or --try with a module")
    if not options.nnx and not (options.linen and options.input):
        back = "--to linen needs --nnx, the module of the checkpoint, or --linen with --input"
        raise UsageError(back if options.to == "linen" else NO_MODULE)
    if options.verify and not (options.linen and options.input):
        raise UsageError("--verify compares with the Linen module: give --linen and --input")
    if options.seeds < 1:
        raise UsageError(f"--seeds must be at least 1, got {options.seeds}")
    if options.target.exists():
        raise UsageError(f"{options.target} exists already")
    for option, path in (("--linen", options.linen), ("--nnx", options.nnx), ("--optimizer", options.optimizer)):
        if path:
            _resolve(option, path)


NO_MODULE = "give --nnx, or --linen with --input to port that module unchanged"


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


def _make_keys(options: argparse.Namespace) -> dict[str, jax.Array]:
    return {"params": jax.random.key(0), **{name: jax.random.key(1) for name in options.rng}}


if __name__ == "__main__":
    sys.exit(main())

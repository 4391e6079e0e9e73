"""Which layer of a model an error comes from."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
from flax import nnx

from tasks.porting import name_modules


class BlockError(ValueError):
    """A layer cannot be called; `path` leads to it, `reason` says what it was called with and why not."""

    def __init__(self, path: tuple[str, ...], reason: str) -> None:
        self.path, self.reason = path, reason
        place = "/".join(path[1:])
        super().__init__(f"{path[0]}: {place + ' ' if place else ''}{reason}")


@contextmanager
def name_block(name: str) -> Iterator[None]:
    """Raises BlockError, below `name`, for a TypeError or ValueError within a layer's call.

    An error that comes from no layer is raised as it is.
    """
    try:
        yield
    except BlockError as error:
        raise BlockError((name, *error.path), error.reason) from error.__cause__
    except (TypeError, ValueError) as error:
        called = _list_calls(error)
        if not called:
            raise
        layers = [frame.f_locals["self"] for frame in called]
        reason = f"({type(layers[-1]).__name__}){_describe_input(called[-1])}: {_describe(error)}"
        raise BlockError((name, *_find_path(layers)), reason) from error


def _describe(error: BaseException) -> str:
    if isinstance(error, jax.errors.ConcretizationTypeError):
        return "it needs a number here, not a traced one; the dropouts of tasks.training.dropout take a traced rate"
    return str(error).splitlines()[0]


def _list_calls(error: BaseException) -> list[Any]:
    """The frames of calls of layers when an error was raised, the innermost last."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == "__call__"]
    return [frame for frame in frames if isinstance(frame.f_locals.get("self"), nn.Module | nnx.Module)]


def _describe_input(frame: Any) -> str:
    names = frame.f_code.co_varnames[1 : frame.f_code.co_argcount]
    shape = getattr(frame.f_locals.get(names[0]), "shape", None) if names else None
    return "" if shape is None else f" with an input of shape {tuple(shape)}"


def _find_path(layers: list[Any]) -> tuple[str, ...]:
    last = layers[-1]
    if isinstance(last, nn.Module):
        return last.path if last.scope is not None else ()
    top = next(layer for layer in layers if isinstance(layer, nnx.Module))
    return next((names for names, module in name_modules(top).items() if module is last), ())

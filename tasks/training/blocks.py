"""Which layer of a model an error comes from."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
from flax import nnx

from tasks.porting import name_modules


@contextmanager
def name_block(name: str) -> Iterator[None]:
    """Raises TypeError and ValueError of a layer's call as a ValueError of one line with the layer and its input."""
    try:
        yield
    except (TypeError, ValueError) as error:
        found = find_block(error)
        if found is None:
            raise
        raise ValueError(f"{name}: {found}: {str(error).splitlines()[0]}") from error


def find_block(error: BaseException) -> str | None:
    """Returns the innermost layer that was called when an error was raised, with the shape of its input."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == "__call__"]
    called = [frame for frame in frames if isinstance(frame.f_locals.get("self"), nn.Module | nnx.Module)]
    if not called:
        return None
    layers = [frame.f_locals["self"] for frame in called]
    path = _find_path(layers)
    shape = getattr(called[-1].f_locals.get(_name_input(called[-1])), "shape", None)
    given = "" if shape is None else f" with an input of shape {tuple(shape)}"
    return f"{path + ' ' if path else ''}({type(layers[-1]).__name__}){given}"


def _name_input(frame: Any) -> str:
    names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
    return names[1] if len(names) > 1 else ""


def _find_path(layers: list[Any]) -> str:
    last = layers[-1]
    if isinstance(last, nn.Module):
        return "/".join(last.path) if last.scope is not None else ""
    top = next(layer for layer in layers if isinstance(layer, nnx.Module))
    return next(("/".join(names) for names, module in name_modules(top).items() if module is last), "")

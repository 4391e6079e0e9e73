"""The structure of a program as its name, by which the cache's entry for it can be found."""

import hashlib
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend.core import Jaxpr, Literal

from runner.program.cost import list_inner_jaxprs
from runner.program.devices import describe_devices, list_settings


def name_program(jaxpr: Jaxpr, *sizes: int) -> str:
    """A name that is the same in every process, from the jaxpr of a task, lanes and capacity, and the surroundings.

    JAX begins the name of a cache's entry with that of the module. The key that follows it is exact; the name is not:
    it leaves out parameters of primitives whose text may differ between processes, and the contents of constants.
    """
    surroundings = [jax.__version__, *describe_devices(), *map(str, sorted(list_settings().items()))]
    parts = [*surroundings, *map(str, sizes), *_describe_structure(jaxpr)]
    return f"program_{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:16]}"


def _describe_structure(jaxpr: Jaxpr) -> Iterator[str]:
    yield f"jaxpr {[str(v.aval) for v in (*jaxpr.constvars, *jaxpr.invars)]}"
    for eqn in jaxpr.eqns:
        operands = [str(v) if isinstance(v, Literal) else str(v.aval) for v in eqn.invars]
        plain = {name: value for name, value in sorted(eqn.params.items()) if _is_plain(value)}
        yield f"{eqn.primitive} {operands} {plain} {[str(v.aval) for v in eqn.outvars]}"
        for inner in list_inner_jaxprs(eqn):
            yield from _describe_structure(inner)
    yield "end"


def _is_plain(value: Any) -> bool:
    """Whether the text of a parameter is the same in every process."""
    return all(map(_is_plain, value)) if isinstance(value, tuple) else isinstance(value, bool | int | float)

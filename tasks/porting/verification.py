"""Whether an NNX module computes what a Linen module does, on random inputs, in one or several calls."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
from flax import nnx

from tasks.porting.differences import VERDICTS, Difference, measure_difference
from tasks.porting.inputs import Inputs
from tasks.porting.models import Model

_measure = jax.jit(measure_difference)


@dataclass(frozen=True)
class Verification:
    """A comparison of two modules: their inputs, the keywords of each call, and the random streams and axes of all."""

    inputs: Inputs
    calls: Sequence[Mapping[str, Any]]
    streams: Sequence[str] = ("dropout",)
    axis_names: Sequence[str] = ()
    seeds: int = 3

    def compare(self, linen: nn.Module, variables: Mapping[str, Any], module: nnx.Module) -> list[Difference]:
        """The differences of the outputs for each call and seed, both modules jitted, statistics as arguments.

        A ported model also has its state after the call compared. An NNX module of another kind is in evaluation
        mode, and gets those keywords that its signature has. Raises whatever the modules raise.
        """
        module.eval()
        return [each for given in self.calls for each in self._compare_call(linen, variables, module, given)]

    def _compare_call(
        self, linen: nn.Module, variables: Mapping[str, Any], module: nnx.Module, given: Mapping[str, Any]
    ) -> list[Difference]:
        graph, state = nnx.split(module)
        mutable = sorted(set(variables) - {"params"})

        def old(variables: Any, inputs: Any, named: Any, rngs: Any) -> Any:
            out, changed = linen.apply(variables, *inputs, rngs=rngs, mutable=mutable, **named, **given)
            return out, {name: changed[name] for name in mutable if name in changed}

        def new(state: Any, inputs: Any, named: Any, rngs: Any) -> Any:
            again = nnx.merge(graph, state, copy=True)
            if not isinstance(again, Model):
                return again(*inputs, **named, **_select_keywords(again, given)), None
            out, after = again(*inputs, rngs=rngs, **named, **given), again.variables()
            return out, {name: after[name] for name in mutable}

        programs = jax.jit(self._map_axes(old)), jax.jit(self._map_axes(new))
        made = []
        for seed in range(self.seeds):
            rest = (*self.inputs.draw(seed), self._make_keys(seed))
            expected, actual = programs[0](variables, *rest), programs[1](state, *rest)
            made.append(_measure(expected[0], actual[0]))
            if actual[1] is not None:
                made.append(_measure(expected[1], actual[1]))
        return made

    def _map_axes(self, function: Callable[..., Any]) -> Callable[..., Any]:
        for name in self.axis_names:
            function = jax.vmap(function, in_axes=None, axis_size=1, axis_name=name)
        return function

    def _make_keys(self, seed: int) -> dict[str, jax.Array]:
        key = jax.random.fold_in(jax.random.key(seed), 1)
        return {name: jax.random.fold_in(key, place) for place, name in enumerate(self.streams)}


def _select_keywords(module: nnx.Module, given: Mapping[str, Any]) -> dict[str, Any]:
    taken = inspect.signature(type(module).__call__).parameters
    every = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    return {name: value for name, value in given.items() if every or name in taken}


def describe(differences: Sequence[Difference]) -> tuple[str, bool]:
    """The worst verdict in words, and whether the modules are the same up to rounding."""
    worst = max(int(each.verdict) for each in differences)
    bits, gap = sum(int(each.bits) for each in differences), max(float(each.absolute) for each in differences)
    words = f" ({bits} bits, at most {gap:.3g} apart)" if worst else " to the bit"
    return VERDICTS[worst] + words, worst < 2

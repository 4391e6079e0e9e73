"""Points of a search as plans: columns of traced values that vary together, crossed with the seeds.

Points that share all values that are not traced become one plan with one axis of points, so that they fill the lanes of
one program. No config is composed for a point, but one for each combination of options.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from omegaconf import DictConfig

from runner.config.bind import DTYPES, bind_segment, build_axis, check_segment
from runner.config.compose import Base, compose_base
from runner.config.overrides import SweptKey, Zip
from runner.config.scalars import find_scalar, list_referring
from runner.config.settings import Settings
from runner.errors import InvalidInputError
from runner.plan.segments import Axis, Plan
from runner.plan.values import convert_value, freeze
from runner.search.points import Point


@dataclass(frozen=True)
class BoundPoints:
    """Points of a batch as a plan whose runs are ordered by point.

    `members` are their numbers in the batch, `places` those of their values on the plan's axis of points, int64
    `(points,)` each: points whose values are equal as float32 share a place. `points` has one of each place.
    """

    plan: Plan
    members: np.ndarray
    places: np.ndarray
    points: tuple[Point, ...]

    def select(self, places: Sequence[int]) -> Plan:
        """The plan with the points at these places only."""
        first, *others = self.plan.axes if self.has_axis else [None, *self.plan.axes]
        if first is None:
            return self.plan
        return replace(self.plan, axes=(Axis({n: c[np.asarray(places)] for n, c in first.columns.items()}), *others))

    @property
    def has_axis(self) -> bool:
        """Whether any value of the points is traced."""
        return len(self.points) > 1 or bool(self.plan.axes and set(self.plan.axes[0].columns) - {"seed"})

    def identify(self) -> list[Any]:
        """What tells the point at each place from all others of a search."""
        segment = self.plan.segments[0]
        static = repr((segment.task.name, segment.static, segment.inputs, segment.swept))
        if not self.has_axis:
            return [(static, repr(segment.traced))]
        names = sorted(self.plan.axes[0].columns)
        rows = zip(*(np.asarray(self.plan.axes[0].columns[name]).tolist() for name in names), strict=True)
        base = {name: value for name, value in segment.traced.items() if name not in names}
        return [(static, repr(base), tuple(names), row) for row in rows]


@dataclass(frozen=True)
class Binder:
    """Binds points to plans. `keys` has those that points may set, `crossed` the axes of each point's runs.

    The values within built objects that refer to the key `pinned` keep its base value. `search` are the facts of the
    search for the plan's fingerprint.
    """

    config: DictConfig
    settings: Settings
    keys: Mapping[str, SweptKey]
    crossed: tuple[Zip, ...]
    pinned: str | None = None
    search: Mapping[str, Any] = field(default_factory=dict)
    _bases: dict[Any, Base] = field(default_factory=dict)

    def compose(self, point: Point) -> Base:
        """The composed config of a point; one for all points with the same options and the same keys."""
        options = tuple((name, value) for name, value in point.items() if self.keys[name].is_group)
        key = options, tuple(sorted(point))
        if key not in self._bases:
            chosen = tuple((self.keys[name], value) for name, value in options)
            others = tuple((self.keys[n], v) for n, v in point.items() if not self.keys[n].is_group)
            self._bases[key] = replace(compose_base(self.config, (*chosen, *others)), assignments=chosen)
        return self._bases[key]

    def bind(self, points: Sequence[Point]) -> list[BoundPoints]:
        """The plans of some points, in the order of their first ones."""
        grouped: dict[Any, list[int]] = {}
        for number, point in enumerate(points):
            base = self.compose(point)
            static = tuple((n, freeze(v)) for n, v in point.items() if not self._is_traced(n, v, base))
            grouped.setdefault((tuple(sorted(point)), repr(static)), []).append(number)
        return [self._bind_alike(points, members) for members in grouped.values()]

    def _is_traced(self, name: str, value: Any, base: Base) -> bool:
        is_group = self.keys[name].is_group
        return not is_group and value is not None and find_scalar(name, base) is not None

    def _bind_alike(self, points: Sequence[Point], members: Sequence[int]) -> BoundPoints:
        first = points[members[0]]
        base = self.compose(first)
        traced = [name for name, value in first.items() if self._is_traced(name, value, base)]
        columns = {name: self._build_column(base, name, [points[i][name] for i in members]) for name in traced}
        columns, kept, places = _merge_equal(columns, len(members))
        crossed = tuple(build_axis(base, keys) for keys in self.crossed if self._check_crossed(base, keys))
        static = tuple((self.keys[n], v) for n, v in first.items() if n not in traced and not self.keys[n].is_group)
        varying = {*traced, *(key.key for keys in self.crossed for key in keys)}
        pinned = list_referring(self.pinned, base) if self.pinned else set()
        segment = bind_segment(base, static, varying | pinned)
        axes = (*([Axis(columns)] if columns else []), *crossed)
        check_segment(segment, axes)
        plan = Plan(
            (segment,),
            axes,
            self.settings.lanes,
            self.settings.block,
            self.settings.threads,
            self.settings.cores_per_run,
            devices=self.settings.devices,
            search=self.search,
        )
        return BoundPoints(plan, np.array(members), places, tuple(points[members[i]] for i in kept))

    def _build_column(self, base: Base, name: str, values: Sequence[Any]) -> np.ndarray:
        parameter = find_scalar(name, base)
        assert parameter is not None
        return np.array([convert_value(base.task, parameter, value) for value in values], DTYPES[parameter.kind])

    def _check_crossed(self, base: Base, keys: Zip) -> bool:
        for key in keys:
            if find_scalar(key.key, base) is None:
                raise InvalidInputError(
                    f"a search needs {key.key} to be an argument of the program, and something refers to it"
                )
        return True


def _merge_equal(columns: Mapping[str, np.ndarray], count: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The columns with each row once, the first place of each row, and the place of each of `count` rows among them."""
    if not columns:
        return {}, np.zeros(1, dtype=np.int64), np.zeros(count, dtype=np.int64)
    rows = np.stack([column.astype(np.float64) for column in columns.values()])
    first, inverse = np.unique(rows, axis=1, return_index=True, return_inverse=True)[1:]
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    kept = first[order]
    return {name: column[kept] for name, column in columns.items()}, kept, rank[inverse.reshape(-1)]

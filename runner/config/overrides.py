"""Override strings in Hydra's grammar, parsed into the keys that a sweep varies and their values."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
    Transformer,
)

from runner.config.float_range import DecimalRange
from runner.config.settings import NAMES
from runner.errors import InvalidInputError
from runner.search.intervals import INTEGER, Interval, make_interval
from runner.search.samplers import Draw, DrawnValues, Sampling

OWN_KEYS = ("sweep", "hydra.callbacks.seedbed")
"""Nodes of the config through which the runner talks to itself."""

Values: TypeAlias = tuple[Any, ...] | range | DecimalRange | DrawnValues
"""The values of a swept key in their order; ranges are not expanded."""


@dataclass(frozen=True)
class SweptKey:
    """One key with its values; `prefix` is `+` or `++` where the override adds the key to the config.

    A config group (`is_group`) has the names of its options as values, and each is composed; the values of any other
    key are YAML values.
    """

    key: str
    prefix: str
    is_group: bool
    values: Values

    def select_option(self, index: int) -> str:
        """The override that selects one option of a config group."""
        options = tuple(self.values)
        return f"{self.prefix}{self.key}={options[index]}"

    @property
    def count(self) -> int:
        """How many values it has, which for a range may be more than `len` can tell."""
        if isinstance(self.values, DecimalRange):
            return self.values.count or 0
        return _count_range(self.values) if isinstance(self.values, range) else len(self.values)


Zip = tuple[SweptKey, ...]
"""Keys that vary together: a single one, or several with equally many values."""


def build_sweep_overrides(
    loader: ConfigLoader,
    overrides: Sequence[str],
    zipped: Sequence[Any],
    sampling: Sampling | None = None,
    *,
    search: Mapping[str, Any] | None = None,
    is_open: bool = False,
) -> list[str]:
    """The overrides of the one job that runs a whole sweep.

    Overrides that do not sweep are passed on. Of each swept config group the first option is selected, a swept key that
    the sweep of one task adds to the config (`+rate=0.1,0.2`) is added with its first value, and the sweep itself is
    passed as strings. If a key occurs more than once, the last override holds. `zipped` is a list of keys, or a list of
    such lists. `search` are the settings of a search; with `is_open` it searches intervals itself. Raises
    InvalidInputError for a key without values, and for keys that cannot be zipped.
    """
    last = {override.get_key_element(): override for override in _parse_overrides(loader, overrides)}
    for override in last.values():
        if override.is_sweep_override():
            _check_swept_key(override)
    lines = [str(override.input_line) for override in last.values() if not override.is_sweep_override()]
    axes = [str(override.input_line) for override in last.values() if override.is_sweep_override()]
    zips = _normalize_zips(zipped)
    swept = [key for keys in parse_sweep(loader, axes, zips, sampling, is_open=is_open) for key in keys]
    groups = [key.select_option(0) for key in swept if key.is_group]
    if not any(key.is_group and key.key == "task" for key in swept):  # other tasks may not have such a key
        groups += [_add_first(last[f"{key.prefix}{key.key}"]) for key in swept if key.prefix and not key.is_group]
    quoted_axes = ",".join(map(quote, axes))
    quoted_zips = ",".join(f"[{','.join(map(quote, names))}]" for names in zips)
    drawn = [f"sweep.sampling=[{sampling.sampler},{sampling.samples},{sampling.seed}]"] if sampling else []
    searched = [f"sweep.search={quote(json.dumps(search))}"] if search else []
    return [*lines, *groups, f"sweep.axes=[{quoted_axes}]", f"sweep.zip=[{quoted_zips}]", *drawn, *searched]


def _add_first(override: Override) -> str:
    """The override that adds a swept key to the config, with the first of its values."""
    return f"++{override.get_key_element().lstrip('+')}={next(iter(override.sweep_string_iterator()))}"


def check_key(key: str) -> None:
    """Raises InvalidInputError for a key that only the runner sets."""
    if any(key == own or key.startswith(f"{own}.") for own in OWN_KEYS):
        raise InvalidInputError(f"{key} is written by the runner itself, and cannot be set")


def _check_swept_key(override: Override) -> None:
    check_key(override.key_or_group)
    if override.key_or_group in NAMES:
        raise InvalidInputError(f"{override.key_or_group} is a setting of the whole study, and cannot be swept")


def parse_sweep(
    loader: ConfigLoader,
    axes: Sequence[str],
    zipped: Sequence[Sequence[str]] = (),
    sampling: Sampling | None = None,
    *,
    is_open: bool = False,
) -> list[Zip]:
    """The keys of a sweep in the order given, those that vary together at the place of their first.

    Intervals are drawn together by `sampling`, or with `is_open` stand as the only value of their key.
    Raises InvalidInputError for a key without values, for keys that cannot be zipped, for intervals without `sampling`,
    and for `sampling` without intervals.
    """
    overrides = _parse_overrides(loader, axes)
    intervals = [] if is_open else [override for override in overrides if override.is_interval_sweep()]
    drawn = _draw_keys(loader, intervals, sampling)
    parsed = (drawn.get(override.key_or_group) or _parse_key(loader, override) for override in overrides)
    keys = {key.key: key for key in parsed}
    partners: dict[str, tuple[str, ...]] = {}
    for names in zipped:
        _check_zip(names, keys, partners)
        partners |= dict.fromkeys(names, tuple(names))
    partners |= dict.fromkeys(drawn, tuple(drawn))
    return [tuple(keys[name] for name in names) for names in dict.fromkeys(partners.get(key, (key,)) for key in keys)]


def quote(text: str) -> str:
    """`text` as a string of Hydra's override grammar."""
    return QuotedString(text, Quote.double).with_quotes()


def _parse_overrides(loader: ConfigLoader, overrides: Sequence[str]) -> list[Override]:
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    for override in parsed:
        if isinstance(sweep := override.value(), RangeSweep):
            _check_range(override, sweep)
    return parsed


def _check_range(override: Override, sweep: RangeSweep) -> None:
    """Raises InvalidInputError for a range that does not end."""
    if not all(math.isfinite(bound) for bound in (sweep.start or 0, sweep.stop or 0, sweep.step)):
        raise InvalidInputError(f"{override.input_line}: the bounds and the step of a range must be finite")


def _draw_keys(loader: ConfigLoader, overrides: Sequence[Override], sampling: Sampling | None) -> dict[str, SweptKey]:
    if sampling is None and overrides:
        raise InvalidInputError(
            f"{overrides[0].input_line}: an interval has no discrete values; hydra.sweeper.samples=N draws some; or "
            "give a list, or range(start,stop,step)"
        )
    if sampling is None:
        return {}
    if not overrides:
        raise InvalidInputError(
            f"hydra.sweeper.samples={sampling.samples} draws nothing: no key is swept over an interval(low,high)"
        )
    draw = Draw(tuple(read_interval(loader, override) for override in overrides), sampling)
    return {
        interval.key: SweptKey(interval.key, _read_prefix(override), False, DrawnValues(draw, place))
        for place, (interval, override) in enumerate(zip(draw.intervals, overrides, strict=True))
    }


def read_interval(loader: ConfigLoader, override: Override) -> Interval:
    """The interval of an override. Raises InvalidInputError for a config group, and for bounds that are not valid."""
    key, sweep = override.key_or_group, override.value()
    assert isinstance(sweep, IntervalSweep)
    if loader.get_group_options(key):
        raise InvalidInputError(f"{override.input_line}: {key} is a config group, whose options are listed")
    low, high = sweep.start, sweep.end
    assert low is not None
    assert high is not None
    tags = {*sweep.tags, *([INTEGER] if isinstance(low, int) and isinstance(high, int) else [])}
    return make_interval(key, low, high, tags)


def _read_prefix(override: Override) -> str:
    element = override.get_key_element()
    return element[: len(element) - len(element.lstrip("+"))]


def _parse_key(loader: ConfigLoader, override: Override) -> SweptKey:
    if override.is_interval_sweep():
        interval = read_interval(loader, override)
        return SweptKey(interval.key, _read_prefix(override), False, (interval,))
    options = loader.get_group_options(override.key_or_group)
    values = _list_options(override, len(options)) if options else _list_values(override)
    prefix = _read_prefix(override)
    key = SweptKey(override.get_key_element().removeprefix(prefix), prefix, bool(options), values)
    if not key.count:
        raise InvalidInputError(f"{override.input_line}: the sweep of {override.key_or_group!r} is empty")
    return key


def _list_options(override: Override, available: int) -> tuple[str, ...]:
    """The options of a config group that a sweep selects, of the `available` ones."""
    if isinstance(sweep := override.value(), RangeSweep):
        count = SweptKey(override.key_or_group, "", True, _read_range(override, sweep)).count
        if count > available:
            group = f"the config group {override.key_or_group!r} has {available}"
            raise InvalidInputError(f"{override.input_line}: the range has {count:,} values, but {group} options")
    return tuple(override.sweep_iterator(Transformer.str))


def _list_values(override: Override) -> Values:
    """The values of a sweep; a range stays a range, whatever its length.

    `shuffle` is ignored: it only changes the order in which Hydra starts its jobs, and a new order at each call would
    move the rows of the table.
    """
    sweep: Any = override.value()
    if isinstance(sweep, RangeSweep):
        return _read_range(override, sweep)
    values = sweep.list if isinstance(sweep, ChoiceSweep) else override.sweep_iterator()
    return tuple(Override._convert_value(value) for value in values)


def _read_range(override: Override, sweep: RangeSweep) -> range | DecimalRange:
    """Raises InvalidInputError for a range that has no end."""
    if sweep.step == 0:
        raise InvalidInputError(f"{override.input_line}: the step of a range cannot be 0")
    values = sweep.range()
    if isinstance(values, range):
        return values
    decimals = DecimalRange(*map(Decimal, (sweep.start, sweep.stop, sweep.step)))
    if decimals.count is None:
        raise InvalidInputError(f"{override.input_line}: the range has no end, because its step is lost in rounding")
    return decimals


def _count_range(values: range) -> int:
    return max(0, -((values.start - values.stop) // values.step))


def _normalize_zips(zipped: Sequence[Any]) -> list[list[str]]:
    groups = [zipped] if zipped and all(isinstance(key, str) for key in zipped) else list(zipped)
    for keys in groups:
        if isinstance(keys, str) or not isinstance(keys, Sequence) or not all(isinstance(key, str) for key in keys):
            raise InvalidInputError(f"zip takes a list of keys, or a list of such lists, got {list(zipped)}")
    return [list(keys) for keys in groups]


def _check_zip(names: Sequence[str], keys: dict[str, SweptKey], taken: dict[str, tuple[str, ...]]) -> None:
    if len(names) < 2:
        raise InvalidInputError(f"zip takes two keys or more, got {list(names)}")
    for name in names:
        if name not in keys:
            raise InvalidInputError(f"zip names {name!r}, which is not swept; swept are: {', '.join(keys) or 'none'}")
        if isinstance(keys[name].values, DrawnValues):
            raise InvalidInputError(
                f"zip names {name!r}, whose values are drawn together with those of other intervals"
            )
        if name in taken:
            raise InvalidInputError(f"zip names {name!r} twice: in {list(taken[name])} and in {list(names)}")
    if len({keys[name].count for name in names}) > 1:
        lengths = ", ".join(f"{name} has {keys[name].count}" for name in names)
        raise InvalidInputError(f"zipped keys need equally many values: {lengths}")

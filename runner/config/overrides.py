"""A sweep: override strings in Hydra's grammar, parsed into the keys that vary and their values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString, RangeSweep, Transformer

from runner.errors import InvalidInputError


@dataclass(frozen=True)
class Swept:
    """One key with its values; `prefix` is `+` or `++` where the override adds the key to the config.

    A config group has its options as strings, and is composed; any other key is a value.
    """

    key: str
    prefix: str
    group: bool
    values: Sequence[Any]

    def choice(self, index: int) -> str:
        """The override that takes one option of a config group."""
        return f"{self.prefix}{self.key}={self.values[index]}"


Bundle = tuple[Swept, ...]
"""Keys that go together: one alone, or several of one length that are zipped."""


def job(loader: ConfigLoader, overrides: Sequence[str], zipped: Sequence[Any]) -> list[str]:
    """The overrides of the one job that runs a whole sweep.

    What does not sweep holds as it is; of each swept config group the first option is composed; and the
    sweep itself goes along as strings. Of one key the later override counts. `zipped` is a list of keys,
    or a list of such lists.
    """
    last = {override.get_key_element(): override for override in _parse(loader, overrides)}
    lines = [str(override.input_line) for override in last.values() if not override.is_sweep_override()]
    axes = [str(override.input_line) for override in last.values() if override.is_sweep_override()]
    zips = _zips(zipped)
    groups = [key.choice(0) for bundle in bundles(loader, axes, zips) for key in bundle if key.group]
    texts = ",".join(map(quoted, axes))
    keys = ",".join(f"[{','.join(map(quoted, names))}]" for names in zips)
    return [*lines, *groups, f"sweep.axes=[{texts}]", f"sweep.zip=[{keys}]"]


def _zips(zipped: Sequence[Any]) -> list[list[str]]:
    groups = [zipped] if zipped and all(isinstance(key, str) for key in zipped) else list(zipped)
    for keys in groups:
        if isinstance(keys, str) or not isinstance(keys, Sequence) or not all(isinstance(key, str) for key in keys):
            raise InvalidInputError(f"zip takes a list of keys, or a list of such lists, got {list(zipped)}")
    return [list(keys) for keys in groups]


def with_first_task(arguments: Sequence[str]) -> list[str]:
    """The command line with the first of several tasks named alone before their sweep.

    Hydra composes a sweep once without what is swept: with the default task, whose config would refuse a
    parameter that only the swept tasks have.
    """
    extended = []
    for argument in arguments:
        if argument.startswith("task=") and "," in argument:
            (override,) = OverridesParser.create().parse_overrides([argument])
            if isinstance(choices := override.value(), ChoiceSweep):
                extended.append(f"task={choices.list[0]}")
        extended.append(argument)
    return extended


def bundles(loader: ConfigLoader, axes: Sequence[str], zipped: Sequence[Sequence[str]] = ()) -> list[Bundle]:
    """The keys of a sweep in the order given, zipped ones in the place of their first.

    Raises InvalidInputError for a key without values, and for keys that cannot be zipped.
    """
    swept = {axis.key: axis for axis in (_swept(loader, override) for override in _parse(loader, axes))}
    partners: dict[str, tuple[str, ...]] = {}
    for keys in zipped:
        _check_zip(keys, swept, partners)
        partners |= dict.fromkeys(keys, tuple(keys))
    return [tuple(swept[key] for key in keys) for keys in dict.fromkeys(partners.get(key, (key,)) for key in swept)]


def quoted(text: str) -> str:
    """`text` as a string of Hydra's override grammar."""
    return QuotedString(text, Quote.double).with_quotes()


def _parse(loader: ConfigLoader, overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))


def _swept(loader: ConfigLoader, override: Override) -> Swept:
    if not override.is_discrete_sweep():
        raise InvalidInputError(
            f"{override.input_line}: an interval has no values; give a list, or range(start,stop,step)"
        )
    group = bool(loader.get_group_options(override.key_or_group))
    values = list(override.sweep_iterator(Transformer.str)) if group else _values(override)
    if not values:
        raise InvalidInputError(f"{override.input_line}: the sweep of {override.key_or_group!r} is empty")
    element = override.get_key_element()
    key = element.lstrip("+")
    return Swept(key, element[: len(element) - len(key)], group, values)


def _values(override: Override) -> Sequence[Any]:
    """A range of integers stays a range, however long.

    A shuffle is left out: it only changes the order in which Hydra starts its jobs, and drawn anew at each
    call it would move the rows of the table.
    """
    sweep: Any = override.value()
    values = sweep.list if isinstance(sweep, ChoiceSweep) else None
    if isinstance(sweep, RangeSweep):
        if sweep.step == 0:
            raise InvalidInputError(f"{override.input_line}: the step of a range cannot be 0")
        values = sweep.range()
    if isinstance(values, range):
        return values
    return [Override._convert_value(value) for value in (override.sweep_iterator() if values is None else values)]


def _check_zip(keys: Sequence[str], swept: dict[str, Swept], taken: dict[str, tuple[str, ...]]) -> None:
    if len(keys) < 2:
        raise InvalidInputError(f"zip takes two keys or more, got {list(keys)}")
    for key in keys:
        if key not in swept:
            raise InvalidInputError(f"zip names {key!r}, which is not swept; swept are: {', '.join(swept) or 'none'}")
        if key in taken:
            raise InvalidInputError(f"zip names {key!r} twice: in {list(taken[key])} and in {list(keys)}")
    if len({len(swept[key].values) for key in keys}) > 1:
        lengths = ", ".join(f"{key} has {len(swept[key].values)}" for key in keys)
        raise InvalidInputError(f"zipped keys need as many values as one another: {lengths}")

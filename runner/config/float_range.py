"""Ranges of floats in Hydra's grammar: counted before they are expanded, and with Hydra's own values."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cached_property

from hydra.core.override_parser.types import FloatRange

HYDRA = Context(prec=28)
"""The precision of the sums by which Hydra finds the values: Python's default, from floats of up to 767 digits."""
EXACT = Context(prec=1200)


@dataclass(frozen=True)
class DecimalRange:
    """The floats `start`, `start + step`, … before `stop`; all are finite, and the step is not 0.

    Iterating takes a microsecond for each value; counting takes none.
    """

    start: Decimal
    stop: Decimal
    step: Decimal

    def __iter__(self) -> Iterator[float]:
        return iter(FloatRange(self.start, self.stop, self.step))

    @cached_property
    def count(self) -> int | None:
        """How many values it has, None if there is no end because a sum does not change any more.

        Sums are rounded, and their last one decides. Between two powers of ten all have the same last digit, so that
        from the second on all differences are equal (a tie goes to the even digit, which is the same from then on).
        """
        count, value = 0, self.start
        while self._is_inside(value):
            following = HYDRA.add(value, self.step)
            difference = EXACT.subtract(following, value)
            if not difference:
                return None
            skipped = self._count_equal_steps(value, following, difference)
            value = EXACT.add(value, EXACT.multiply(difference, Decimal(skipped))) if skipped else following
            count += skipped or 1
        return count

    def _is_inside(self, value: Decimal) -> bool:
        return value < self.stop if self.step > 0 else value > self.stop

    def _count_equal_steps(self, value: Decimal, following: Decimal, difference: Decimal) -> int:
        """How many steps from `value` on are sure to be equal and to stay inside of the range, 0 if none is."""
        after = HYDRA.add(following, self.step)
        if after.adjusted() != value.adjusted() or EXACT.subtract(after, following) != difference:
            return 0
        sign = -1 if value < 0 else 1
        is_growing = (difference > 0) == (sign > 0)
        bound = Decimal((0, (1,), value.adjusted() + (1 if is_growing else 0))) * sign
        end = min(bound, self.stop) if self.step > 0 else max(bound, self.stop)
        return max(0, int(EXACT.divide(EXACT.subtract(end, value), difference)) - 2)

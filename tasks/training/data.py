"""Data sets in memory: parts with examples and labels."""

from typing import Any, NamedTuple


class Part(NamedTuple):
    """One split: `x` (examples, …) float32 or int32; `y` (examples,) int32 or (examples, outputs) float32."""

    x: Any
    y: Any


class Splits(NamedTuple):
    """The parts of a data set; `classes` (k,) float32 are the original labels, (0,) for regression."""

    train: Part
    validation: Part
    test: Part
    classes: Any

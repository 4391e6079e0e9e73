"""The outcome of a run, as the column `status` of the table has it."""

from enum import StrEnum


class Status(StrEnum):
    """What became of a run."""

    OK = "ok"
    """All of its results are finite."""
    NONFINITE = "nonfinite"
    """A result has a NaN or an infinity."""
    FAILED = "failed"
    """It has no result; the column `reason` says why."""

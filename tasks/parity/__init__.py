"""The task `parity`: whether an NNX module computes what a Linen module does, to the bit."""

from tasks.parity.task import parity

__all__ = ["parity"]

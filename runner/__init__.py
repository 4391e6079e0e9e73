"""Seedbed: declarative JAX and Flax experiments, all runs of one shape in one compiled program."""

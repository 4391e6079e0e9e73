"""Devices, cores, and inputs on a device."""

import os

import jax

from runner.plan.inputs import Input, build_array


def put_input(description: Input) -> jax.Array:
    """The input on the default device, of its shape and dtype."""
    return jax.device_put(build_array(description))


def describe_devices() -> list[str]:
    """The kinds of devices that programs run on: `cpu`, or the name of an accelerator."""
    return [jax.local_devices()[0].device_kind]


def use_cpu_only() -> None:
    """Keeps this process away from accelerators; has no effect once one was used."""
    jax.config.update("jax_platforms", "cpu")


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

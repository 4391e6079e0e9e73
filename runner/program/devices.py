"""Devices, cores, and inputs on a device."""

import os
from typing import Any

import jax

from runner.plan.inputs import Input, build_array


def put_input(description: Input) -> jax.Array:
    """The input on the default device, of its shape and dtype."""
    return jax.device_put(build_array(description))


def describe_devices() -> list[str]:
    """The kinds of devices that programs run on: `cpu`, or the name of an accelerator."""
    return [jax.local_devices()[0].device_kind]


DEFAULTS = {
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_enable_x64": False,
    "jax_default_matmul_precision": None,
}
"""Settings of JAX that decide on generators, dtypes and precision, with the values that they have unless set."""
OTHER_FLAGS = (
    "--xla_force_host_platform_device_count",
    "--xla_dump",
    "--xla_hlo_profile",
    "--xla_cpu_parallel_codegen",
)
"""Flags of XLA that have no influence on numbers; of any other one it is not known."""


def list_settings() -> dict[str, Any]:
    """The settings of JAX and the flags of XLA on which numbers depend, as far as they are not the usual ones."""
    values = {name: getattr(jax.config, name) for name in DEFAULTS}
    settings = {name: value for name, value in values.items() if value != DEFAULTS[name]}
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(OTHER_FLAGS)]
    return settings | ({"XLA_FLAGS": " ".join(sorted(flags))} if flags else {})


def use_cpu_only() -> None:
    """Keeps this process away from accelerators; has no effect once one was used."""
    jax.config.update("jax_platforms", "cpu")


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

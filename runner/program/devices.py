"""Devices, cores, and inputs on a device."""

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import jax

from runner.plan.inputs import Input, build_array

CONTAINER_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
"""The limit of a container's memory, in the second and the first version of control groups."""

POOL_THREAD = "tf_XLAEigen"
"""What jaxlib 0.10 to 0.12 call the threads among which a run is divided, as Linux shows it."""


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


@cache
def count_memory() -> int | None:
    """The bytes that programs may take on a CPU; None on an accelerator, whose own allocator refuses what is too much.

    They are those of the machine with its swap space, or the limit of a container. What other processes take at the
    moment does not count, so that the answer is always the same.
    """
    if jax.local_devices()[0].platform != "cpu":
        return None
    limits = [_read_number(Path("/sys/fs/cgroup") / name) for name in CONTAINER_LIMITS]
    return min(limit for limit in (_count_machine_memory(), *limits) if limit is not None)


def _count_machine_memory() -> int:
    about = Path("/proc/meminfo")
    if not about.exists():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    sizes = re.findall(r"^(?:MemTotal|SwapTotal): *(\d+) kB", about.read_text(), re.MULTILINE)
    return sum(int(size) * 1024 for size in sizes)


def _read_number(path: Path) -> int | None:
    """The number in a file, None if there is no such file or no limit in it."""
    text = path.read_text().strip() if path.exists() else ""
    return int(text) if text.isdigit() else None


def dispatch_in_caller() -> None:
    """Lets each of the runner's threads execute its program itself; has no effect once a CPU was used.

    XLA's pool would execute it otherwise, and a pool of one thread one program at a time.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)


@cache
def list_compiler_options() -> dict[str, str | bool]:
    """Options of XLA's compiler. With a pool of one thread, no part of a run is handed to it, where all would wait."""
    is_cpu = jax.local_devices()[0].platform == "cpu"
    return {"xla_cpu_multi_thread_eigen": False} if is_cpu and count_pool() == 1 else {}


def count_pool() -> int | None:
    """The threads of XLA's pool for CPUs in this process, by their names; None where the system lists none of them."""
    jax.local_devices()
    names = [_read_text(thread / "comm").strip() for thread in Path("/proc/self/task").glob("[0-9]*")]
    return names.count(POOL_THREAD) or None


def _read_text(path: Path) -> str:
    """The content of a file of a thread, empty if the thread has just ended."""
    try:
        return path.read_text()
    except OSError:
        return ""


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

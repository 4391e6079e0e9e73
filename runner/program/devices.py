"""Devices, cores, and inputs on a device.

A device is named by its number among the local devices of the default platform; None is the default device. On a CPU,
further numbers are the same CPU in a client of XLA of its own. A client has one pool of threads, into which all of its
programs move sooner or later, however many threads call them: with one thread in it, they would wait for one another.
"""

import os
import re
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import jax
from jaxlib import xla_client

from runner.errors import InvalidInputError
from runner.plan.datasets import Dataset, build_dataset
from runner.plan.inputs import Input, build_array

CONTAINER_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
"""The limit of a container's memory, in the second and the first version of control groups."""

POOL_THREAD = "tf_XLAEigen"
"""What jaxlib 0.10 to 0.12 call the threads among which a run is divided, as Linux shows it."""


ASSUMED_MEMORY = 8 * 1024**3
"""The bytes of an accelerator that does not say how many it has."""
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
"""No autotuning, and only operations that give the same bits each time; a program that has none of them fails."""


def put_input(description: Input | Dataset, device: int | None = None) -> Any:
    """The input on a device: an array of its shape and dtype, or the tree of arrays of a dataset."""
    place = None if device is None else find_device(device)
    if isinstance(description, Input):
        return jax.device_put(build_array(description), place)
    return jax.device_put(build_dataset(description.owner, description.text), place)


def select_devices(wanted: int | tuple[int, ...] | None = None) -> tuple[int, ...]:
    """The numbers of the first `wanted` local devices, or of those given; None selects all of the first one's kind.

    Raises InvalidInputError for devices that are not there, or are of another kind than the first.
    """
    there = jax.local_devices()
    kind = there[0].device_kind
    equal = tuple(number for number, device in enumerate(there) if device.device_kind == kind)
    if wanted is None:
        return equal
    if isinstance(wanted, int):
        if wanted > len(equal):
            raise InvalidInputError(f"devices={wanted}: this process has {len(equal)} of the kind {kind!r}")
        return equal[:wanted]
    if missing := [number for number in wanted if number not in equal]:
        numbers = ", ".join(map(str, equal))
        raise InvalidInputError(f"devices: there is no device {missing[0]} of the kind {kind!r}; there are: {numbers}")
    return wanted


def describe_devices() -> list[str]:
    """The kinds of devices that programs run on: `cpu`, or the name of an accelerator."""
    return [jax.local_devices()[0].device_kind]


def use_device(number: int | None) -> AbstractContextManager[Any]:
    """A context in which this thread's computations are compiled for a device, and run on it."""
    return nullcontext() if number is None else jax.default_device(find_device(number))


def list_places(devices: tuple[int, ...], threads: int) -> tuple[int, ...]:
    """The devices among which so many threads are divided: on a single CPU, one of its clients for each thread."""
    is_single = not is_accelerated() and len(jax.local_devices()) == 1
    return tuple(range(threads)) if is_single else devices


def find_device(number: int) -> Any:
    """The device of a number."""
    there = jax.local_devices()
    return there[number] if number < len(there) else _make_client(number).local_devices()[0]


@cache
def _make_client(number: int) -> Any:
    """A client of XLA for the CPU, as JAX makes its own: its programs are executed by the threads that call them."""
    count_pool()  # as long as the threads are those of one client
    return xla_client.make_cpu_client(asynchronous=False)


def is_accelerated() -> bool:
    """Whether programs run on something else than a CPU."""
    return jax.local_devices()[0].platform != "cpu"


def shares_binaries() -> bool:
    """Whether the devices must share one binary, because two compilations of a program may give other bits.

    They do on GPUs, where XLA selects kernels by measuring them (openxla/xla#37902).
    """
    return jax.local_devices()[0].platform in ("gpu", "cuda", "rocm")


@cache
def count_device_memory() -> int | None:
    """The bytes of an accelerator that XLA's allocator manages, rounded down to a power of two; None on a CPU.

    They are a share of the whole memory, not of what is free. Rounded, they are the same for all devices of a kind.
    """
    if not is_accelerated():
        return None
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit") or ASSUMED_MEMORY
    return int(1 << (int(limit).bit_length() - 1))


def require_determinism() -> None:
    """Adds XLA's flag for deterministic programs to the environment; has no effect once a device was used."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    if DETERMINISTIC not in flags:
        os.environ["XLA_FLAGS"] = " ".join([*flags, DETERMINISTIC])


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
ALLOCATOR_VARIABLES = ("XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_ALLOCATOR")
"""Variables that decide on the memory of an accelerator, by which lanes are chosen."""


def list_settings() -> dict[str, Any]:
    """The settings of JAX and the flags of XLA on which numbers depend, as far as they are not the usual ones."""
    values = {name: getattr(jax.config, name) for name in DEFAULTS}
    settings = {name: value for name, value in values.items() if value != DEFAULTS[name]}
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(OTHER_FLAGS)]
    memory = {name: os.environ[name] for name in ALLOCATOR_VARIABLES if name in os.environ and is_accelerated()}
    return settings | ({"XLA_FLAGS": " ".join(sorted(flags))} if flags else {}) | memory


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
    return {"xla_cpu_multi_thread_eigen": False} if not is_accelerated() and count_pool() == 1 else {}


@cache
def count_pool() -> int | None:
    """The threads of XLA's pool for CPUs, by their names; None where the system lists none of them.

    They are counted before there is another client, whose pool has as many.
    """
    jax.local_devices()
    names = [_read_text(thread / "comm").strip() for thread in Path("/proc/self/task").glob("[0-9]*")]
    return names.count(POOL_THREAD) or None


def _read_text(path: Path) -> str:
    """The content of a file of a thread, empty if the thread has just ended."""
    try:
        return path.read_text()
    except OSError:
        return ""


def count_cpu_devices() -> int:
    """The CPU devices of this process: one, or as many as it pretends to have, each with a thread in the pool."""
    return len(jax.local_devices(backend="cpu"))


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

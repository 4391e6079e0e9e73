"""Compiled programs; the only package that imports JAX.

One program serves every run of its signature, alone or among millions:

    program(n, scalars[C]…, inputs…) -> outputs[C, …]
        fori_loop(0, ceil(n / W)):  the task on W lanes

The capacity C and the lanes W are fixed, the number of runs n is an argument. So a run has the same bits whatever its
neighbours are, and a signature is compiled once.
"""

from runner.errors import describe_error
from runner.program.cache import enable_cache, find_cached
from runner.program.cost import BLOCKS_ON_DEVICE
from runner.program.devices import (
    count_cores,
    count_cpu_devices,
    count_memory,
    count_pool,
    describe_devices,
    dispatch_in_caller,
    is_accelerated,
    list_places,
    list_settings,
    put_input,
    require_determinism,
    select_devices,
    use_cpu_only,
)
from runner.program.executable import (
    CompilationError,
    Keeper,
    OutOfMemoryError,
    Program,
    StoppedError,
    compile_program,
    copy_program,
    halve_program,
    run_program,
)
from runner.program.heap import freeze_heap
from runner.program.states import StateKeeper
from runner.program.trace import TracedTask, is_large, trace_segment
from runner.program.variables import VariablesTask, return_variables

__all__ = [
    "BLOCKS_ON_DEVICE",
    "CompilationError",
    "Keeper",
    "OutOfMemoryError",
    "Program",
    "StateKeeper",
    "StoppedError",
    "TracedTask",
    "VariablesTask",
    "compile_program",
    "copy_program",
    "count_cores",
    "count_cpu_devices",
    "count_memory",
    "count_pool",
    "describe_devices",
    "describe_error",
    "dispatch_in_caller",
    "enable_cache",
    "find_cached",
    "freeze_heap",
    "halve_program",
    "is_accelerated",
    "is_large",
    "list_places",
    "list_settings",
    "put_input",
    "require_determinism",
    "return_variables",
    "run_program",
    "select_devices",
    "trace_segment",
    "use_cpu_only",
]

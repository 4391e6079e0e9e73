"""Garbage collection while programs are traced and compiled."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def freeze_heap() -> Iterator[None]:
    """Leaves all objects that exist now out of the garbage collections within the context.

    Tracing and lowering allocate so many objects that full collections follow each other, and each of them would visit
    the modules of JAX and Flax. What the context allocates is collected as ever.
    """
    if gc.get_freeze_count():  # the caller's own, or an outer context
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()

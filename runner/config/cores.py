"""The cores that one run uses: threads of XLA's pool, which is made when JAX starts, and of the BLAS that SciPy loads.

A reduction that is divided among threads has other bits for another number of them. A pool of several threads can also
hang with jaxlib 0.10: all of its workers sleep while an execution waits for them.
"""

import os

POOL = "NPROC"
"""XLA reads it when its client for CPUs is made, at the first use of a device."""
VARIABLES = (POOL, "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""The others are read when SciPy's BLAS is loaded, which decomposes matrices for jaxlib."""


def reserve_cores(cores: int) -> str | None:
    """Lets a run use so many cores if JAX has not started yet, here and in processes that this one starts.

    Returns a line if the environment had another size of XLA's pool.
    """
    given = os.environ.get(POOL)
    os.environ.update(dict.fromkeys(VARIABLES, str(cores)))
    if given in (None, str(cores)):
        return None
    return f"{POOL}={given} has no effect: cores_per_run={cores} decides how many threads XLA's pool has"

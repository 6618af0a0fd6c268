"""Memory that a network has used once is kept for its next batch.

The C library gives large blocks back to the system as soon as they are free, and a network asks for the same ones again
with every batch: the system then clears tens of thousands of pages anew each time, which took up to half of all time
(benchmarks/training.py).
"""

import ctypes
from functools import cache

TRIM, LARGE = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h: free memory at the heap's end beyond which it is given back (-1:
never), and the size from which a block is the system's own."""


@cache
def keep_memory() -> bool:
    """Let this process keep what it frees, up to its end; whether its C library can (glibc). Changes no results.

    The process then holds what its largest batch needed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc; Windows has no library without a name
        return False
    return bool(mallopt(LARGE, 1 << 30)) and bool(mallopt(TRIM, -1))

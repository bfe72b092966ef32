"""Memory that one batch frees and the next takes again, kept by the process in between."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_KEPT = 1 << 30  # bytes at the end of the heap
_IN_HEAP = 1 << 28  # bytes of the largest piece taken from the heap
_IN_HEAP_OLD = 1 << 25  # the same for glibc before 2.35, which refuses more


@cache
def keep_freed() -> None:
    """Let the process keep up to 1 GiB of freed memory, and serve pieces up to 256 MiB from it.

    A network's maps are as large in every batch. By default glibc hands them back to the system after each,
    which then clears and maps every page anew: measured, 20,000 to 30,000 page faults a step of `tiny` with
    64 crops of 128×64, a tenth of its CPU time. For the whole process and for good; nothing is done where the
    C library is another, or where the user has set its malloc in the environment.
    """
    if sys.platform != "linux" or {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & os.environ.keys():
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
        if not mallopt(_M_MMAP_THRESHOLD, _IN_HEAP):
            mallopt(_M_MMAP_THRESHOLD, _IN_HEAP_OLD)

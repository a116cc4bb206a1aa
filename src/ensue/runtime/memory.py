"""Keep freed memory for the next step instead of returning it to the system."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Set the C library's allocator to keep the memory of freed tensors.

    Each training step frees and allocates the same tens of megabytes. By default glibc unmaps them and then has a page
    fault for every 4 KiB (on sparse data with 23,715 items, up to a third of an epoch's time, and its most variable
    part). The setting only affects this process. Without glibc nothing is done.

    Returns:
        Whether the allocator was set.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        done = libc.mallopt(M_TRIM_THRESHOLD, 1 << 30) and libc.mallopt(M_MMAP_THRESHOLD, 1 << 25)
    except (OSError, AttributeError):
        return False
    return bool(done)

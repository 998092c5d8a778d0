"""Memory that is used again and again: uploads take and free mebibytes, which the allocator would give back each time.

The system gives new pages zeroed, one fault each; on a virtual machine that costs more than hashing the bytes that
come to lie in them (docs/performance.md).
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # mallopt(3)
_KEPT_BYTES = 64 << 20
_LARGE_BYTES = 8 << 20
_ARENAS = 2


def keep_memory() -> None:
    """Have glibc keep what is freed, up to 64 MiB, and share it between threads; other C libraries go on as they do."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_ARENA_MAX, _ARENAS)

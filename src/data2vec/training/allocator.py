"""Keep freed memory in the process, so that a step does not pay for fresh pages.

glibc returns blocks of more than 32 MB to the system as soon as they are freed, and most tensors of a step are larger:
every one of them is then zeroed page by page again, a sixth of a CPU step's time. Kept, a step costs no page fault
after the first, for about a sixth more resident memory.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # malloc.h


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep what is freed, for the rest of the process; False where there is no glibc."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 << 20))
    return all(mallopt(name, value) == 1 for name, value in settings)

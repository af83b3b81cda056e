"""How this process asks for memory: freed blocks are kept and used again, not given back and asked for anew."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed; return whether it listened (elsewhere nothing is done).

    A step allocates and frees the same large blocks over and over. By default each goes back to the kernel, and its pages
    are made and cleared again at the next step: a third of a step's time or more (docs/decisions/0011).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))

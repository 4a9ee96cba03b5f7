"""Memory that is free goes back to the system, whatever strangers have sent."""

import ctypes
import sys

# <malloc.h> of glibc: blocks of so many bytes and more are mapped each for itself.
M_MMAP_THRESHOLD = -3
LARGE = 256 * 1024


def return_large_blocks() -> None:
    """Let each large block go back to the system when it is freed.

    glibc learns to keep blocks as large as those that were freed, up to 32 MiB (`man mallopt`): a few bodies of 19 MB
    then leave holes of hundreds of MB between smaller blocks. Whoever sets the bound turns that off. Other C libraries
    have no such call.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_THRESHOLD, LARGE)

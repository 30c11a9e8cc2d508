"""Where the C library puts the read buffers of TLS connections.

uvloop reserves 256 KiB for each TLS connection, of which an idle one touches a page. glibc places them outside of the
heap, where untouched pages cost nothing, only until the first of them is freed; from then on a connection takes 46 KB
instead of 24. It knows that one setting: never connections. What always holds: processes without TLS keep the
library's own rules.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Final

_TRIM: Final = -1  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD: of glibc's malloc.h
_MAP: Final = -3
_BUFFER: Final = 256 << 10  # bytes; as many as uvloop reserves
_KEPT: Final = 2 << 20  # bytes free at the end of the heap that are not given back


@functools.cache
def place_buffers() -> None:
    """Place them outside of the heap from now on. Does nothing where the C library is not glibc."""
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_MAP, _BUFFER)
        library.mallopt(_TRIM, _KEPT)

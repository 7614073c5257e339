"""Which errors mean that memory ran out; torch need not be imported to tell."""

from __future__ import annotations

import errno

# Words of allocators that have no error class of their own: torch on a CPU, CUDA's libraries, mmap.
PHRASES = (
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "cuda error: out of memory",
    "alloc_failed",
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether `error`, or what it was raised from, is a failed allocation."""
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        text = str(error).lower()
        if any(phrase in text for phrase in PHRASES):
            return True
        error = error.__cause__
    return False

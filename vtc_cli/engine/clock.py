"""Time and memory as the device really spends them."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from types import TracebackType

import torch

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # documented in proc(5): resets the peak resident set size


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what was asked; nothing to do on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class Stopwatch:
    """Milliseconds between marks, with the device synchronised at each one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last = self._now()
        self._first = self._last

    def lap_ms(self) -> float:
        """Milliseconds since the last lap."""
        now = self._now()
        elapsed, self._last = now - self._last, now
        return elapsed * 1000

    def total_ms(self) -> float:
        """Milliseconds since the start."""
        return (self._now() - self._first) * 1000

    def _now(self) -> float:
        synchronize(self._device)
        return time.perf_counter()


class PeakMemory:
    """Largest memory in use inside the context.

    On CUDA the allocator's peak; elsewhere the growth of the resident set over its size at entry,
    read from the kernel's own high-water mark. `peak_bytes` is None where neither can be read.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.kind = "cuda" if device.type == "cuda" else "rss"
        self.peak_bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        if self.kind == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            _return_freed_memory()
            self._start = _status_bytes("VmRSS")
            self._reset = _reset_peak()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.kind == "cuda":
            self.peak_bytes = int(torch.cuda.max_memory_allocated(self._device))
        elif self._reset and self._start is not None:
            peak = _status_bytes("VmHWM")
            self.peak_bytes = None if peak is None else max(peak - self._start, 0)


def _return_freed_memory() -> None:
    """Give freed heap back to the system, or the next pass would grow into it unseen."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _reset_peak() -> bool:
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def _status_bytes(field: str) -> int | None:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(sizes[0]) * 1024 if sizes else None

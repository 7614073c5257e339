"""Threads of the arithmetic, and the largest rounding error that a run saw.

Each process computes with one thread: the models are small, and workers share the cores.
`VTC_TEST_THREADS` asks for another number; `make portable` runs the suite with 1 and 2.
"""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

from tests.tolerance import LARGEST

torch.set_num_threads(int(os.environ.get("VTC_TEST_THREADS", "1")))


def pytest_report_header() -> str:
    level = torch.backends.cpu.get_cpu_capability()
    return f"arithmetic: {level}, {torch.get_num_threads()} threads"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Workers of xdist end with this process's report: only runs in one process show it."""
    if LARGEST.test:
        terminalreporter.write_line(
            f"largest error: {LARGEST.share:.2f} of the allowed, {LARGEST.test}"
        )

"""Threads of the arithmetic, shared models, and the largest rounding error that a run saw.

Each process computes with one thread: the models are small, and workers share the cores.
`VTC_TEST_THREADS` asks for another number; `make portable` runs the suite with 1 and 2.

Commands that a test calls in this process share their models: no command changes one, and some
hundred tests would load the same weights again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

from tests.tolerance import LARGEST
from vtc_cli.engine.session import Session

torch.set_num_threads(int(os.environ.get("VTC_TEST_THREADS", "1")))


@pytest.fixture(autouse=True, scope="session")
def shared_models() -> Iterator[None]:
    """Shipped and narrow models are loaded once a process for all commands."""
    from vtc_cli.commands import loading
    from vtc_cli.models.support.load import NARROW, SHIPPED

    plain = loading._load
    shared = cache(plain)

    def load(model: str, device: str, dtype: str, attn: str) -> Session:
        fixed = model in SHIPPED or model.startswith(NARROW)
        return (shared if fixed else plain)(model, device, dtype, attn)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "_load", load)
        yield


def pytest_report_header() -> str:
    level = torch.backends.cpu.get_cpu_capability()
    return f"arithmetic: {level}, {torch.get_num_threads()} threads"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Workers of xdist end with this process's report: only runs in one process show it."""
    if LARGEST.test:
        terminalreporter.write_line(
            f"largest error: {LARGEST.share:.2f} of the allowed, {LARGEST.test}"
        )

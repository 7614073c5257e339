"""What a pass leaves between prefill and decode, so that several answers can be made together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vtc_cli.core.trace import Timings, Trace
from vtc_cli.engine.clock import Stopwatch
from vtc_cli.engine.evict import Evictor

if TYPE_CHECKING:
    from vtc_cli.engine.session import Request


@dataclass(eq=False)
class PromptRead:
    """A prompt that was read; its answer is still to be made.

    Attributes:
        request: what was asked.
        trace: what happened so far.
        first: (V,) logits of the first answer token.
        next_position: (..., 1, 1) position id of that token.
        cache: keys and values behind the cache policies.
        evictor: those policies.
        timing: the times so far, also in `trace`.
        watch: runs since the encoder began.
        random_state: of the device's generator, from which sampling goes on.
    """

    request: Request
    trace: Trace
    first: Tensor
    next_position: Tensor
    cache: Any
    evictor: Evictor
    timing: Timings
    watch: Stopwatch
    random_state: Tensor | None = None


def random_state(device: torch.device) -> Tensor:
    """State of the device's own generator."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else torch.get_rng_state()

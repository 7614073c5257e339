"""What a pass is asked, and what it leaves before its answer is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vtc_cli.core.observe import Observer
from vtc_cli.core.plan import Plan
from vtc_cli.core.tokens import TokenTable
from vtc_cli.core.trace import Timings, Trace
from vtc_cli.engine.clock import Stopwatch
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.evict import Evictor
from vtc_cli.models.support.prompt import Prompt

OnToken = Callable[[list[int]], None]


@dataclass(frozen=True, eq=False)
class Request:
    """One question under one plan.

    Attributes:
        prompt: model inputs.
        plan: the stages.
        generation: how the answer is made.
        capture: keep the visual features at the decoder's door in the trace.
        observer: is shown every decoder layer during the prefill.
        tokens: visual tokens that enter the decoder in place of the tower's, for instance from a
            file; the encoder stages of `plan` are then taken as done.
        on_token: called with all ids so far after each token.
        turns: further questions, each answered on the cache that the turns before left.
        memory: measure the peak; on a CPU it is the growth of the whole process, and giving freed
            memory back before each pass costs time.
    """

    prompt: Prompt
    plan: Plan
    generation: Generation
    capture: bool = False
    observer: Observer | None = None
    tokens: TokenTable | None = None
    on_token: OnToken | None = None
    turns: tuple[str, ...] = ()
    memory: bool = True

    def again(self, answer_ids: list[int]) -> Request:
        """The same pass with a known answer and nothing to show or keep, for timing."""
        forced = replace(self.generation, forced=tuple(answer_ids))
        bare = replace(self, capture=False, observer=None, on_token=None, turns=())
        return replace(bare, generation=forced)


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

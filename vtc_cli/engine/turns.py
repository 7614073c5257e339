"""Further questions about the same pictures, answered on the cache that the first one left."""

from __future__ import annotations

import torch
from torch import Tensor

from vtc_cli.core.trace import Turn
from vtc_cli.engine.clock import Stopwatch
from vtc_cli.engine.decode import Decoded, Decoder


def further_turns(
    decoder: Decoder, decoded: Decoded, next_position: Tensor, questions: tuple[str, ...]
) -> list[Turn]:
    """Answer further questions on the cache as it stands."""
    adapter, turns = decoder.adapter, []
    position = next_position + len(decoded.ids) - 1  # of the last token, which no layer has read
    for question in questions:
        watch = Stopwatch(adapter.device)
        ids = adapter.turn_ids(question, decoded.ids[-1])
        logits, position = decoder.read(ids, position)
        ttft_ms = watch.total_ms()
        decoded = decoder.answer(logits, position)
        position = position + len(decoded.ids) - 1
        turns.append(
            Turn(
                question=question,
                prompt_tokens=int(ids.shape[1]),
                answer_ids=list(decoded.ids),
                answer=adapter.text(decoded.ids),
                logits=torch.stack(decoded.logits).cpu(),
                ttft_ms=ttft_ms,
                decode_ms=decoded.step_ms,
            )
        )
    return turns

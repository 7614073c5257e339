"""What became of every visual token of a pass, in two bits each."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

from vtc_cli.core.trace import Trace

LEFT_ENCODER, LEFT_DECODER, MERGED, KEPT = range(4)


def fates(trace: Trace) -> NDArray[np.uint8] | None:
    """(N0,) the fate of every original token; None if no stage moved any.

    A token whose place a surviving row takes counts as kept, also where that row is a mean.
    """
    records = [record for record in trace.records if record.holder is not None]
    if not records:
        return None
    fate = np.full(trace.original_tokens, KEPT, dtype=np.uint8)
    gone = np.zeros(trace.original_tokens, dtype=bool)
    for record in records:
        assert record.holder is not None
        now = record.holder.cpu().numpy() < 0
        fate[now & ~gone] = LEFT_ENCODER if record.phase == "encoder" else LEFT_DECODER
        gone |= now
    last = records[-1]
    assert last.holder is not None
    holder, anchor = last.holder.cpu().numpy(), last.anchor.cpu().numpy()
    alive = np.flatnonzero(~gone)
    fate[alive[anchor[holder[alive]] != alive]] = MERGED
    return fate


def packed(fate: NDArray[np.uint8]) -> str:
    """Two bits each, four a byte from the lowest bits on, as base64."""
    padded = np.zeros(-(-len(fate) // 4) * 4, dtype=np.uint8)
    padded[: len(fate)] = fate
    bytes_ = (padded.reshape(-1, 4) << np.array([0, 2, 4, 6], dtype=np.uint8)).sum(axis=1)
    return base64.b64encode(bytes_.astype(np.uint8).tobytes()).decode("ascii")

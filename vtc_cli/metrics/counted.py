"""Token, FLOPs and KV measures of counts, with or without a run behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from vtc_cli.core.shape import ModelShape
from vtc_cli.metrics.flops import prefill_flops
from vtc_cli.metrics.kv import full_kv_bytes

if TYPE_CHECKING:
    from vtc_cli.core.trace import Trace

Measure = Literal["layer_average", "flops", "kv"]


@dataclass(frozen=True)
class Measures:
    """The three measures that a budget may be given in.

    Attributes:
        layer_average: mean over decoder layers of the visual tokens processed there.
        flops: operations of the decoder over the prompt as a share of the full model's over the
            same prompt, without those of the tower and of the compression itself.
        kv: bytes of the KV cache behind the prompt and its policies as a share of the full model's.
    """

    layer_average: float
    flops: float
    kv: float


def measures(
    shape: ModelShape,
    prompt_tokens: int,
    visual_tokens: Sequence[int],
    sequence_tokens: Sequence[int],
    kv_entries: Sequence[float],
) -> Measures:
    """The measures of counts.

    Args:
        shape: sizes of the model.
        prompt_tokens: of the uncompressed prompt, text and visual.
        visual_tokens: that each decoder layer processes.
        sequence_tokens: the same with text.
        kv_entries: mean entries a head of each layer behind the prompt; heads are equally wide, so
            that their share is that of the bytes in any dtype.
    """
    layers = shape.decoder.layers
    full = prefill_flops(shape, [prompt_tokens] * layers)
    return Measures(
        layer_average=fmean(visual_tokens),
        flops=prefill_flops(shape, sequence_tokens) / full,
        kv=sum(kv_entries) / (prompt_tokens * layers),
    )


def trace_measures(trace: Trace) -> Measures:
    """The measures of a run; its cache counts by true bytes."""
    shape, prompt = trace.model.shape, trace.uncompressed.prompt_tokens
    counts = trace.visual_tokens, trace.sequence_tokens, trace.kv_entries
    found = measures(shape, prompt, *counts)
    full_bytes = full_kv_bytes(shape.decoder, prompt, trace.model.dtype)
    return Measures(found.layer_average, found.flops, trace.kv_bytes / full_bytes)

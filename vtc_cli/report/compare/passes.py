"""From traces to the lines of a comparison."""

from __future__ import annotations

import math
import os
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from vtc_cli.core.layout import Grid, Layout
from vtc_cli.core.media import Media
from vtc_cli.core.trace import Trace
from vtc_cli.metrics.flops import compression_flops, full_pass_flops, trace_flops
from vtc_cli.metrics.kv import cuts_cache_alone, full_kv_bytes
from vtc_cli.metrics.latency import first_token_parts, latency
from vtc_cli.metrics.tokens import token_counts
from vtc_cli.report.compare.mask import fates, packed
from vtc_cli.report.compare.rows import (
    Pass,
    PassFlops,
    PassTime,
    PassTokens,
    PictureFacts,
)
from vtc_cli.report.result import FidelityBlock, FirstTokenShares, MemoryBlock

SLACK = 0.01  # of a token: rounding of the processor's own resize


def pass_line(
    trace: Trace, item: str, recipe: str, budget: str, fidelity: FidelityBlock | None
) -> Pass:
    """What one pass leaves in the file.

    Args:
        trace: the pass.
        item: id of the item.
        recipe: its name.
        budget: as asked for.
        fidelity: to the full model, None for itself.
    """
    facts, counts = trace.model, token_counts(trace)
    fate = None if _other_patches(trace) else fates(trace)
    return Pass(
        item=item,
        recipe=recipe,
        budget=budget,
        answer=trace.answer,
        answer_tokens=len(trace.answer_ids),
        tokens=PassTokens(
            original=counts.original,
            requested=counts.requested,
            entering=counts.entering,
            layer_average=counts.layer_average,
            leaving_average=counts.leaving_average,
            final=counts.final,
            cache_equivalent=_cache_equivalent(trace),
        ),
        kv_bytes=trace.kv_bytes,
        kv_full_bytes=full_kv_bytes(
            facts.shape.decoder, trace.uncompressed.prompt_tokens, facts.dtype
        ),
        flops=_flops(trace),
        time_ms=_times(trace),
        memory=MemoryBlock.model_validate(
            {"peak_bytes": trace.peak_bytes, "kind": trace.memory_kind}
        ),
        fidelity=fidelity,
        mask=None if fate is None else packed(fate),
        warnings=list(dict.fromkeys((*trace.warnings, *counts.warnings))),
    )


def _cache_equivalent(trace: Trace) -> float | None:
    """See `PassTokens`."""
    if not cuts_cache_alone(trace) or not trace.kv_entries:
        return None
    return fmean(trace.kv_entries) - trace.text_tokens


def _other_patches(trace: Trace) -> bool:
    """Whether the patches that the model saw are not those of the item's picture."""
    return trace.layout != trace.uncompressed.layout


def finite(value: float) -> float | None:
    """The value, or None where there is none that JSON could hold."""
    return value if math.isfinite(value) else None


def picture_facts(media: Media, layout: Layout, patch_boxes: NDArray[np.float64]) -> PictureFacts:
    """The media of an item; patch_boxes (N0, 4) in pixels of the picture."""
    grid = layout.equal_frames()
    even = None if grid is None else _even_grid(grid, patch_boxes)
    return PictureFacts(
        path=os.path.abspath(media.path),
        sha256=media.sha256,
        kind=media.kind,
        width=media.width,
        height=media.height,
        frames=int(media.frames.shape[0]),
        grid=None if even is None or grid is None else (grid.frames, grid.rows, grid.columns),
        box=even,
    )


def _even_grid(
    grid: Grid, patch_boxes: NDArray[np.float64]
) -> tuple[float, float, float, float] | None:
    """The box that `grid` divides evenly into `patch_boxes`; None if it does not."""
    count = grid.frames * grid.rows * grid.columns
    if not count or patch_boxes.shape != (count, 4):
        return None
    left, top = (float(edge) for edge in patch_boxes[:, :2].min(axis=0))
    right, bottom = (float(edge) for edge in patch_boxes[:, 2:].max(axis=0))
    wide, high = (right - left) / grid.columns, (bottom - top) / grid.rows
    place = np.arange(count) % (grid.rows * grid.columns)
    row, column = place // grid.columns, place % grid.columns
    corners = [left + column * wide, top + row * high]
    expected = np.stack([*corners, corners[0] + wide, corners[1] + high], axis=1)
    even = np.allclose(patch_boxes, expected, rtol=0, atol=SLACK * max(wide, high))
    return (left, top, right, bottom) if even else None


def _flops(trace: Trace) -> PassFlops:
    mine = trace_flops(trace)
    full = full_pass_flops(trace)
    return PassFlops(
        vision=mine.vision,
        projector=mine.projector,
        prefill=mine.prefill,
        decode_step=mine.decode_step,
        compression=compression_flops(trace),
        full_prefill=full.prefill,
        full_first_token=full.first_token,
    )


def _times(trace: Trace) -> PassTime:
    times, parts = latency(trace.timings), first_token_parts(trace)
    assert times is not None  # every pass is timed
    step = times.decode_per_token
    shares = None
    if parts is not None:
        shares = FirstTokenShares(
            vision=parts.vision, compression=parts.compression, prefill=parts.prefill
        )
    return PassTime(
        ttft=times.ttft.median_ms,
        vision=None if times.vision is None else times.vision.median_ms,
        prefill=times.prefill.median_ms,
        compression=times.compression.median_ms,
        decode_per_token=None if step is None else step.median_ms,
        first_token_shares=shares,
    )

"""Input stages: what a plan does to the picture before the model prepares it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from vtc_cli.core.decision import Decision
from vtc_cli.core.media import Media
from vtc_cli.core.plan import Plan
from vtc_cli.core.trace import StageRecord
from vtc_cli.media.resizing import resized
from vtc_cli.models.support.base import Adapter, Prompt


def shrink(
    adapter: Adapter, media: Media, prompt: Prompt, plan: Plan
) -> tuple[Prompt, list[StageRecord]]:
    """Apply the input stages of `plan`.

    Args:
        adapter: of the model.
        media: as it was read.
        prompt: made of `media`.
        plan: whose input stages act, one after the other.

    Returns:
        The prompt that the model gets, its patch boxes still in pixels of `media`, and what each
        stage did; the prompt itself and nothing without input stages.
    """
    now, size, records = prompt, media, []
    for planned in plan.input:
        start = time.perf_counter()
        share = planned.stage.scale(now.grid.tokens, plan.budget)
        smaller = size if share >= 1 else resized(size, *_size(adapter, size, now, share))
        seen = now if smaller is size else adapter.prepare(smaller, prompt.question)
        spent_ms = (time.perf_counter() - start) * 1000
        records.append(_record(planned.name, size, smaller, now.grid.tokens, seen, spent_ms))
        now, size = seen, smaller
    across, down = media.width / size.width, media.height / size.height
    boxes = now.patch_boxes * np.array([across, down, across, down])
    return replace(now, patch_boxes=boxes) if records else prompt, records


def _size(adapter: Adapter, media: Media, prompt: Prompt, share: float) -> tuple[int, int]:
    """Width and height of `media` if the model shall see `share` of either side."""
    side = _token_pixels(adapter)
    boxes = prompt.patch_boxes
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    across = float(side / np.median(widths) * share)
    down = float(side / np.median(heights) * share)
    return _pixels(media.width, across), _pixels(media.height, down)


def _pixels(length: int, factor: float) -> int:
    """A side of `length` pixels under `factor`; it never grows."""
    return max(round(length * min(factor, 1.0)), 1)


def _token_pixels(adapter: Adapter) -> float:
    """Pixels of the tower's input along the side of one visual token."""
    patch: Any = adapter.model.config.vision_config.patch_size
    patch = patch if isinstance(patch, int) else patch[-1]
    return float(patch * adapter.shape.merged_patches**0.5)


def _record(
    name: str, media: Media, smaller: Media, before: int, prompt: Prompt, spent_ms: float
) -> StageRecord:
    """What the report shows; every token of the smaller picture stands as it is."""
    count = prompt.grid.tokens
    kept = smaller.width * smaller.height / (media.width * media.height)
    sizes = f"{media.width} x {media.height} to {smaller.width} x {smaller.height} pixels"
    decision = Decision.identity(
        count, torch.device("cpu"), note=sizes, details={"pixels_kept": kept}
    )
    return StageRecord(
        stage=name,
        phase="input",
        layer=-1,
        before=before,
        after=count,
        decision=decision,
        holder=torch.arange(count),
        anchor=torch.arange(count),
        protected_tokens=0,
        decision_ms=spent_ms,
        signal_ms=0.0,
        signal_flops=0,
        signals=(),
    )

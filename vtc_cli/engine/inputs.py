"""What a plan makes of a prompt before the model reads it: smaller pictures, unpooled videos."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import StageError
from vtc_cli.core.media import Media
from vtc_cli.core.plan import Plan, Planned
from vtc_cli.core.stage import InputStage
from vtc_cli.core.trace import StageRecord, Trace
from vtc_cli.engine.step import stage_faults
from vtc_cli.media.resizing import resized
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.prompt import Prompt


def shrink(
    adapter: Adapter, media: Media | Sequence[Media], prompt: Prompt, plan: Plan
) -> tuple[Prompt, list[StageRecord]]:
    """Apply the input stages of `plan`, and show videos unpooled if one of its stages asks.

    Args:
        adapter: of the model.
        media: pictures and videos as they were read.
        prompt: made of `media`.
        plan: whose input stages act, one after the other.

    Returns:
        The prompt that the model gets, its patch boxes still in pixels of `media`, and what each
        input stage did; the prompt itself and nothing where the plan changes nothing.
    """
    whole = tuple(media) if isinstance(media, Sequence) else (media,)
    now, size, records = prompt, whole, []
    for planned in plan.input:
        start = time.perf_counter()
        share = _share(planned, now.layout.tokens, plan.budget)
        smaller = size if share >= 1 else _smaller(adapter, size, now, share)
        same = all(a is b for a, b in zip(size, smaller, strict=True))
        seen = now if same else adapter.prepare(smaller, prompt.question)
        spent_ms = (time.perf_counter() - start) * 1000
        records.append(_record(planned.name, size, smaller, now.layout.tokens, seen, spent_ms))
        now, size = seen, smaller
    if plan.before_pooling:
        now = adapter.unpooled(now)
    shown = tuple(
        replace(one, boxes=one.boxes * _factors(before, after))
        for one, before, after in zip(now.seen, whole, size, strict=True)
    )
    return replace(now, seen=shown) if records else now, records


def _share(planned: Planned[InputStage], tokens: int, budget: LayerBudget | None) -> float:
    """What `planned` leaves of each side.

    Raises:
        StageError: the stage fails, or leaves no share at all.
    """
    where = f"{planned.name} at the picture"
    with stage_faults(planned.stage, where):
        share: object = planned.stage.scale(tokens, budget)
    if not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise StageError(f"scale returned {share!r}", where=where, allowed="above 0, at most 1")
    return float(share)


def note_input(trace: Trace, whole: Prompt, changes: list[StageRecord]) -> None:
    """Tell `trace` what was done to its picture; savings are those over the `whole` prompt."""
    if changes:
        trace.records[:0] = changes
        trace.full_prompt = whole.sizes


def _factors(whole: Media, small: Media) -> NDArray[np.float64]:
    """(4,) from pixels of the smaller picture to those of the whole one."""
    across, down = whole.width / small.width, whole.height / small.height
    return np.array([across, down, across, down])


def _smaller(
    adapter: Adapter, media: Sequence[Media], prompt: Prompt, share: float
) -> tuple[Media, ...]:
    """Every picture so that the model sees `share` of either side."""
    return tuple(
        resized(each, *_size(adapter, each, one.boxes, share))
        for each, one in zip(media, prompt.seen, strict=True)
    )


def _size(
    adapter: Adapter, media: Media, boxes: NDArray[np.float64], share: float
) -> tuple[int, int]:
    """Width and height of `media` if the model shall see `share` of either side."""
    side = _token_pixels(adapter)
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    seen = widths > 0  # no patch stands behind learned tokens
    across = float(side / np.median(widths[seen]) * share)
    down = float(side / np.median(heights[seen]) * share)
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
    name: str,
    media: Sequence[Media],
    smaller: Sequence[Media],
    before: int,
    prompt: Prompt,
    spent_ms: float,
) -> StageRecord:
    """What the report shows; every token of the smaller picture stands as it is."""
    count = prompt.layout.tokens
    area = [sum(each.width * each.height for each in shown) for shown in (smaller, media)]
    kept = area[0] / area[1]
    sizes = "; ".join(
        f"{whole.width} x {whole.height} to {small.width} x {small.height} pixels"
        for whole, small in zip(media, smaller, strict=True)
    )
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

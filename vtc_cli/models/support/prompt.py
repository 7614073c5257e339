"""Model inputs: what a model sees of each picture or video, and the whole prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtc_cli.core.layout import Grid, Layout
from vtc_cli.core.shape import TowerInput
from vtc_cli.core.signals import FrameScorer
from vtc_cli.core.trace import Uncompressed

Kind = Literal["image", "video"]


@dataclass(frozen=True, eq=False)
class Seen:
    """One picture or video as a family sees it.

    Attributes:
        kind: whose placeholders its tokens take.
        grids: its visual tokens in order; their `span` is set when the prompt is put together.
        tower: what the vision tower is given.
        inputs: arguments of the library's `get_image_features` or `get_video_features`.
        boxes: (n, 4) float, left, top, right, bottom of each token in pixels of its picture or
            frame; those of learned tokens are empty.
        text: what stands in the prompt: its placeholders and whatever goes between and around them.
        marker: what `text` takes the place of in the formatted chat.
        warnings: what was done to the picture that the reader must know.
        unpooled: the same video before the family's own pooling of frames, in the order of its
            tokens; None where the family does none.
    """

    kind: Kind
    grids: tuple[Grid, ...]
    tower: tuple[TowerInput, ...]
    inputs: Mapping[str, Tensor]
    boxes: NDArray[np.float64]
    text: str
    marker: str
    warnings: tuple[str, ...] = ()
    unpooled: Seen | None = None

    def scaled(self, across: float, down: float) -> Seen:
        """The same with its boxes in the pixels of a picture so many times as wide and as high."""
        if (across, down) == (1.0, 1.0):
            return self
        whole = None if self.unpooled is None else self.unpooled.scaled(across, down)
        return replace(self, boxes=self.boxes * (across, down, across, down), unpooled=whole)


@dataclass(frozen=True, eq=False)
class Prompt:
    """A question about pictures and videos as the model takes it.

    Attributes:
        input_ids: (1, S) int64, one placeholder for each original visual token.
        position_ids: (..., 1, S) int64, ids of the uncompressed prompt.
        visual_index: (N0,) int64, places of the placeholders in the sequence; text may stand
            between them, for instance the times of frames.
        seen: the pictures and videos in the order of their placeholders.
        encoder_inputs: what the vision tower takes, for instance `pixel_values`.
        question: the text asked.
        warnings: what was done to the pictures that the reader must know.
        frame_scorers: score the frames of each span by the question; empty for the model's own
            means.
        pooled: the prompt as the full model gets it, where this one shows videos before the
            family's own pooling; None otherwise.
    """

    input_ids: Tensor
    position_ids: Tensor
    visual_index: Tensor
    seen: tuple[Seen, ...]
    encoder_inputs: Mapping[str, Tensor]
    question: str
    warnings: tuple[str, ...] = ()
    frame_scorers: tuple[FrameScorer, ...] = ()
    pooled: Prompt | None = None

    @property
    def layout(self) -> Layout:
        """Geometry of the N0 visual tokens."""
        return layout_of(self.seen)

    @property
    def tower(self) -> tuple[TowerInput, ...]:
        """What the vision tower is given, pictures before videos."""
        ordered = sorted(self.seen, key=lambda one: one.kind)
        return tuple(view for one in ordered for view in one.tower)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What each span is."""
        return tuple(one.kind for one in self.seen)

    @property
    def patch_boxes(self) -> NDArray[np.float64]:
        """(N0, 4) left, top, right, bottom of every token in pixels of its picture or frame."""
        return np.concatenate([one.boxes for one in self.seen])

    @property
    def prompt_tokens(self) -> int:
        """S, all tokens of the uncompressed prompt."""
        return int(self.input_ids.shape[1])

    @property
    def sizes(self) -> Uncompressed:
        """What a saving is compared with where this is the full model's prompt."""
        return Uncompressed(self.layout, self.tower, self.prompt_tokens)


def layout_of(seen: Sequence[Seen]) -> Layout:
    """The grids of all spans, each with its number."""
    return Layout(
        tuple(replace(grid, span=span) for span, one in enumerate(seen) for grid in one.grids)
    )


@dataclass(frozen=True, eq=False)
class EncoderOutput:
    """What the encoder gives.

    Attributes:
        features: (N, d) visual tokens at the decoder's door, span after span.
        carriers: the library's own object that carries them, for each kind of span.
        kinds: what each span is.
        added: for each of the first decoder layers, rows (N, d) that belong to the same tokens and
            are added to what the layer gives out; the model must not be handed them too.
    """

    features: Tensor
    carriers: Mapping[Kind, Any]
    kinds: tuple[Kind, ...]
    added: tuple[Tensor, ...] = ()

    def rows_of(self, kind: Kind, span: Tensor) -> Tensor:
        """(N,) bool: which rows of a table with `span` (N,) belong to spans of `kind`."""
        spans = [number for number, found in enumerate(self.kinds) if found == kind]
        return torch.isin(span, torch.tensor(spans, device=span.device))


def in_span_order(prompt: Prompt, by_kind: Mapping[Kind, Tensor]) -> Tensor:
    """(N0, ...) rows of all spans in their order, from those of each kind."""
    if len(by_kind) == 1:
        return next(iter(by_kind.values()))
    layout, kinds, done = prompt.layout, prompt.kinds, dict.fromkeys(by_kind, 0)
    ordered = []
    for span, kind in enumerate(kinds):
        start, count = done[kind], layout.tokens_of(span)
        ordered.append(by_kind[kind][start : start + count])
        done[kind] = start + count
    return torch.cat(ordered)


def longer_ids(prompt: Prompt, layout: Layout) -> Tensor:
    """(1, S) ids of `prompt` with a placeholder for each token of `layout`, which has no fewer.

    The placeholders of a span are all alike, so its last one is copied; a tokenizer would warn of
    a length that never enters the decoder.
    """
    copies, end = torch.ones_like(prompt.input_ids[0]), 0
    for span in range(layout.spans):
        own = prompt.layout.tokens_of(span)
        end += own
        copies[prompt.visual_index[end - 1]] += layout.tokens_of(span) - own
    return prompt.input_ids.repeat_interleave(copies, dim=1)

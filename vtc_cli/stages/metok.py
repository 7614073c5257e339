"""METok: compress a video event by event, in three phases (arXiv 2506.02850).

`EventPool` cuts the video into events behind the projector and pools each frame by how much its
event and the frame itself have to do with the question, `EventPrune` thins the events layer by
layer, `ShallowCache` leaves the video to the first layers of the cache. Layers are inputs, as in
the official code: the input of layer p and the attention of the layer before.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.counts import CacheCounts, Steering, VisualCounts
from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import StageError
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import CacheEntries, DecodeStage, EncoderStage, PrefillStage, parameter
from vtc_cli.core.tokens import TokenTable
from vtc_cli.stages.ops.event_counts import Descent, Remaining, spans_behind
from vtc_cli.stages.ops.events import (
    adjacent_cosine,
    cut_events,
    frame_means,
    group_max,
    place_in_group,
)
from vtc_cli.stages.ops.grid import require_whole_grid
from vtc_cli.stages.ops.pooling import Pooled, join_frames, pool_frame
from vtc_cli.stages.ops.select import require_finite, top_indices

PAPER = "METok, arXiv 2506.02850"
CODE = "official code, demo"
SHARE = "paper, value not published"


@dataclass(frozen=True, kw_only=True)
class EventPool(EncoderStage):
    """Cuts frames into events and pools each frame by the weight of its event and its own.

    The k least alike pairs of neighbouring frames are boundaries. Events whose best frame is most
    relevant to the question are key events; in every event the most relevant frames are key frames.

    The pooling takes the place of the one that LLaVA-OneVision and LLaVA-NeXT-Video do to frames:
    27 x 27 projected tokens leave 169, 36 or 9 where the model itself has 196, and 24 x 24 leave
    144, 36 or 9 where it has 144. With strides of 1 more tokens are left than the full model has.
    Families that join patches inside tower or projector (Qwen, InternVL, SmolVLM, Gemma) have no
    grid before that; there the stage pools the tokens that they make.

    Deviation: the relevance is what the model's own features and embeddings say, unless a pair of
    image and text encoder gives it (`--relevance`); the official code runs a second, complete
    SigLIP. Such a pair reads the question, cut to what its text encoder takes; the official code
    gives the whole prompt and joins chunks of 64 tokens by their maximum.
    Deviation: no separator token follows an event, for a family's prompt has no place for one; the
    official code appends one newline token to each.
    Deviation: with no more frames than cuts every frame is an event, and a single frame (a picture)
    is one key event that is not pooled; the official code fails on fewer than five frames.
    Deviation: a protected token that no pooled token takes up stands for itself.
    """

    paper: ClassVar[str] = PAPER
    needs: ClassVar[frozenset[str]] = frozenset({"frame_relevance"})
    cuts: int = parameter(4, "k, boundaries between events", source=CODE, minimum=0)
    key_events: int = parameter(3, "events pooled finely", source=CODE, minimum=1)
    key_event_ratio: float | None = parameter(
        None, "alpha, share of the events in place of a count", source=SHARE, minimum=0, maximum=1
    )
    key_frames: int = parameter(6, "frames of an event pooled finely", source=CODE, minimum=1)
    key_frame_ratio: float | None = parameter(
        None,
        "beta, share of an event's frames in place of a count",
        source=SHARE,
        minimum=0,
        maximum=1,
    )
    key_strides: tuple[int, ...] = parameter(
        (2, 4), "pooling of key and other frames in key events", source=CODE, minimum=1
    )
    other_strides: tuple[int, ...] = parameter(
        (4, 8),
        "the same in other events",
        source="official code; the paper has its coarsest stride for all of their frames",
        minimum=1,
    )
    pooling: Literal["average", "bilinear"] = parameter(
        "average", "how a frame is pooled", source=CODE
    )
    before_pooling: bool = parameter(
        True, "pool in place of the family's own pooling of frames, not behind it", source=CODE
    )

    def __post_init__(self) -> None:
        """See that both kinds of frames have their stride.

        Raises:
            StageError: they have not.
        """
        for name in ("key_strides", "other_strides"):
            found = getattr(self, name)
            if len(found) != 2:
                raise StageError(
                    f"{name} names {len(found)} strides",
                    allowed="two: of key frames and of other frames",
                )

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        """Pool every frame of the untouched grid.

        Raises:
            StageError: an earlier stage changed the grid, or values that are not finite.
        """
        if tokens.layout.frames == 1:
            return self._one_event(tokens)
        require_whole_grid(tokens, "event_pool")
        grid = tokens.layout.only
        frames, patches = grid.frames, tokens.features[: grid.tokens]  # a marker may stand behind
        means = require_finite(frame_means(patches, frames), "features")
        relevance = require_finite(signals.frame_relevance(), "frame relevance")
        event = cut_events(adjacent_cosine(means), self.cuts)
        key_event, key_frame = self._keys(relevance, event)
        pooled = self._pooled(tokens, self._strides(key_event[event], key_frame))
        segment = event[tokens.frame[pooled.anchor]]
        found = int(key_event.sum()), int(key_frame.sum())
        source = signals.source_of("frame_relevance")
        return Decision.merge(
            pooled.anchor,
            pooled.pairs,
            pooled.weights,
            len(tokens),
            segment=segment,
            key=key_event[segment],
            scores=relevance[tokens.frame],
            note=f"{len(tokens)} tokens in {len(key_event)} events, {found[0]} key; "
            f"relevance from {source}",
            flops=(len(tokens) + 6 * frames + 2 * pooled.weights.shape[0]) * means.shape[1],
            details={"events": len(key_event), "key_events": found[0], "key_frames": found[1]},
        )

    def count(self, counts: VisualCounts) -> VisualCounts | None:
        """A picture stays whole; which frames of a video are pooled how depends on the data."""
        return counts if counts.layout.frames == 1 else None

    def _one_event(self, tokens: TokenTable) -> Decision:
        """A picture: one key event, left as it is."""
        require_finite(tokens.features, "features")
        return Decision.identity(
            len(tokens),
            tokens.features.device,
            segment=torch.zeros_like(tokens.segment),
            key=torch.ones_like(tokens.key),
            note="one frame is one key event and is not pooled",
        )

    def _keys(self, relevance: Tensor, event: Tensor) -> tuple[Tensor, Tensor]:
        """(E,) bool key events and (F,) bool key frames of their events."""
        events = int(event[-1]) + 1
        key_event = torch.zeros(events, dtype=torch.bool, device=event.device)
        wanted = _wanted(self.key_event_ratio, self.key_events, events)
        key_event[top_indices(group_max(relevance, event, events), wanted)] = True
        sizes = torch.bincount(event).tolist()
        limits = [_wanted(self.key_frame_ratio, self.key_frames, size) for size in sizes]
        limit = torch.tensor(limits, device=event.device)
        return key_event, place_in_group(relevance, event) < limit[event]

    def _strides(self, key_event: Tensor, key_frame: Tensor) -> list[int]:
        """The stride of each frame; both flags (F,)."""
        choices = torch.tensor([self.other_strides[::-1], self.key_strides[::-1]])
        strides: list[int] = choices[key_event.long().cpu(), key_frame.long().cpu()].tolist()
        return strides

    def _pooled(self, tokens: TokenTable, strides: list[int]) -> Pooled:
        """Every frame pooled with its stride, protected tokens apart where none took them up."""
        grid = tokens.layout.only
        known = {
            stride: pool_frame(
                grid.rows, grid.columns, stride, self.pooling, tokens.features.device
            )
            for stride in set(strides)
        }
        return join_frames(
            [known[stride] for stride in strides], grid.rows * grid.columns, tokens.protected
        )


class _Spent(NamedTuple):
    """Where in the decoder events are thinned, and what was spent on the way there."""

    layer: int
    decoder_layers: int
    processed: tuple[int, ...]
    budget: LayerBudget | None


def _spent(signals: Signals) -> _Spent:
    return _Spent(signals.layer, signals.decoder_layers, signals.processed_tokens, signals.budget)


@dataclass(frozen=True, kw_only=True)
class EventPrune(PrefillStage):
    """Thins each event to the tokens that the text behind the video attends to most.

    With l the length of an event where a layer begins: key events keep ceil(rho l) at every layer,
    others ceil(rho l / 2) at the first one and nothing later, and the last layer leaves `last_keep`
    of whatever is there, in the official code nothing. With two layers these are the first and the
    last; with one it is the last.

    Deviation: ties go to the lowest index; the official code leaves them open.
    Deviation: protected tokens stay; the official code has none.
    Deviation: tokens without an event are one key event, so that the stage also works alone.
    Deviation: under a token budget rho is solved for at every layer, for the events and what was
    spent above it, and events of equal length are told apart by single tokens; the paper has one
    published rho. The average lies between rho = 0 and rho = 1; a budget outside is refused.
    """

    paper: ClassVar[str] = PAPER
    needs: ClassVar[frozenset[str]] = frozenset({"attention_rows"})
    meets_budget: ClassVar[bool] = True
    layers: tuple[int, ...] = parameter(
        (3, 10, 19), "p, layers at whose input events shrink", source=CODE, layer_of="llm"
    )
    keep_ratio: float = parameter(
        0.76,
        "rho, share of a key event that stays",
        source=CODE,
        minimum=0.0,
        maximum=1.0,
        steers=Steering(0.0, 1.0),
    )
    last_keep: float = parameter(
        0.0, "share that stays behind the last layer", source=CODE, minimum=0.0, maximum=1.0
    )

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        """Keep the best of each event in the order of time."""
        ids, event = torch.unique(tokens.segment, return_inverse=True)
        key = group_max(tokens.key.float(), event, len(ids)) > 0
        key |= ids < 0
        held = torch.bincount(event[tokens.protected], minlength=len(ids))
        rule = Descent(tuple(key.tolist()), len(self.layers), self.last_keep, tuple(held.tolist()))
        counts = self._counts(rule, torch.bincount(event).tolist(), _spent(signals))
        limit = torch.tensor(counts, device=event.device)
        details = {"events": len(ids), "key_events": int(key.sum())}
        if bool((limit == held).all()):  # nobody is chosen, so no attention is needed
            keep = tokens.protected.nonzero()[:, 0]
            return Decision.prune(keep, len(tokens), details=details)
        rows = signals.attention_rows("after_visual").mean(dim=0)
        scores = require_finite(rows, "attention").mean(dim=0)
        lifted = scores + tokens.protected * (scores.max() + 1)
        keep = (place_in_group(lifted, event) < limit[event]).nonzero()[:, 0]
        flops = 2 * rows.numel()
        return Decision.prune(keep, len(tokens), scores=scores, flops=flops, details=details)

    def count(self, counts: VisualCounts) -> VisualCounts | None:
        """What `decide` leaves of a picture, one key event; those of a video depend on it."""
        if counts.layout.frames > 1:
            return None
        rule = Descent((True,), len(self.layers), self.last_keep, (counts.protected,))
        spent = _Spent(counts.layer, counts.decoder_layers, counts.processed, counts.budget)
        return counts.left(sum(self._counts(rule, [counts.tokens], spent)))

    def _counts(self, rule: Descent, lengths: list[int], spent: _Spent) -> list[int]:
        """Tokens of each event behind this layer."""
        place = self.layers.index(spent.layer)
        budget = spent.budget
        if budget is None:
            return rule.counts(lengths, place, self.keep_ratio)
        remaining = Remaining(
            rule=rule,
            place=place,
            spans=spans_behind(self.layers[place:], spent.decoder_layers),
            spent=sum(spent.processed),
            wanted=budget.layer_average * spent.decoder_layers,
            layers=spent.decoder_layers,
        )
        return remaining.fit(lengths)


@dataclass(frozen=True, kw_only=True)
class ShallowCache(DecodeStage):
    """Leaves the whole video to the cache of the first layers, to the others what is alive.

    Alive is what the last layer of the prefill still had: with `last_keep` 0 no visual token.
    """

    paper: ClassVar[str] = PAPER
    first_layer: int = parameter(
        3, "first decoder layer that decodes without the video", source=CODE, layer_of="llm"
    )

    def decide(self, entries: CacheEntries, signals: Signals) -> Decision:
        """Keep text and what is alive."""
        keep = (~entries.visual | entries.alive).nonzero()[:, 0]
        return Decision.prune(keep, len(entries))

    def count(self, counts: CacheCounts) -> CacheCounts | None:
        """What `decide` leaves, told by numbers alone."""
        return counts.only_alive()


def _wanted(share: float | None, count: int, of: int) -> int:
    """How many of `of` are key: a share, rounded up and at least one, or a count."""
    return min(count if share is None else max(1, ceil(share * of)), of)

"""The step of both phases: frozen tower, answers to many questions about few clips.

The first phase sees a few tokens of every frame only, those of shapes and digits before those of
the ground, each at its own position. That costs a fraction of seeing all, which the second phase
does in some of its steps: a decoder that has seen few tokens counts too low among many.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import LlavaNextVideoForConditionalGeneration

from training.language_phase import PREFIX, answer_loss, row_mask
from training.loop import Report, StepFunction
from training.packing import IGNORED
from training.scenes import DIGIT_MARK
from training.video.clips import FRAMES, Clip, reversed_clip, thinned_clip
from training.video.data import FRAME_TOKENS, ClipCache
from training.video.heads import TOKEN_LAYER, CompareHead, MoverHead, TokenHead, token_table
from training.video.packing import ClipBatch, Weights, pack_clips

WHOLE_SHARE = 0.75
HEAD_WEIGHT = 0.4
WEIGHTS: Weights = {
    "order": 3.0,
    "motion": 2.5,
    "count": 1.5,
    "needle": 1.0,
    "before": 5.0,
    "looks": 0.5,
}


@dataclass(frozen=True)
class ClipShape:
    """Shape of a step: visual tokens kept of a frame, clips, text tokens a clip."""

    kept: int
    rows: int
    length: int


class Heads(nn.Module):
    """The throw-away heads together."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token, self.mover, self.compare = (
            TokenHead(width),
            MoverHead(width),
            CompareHead(width),
        )


def draw_rows(cache: ClipCache, rows: int, frames: int) -> tuple[list[Clip], Tensor, Tensor]:
    """Draw clips at random, each with so many of its frames, half of them in reverse order."""
    drawn = torch.randint(len(cache), (rows,)).tolist()
    features, marks = cache.rows(drawn)
    clips, chosen, remarked = [], [], []
    for index, row in zip(drawn, marks, strict=True):
        clip, places, shown = _draw_frames(cache.clips[index], frames)
        clips.append(clip)
        chosen.append(places)
        remarked.append(shown[row[places].long()])
    picked = torch.stack([row[places] for row, places in zip(features, chosen, strict=True)])
    return clips, picked, torch.stack(remarked)


def _draw_frames(clip: Clip, frames: int) -> tuple[Clip, Tensor, Tensor]:
    """Return the clip of some frames, these frames, and its mark for every mark of the whole."""
    while True:
        places = torch.randperm(FRAMES)[:frames].sort().values
        thin = thinned_clip(clip, places.tolist())
        if thin.movers:
            break
    left = [mover.colour for mover in thin.movers]
    shown = torch.arange(DIGIT_MARK + 1)
    for index, mover in enumerate(clip.movers):
        shown[index + 1] = left.index(mover.colour) + 1 if mover.colour in left else 0
    if random_half():
        return reversed_clip(thin), places.flip(0), shown
    return thin, places, shown


def random_half() -> bool:
    """Toss a coin."""
    return bool(torch.rand(()) < 0.5)


def draw_frame_count() -> int:
    """Draw how many frames a step shows: mostly all, at times any smaller number from 2 on."""
    return FRAMES if torch.rand(()) < WHOLE_SHARE else int(torch.randint(2, FRAMES, ()))


def kept_places(marks: Tensor, kept: int) -> Tensor:
    """Return the places (n, frames * kept) of the tokens to see, in order, counted over the clip.

    Of every frame those that show something come first; a random part of the ground fills up.
    """
    score = torch.rand(marks.shape) + (marks > 0).float()
    places = score.topk(kept, -1).indices.sort(-1).values
    return (places + torch.arange(marks.shape[1])[:, None] * FRAME_TOKENS).flatten(1)


def run_decoder(
    model: LlavaNextVideoForConditionalGeneration,
    sight: Tensor,
    places: Tensor,
    batch: ClipBatch,
    frames: int = FRAMES,
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Return last and middle states of the text and middle states of the visual tokens.

    Args:
        model: what is trained.
        sight: (n, tokens, width of the tower), the pooled features that are seen.
        places: (n, tokens), where they lie among all tokens of the clip.
        batch: the rows of text.
        frames: how many the clip has.
    """
    device, embedding = sight.device, model.get_input_embeddings()
    start = embedding(torch.tensor(PREFIX, device=device)).expand(len(sight), -1, -1)
    projected = model.model.multi_modal_projector(sight)
    inputs = torch.cat([start, projected, embedding(batch.ids.to(device))], 1)
    count, prefix = len(PREFIX), len(PREFIX) + sight.shape[1]
    before = torch.arange(count).expand(len(sight), -1)
    text = count + frames * FRAME_TOKENS + batch.positions
    positions = torch.cat([before, count + places, text], 1)
    states = model.model.language_model(
        inputs_embeds=inputs,
        attention_mask=row_mask(batch.blocks, prefix).to(device),
        position_ids=positions.to(device),
        use_cache=False,
        output_hidden_states=True,
    )
    middle = [state[:, prefix:] for state in states.hidden_states]
    return (
        states.last_hidden_state[:, prefix:],
        middle,
        states.hidden_states[TOKEN_LAYER][:, count:prefix],
    )


def clip_step(
    model: LlavaNextVideoForConditionalGeneration,
    heads: Heads,
    cache: ClipCache,
    shapes: tuple[ClipShape, ...],
    device: torch.device,
) -> StepFunction:
    """Return the step, of a shape drawn from `shapes`, on clips drawn at random from the cache."""
    rng = random.Random(int(torch.randint(1 << 30, (1,))))

    def step() -> tuple[Tensor, Report]:
        shape = rng.choice(shapes)
        clips, features, marks = draw_rows(cache, shape.rows, draw_frame_count())
        batch = pack_clips(clips, shape.length, rng, WEIGHTS)
        places = kept_places(marks, shape.kept)
        wide = places[..., None].expand(-1, -1, features.shape[-1])
        sight = features.flatten(1, 2).gather(1, wide).to(device)
        tables = torch.stack([token_table(clip) for clip in clips])
        rows = torch.arange(len(clips))[:, None]
        seen = tables[rows, places // FRAME_TOKENS, marks.flatten(1).gather(1, places).long()]
        return clip_loss(model, heads, batch, (sight, places, seen.to(device)), marks.shape[1])

    return step


def clip_loss(
    model: LlavaNextVideoForConditionalGeneration,
    heads: Heads,
    batch: ClipBatch,
    visual: tuple[Tensor, Tensor, Tensor],
    frames: int,
) -> tuple[Tensor, Report]:
    """Return the loss of answers and heads; `visual` is features, places and head targets."""
    sight, places, targets = visual
    last, middle, tokens = run_decoder(model, sight, places, batch, frames)
    answered = batch.targets != IGNORED
    logits = model.lm_head(last[answered.to(sight.device)]).float()
    loss, report = answer_loss(logits, batch, answered)
    for extra, more in (
        heads.token.loss(tokens, targets),
        heads.mover.loss(middle, batch),
        heads.compare.loss(middle, batch),
    ):
        loss, report = loss + HEAD_WEIGHT * extra, report | more
    return loss, report

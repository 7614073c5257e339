"""Phases c and d: the language model learns to answer, at 144 and then at 576 visual tokens.

The tower is frozen and its features come from a file. Throw-away heads read, from a middle
layer at every word that names an item, whether the item is there, where, and what it is.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from training.data import GRID, Cache
from training.features import pool, pooled_places
from training.loop import Report, StepFunction
from training.packing import IGNORED, WEIGHTS, TextBatch, mention_targets, pack
from training.scenes import COLOUR_NAMES, SHAPES
from training.tokenizer import BOS, vocabulary

PREFIX = (BOS, vocabulary()["user"], vocabulary()[":"])
MENTION_LAYER = 5
PAIR_LAYERS = (7, 9)
CLEAR_DISTANCE = 0.3
MENTION_WEIGHT = 0.5
PAIR_WEIGHT = 0.5
PLACE_WEIGHT = 3.0
HIDDEN = -30_000.0


@dataclass(frozen=True)
class LanguageShape:
    """Shape of a step: pooled to 144 visual tokens or not, pictures, text tokens a picture."""

    pooled: bool
    rows: int
    length: int


class MentionHead(nn.Module):
    """Throw-away head on a middle layer: presence, x, y, colour and shape of what is named."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, 3 + len(COLOUR_NAMES) + len(SHAPES))

    def forward(self, states: Tensor) -> Tensor:
        """Return (m, 15) predictions from (m, width) states."""
        result: Tensor = self.linear(self.norm(states))
        return result

    def loss(self, states: Tensor, targets: Tensor) -> tuple[Tensor, Report]:
        """Return the loss of predictions against `mention_targets`."""
        guess = self(states).float()
        there = targets[:, 0] > 0
        colour, shape = targets[there, 3].long(), targets[there, 4].long()
        colours, shapes = guess[there, 3:].split((len(COLOUR_NAMES), len(SHAPES)), -1)
        distance = functional.mse_loss(guess[there, 1:3], targets[there, 1:3])
        loss = functional.binary_cross_entropy_with_logits(guess[:, 0], targets[:, 0])
        loss = loss + PLACE_WEIGHT * distance
        loss = (
            loss
            + functional.cross_entropy(colours, colour)
            + functional.cross_entropy(shapes, shape)
        )
        right = ((guess[:, 0] > 0) == there).sum().item()
        return loss, {"named": (right, len(there)), "offset": (distance.item() ** 0.5, 1.0)}


class PairHead(nn.Module):
    """Throw-away heads that read how the first of two named items lies to the second.

    One reads the word that names the second item, one the last word before the answer. Without
    them the comparison, which is an exclusive or of words and places, is not found in time.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.readers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4)) for _ in PAIR_LAYERS
        )

    def loss(self, states: list[Tensor], distances: Tensor) -> tuple[Tensor, Report]:
        """Return the loss; states are (m, width) per reader and distances (m, 2)."""
        loss, right, total = distances.sum() * 0, 0.0, 0
        signs = (distances > 0).float()
        clear = distances.abs() > CLEAR_DISTANCE
        for reader, state in zip(self.readers, states, strict=True):
            guess = reader(state).float()
            losses = functional.binary_cross_entropy_with_logits(
                guess[:, 2:], signs, reduction="none"
            )
            loss = loss + PLACE_WEIGHT * functional.mse_loss(guess[:, :2], distances)
            loss = loss + (losses * clear).sum() / clear.sum().clamp(min=1)
            right += ((guess[:, 2:] > 0) == (signs > 0))[clear].sum().item()
            total += int(clear.sum())
        return loss, {"sides": (right, total)}


def visual_places(count: int) -> Tensor:
    """Return the position ids of 576 or 144 visual tokens: those of their (top-left) patches."""
    places = torch.arange(GRID * GRID) if count == GRID * GRID else pooled_places()
    return len(PREFIX) + places


def row_mask(blocks: Tensor, prefix: int) -> Tensor:
    """Return the additive mask (n, 1, length, length): causal, and blocks apart."""
    count, text = blocks.shape
    allowed = torch.ones(prefix + text, prefix + text, dtype=torch.bool).tril()
    allowed = allowed.expand(count, -1, -1).clone()
    allowed[:, prefix:, prefix:] &= blocks[:, :, None] == blocks[:, None, :]
    mask = torch.full(allowed.shape, HIDDEN, dtype=torch.bfloat16)
    return mask.masked_fill(allowed, 0.0)[:, None]


def run_decoder(
    model: LlavaForConditionalGeneration, sight: Tensor, batch: TextBatch
) -> tuple[Tensor, list[Tensor]]:
    """Return the hidden states of the text, last and before each layer: (n, length, width)."""
    device, embedding = sight.device, model.get_input_embeddings()
    start = embedding(torch.tensor(PREFIX, device=device)).expand(len(sight), -1, -1)
    projected = model.model.multi_modal_projector(sight)
    inputs = torch.cat([start, projected, embedding(batch.ids.to(device))], 1)
    prefix = len(PREFIX) + projected.shape[1]
    before = torch.cat([torch.arange(len(PREFIX)), visual_places(sight.shape[1])]).expand(
        len(sight), -1
    )
    positions = torch.cat([before, len(PREFIX) + GRID * GRID + batch.positions], 1)
    states = model.model.language_model(
        inputs_embeds=inputs,
        attention_mask=row_mask(batch.blocks, prefix).to(device),
        position_ids=positions.to(device),
        use_cache=False,
        output_hidden_states=True,
    )
    middle = [state[:, prefix:] for state in states.hidden_states]
    return states.last_hidden_state[:, prefix:], middle


def answer_loss(logits: Tensor, batch: TextBatch, answered: Tensor) -> tuple[Tensor, Report]:
    """Return the weighted loss of answer tokens and the tally of right first words by kind."""
    targets, weights = (
        batch.targets[answered].to(logits.device),
        batch.weights[answered].to(logits.device),
    )
    losses = functional.cross_entropy(logits, targets, reduction="none")
    right = torch.zeros(answered.shape)
    right[answered] = (logits.argmax(-1) == targets).float().cpu()
    report: Report = {
        kind: (sum(right[row, place].item() for row, place in places), len(places))
        for kind, places in batch.kinds.items()
        if kind != "description"
    }
    if "description" in batch.kinds:
        long = answered & (batch.weights < 1)
        report["description"] = (right[long].sum().item(), int(long.sum()))
    return (losses * weights).sum() / weights.sum(), report


def mention_loss(
    head: MentionHead, middle: list[Tensor], batch: TextBatch
) -> tuple[Tensor, Report]:
    """Return the loss of the mention head on all marks."""
    states = middle[MENTION_LAYER]
    rows, places, targets = (value.to(states.device) for value in mention_targets(batch))
    return head.loss(states[rows, places], targets)


def pair_loss(head: PairHead, middle: list[Tensor], batch: TextBatch) -> tuple[Tensor, Report]:
    """Return the loss of the pair head on all questions about two items."""
    device = middle[0].device
    table = torch.tensor(batch.pairs, device=device).reshape(-1, 5)
    rows, places = table[:, 0].long(), table[:, 1:3].long()
    states = [middle[layer][rows, places[:, i]] for i, layer in enumerate(PAIR_LAYERS)]
    return head.loss(states, table[:, 3:])


def language_step(
    model: LlavaForConditionalGeneration,
    heads: tuple[MentionHead, PairHead],
    cache: Cache,
    features: Tensor,
    shape: LanguageShape,
    device: torch.device,
) -> StepFunction:
    """Return the step of these phases on pictures drawn at random from the cache."""
    rng = random.Random(int(torch.randint(1 << 30, (1,))))

    def step() -> tuple[Tensor, Report]:
        chosen = sample_rows(cache, shape.rows)
        batch = pack([cache.pictures[i] for i in chosen.tolist()], shape.length, rng, WEIGHTS)
        sight = features[chosen].float().to(device)
        return decoder_loss(model, heads, pool(sight) if shape.pooled else sight, batch)

    return step


def decoder_loss(
    model: LlavaForConditionalGeneration,
    heads: tuple[MentionHead, PairHead],
    sight: Tensor,
    batch: TextBatch,
) -> tuple[Tensor, Report]:
    """Return the loss of answers and of both throw-away heads; sight is (n, tokens, width)."""
    last, middle = run_decoder(model, sight, batch)
    answered = batch.targets != IGNORED
    logits = model.lm_head(last[answered.to(sight.device)]).float()
    loss, report = answer_loss(logits, batch, answered)
    extra, named = mention_loss(heads[0], middle, batch)
    sides, compared = pair_loss(heads[1], middle, batch)
    loss = loss + MENTION_WEIGHT * extra + PAIR_WEIGHT * sides
    return loss, {**report, **named, **compared}


def sample_rows(cache: Cache, rows: int, easy_share: float = 0.15) -> Tensor:
    """Draw picture numbers: easy-VQA pictures (the last ones) have a fixed share."""
    scenes = next(i for i, picture in enumerate(cache.pictures) if picture.pairs)
    easy = round(rows * easy_share)
    generated = torch.randint(scenes, (rows - easy,))
    return torch.cat(
        [generated, torch.randint(scenes, len(cache), (easy,)) if easy else generated[:0]]
    )

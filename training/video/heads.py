"""Throw-away heads on middle layers, which show the decoder what a clip is about.

`tiny` did not find the comparison of two places in time without such heads. Here one reads, from
every visual token, which frame it is of and how the shape that it shows came there; one reads, from
every word that names a shape, when and where that shape is seen; one compares two named shapes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from training.loop import Report
from training.scenes import COLOUR_NAMES, DIGIT_MARK, SHAPES
from training.video.clips import FRAMES, LANES, Clip
from training.video.packing import ClipBatch, mover_targets

TOKEN_LAYER = 5
MENTION_LAYER = 7
COMPARE_LAYER = 9
PLACE_WEIGHT = 3.0
ABSENT = -100
SPLIT = (FRAMES, FRAMES, LANES, 10, 1)


class TokenHead(nn.Module):
    """Reads visual tokens: frame, first frame and rank of the shape, digit, way so far."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, sum(SPLIT))

    def loss(self, states: Tensor, targets: Tensor) -> tuple[Tensor, Report]:
        """Return the loss; states are (n, tokens, width), targets (n, tokens, 5)."""
        parts = self.linear(self.norm(states)).float().split(SPLIT, -1)
        loss, report = states.sum() * 0, Report()
        for index, label in enumerate(("frame", "entry", "rank", "tower-digit")):
            guess, truth = parts[index].flatten(0, 1), targets[..., index].long().flatten()
            if not bool((truth != ABSENT).any()):
                continue
            loss = loss + functional.cross_entropy(guess, truth, ignore_index=ABSENT)
            right = (guess.argmax(-1) == truth).sum().item()
            report[label] = (right, int((truth != ABSENT).sum()))
        shown = targets[..., 1] != ABSENT
        way = functional.mse_loss(parts[4][..., 0][shown], targets[..., 4][shown])
        return loss + PLACE_WEIGHT * way, report | {"way": (way.item() ** 0.5, 1.0)}


def token_table(clip: Clip) -> Tensor:
    """Return targets (frame, mark 0..9, 5) of a token by its frame and by what it shows.

    The five are the frame, the first frame of its shape, how many shapes appeared earlier, the
    digit (ABSENT where there is no shape or no digit), and the way from where the shape appeared,
    in halves of the width.
    """
    table = torch.full((FRAMES, DIGIT_MARK + 1, len(SPLIT)), float(ABSENT))
    table[:, :, 0] = torch.arange(FRAMES)[:, None]
    for index, mover in enumerate(clip.movers):
        table[:, index + 1, 1] = mover.entry
        table[:, index + 1, 2] = sum(other.entry < mover.entry for other in clip.movers)
        way = torch.tensor([2 * (x - mover.way[0]) for x in mover.way])
        table[mover.entry : mover.leave + 1, index + 1, 4] = way
    if clip.digit:
        table[:, DIGIT_MARK, 3] = int(clip.digit.value)
    return table


class MoverHead(nn.Module):
    """Reads named shapes: there or not, first and last frame, x at both, colour and shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, 5 + len(COLOUR_NAMES) + len(SHAPES))

    def loss(self, middle: list[Tensor], batch: ClipBatch) -> tuple[Tensor, Report]:
        """Return the loss on all marks of a batch."""
        states = middle[MENTION_LAYER]
        rows = torch.tensor([row for row, _, _ in batch.named], device=states.device)
        places = torch.tensor([place for _, place, _ in batch.named], device=states.device)
        targets = mover_targets(batch).to(states.device)
        guess = self.linear(self.norm(states[rows, places])).float()
        there = targets[:, 0] > 0
        colours, shapes = guess[there, 5:].split((len(COLOUR_NAMES), len(SHAPES)), -1)
        distance = functional.mse_loss(guess[there, 1:5], targets[there, 1:5])
        loss = functional.binary_cross_entropy_with_logits(guess[:, 0], targets[:, 0])
        loss = loss + PLACE_WEIGHT * distance
        loss = loss + functional.cross_entropy(colours, targets[there, 5].long())
        loss = loss + functional.cross_entropy(shapes, targets[there, 6].long())
        right = ((guess[:, 0] > 0) == there).sum().item()
        return loss, {"named": (right, len(there)), "offset": (distance.item() ** 0.5, 1.0)}


class CompareHead(nn.Module):
    """Reads, from the word that names the second shape, which of the two appears first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, 2)

    def loss(self, middle: list[Tensor], batch: ClipBatch) -> tuple[Tensor, Report]:
        """Return the loss on all questions about two shapes."""
        states = middle[COMPARE_LAYER]
        table = torch.tensor(batch.compared, device=states.device).reshape(-1, 3)
        guess = self.linear(self.norm(states[table[:, 0].long(), table[:, 1].long()])).float()
        later = table[:, 2].float()
        sign = functional.binary_cross_entropy_with_logits(
            guess[:, 0], (later > 0).float(), reduction="sum"
        )
        amount = functional.mse_loss(guess[:, 1], later / (FRAMES - 1), reduction="sum")
        right = ((guess[:, 0] > 0) == (later > 0)).sum().item()
        loss = (sign + PLACE_WEIGHT * amount) / max(1, len(table))
        return loss, {"compared": (right, len(table))}

"""Many questions behind one clip: token rows, targets and marks, as `training.packing` does."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import torch
from torch import Tensor

from training.packing import IGNORED, Block, TextBatch, encode_pair
from training.scenes import COLOUR_NAMES, SHAPES
from training.tokenizer import PAD
from training.video.clips import FRAMES, Clip, Mover
from training.video.questions import MAKERS, ClipQuestion
from training.video.wording import video_vocabulary

WORDS = video_vocabulary()
Weights = dict[str, float]


@dataclass
class ClipBatch(TextBatch):
    """Rows of blocks about clips.

    `named` has (row, place, mover or None) for every mark, and `compared`, for every question on
    two shapes, (row, place of the second mark, frames by which the first appears later).
    """

    named: list[tuple[int, int, Mover | None]] = field(default_factory=list)
    compared: list[tuple[int, int, int]] = field(default_factory=list)


def sample_question(clip: Clip, rng: random.Random, weights: Weights) -> ClipQuestion:
    """Draw a question on a clip."""
    while True:
        kind = rng.choices(list(weights), list(weights.values()))[0]
        question = MAKERS[kind](clip, rng)
        if question is not None:
            return question


def pack_clips(clips: list[Clip], length: int, rng: random.Random, weights: Weights) -> ClipBatch:
    """Fill one row of `length` tokens for each clip with as many pairs as fit."""
    shape = (len(clips), length)
    batch = ClipBatch(
        torch.full(shape, PAD),
        torch.full(shape, IGNORED),
        torch.zeros(shape),
        torch.full(shape, -1),
        torch.zeros(shape, dtype=torch.long),
    )
    for row, clip in enumerate(clips):
        start, number = 0, 0
        while True:
            question = sample_question(clip, rng, weights)
            block = encode_pair(question, rng, WORDS)
            if start + len(block.ids) > length:
                break
            _place(batch, row, start, number, block, question)
            start, number = start + len(block.ids), number + 1
    return batch


def _place(
    batch: ClipBatch, row: int, start: int, number: int, block: Block, question: ClipQuestion
) -> None:
    """Write a block into its row."""
    end = start + len(block.ids)
    batch.ids[row, start:end] = torch.tensor(block.ids)
    batch.targets[row, start:end] = torch.tensor(block.targets)
    batch.weights[row, start:end] = 1.0
    batch.blocks[row, start:end] = number
    batch.positions[row, start:end] = torch.arange(end - start)
    first = start + block.targets.index(next(t for t in block.targets if t != IGNORED))
    batch.kinds.setdefault(question.category, []).append((row, first))
    for mark, mover in zip(block.marks, question.movers, strict=True):
        batch.named.append((row, start + mark, mover))
    if len(question.movers) == 2:
        one, two = question.movers
        assert one and two
        batch.compared.append((row, start + block.marks[1], one.entry - two.entry))


def mover_targets(batch: ClipBatch) -> Tensor:
    """Return (m, 7) for all marks: there or not, first and last frame and x at both.

    Frames and x go from -1 to 1; colour and shape follow. All but the first are 0 where the named
    thing is absent.
    """
    return torch.tensor([_mover_target(mover) for _, _, mover in batch.named])


def _mover_target(mover: Mover | None) -> tuple[float, ...]:
    """Return the target of one mark."""
    if mover is None:
        return (0.0,) * 7
    frames = (2 * frame / (FRAMES - 1) - 1 for frame in (mover.entry, mover.leave))
    places = (2 * x - 1 for x in (mover.way[0], mover.way[-1]))
    colour, shape = COLOUR_NAMES.index(mover.colour), SHAPES.index(mover.shape)
    return (1.0, *frames, *places, float(colour), float(shape))

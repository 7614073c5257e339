"""Phase b: projected patches score the words for what they show and where they lie."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from training.data import DIGIT_CLASS, GRID, Cache
from training.features import pool
from training.loop import Report, StepFunction
from training.scenes import COLOUR_NAMES, DIGIT_MARK, SHAPES, Scene
from training.templates import COLUMNS, ROWS
from training.tokenizer import vocabulary

SHARPNESS = 4.0
GROUND_WEIGHT = 0.2
PLACE_WEIGHT = 0.5


def word_ids(words: tuple[str, ...]) -> Tensor:
    """Return the ids of words in order."""
    table = vocabulary()
    return torch.tensor([table[word] for word in words])


COLOUR_IDS, SHAPE_IDS = word_ids(COLOUR_NAMES), word_ids(SHAPES)
DIGIT_IDS = word_ids(tuple("0123456789"))
ROW_IDS, COLUMN_IDS = word_ids(ROWS), word_ids(COLUMNS)
NOUN_IDS = torch.cat([COLOUR_IDS, SHAPE_IDS, DIGIT_IDS])


def mark_cells(scene: Scene) -> Tensor:
    """Return the cell of every mark of a scene (see `draw_marks`), -1 where unused: (10,)."""
    cells = torch.full((DIGIT_MARK + 1,), -1)
    for index, item in enumerate(scene.items):
        cells[index + 1] = item.cell
    if scene.digit:
        cells[DIGIT_MARK] = scene.digit.cell
    return cells


def ground_cells() -> Tensor:
    """Return the cell in which every patch itself lies: (576,)."""
    third = torch.arange(GRID) * 3 // GRID
    return (third[:, None] * 3 + third[None]).flatten()


def patch_cells(marks: Tensor, cells: Tensor) -> Tensor:
    """Return the cell of what every patch shows: (n, 576) from marks and (n, 10) mark cells."""
    shown = cells.gather(1, marks)
    return torch.where(shown < 0, ground_cells().expand_as(shown), shown)


def blocks(labels: Tensor) -> Tensor:
    """Reduce patch labels (n, 576) to 2x2 blocks (n, 144): -1 where a block is not uniform."""
    parts = labels.view(-1, GRID // 2, 2, GRID // 2, 2).permute(0, 1, 3, 2, 4).flatten(3)
    same = parts.amax(-1) == parts.amin(-1)
    return torch.where(same, parts[..., 0], -torch.ones_like(parts[..., 0])).flatten(1)


def naming_loss(
    projected: Tensor, words: Tensor, classes: Tensor, cells: Tensor
) -> tuple[Tensor, Report]:
    """Return the loss of all words; projected (m, width), classes and cells (m,)."""
    scores = projected @ words.T * (SHARPNESS * projected.shape[-1] ** -0.5)
    things, digits = (classes > 0) & (classes < DIGIT_CLASS), classes >= DIGIT_CLASS
    colour, shape = (classes[things] - 1) // len(SHAPES), (classes[things] - 1) % len(SHAPES)
    loss, right = _choose(scores[things], COLOUR_IDS, colour)
    for rows, ids, truth in (
        (things, SHAPE_IDS, shape),
        (digits, DIGIT_IDS, classes[digits] - DIGIT_CLASS),
    ):
        loss = loss + _choose(scores[rows], ids, truth)[0]
    row_loss, row_right = _choose(scores, ROW_IDS, cells // 3)
    column_loss, _ = _choose(scores, COLUMN_IDS, cells % 3)
    ground = functional.softplus(scores[classes == 0][:, NOUN_IDS]).mean()
    named = functional.softplus(
        -scores[things].gather(1, COLOUR_IDS.to(colour.device)[colour][:, None])
    ).mean()
    loss = loss + PLACE_WEIGHT * (row_loss + column_loss) + GROUND_WEIGHT * (ground + named)
    return loss + 1e-3 * projected.square().mean(), {"colour": right, "row": row_right}


def _choose(scores: Tensor, ids: Tensor, truth: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """Return the loss and tally of choosing among a group of words."""
    if not len(truth):
        return scores.sum() * 0, (0.0, 0.0)
    logits = scores[:, ids]
    return functional.cross_entropy(logits, truth), (
        (logits.argmax(-1) == truth).sum().item(),
        len(truth),
    )


def naming_step(
    projector: nn.Module,
    embedding: nn.Embedding,
    cache: Cache,
    features: Tensor,
    batch: int,
    device: torch.device,
) -> StepFunction:
    """Return the step of this phase; every second batch is pooled to 144 blocks."""
    cells = torch.stack(
        [mark_cells(p.scene) if p.scene else torch.full((10,), -1) for p in cache.pictures]
    )
    known = torch.tensor([i for i, picture in enumerate(cache.pictures) if picture.scene])
    turn = iter(range(10**9))

    def step() -> tuple[Tensor, Report]:
        chosen = known[torch.randint(len(known), (batch,))]
        sight = features[chosen].float()
        labels = cache.classes[chosen].long().flatten(1)
        where = patch_cells(cache.marks[chosen].long().flatten(1), cells[chosen])
        if next(turn) % 2:
            sight, labels, where = pool(sight), blocks(labels), blocks(where)
        keep = (labels >= 0) & (where >= 0)
        keep &= (labels > 0) | (torch.rand(keep.shape) < 0.2)
        projected = projector(sight[keep].to(device)).float()
        labels, where = labels[keep].to(device), where[keep].to(device)
        return naming_loss(projected, embedding.weight, labels, where)

    return step

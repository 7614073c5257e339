"""Phase a, continued: the tower reads digits in windows of 12x12 patches at full resolution.

A digit needs the full resolution, but not the whole picture. A window has a quarter of the
tokens and keeps the position embeddings of its place, so many more digits fit into a minute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import CLIPVisionModel

from training.data import GRID, Cache, Normalizer
from training.loop import Report, StepFunction
from training.scenes import DIGIT_MARK
from training.vision_phase import POSITIONS, DenseHeads, dense_loss, tower_config

WINDOW = GRID // 2
PATCH = 4
DIGIT_SHARE = 0.75


class WindowTower(nn.Module):
    """The tower for 96 pixels, applied to windows of 48 pixels with borrowed positions."""

    def __init__(self, tower: CLIPVisionModel) -> None:
        super().__init__()
        self.tower = tower
        self.frame = [CLIPVisionModel(tower_config(WINDOW * PATCH))]
        self.frame[0].set_attn_implementation(tower.config._attn_implementation)
        # Its weights are never used, but its table of position numbers is.
        frame: nn.Module = self.frame[0]
        frame.to(tower.device)

    def at(self, row: int, column: int) -> Callable[..., Any]:
        """Return the tower as it sees the window whose top-left patch is given."""
        lines = torch.arange(WINDOW)
        places = ((row + lines[:, None]) * GRID + column + lines[None]).flatten()
        state: dict[str, Tensor] = dict(self.tower.named_parameters())
        name = next(key for key in state if key.endswith(POSITIONS))
        keep = torch.cat([torch.zeros(1, dtype=torch.long), 1 + places]).to(state[name].device)
        state[name] = state[name][keep]
        return lambda **inputs: functional_call(self.frame[0], state, (), inputs)


def digit_windows(marks: Tensor) -> Tensor:
    """Return, for every picture, the digit's patch box: rows and columns (n, 4), -1 if none."""
    shown = marks == DIGIT_MARK
    lines = [shown.any(2), shown.any(1)]
    first = [line.int().argmax(1) for line in lines]
    last = [GRID - 1 - line.flip(1).int().argmax(1) for line in lines]
    box = torch.stack([first[0], last[0], first[1], last[1]], 1)
    return torch.where(shown.flatten(1).any(1)[:, None], box, torch.full_like(box, -1))


def window_step(
    tower: CLIPVisionModel,
    heads: DenseHeads,
    cache: Cache,
    batch: int,
    device: torch.device,
    digit_share: float = DIGIT_SHARE,
) -> StepFunction:
    """Return the step on windows, most of which hold a whole digit."""
    normalize, window, boxes = Normalizer(), WindowTower(tower), digit_windows(cache.marks)

    def step() -> tuple[Tensor, Report]:
        row, column = (int(value) for value in torch.randint(GRID - WINDOW + 1, (2,)))
        low = torch.tensor([row, row, column, column])
        inside = ((boxes >= low) & (boxes < low + WINDOW)).all(1).nonzero()[:, 0]
        digits = inside[torch.randint(len(inside), (round(batch * digit_share),))]
        chosen = torch.cat([digits, torch.randint(len(cache), (batch - len(digits),))])
        classes = cache.classes[chosen, row : row + WINDOW, column : column + WINDOW].long()
        top, left, side = row * PATCH, column * PATCH, WINDOW * PATCH
        pixels = cache.pixels[chosen, :, top : top + side, left : left + side]
        tensors = normalize(pixels).to(device), classes.flatten(1).to(device)
        return dense_loss(window.at(row, column), heads, *tensors)

    return step

"""Phase a: the vision tower learns from dense labels, first at 48 and then at 96 pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from training.data import CLASSES, DIGIT_CLASS, GRID, Cache, Normalizer
from training.loop import Report, StepFunction

TOWER_WIDTH = 96
TOWER_LAYERS = 6
FEATURE_LAYER = -2
GROUND_WEIGHT = 0.2
DIGIT_WEIGHT = 3.0
CONTENT_WEIGHT = 5.0
POSITIONS = "embeddings.position_embedding.weight"


def tower_config(side: int) -> CLIPVisionConfig:
    """Return the tower's configuration for pictures of `side` pixels."""
    return CLIPVisionConfig(
        hidden_size=TOWER_WIDTH,
        intermediate_size=4 * TOWER_WIDTH,
        num_hidden_layers=TOWER_LAYERS,
        num_attention_heads=TOWER_WIDTH // 32,
        image_size=side,
        patch_size=4,
        projection_dim=TOWER_WIDTH,
    )


class DenseHeads(nn.Module):
    """Throw-away heads: class and place of every patch, content of the whole picture."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Linear(TOWER_WIDTH, CLASSES + 2)
        self.content = nn.Linear(TOWER_WIDTH, CLASSES - 1)


def patch_features(tower: CLIPVisionModel, pixels: Tensor) -> Tensor:
    """Return the states that the projector reads: (n, patches, width), [CLS] dropped."""
    states = tower(pixel_values=pixels, output_hidden_states=True).hidden_states
    features: Tensor = states[FEATURE_LAYER][:, 1:]
    return features


def grid_places(grid: int) -> Tensor:
    """Return x and y of every patch from -1 to 1: (1, grid * grid, 2)."""
    line = torch.linspace(-1, 1, grid)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([columns, rows], -1).view(1, -1, 2)


def content_labels(classes: Tensor) -> Tensor:
    """Return which classes occur in each picture: float (n, CLASSES - 1) from (n, patches)."""
    present = torch.zeros(len(classes), CLASSES, device=classes.device)
    return present.scatter_(1, classes, 1.0)[:, 1:]


def dense_loss(
    tower: Callable[..., Any], heads: DenseHeads, pixels: Tensor, classes: Tensor
) -> tuple[Tensor, Report]:
    """Run the tower and return its loss; see `states_loss`."""
    states = tower(pixel_values=pixels, output_hidden_states=True).hidden_states
    return states_loss(states, heads, classes)


def states_loss(
    states: Sequence[Tensor], heads: DenseHeads, classes: Tensor
) -> tuple[Tensor, Report]:
    """Return the summed loss of patches, places and content; classes are (n, patches)."""
    patch = heads.patch(states[FEATURE_LAYER][:, 1:]).float()
    content = heads.content(states[-1][:, 0]).float()
    weight = torch.ones(CLASSES, device=classes.device)
    weight[0] = GROUND_WEIGHT
    weight[DIGIT_CLASS:] = DIGIT_WEIGHT
    truth = content_labels(classes)
    places = grid_places(int(classes.shape[1] ** 0.5)).to(classes.device)
    loss = functional.cross_entropy(
        patch[..., :CLASSES].flatten(0, 1), classes.flatten(), weight=weight
    )
    loss = loss + CONTENT_WEIGHT * functional.binary_cross_entropy_with_logits(content, truth)
    loss = loss + functional.mse_loss(patch[..., CLASSES:], places.expand(len(patch), -1, -1))
    return loss, _dense_report(patch[..., :CLASSES].argmax(-1), classes, content > 0, truth)


def _dense_report(guess: Tensor, classes: Tensor, named: Tensor, truth: Tensor) -> Report:
    """Tally patches of items that are right, and classes that [CLS] names or invents."""
    shown = classes > 0
    hits = ((guess == classes) & shown).sum().item()
    digits = classes >= DIGIT_CLASS
    read = ((guess == classes) & digits).sum().item()
    found = (named * truth).sum().item()
    return {
        "patch": (hits, shown.sum().item()),
        "digit": (read, digits.sum().item()),
        "recall": (found, truth.sum().item()),
        "precision": (found, named.sum().item()),
    }


def vision_step(
    tower: CLIPVisionModel,
    heads: DenseHeads,
    cache: Cache,
    batch: int,
    halve: bool,
    device: torch.device,
) -> StepFunction:
    """Return the step of this phase on pictures drawn at random from the cache."""
    normalize = Normalizer()

    def step() -> tuple[Tensor, Report]:
        chosen = torch.randint(len(cache), (batch,))
        pixels, classes = normalize(cache.pixels[chosen]), cache.classes[chosen].long()
        if halve:
            pixels, classes = functional.avg_pool2d(pixels, 2), classes[:, ::2, ::2]
        return dense_loss(tower, heads, pixels.to(device), classes.flatten(1).to(device))

    return step


def grow_tower(small: CLIPVisionModel, large: CLIPVisionModel) -> None:
    """Copy the tower for 48 pixels into the one for 96, interpolating position embeddings."""
    state = small.state_dict()
    name = next(key for key in state if key.endswith(POSITIONS))
    table = state[name]
    half = GRID // 2
    plane = table[1:].T.reshape(1, -1, half, half)
    grown = functional.interpolate(plane, size=(GRID, GRID), mode="bicubic", align_corners=False)
    state[name] = torch.cat([table[:1], grown.flatten(2)[0].T])
    kept = {key: value for key, value in state.items() if not key.endswith("position_ids")}
    missing = large.load_state_dict(kept, strict=False).missing_keys
    assert all(key.endswith("position_ids") for key in missing), missing

"""Phase d: tower, projector and language model learn together at 576 visual tokens.

The tower keeps its dense losses, on the pictures of the step and on a batch of windows, so that
it goes on learning small shapes and digits while the language model follows it.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from training.data import Cache, Normalizer
from training.language_phase import LanguageShape, MentionHead, PairHead, decoder_loss, sample_rows
from training.loop import Report, StepFunction
from training.packing import WEIGHTS, pack
from training.vision_phase import FEATURE_LAYER, DenseHeads, states_loss
from training.window_phase import window_step

DENSE_WEIGHT = 0.3
WINDOWS = 24
WINDOW_DIGITS = 0.4
JOINT_WEIGHTS = {**WEIGHTS, "description": 1.5, "relation": 2.5, "shape": 2.0}


def joint_step(
    model: LlavaForConditionalGeneration,
    dense: DenseHeads,
    heads: tuple[MentionHead, PairHead],
    cache: Cache,
    shape: LanguageShape,
    device: torch.device,
) -> StepFunction:
    """Return the step of this phase on pictures drawn at random from the cache."""
    rng, normalize = random.Random(int(torch.randint(1 << 30, (1,)))), Normalizer()
    tower = model.model.vision_tower
    windows = window_step(tower, dense, cache, WINDOWS, device, WINDOW_DIGITS)

    def step() -> tuple[Tensor, Report]:
        chosen = sample_rows(cache, shape.rows)
        batch = pack([cache.pictures[i] for i in chosen.tolist()], shape.length, rng, JOINT_WEIGHTS)
        pixels = normalize(cache.pixels[chosen]).to(device)
        states = tower(pixel_values=pixels, output_hidden_states=True).hidden_states
        loss, report = decoder_loss(model, heads, states[FEATURE_LAYER][:, 1:], batch)
        classes = cache.classes[chosen].long().flatten(1).to(device)
        whole, seen = states_loss(states, dense, classes)
        parts, _ = windows()
        seen = {f"tower-{name}": value for name, value in seen.items()}
        return loss + DENSE_WEIGHT * (whole + parts), {**report, **seen}

    return step

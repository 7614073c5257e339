"""The frozen tower's features of all cached pictures, computed once and mapped from a file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from transformers import CLIPVisionModel

from training.data import GRID, SIDE, Cache, Normalizer
from training.vision_phase import FEATURE_LAYER, TOWER_WIDTH, tower_config

BATCH = 48


def load_features(tower: CLIPVisionModel, cache: Cache, path: Path, device: torch.device) -> Tensor:
    """Return fp16 features (n, 576, width) of the cache, from the file if it is there."""
    if not path.exists():
        partial = path.with_suffix(".partial")
        _write_features(tower, cache, partial, device)
        os.replace(partial, path)
    return torch.from_numpy(np.load(path, mmap_mode="r+"))


@torch.no_grad()
def _write_features(tower: CLIPVisionModel, cache: Cache, path: Path, device: torch.device) -> None:
    """Run the tower over the cache, batch by batch, into a file."""
    shape, normalize = (len(cache), GRID * GRID, TOWER_WIDTH), Normalizer()
    target = np.lib.format.open_memmap(path, "w+", np.float16, shape)
    lower: nn.Module = lower_tower(tower)
    lower.to(device)
    for start in range(0, len(cache), BATCH):
        pixels = normalize(cache.pixels[start : start + BATCH]).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            features = lower(pixel_values=pixels, output_hidden_states=True).hidden_states[-1][
                :, 1:
            ]
        target[start : start + BATCH] = features.to(torch.float16).cpu().numpy()
        if start % (BATCH * 100) == 0:
            print(f"features {start}/{len(cache)}", flush=True)
    target.flush()


def lower_tower(tower: CLIPVisionModel) -> CLIPVisionModel:
    """Copy the tower without the layers above the one that the projector reads."""
    config = tower_config(SIDE)
    config.num_hidden_layers += FEATURE_LAYER + 1
    lower = CLIPVisionModel(config)
    missing = lower.load_state_dict(tower.state_dict(), strict=False).missing_keys
    assert not missing, missing
    lower.eval()
    return lower


def pool(features: Tensor) -> Tensor:
    """Average 2x2 patches: (n, 576, width) to (n, 144, width)."""
    plane = features.transpose(1, 2).reshape(len(features), -1, GRID, GRID)
    return functional.avg_pool2d(plane, 2).flatten(2).transpose(1, 2)


def pooled_places() -> Tensor:
    """Return the index, on the 24x24 grid, of the top-left patch of every 2x2 block: (144,)."""
    rows, columns = torch.meshgrid(
        torch.arange(0, GRID, 2), torch.arange(0, GRID, 2), indexing="ij"
    )
    return (rows * GRID + columns).flatten()

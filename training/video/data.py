"""Seeds of clips, and the frozen tower's pooled features of all training clips, kept as files.

A chunk of clips is one pair of files, so an interrupted run goes on with the chunks that miss.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionModel, LlavaForConditionalGeneration
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from training.attention import use_plain_attention
from training.data import SIDE, Normalizer
from training.export import SHIPPED as TINY
from training.features import lower_tower, pool
from training.video.clips import FRAMES, Clip, compose_clip, draw_clip, frame_marks
from training.vision_phase import TOWER_WIDTH

POOLED = 12  # tokens a side of a frame
FRAME_TOKENS = POOLED * POOLED
CHUNK = 500
OUT = Path(__file__).parent.parent / "out-video"
TRAIN_SEEDS = range(40_000_000, 41_000_000)
TEST_SEEDS = range(50_000_000, 51_000_000)
SAMPLE_SEEDS = range(60_000_000, 61_000_000)


def frame_processor() -> CLIPImageProcessorPil:
    """Return the shipped processor of frames: resize to 96 x 96, normalize."""
    size = {"height": SIDE, "width": SIDE}
    return CLIPImageProcessorPil(size=size, crop_size=size, do_center_crop=False)


def frame_pixels(frames: Sequence[Image.Image]) -> Tensor:
    """Return what the tower takes: float32 (frames, 3, 96, 96)."""
    pixels: Tensor = frame_processor()(list(frames), return_tensors="pt")["pixel_values"]
    return pixels


def tiny_tower() -> CLIPVisionModel:
    """Return the tower of `tiny` up to the layer that the projector reads, in float32."""
    tiny = LlavaForConditionalGeneration.from_pretrained(TINY, dtype=torch.float32)
    lower = lower_tower(tiny.model.vision_tower)
    use_plain_attention(lower)
    return lower


@torch.no_grad()
def pooled_features(tower: CLIPVisionModel, pixels: Tensor) -> Tensor:
    """Return what the projector reads: (frames, 144, width)."""
    output: Any = tower(pixel_values=pixels, output_hidden_states=True)
    return pool(output.hidden_states[-1][:, 1:].float())


def token_marks(clip: Clip, frame: int) -> np.ndarray:
    """Return what each token of a frame shows most of, ground only if nothing else: (144,) uint8.

    Marks are those of `frame_marks`.
    """
    fine = frame_marks(clip, frame).resize((2 * SIDE, 2 * SIDE), Image.Resampling.NEAREST)
    step = 2 * SIDE // POOLED
    blocks = np.asarray(fine).reshape(POOLED, step, POOLED, step).swapaxes(1, 2)
    counts = np.stack([(blocks == mark).sum((2, 3)) for mark in range(1, 10)])
    return np.where(counts.max(0) > step, counts.argmax(0) + 1, 0).astype(np.uint8).ravel()


@dataclass
class ClipCache:
    """Clips with their features, fp16 (n, 8, 144, 96), and token marks, uint8 (n, 8, 144)."""

    clips: list[Clip]
    features: list[np.ndarray]
    marks: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.clips)

    def rows(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return features (n, 8, 144, 96) in float32 and marks of some clips."""
        places = [divmod(index, CHUNK) for index in chosen]
        features = np.stack([self.features[chunk][row] for chunk, row in places])
        marks = np.stack([self.marks[chunk][row] for chunk, row in places])
        return torch.from_numpy(features).float(), torch.from_numpy(marks)


def load_cache(clips: int, device: torch.device, workers: int) -> ClipCache:
    """Return the cache of the first training clips; chunks that miss are made first."""
    OUT.mkdir(parents=True, exist_ok=True)
    chunks = range(-(-clips // CHUNK))
    missing = [(chunk, device.type) for chunk in chunks if not _path(chunk, "features").exists()]
    if device.type == "cpu" and missing:
        with get_context("spawn").Pool(workers) as processes:
            processes.starmap(write_chunk, missing, chunksize=1)
    else:
        for chunk, kind in missing:
            write_chunk(chunk, kind)
    features = [np.load(_path(chunk, "features"), mmap_mode="r") for chunk in chunks]
    marks = [np.load(_path(chunk, "marks")) for chunk in chunks]
    known = [compose_clip(seed) for seed in TRAIN_SEEDS[: len(chunks) * CHUNK]]
    return ClipCache(known, features, marks)


def write_chunk(chunk: int, device: str) -> None:
    """Draw the clips of a chunk, run the tower over them and write both files."""
    if device == "cpu":
        torch.set_num_threads(1)
    tower, normalize = tiny_tower(), Normalizer()
    module: nn.Module = tower
    module.to(device)
    features = np.empty((CHUNK, FRAMES, FRAME_TOKENS, TOWER_WIDTH), np.float16)
    marks = np.empty((CHUNK, FRAMES, FRAME_TOKENS), np.uint8)
    processor = frame_processor()
    for row, seed in enumerate(TRAIN_SEEDS[chunk * CHUNK : (chunk + 1) * CHUNK]):
        clip = compose_clip(seed)
        raw = processor(draw_clip(clip), do_rescale=False, do_normalize=False, return_tensors="pt")
        with torch.autocast(device, dtype=torch.bfloat16):
            seen = pooled_features(tower, normalize(raw["pixel_values"]).to(device))
        features[row] = seen.cpu().numpy()
        marks[row] = [token_marks(clip, frame) for frame in range(FRAMES)]
    _write(_path(chunk, "marks"), marks)
    _write(_path(chunk, "features"), features)
    print(f"features of clips {chunk * CHUNK} to {(chunk + 1) * CHUNK - 1}", flush=True)


def _path(chunk: int, kind: str) -> Path:
    """The file of a chunk."""
    return OUT / f"{kind}-{chunk:03d}.npy"


def _write(path: Path, values: np.ndarray) -> None:
    """Write a file that is there only when it is complete."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as target:
        np.save(target, values)
    os.replace(partial, path)

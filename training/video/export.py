"""Writes the shipped folder of `tiny-video`; `python -m training.video.export` from checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import LlavaNextVideoForConditionalGeneration

from training.export import store_half
from training.loop import load_modules
from training.video.data import OUT, frame_processor
from training.video.model import build_video_model, build_video_tokenizer

SHIPPED = Path(__file__).parents[2] / "vtc_cli" / "assets" / "tiny-video"
PHASES = ("all", "few")


def assemble_video() -> LlavaNextVideoForConditionalGeneration:
    """Put the newest checkpoint into the model."""
    model = build_video_model()
    path = next(path for path in (OUT / f"{name}.pt" for name in PHASES) if path.exists())
    modules: dict[str, torch.nn.Module] = {
        "decoder": model.model.language_model,
        "projector": model.model.multi_modal_projector,
        "words": model.lm_head,
    }
    load_modules(path, modules)
    return model


def export_video(model: LlavaNextVideoForConditionalGeneration, folder: Path) -> None:
    """Save model, tokenizer and frame processor; weights in fp16, loaded as float32."""
    folder.mkdir(parents=True, exist_ok=True)
    # No picture was ever shown, so the row end of pictures was not trained.
    model.model.image_newline.data.zero_()
    model.set_attn_implementation("sdpa")
    model.cpu().save_pretrained(folder)
    build_video_tokenizer().save_pretrained(folder)
    frame_processor().save_pretrained(folder)
    store_half(folder / "model.safetensors")


def main() -> None:
    """Export the newest state of training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=SHIPPED)
    folder = parser.parse_args().folder
    export_video(assemble_video(), folder)
    size = (folder / "model.safetensors").stat().st_size / 1e6
    print(f"{folder}: {size:.1f} MB of weights")


if __name__ == "__main__":
    main()

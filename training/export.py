"""Writes the shipped folder from the newest checkpoints: `python -m training.export`."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

from training.data import OUT
from training.model import build_model, build_processor

SHIPPED = Path(__file__).parent.parent / "vtc_cli" / "assets" / "tiny"
CARD = Path(__file__).parent / "MODEL_CARD.md"
TOWER = ("language576", "settle", "windows", "vision96")
LANGUAGE = ("language576", "language144")


def load_part(name: str) -> dict[str, Any] | None:
    """Return the module states of a phase's checkpoint, or None where it has none."""
    path = OUT / f"{name}.pt"
    if not path.exists():
        return None
    modules: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)["modules"]
    return modules


def newest(names: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the module states of the first phase that has a checkpoint."""
    return next((part for part in map(load_part, names) if part), None)


def assemble() -> LlavaForConditionalGeneration:
    """Put the newest checkpoint of every part into one model."""
    model = build_model()
    vision = newest(TOWER)
    assert vision is not None, "train the vision tower first"
    model.model.vision_tower.load_state_dict(vision["tower"])
    language = newest(LANGUAGE)
    naming = load_part("naming")
    if language:
        model.model.language_model.load_state_dict(language["decoder"])
        model.model.multi_modal_projector.load_state_dict(language["projector"])
        model.lm_head.load_state_dict(language["words"])
    elif naming:
        model.get_input_embeddings().load_state_dict(naming["embedding"])
        model.model.multi_modal_projector.load_state_dict(naming["projector"])
        model.lm_head.load_state_dict(naming["embedding"])
    return model


def export(model: LlavaForConditionalGeneration, folder: Path) -> None:
    """Save model and processor; weights are stored in fp16 and load as float32."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    build_processor().save_pretrained(folder)
    store_half(folder / "model.safetensors")
    if CARD.exists():
        shutil.copyfile(CARD, folder / "MODEL_CARD.md")


def store_half(path: Path) -> None:
    """Rewrite the weights in fp16 under the names that saving chose."""
    weights = {name: value.half() for name, value in load_file(path).items()}
    assert all(bool(value.isfinite().all()) for value in weights.values())
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)


def main() -> None:
    """Export the newest state of training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=SHIPPED)
    folder = parser.parse_args().folder
    export(assemble(), folder)
    dtype = json.loads((folder / "config.json").read_text())["dtype"]
    size = (folder / "model.safetensors").stat().st_size / 1e6
    print(f"{folder}: {size:.1f} MB of weights, loads as {dtype}")


if __name__ == "__main__":
    main()

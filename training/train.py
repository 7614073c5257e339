"""The training driver: runs the phases in order and resumes each from its checkpoint."""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel, LlavaForConditionalGeneration

from training.attention import use_plain_attention
from training.data import OUT, Cache, load_training
from training.features import load_features
from training.joint_phase import joint_step
from training.language_phase import LanguageShape, MentionHead, PairHead, language_step
from training.loop import Phase, load_modules, run_phase
from training.model import build_model
from training.naming_phase import naming_step
from training.vision_phase import DenseHeads, grow_tower, tower_config, vision_step
from training.window_phase import window_step

POOLED = LanguageShape(pooled=True, rows=24, length=173)
JOINT_WARMUP = 50
# Budgets on two shared processor cores; a phase's option overrides them, also on resuming.
MINUTES = {
    "vision48": 6.0,
    "vision96": 16.0,
    "windows": 5.0,
    "settle": 3.0,
    "naming": 2.5,
    "language144": 32.5,
    "language576": 62.0,
}
WHOLE = LanguageShape(pooled=False, rows=12, length=125)


def make_phase(
    arguments: argparse.Namespace, name: str, modules: dict[str, nn.Module], rate: float
) -> Phase:
    """Describe one phase; its budget in minutes is the option of the same name."""
    device = torch.device(arguments.device)
    for module in modules.values():
        module.to(device)
    return Phase(name, modules, getattr(arguments, name), rate, OUT, device)


def known_scenes(cache: Cache) -> Cache:
    """Return the pictures whose content is known, which have dense labels."""
    return cache.subset([i for i, picture in enumerate(cache.pictures) if picture.scene])


def train_vision(arguments: argparse.Namespace, cache: Cache) -> CLIPVisionModel:
    """Run phase a at both sizes and return the tower for 96 pixels."""
    known = known_scenes(cache)
    small, large, heads = (
        CLIPVisionModel(tower_config(48)),
        CLIPVisionModel(tower_config(96)),
        DenseHeads(),
    )
    for tower in (small, large):
        use_plain_attention(tower)
    device = torch.device(arguments.device)
    phase = make_phase(arguments, "vision48", {"tower": small, "heads": heads}, 1.5e-3)
    run_phase(phase, vision_step(small, heads, known, 48, True, device))
    grow_tower(small, large)
    phase = make_phase(arguments, "vision96", {"tower": large, "heads": heads}, 7e-4)
    run_phase(phase, vision_step(large, heads, known, 24, False, device))
    modules = {"tower": large, "heads": heads}
    run_phase(
        make_phase(arguments, "windows", modules, 8e-4),
        window_step(large, heads, known, 48, device),
    )
    phase = make_phase(arguments, "settle", modules, 3e-4)
    run_phase(phase, vision_step(large, heads, known, 24, False, device))
    return large


def train_names(
    arguments: argparse.Namespace,
    model: LlavaForConditionalGeneration,
    cache: Cache,
    features: Tensor,
) -> None:
    """Run phase b, then start the output words from the input words."""
    embedding, projector = model.get_input_embeddings(), model.model.multi_modal_projector
    assert isinstance(embedding, nn.Embedding)
    modules = {"embedding": embedding, "projector": projector}
    phase = make_phase(arguments, "naming", modules, 2e-3)
    run_phase(phase, naming_step(projector, embedding, cache, features, 32, phase.device))
    model.lm_head.weight.data.copy_(embedding.weight.data)


def train_language(
    arguments: argparse.Namespace,
    model: LlavaForConditionalGeneration,
    cache: Cache,
    features: Tensor,
) -> None:
    """Run phases c and d."""
    heads = MentionHead(model.lm_head.in_features), PairHead(model.lm_head.in_features)
    modules = {
        "decoder": model.model.language_model,
        "projector": model.model.multi_modal_projector,
        "words": model.lm_head,
        "head": heads[0],
        "pairs": heads[1],
    }
    phase = make_phase(arguments, "language144", modules, 1.5e-3)
    run_phase(phase, language_step(model, heads, cache, features, POOLED, phase.device))
    dense, known = DenseHeads(), known_scenes(cache)
    load_modules(OUT / "settle.pt", {"heads": dense})
    modules |= {"tower": model.model.vision_tower, "dense": dense}
    phase = make_phase(arguments, "language576", modules, 5e-4)
    phase.warmup_steps = JOINT_WARMUP
    run_phase(phase, joint_step(model, dense, heads, known, WHOLE, phase.device))


def parse_arguments() -> argparse.Namespace:
    """Read the options: the budget of each phase in minutes, device and size of the cache."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=32_000)
    parser.add_argument("--language-scenes", type=int, default=18_000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    for name, minutes in MINUTES.items():
        parser.add_argument(f"--{name}", type=float, default=minutes)
    return parser.parse_args()


def main() -> None:
    """Train all phases."""
    arguments = parse_arguments()
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    cache = load_training(arguments.scenes)
    tower = train_vision(arguments, cache)
    model = build_model()
    use_plain_attention(model)
    model.model.vision_tower = tower
    easy = range(arguments.scenes, len(cache))
    cache = cache.subset([*range(arguments.language_scenes), *easy])
    features = load_features(tower, cache, OUT / "features.npy", torch.device(arguments.device))
    train_names(arguments, model, cache, features)
    train_language(arguments, model, cache, features)


if __name__ == "__main__":
    main()

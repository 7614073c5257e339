"""Trains `tiny-video` from the weights of `tiny` and exports it: `python -m training.video`.

Resumes: chunks of features that are there stay, a phase goes on from its checkpoint, and one that
is done only loads. A larger budget of minutes takes a phase up again.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn
from transformers import LlavaNextVideoForConditionalGeneration

from training.attention import use_plain_attention
from training.loop import Phase, run_phase
from training.video.data import FRAME_TOKENS, OUT, ClipCache, load_cache
from training.video.export import SHIPPED, export_video
from training.video.model import build_video_model
from training.video.step import ClipShape, Heads, clip_step

FEW = ClipShape(kept=24, rows=24, length=208)
ALL = ClipShape(kept=FRAME_TOKENS, rows=6, length=224)
SHAPES = {"few": (FEW,), "all": (FEW, FEW, FEW, ALL, ALL)}
# Budgets on one of two shared processor cores; options override them, also on resuming.
MINUTES = {"few": 45.0, "all": 30.0}


def train(arguments: argparse.Namespace) -> LlavaNextVideoForConditionalGeneration:
    """Run both phases and return the model."""
    device = torch.device(arguments.device)
    cache = load_cache(arguments.clips, device, arguments.workers)
    torch.manual_seed(0)
    model = build_video_model()
    use_plain_attention(model)
    heads = Heads(model.lm_head.in_features)
    modules: dict[str, nn.Module] = {
        "decoder": model.model.language_model,
        "projector": model.model.multi_modal_projector,
        "words": model.lm_head,
        "heads": heads,
    }
    for module in modules.values():
        module.to(device)
    rates = {"few": arguments.few_rate, "all": arguments.all_rate}
    for name, shapes in SHAPES.items():
        phase = Phase(name, modules, getattr(arguments, name), rates[name], OUT, device)
        _run(phase, model, cache, shapes)
    return model


def _run(
    phase: Phase,
    model: LlavaNextVideoForConditionalGeneration,
    cache: ClipCache,
    shapes: tuple[ClipShape, ...],
) -> None:
    """Run one phase."""
    heads = phase.modules["heads"]
    assert isinstance(heads, Heads)
    phase.log_steps, phase.warmup_steps = 25, 60
    run_phase(phase, clip_step(model, heads, cache, shapes, phase.device))


def parse_arguments() -> argparse.Namespace:
    """Read the options: budget of each phase in minutes, device, number of clips."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=6000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="processes that draw clips")
    parser.add_argument("--few-rate", type=float, default=1e-3)
    parser.add_argument("--all-rate", type=float, default=5e-4)
    for name, minutes in MINUTES.items():
        parser.add_argument(f"--{name}", type=float, default=minutes)
    return parser.parse_args()


def main() -> None:
    """Train and export."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    export_video(train(arguments), SHIPPED)


if __name__ == "__main__":
    main()

"""Small random Qwen vision-language models and the library's own answers to compare with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.engine.support import QUESTION, STEPS, noise_media
from vtc_cli.core.media import Media
from vtc_cli.core.plan import Plan
from vtc_cli.core.tokens import TokenTable
from vtc_cli.core.trace import ModelFacts, Trace
from vtc_cli.engine.decode import Generation
from vtc_cli.engine.reading import Request
from vtc_cli.engine.session import Session
from vtc_cli.models.qwen2_5_vl import Qwen25VLAdapter
from vtc_cli.models.qwen2_vl import Qwen2VLAdapter
from vtc_cli.models.qwen3_vl import Qwen3VLAdapter
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.prompt import Prompt
from vtc_cli.models.support.qwen import QwenAdapter

TOWER = {"depth": 4, "num_heads": 4}
SMALL: dict[str, tuple[type[QwenAdapter], dict[str, Any]]] = {
    "qwen2_vl": (Qwen2VLAdapter, TOWER | {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}),
    "qwen2_5_vl": (
        Qwen25VLAdapter,
        TOWER
        | {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 64}
        | {"window_size": 56, "fullatt_block_indexes": [3]},
    ),
    "qwen3_vl": (
        Qwen3VLAdapter,
        TOWER
        | {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 64}
        | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1, 2]},
    ),
}
CASES = [(family, kind) for family in SMALL for kind in ("image", "video")]
CASE_NAMES = [" ".join(case) for case in CASES]
PREPARED = ("image_grid_thw", "video_grid_thw")


@cache
def small_qwen(family: str, attention: str = "sdpa") -> QwenAdapter:
    """30 to 40 visual tokens a frame, 4 tower layers, 6 decoder layers with grouped queries."""
    kind, vision = SMALL[family]
    adapter = kind.random(3, width=64, layers=6, vision=vision, tokens=(30, 40))
    adapter.model.set_attn_implementation(attention)
    adapter.model.generation_config.eos_token_id = None
    return adapter


def session_for(adapter: Adapter) -> Session:
    facts = ModelFacts("small", adapter.family, "random", "float32", "cpu", "sdpa", adapter.shape)
    return Session(adapter, facts)


def noise_video(frames: int = 5, height: int = 70, width: int = 90) -> Media:
    """Half a second between frames."""
    pixels = np.random.default_rng(1).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    times = tuple(0.5 * frame for frame in range(frames))
    return Media(pixels, times, "video", "noise.mp4", "1" * 64)


def media_of(kind: str) -> Media:
    return noise_media() if kind == "image" else noise_video()


@dataclass(frozen=True, eq=False)
class Plain:
    """A prompt, and what the library itself makes of it.

    Attributes:
        inputs: arguments of the library's `generate`; positions are its own affair.
        tokens: its greedy answer.
        logits: (STEPS, V), those of each answer token.
    """

    adapter: QwenAdapter
    prompt: Prompt
    inputs: dict[str, Tensor]
    tokens: list[int]
    logits: Tensor


@cache
def plain_case(family: str, kind: str, attention: str = "sdpa") -> Plain:
    adapter = small_qwen(family, attention)
    prompt = adapter.prepare(media_of(kind), QUESTION)
    inputs = library_inputs(adapter, prompt)
    done = adapter.model.generate(
        **inputs,
        max_new_tokens=STEPS,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    tokens = done.sequences[0, prompt.prompt_tokens :].tolist()
    return Plain(adapter, prompt, inputs, tokens, torch.cat(done.logits))


def library_inputs(adapter: QwenAdapter, prompt: Prompt) -> dict[str, Tensor]:
    """What the library's processor would have given, positions left to the model."""
    config, ids = adapter.model.config, prompt.input_ids
    kinds = torch.zeros_like(ids)
    kinds[ids == config.image_token_id] = 1
    kinds[ids == config.video_token_id] = 2
    inputs = {"input_ids": ids, "mm_token_type_ids": kinds, **prompt.encoder_inputs}
    if adapter.family == "qwen2_5_vl" and prompt.kinds[0] == "video":
        inputs["second_per_grid_ts"] = torch.tensor([1.0])  # two frames, half a second each
    return inputs


@torch.inference_mode()
def forced_logits(plain: Plain) -> Tensor:
    """(STEPS, V) logits of the library's own forward, fed with the answer, for the oracle."""
    from transformers import DynamicCache

    model, inputs = plain.adapter.model, plain.inputs
    positions = model._prepare_position_ids_for_generation(inputs["input_ids"], dict(inputs))
    cache = DynamicCache(config=plain.adapter.decoder.config)
    output = model(
        **inputs, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
    )
    logits = [output.logits[0, -1]]
    for step, token in enumerate(plain.tokens[:-1]):
        output = model(
            input_ids=torch.tensor([[token]]),
            position_ids=positions[..., -1:] + 1 + step,
            past_key_values=cache,
            use_cache=True,
        )
        logits.append(output.logits[0, -1])
    return torch.stack(logits)


def run_under(
    plain: Plain, plan: Plan, *, forced: bool = True, tokens: TokenTable | None = None
) -> tuple[Trace, Tensor]:
    answer = tuple(plain.tokens) if forced else None
    generation = Generation(max_new_tokens=STEPS, forced=answer)
    request = Request(plain.prompt, plan, generation, tokens=tokens)
    trace, decoded = session_for(plain.adapter)._pass(request)
    return trace, torch.stack(decoded.logits)

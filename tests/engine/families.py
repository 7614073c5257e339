"""Small random models of the families whose tower rows are not the visual tokens, and an oracle.

Families that cut pictures see eight tiles and the whole picture, four tokens each. All have 6
decoder layers and 2 key/value heads. The oracle is the untouched model: it takes the masks that the
model made itself and only hides columns in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipVisionConfig,
)

from tests.engine.support import QUESTION, Hidden, additive_mask, noise_media
from vtc_cli.core.media import Media
from vtc_cli.core.trace import ModelFacts
from vtc_cli.engine.session import Session
from vtc_cli.models.gemma3 import random_gemma3
from vtc_cli.models.idefics3 import Idefics3Adapter
from vtc_cli.models.internvl import random_internvl
from vtc_cli.models.llava import LlavaAdapter
from vtc_cli.models.llava_next import random_llava_next
from vtc_cli.models.llava_next_video import random_llava_next_video
from vtc_cli.models.llava_onevision import random_llava_onevision
from vtc_cli.models.smolvlm import SmolVLMAdapter, narrow_tower
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.offline import (
    BYTES,
    SPECIAL_TOKENS,
    byte_processor,
    random_model,
    text_sizes,
)
from vtc_cli.models.support.prompt import Kind, Prompt

LAYERS = 6
SPECIAL = BYTES + SPECIAL_TOKENS.index("<image>")
SIZES: dict[str, Any] = {"width": 64, "vision_layers": 4, "decoder_layers": LAYERS}

TILES: dict[str, Any] = {
    "width": 64,
    "layers": LAYERS,
    "scale": 2,
    "vision": narrow_tower(56) | {"hidden_size": 32, "num_hidden_layers": 4},
}


def small_gemma3(**options: Any) -> Adapter:
    sizes = SIZES | {"vision_width": 32, "image_size": 168, "tokens": 36}
    return random_gemma3(3, **sizes | options)


def small_internvl(**options: Any) -> Adapter:
    return random_internvl(3, **SIZES | {"vision_width": 32, "image_size": 56} | options)


def small_smolvlm(**options: Any) -> Adapter:
    return SmolVLMAdapter.random(3, **TILES | options)


def small_idefics3(**options: Any) -> Adapter:
    return Idefics3Adapter.random(3, **TILES | options)


def small_llava_next_video(**options: Any) -> Adapter:
    return random_llava_next_video(3, **SIZES | {"image_size": 84} | options)


def small_llava_next(**options: Any) -> Adapter:
    """9 patches an input of the tower, of which each is 14 x 14 pixels."""
    sizes = {"image_size": 42, "resolutions": [[42, 84], [84, 42], [84, 84]]}
    return random_llava_next(3, **SIZES | sizes | options)


def small_llava_onevision(**options: Any) -> Adapter:
    """9 patches an input, 2 pixels of each beside them; rasters of over 4 crops are scaled."""
    sides = [44, 88, 132]
    sizes = {"image_size": 44, "resolutions": [[a, b] for a in sides for b in sides]}
    return random_llava_onevision(3, **SIZES | sizes | {"most_crops": 4} | options)


def llava_kind(tower: str = "clip", layers: int | list[int] = -2, strategy: str = "full") -> Any:
    """Builds a small LLaVA of 36 patches with another tower, other features or other rows."""
    return lambda: _llava(tower, layers, strategy)


def _llava(tower: str, layers: int | list[int], strategy: str) -> Adapter:
    config = LlavaConfig(
        vision_config=_tower(tower, 84),
        text_config=LlamaConfig(**text_sizes(64, LAYERS, 4, len(SPECIAL_TOKENS))),
        image_token_index=SPECIAL,
        vision_feature_layer=layers,
        vision_feature_select_strategy=strategy,
    )
    model = random_model(LlavaForConditionalGeneration, config, 3)
    return LlavaAdapter(model, byte_processor(model))


def _tower(kind: str, side: int) -> Any:
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4}
    sizes |= {"num_attention_heads": 4, "image_size": side, "patch_size": 14}
    if kind == "clip":
        return CLIPVisionConfig(**sizes, projection_dim=64)
    return SiglipVisionConfig(**sizes, vision_use_head=False)


def with_features(build: Callable[..., Adapter], **changes: Any) -> Any:
    """Builds another of the models of `build`, whose configuration has `changes`."""

    def made() -> Adapter:
        plain: Any = build()
        config = plain.model.config
        if changes["vision_feature_select_strategy"] == "full":
            config.vision_config = _tower("siglip", config.vision_config.image_size)
        for name, value in changes.items():
            setattr(config, name, value)
        return type(plain)(random_model(type(plain.model), config, 3), plain.processor)  # type: ignore[no-any-return]

    return made


SIGLIP_LAYERS = {"vision_feature_select_strategy": "full", "vision_feature_layer": [-3, -1]}
# Checkpoints of a family whose towers or features differ from those of its first models.
KINDS: dict[str, Callable[..., Adapter]] = {
    "llava siglip": llava_kind("siglip", -1),
    "llava first patch off": llava_kind("siglip", -2, "default"),
    "llava class kept": llava_kind("clip", -2),
    "llava layers": llava_kind("clip", [-4, -2], "default"),
    "llava class kept layers": llava_kind("clip", [1, 3]),
    "llava_next siglip layers": with_features(small_llava_next, **SIGLIP_LAYERS),
    "llava_next_video siglip layers": with_features(small_llava_next_video, **SIGLIP_LAYERS),
    "llava_onevision layers": with_features(small_llava_onevision, **SIGLIP_LAYERS),
}
SMALL: dict[str, Callable[..., Adapter]] = {
    "gemma3": small_gemma3,
    "idefics3": small_idefics3,
    "internvl": small_internvl,
    "llava_next": small_llava_next,
    "llava_next_video": small_llava_next_video,
    "llava_onevision": small_llava_onevision,
    "smolvlm": small_smolvlm,
}
FRAMES = 4  # of a video


@dataclass(frozen=True)
class Case:
    """A family and what a prompt shows, (height, width) of each picture or video."""

    family: str
    shows: tuple[tuple[Kind, int, int], ...] = (("image", 70, 90),)


CASES = {
    "gemma3": Case("gemma3"),
    "idefics3": Case("idefics3", (("image", 45, 90),)),  # two rows of four tiles
    "internvl": Case("internvl", (("image", 90, 180),)),  # the same
    "llava_next": Case("llava_next"),
    "llava_next two": Case("llava_next", (("image", 90, 70), ("image", 30, 80))),
    "llava_next_video": Case("llava_next_video", (("video", 70, 90),)),
    "llava_next_video two": Case("llava_next_video", (("video", 70, 90), ("video", 90, 70))),
    "llava_onevision image": Case("llava_onevision", (("image", 140, 120),)),
    "llava_onevision video": Case("llava_onevision", (("video", 70, 90),)),
    "llava_onevision both": Case("llava_onevision", (("video", 70, 90), ("image", 50, 90))),
    "llava_onevision two": Case("llava_onevision", (("image", 70, 90), ("image", 90, 30))),
    "smolvlm": Case("smolvlm", (("image", 45, 90),)),  # two rows of four tiles
    **{name: Case(name, ((("video" if "video" in name else "image"), 70, 90),)) for name in KINDS},
    "llava class kept two": Case("llava class kept", (("image", 90, 70), ("image", 30, 80))),
}


def small_family(name: str, attention: str = "sdpa", **options: Any) -> Adapter:
    adapter = (SMALL | KINDS)[name](**options)
    adapter.model.set_attn_implementation(attention)
    adapter.model.generation_config.eos_token_id = None
    return adapter


def eager_copy(adapter: Adapter) -> Adapter:
    """The same model under the attention implementation that shows its maps."""
    model = deepcopy(adapter.model)
    model.set_attn_implementation("eager")
    return type(adapter)(model, adapter.processor)


def case_prompt(adapter: Adapter, case: Case, seed: int = 0) -> Prompt:
    shown = [
        shown_media(kind, seed + 1000 * number, height, width)
        for number, (kind, height, width) in enumerate(case.shows)
    ]
    return adapter.prepare(shown, QUESTION)


def family_prompt(adapter: Adapter, seed: int = 0) -> Prompt:
    case = next(case for case in CASES.values() if case.family == adapter.family)
    return case_prompt(adapter, case, seed)


def family_media(family: str, seed: int = 0, height: int = 70, width: int = 90) -> Media:
    """Noise: a picture, or a video for the families that take no pictures."""
    takes_pictures = family != "llava_next_video"
    return shown_media("image" if takes_pictures else "video", seed, height, width)


def shown_media(
    kind: Kind, seed: int = 0, height: int = 70, width: int = 90, frames: int = FRAMES
) -> Media:
    if kind == "image":
        return noise_media(seed, height, width)
    pixels = [noise_media(seed + 100 * frame, height, width).frames[0] for frame in range(frames)]
    return Media(np.stack(pixels), tuple(map(float, range(frames))), "video", "noise.mp4", "0" * 64)


def family_session(adapter: Adapter) -> Session:
    family = adapter.family
    facts = ModelFacts("small", family, "random", "float32", "cpu", "sdpa", adapter.shape)
    return Session(adapter, facts)


def own_arguments(adapter: Adapter, prompt: Prompt) -> dict[str, Any]:
    """What the library's own forward takes for the prompt."""
    arguments: dict[str, Any] = dict(prompt.encoder_inputs)
    if adapter.family == "gemma3":
        types = torch.zeros_like(prompt.input_ids)
        types[0, prompt.visual_index] = 1
        arguments["token_type_ids"] = types
    return arguments


@torch.inference_mode()
def own_logits(
    adapter: Adapter, prompt: Prompt, forced: list[int], *, library_cache: bool = True
) -> Tensor:
    """(steps + 1, V) logits of the library's own forward, `forced` fed in.

    Without `library_cache` no layer forgets what left its window: the masks alone hide it.
    """
    from transformers import DynamicCache

    cache = DynamicCache(config=adapter.decoder.config) if library_cache else DynamicCache()
    given = {"past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
    output = adapter.model(input_ids=prompt.input_ids, **own_arguments(adapter, prompt), **given)
    logits = [output.logits[0, -1]]
    for step, token in enumerate(forced[:-1]):
        position = torch.tensor([[prompt.prompt_tokens + step]])
        ids = torch.tensor([[token]])
        logits.append(adapter.model(input_ids=ids, position_ids=position, **given).logits[0, -1])
    return torch.stack(logits)


@contextmanager
def family_oracle(adapter: Adapter, hidden: Hidden, prompt_tokens: int) -> Iterator[None]:
    """The untouched model whose own masks also hide the columns of `hidden`."""
    shape = adapter.shape.decoder
    groups = shape.heads // shape.kv_heads
    made: dict[Any, Tensor] = {}  # masks of one forward: most layers hide what the one before does

    def hook(module: Any, args: Any, kwargs: Any) -> Any:
        layer, rows = module.self_attn.layer_idx, args[0].shape[1]
        past = kwargs["past_key_values"].get_seq_length(layer)
        own = kwargs.get("attention_mask")
        blocked = torch.zeros(1, past + rows, dtype=torch.bool)
        if layer in hidden.prefill:
            blocked[:, :prompt_tokens] |= hidden.prefill[layer]
        if past and layer in hidden.decode:
            columns = hidden.decode[layer][past - prompt_tokens].repeat_interleave(groups, 0)
            blocked = blocked.repeat(shape.heads, 1)
            blocked[:, :prompt_tokens] |= columns
        if layer == 0:
            made.clear()
        key = (id(own), blocked.shape, blocked.numpy().tobytes())
        if key not in made:
            made[key] = additive_mask(blocked, own, rows, args[0].dtype)
        kwargs["attention_mask"] = made[key]
        return args, kwargs

    blocks = adapter.decoder_layers
    handles = [block.register_forward_pre_hook(hook, with_kwargs=True) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Narrow:
    """What the narrow model of a family must have; written down from the published sizes."""

    tokens: int
    layers: int
    rows: int
    picture: tuple[int, int] = (40, 60)  # height and width
    budget: float = 64.0


NARROW = {
    "gemma3": Narrow(256, 34, 4096),
    "idefics3": Narrow(5 * 169, 32, 676, (12, 60)),  # four tiles in a row
    "internvl": Narrow(3 * 256, 28, 1025, (30, 60)),  # two tiles in a row
    "llava_next": Narrow(
        576 + 24 * (36 + 1), 32, 577, budget=200.0
    ),  # 60 x 40: 36 of 48 columns are no padding
    "llava_next_video": Narrow(4 * 144, 32, 577),
    "llava_onevision": Narrow(729 + 19 * (27 + 1), 28, 729, budget=200.0),  # 19 of 27 rows
    "smolvlm": Narrow(5 * 81, 24, 729, (12, 60)),
}


def narrow_prompt(adapter: Adapter) -> Prompt:
    media = family_media(adapter.family, 2, *NARROW[adapter.family].picture)
    return adapter.prepare(media, "what colour is the shape on the left?")


def library_arrangement(
    adapter: Adapter, prompt: Prompt, patches: Tensor, learned: Callable[[Tensor], Tensor]
) -> Tensor:
    """(N, C) values of tokens by the library's own functions for features.

    Args:
        adapter: of an any-resolution family.
        prompt: what was seen.
        patches: (inputs, P, C) of the tower, pictures before videos.
        learned: makes (C,), what stands for learned tokens, of the patches of a span.
    """
    if adapter.family == "llava":
        return torch.cat([_llava_rows(adapter, own, learned) for own in patches])
    model = adapter.model.model
    parts: dict[int, Tensor] = {}
    for kind in ("image", "video"):
        for span, one in enumerate(prompt.seen):
            if one.kind != kind:
                continue
            count = one.tower[0].count
            own, patches = patches[:count], patches[count:]
            newline = learned(own.flatten(0, 1))
            if kind == "video":
                frames = model.apply_pooling(own).flatten(0, 1)
                parts[span] = torch.cat([frames, newline[None]])
                continue
            options: dict[str, Any] = {"image_newline": newline}
            if adapter.family == "llava_next":
                strategy = adapter.model.config.vision_feature_select_strategy
                options["vision_feature_select_strategy"] = strategy
            else:
                options["vision_aspect_ratio"] = adapter.model.config.vision_aspect_ratio
            sizes = one.inputs["image_sizes"]
            parts[span] = model.pack_image_features([own], sizes, **options)[0][0]
    return torch.cat([parts[span] for span in range(len(prompt.seen))])


def _llava_rows(adapter: Adapter, own: Tensor, learned: Callable[[Tensor], Tensor]) -> Tensor:
    """Values of the tower rows that LLaVA selects, from those of the patches."""
    config = adapter.model.config
    kept = config.vision_feature_select_strategy == "full"
    if config.vision_config.model_type == "clip_vision_model":
        return torch.cat([learned(own)[None], own]) if kept else own
    return own if kept else own[1:]

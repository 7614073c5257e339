"""The architecture of `tiny-video`, its start from the weights of `tiny`, and its parts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LlavaForConditionalGeneration,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from training.export import SHIPPED as TINY
from training.tokenizer import BOS, CHAT_TEMPLATE, EOS, IMAGE, PAD, build_tokenizer
from training.video.clips import FRAMES
from training.video.data import FRAME_TOKENS
from training.video.wording import VIDEO_TOKEN, video_vocabulary

MAX_NEW_TOKENS = 16
POOL_STRIDE = 2
VIDEO_TEMPLATE = CHAT_TEMPLATE.replace("'image'", "'video'").replace("<image>", VIDEO_TOKEN)
EMBEDDING = "model.language_model.embed_tokens.weight"
WORD_TABLES = (EMBEDDING, "lm_head.weight")
# Words that start from the mean of words of `tiny`, because they will be used like those.
KIN = {
    "video": ("image", "picture"),
    "clip": ("image", "picture"),
    "direction": ("left", "right"),
    "appears": ("shown", "present"),
    "appear": ("shown", "present"),
}


def build_video_model() -> LlavaNextVideoForConditionalGeneration:
    """Build the model with the weights of `tiny`; rows of new words are near the mean of all."""
    tiny = LlavaForConditionalGeneration.from_pretrained(TINY, dtype=torch.float32)
    old: Any = tiny.config
    words = video_vocabulary()
    settings: dict[str, Any] = {
        "vision_config": old.vision_config.to_dict(),
        "text_config": old.text_config.to_dict() | {"vocab_size": len(words)},
        "image_token_index": IMAGE,
        "video_token_index": words[VIDEO_TOKEN],
        "vision_feature_layer": old.vision_feature_layer,
        "vision_feature_select_strategy": old.vision_feature_select_strategy,
        "spatial_pool_mode": "average",
        "spatial_pool_stride": POOL_STRIDE,
        "image_grid_pinpoints": [[old.vision_config.image_size] * 2],
        "image_seq_length": old.image_seq_length,
        "video_seq_length": FRAMES * FRAME_TOKENS,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "tie_word_embeddings": False,
    }
    model = LlavaNextVideoForConditionalGeneration(LlavaNextVideoConfig(**settings))
    state = tiny.state_dict()
    state.update({name: grown(state[name], words) for name in WORD_TABLES})
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) == {"model.image_newline"}, (missing, unexpected)
    model.generation_config = GenerationConfig(
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, max_new_tokens=MAX_NEW_TOKENS
    )
    return model


def grown(table: Tensor, words: dict[str, int]) -> Tensor:
    """Return a table of word vectors with rows for the new words behind the old rows."""
    generator = torch.Generator().manual_seed(0)
    rows = [table]
    for word, index in words.items():
        if index >= len(table):
            kin = [words[other] for other in KIN.get(word, ())]
            middle = table[kin].mean(0) if kin else table[EOS + 1 :].mean(0)
            noise = torch.randn(table.shape[1], generator=generator) * table.std() * 0.5
            rows.append((middle + noise)[None])
    return torch.cat(rows)


def build_video_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer with the grown vocabulary and the template for videos."""
    markers = {"image_token": "<image>", "video_token": VIDEO_TOKEN}
    return build_tokenizer(video_vocabulary(), markers, VIDEO_TEMPLATE)

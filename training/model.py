"""The architecture of `tiny` and its processor."""

from __future__ import annotations

from typing import Any

from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from training.data import SIDE, image_processor
from training.tokenizer import (
    BOS,
    CHAT_TEMPLATE,
    EOS,
    IMAGE,
    MAX_LENGTH,
    PAD,
    build_tokenizer,
    vocabulary,
)
from training.vision_phase import FEATURE_LAYER, tower_config

WIDTH = 128
LAYERS = 12
HEADS = 4
PATCH = 4
MAX_NEW_TOKENS = 64


def build_model() -> LlavaForConditionalGeneration:
    """Build the untrained model: 6-layer CLIP tower, 12-layer Llama decoder of width 128."""
    text = LlamaConfig(
        vocab_size=len(vocabulary()),
        hidden_size=WIDTH,
        intermediate_size=352,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=0.05,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        tie_word_embeddings=False,
    )
    settings: dict[str, Any] = {
        "vision_config": tower_config(SIDE),
        "text_config": text,
        "image_token_id": IMAGE,
        "image_seq_length": (SIDE // PATCH) ** 2,
        "vision_feature_layer": FEATURE_LAYER,
        "vision_feature_select_strategy": "default",
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "tie_word_embeddings": False,
    }
    model = LlavaForConditionalGeneration(LlavaConfig(**settings))
    model.generation_config = GenerationConfig(
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, max_new_tokens=MAX_NEW_TOKENS
    )
    return model


def build_processor() -> LlavaProcessor:
    """Build the stock LLaVA processor around the image processor and the tokenizer."""
    return LlavaProcessor(
        image_processor=image_processor(),
        tokenizer=build_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )

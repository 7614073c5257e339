"""Tiny random pairs of image and text encoder as checkpoint folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2Model,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

SIDE, PATCH, TEXT_TOKENS = 32, 8, 32
WORDS = ("a", "red", "blue", "green", "circle", "square", "what", "moves", "is", "there", "?")
LETTERS = "abcdefghijklmnopqrstuvwxyz?\u2581"  # the last stands for a space
LAYERS, WIDEST = 2, 3 * PATCH * PATCH  # of each encoder, and its longest sum: a patch
KINDS = ("clip", "siglip", "siglip2")
END = 2  # id of the token that ends a text


def tokenizer(kind: str) -> Any:
    """Words apart and an end behind each text; for siglip2 its own class, which reads letters."""
    if kind == "siglip2":
        special = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
        vocabulary = {letter: index for index, letter in enumerate([*special, *LETTERS])}
        return Siglip2Tokenizer(vocab=vocabulary, merges=[], model_max_length=TEXT_TOKENS)
    return _words(kind)


def _words(kind: str) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: index for index, word in enumerate(("<pad>", "<unk>", "<end>", *WORDS))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="$A <end>", special_tokens=[("<end>", END)]
    )
    names = ["input_ids", "attention_mask"] if kind == "clip" else ["input_ids"]
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<end>",
        model_max_length=TEXT_TOKENS,
        model_input_names=names,
    )


def model(kind: str) -> Any:
    """Random weights, four times the library's scale, so that texts and pictures differ."""
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
    }
    text = {**sizes, "vocab_size": 40, "max_position_embeddings": TEXT_TOKENS}
    text |= {"eos_token_id": END, "bos_token_id": END, "pad_token_id": 0, "projection_dim": 24}
    vision = {**sizes, "hidden_size": 48, "image_size": SIDE, "patch_size": PATCH}
    torch.manual_seed(0)
    if kind == "clip":
        made: Any = CLIPModel(
            CLIPConfig(
                text_config=text, vision_config={**vision, "projection_dim": 24}, projection_dim=24
            )
        )
    else:
        text.pop("projection_dim")
        text["projection_size"] = 48
        if kind == "siglip2":
            vision.pop("image_size")
            vision["num_patches"] = (SIDE // PATCH) ** 2
        config, build = {
            "siglip": (SiglipConfig, SiglipModel),
            "siglip2": (Siglip2Config, Siglip2Model),
        }[kind]
        made = build(config(text_config=text, vision_config=vision))
    with torch.no_grad():
        for weight in made.parameters():
            if weight.ndim >= 2:
                weight.mul_(4.0)
    return made.eval()


def image_processor(kind: str) -> Any:
    """Pillow only, for the tiny tower."""
    square = {"height": SIDE, "width": SIDE}
    if kind == "clip":
        return CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=square)
    if kind == "siglip":
        return SiglipImageProcessorPil(size=square)
    return Siglip2ImageProcessorPil(patch_size=PATCH, max_num_patches=(SIDE // PATCH) ** 2)


def save(folder: Path, kind: str) -> str:
    """A checkpoint folder."""
    model(kind).save_pretrained(folder)
    tokenizer(kind).save_pretrained(folder)
    image_processor(kind).save_pretrained(folder)
    return str(folder)

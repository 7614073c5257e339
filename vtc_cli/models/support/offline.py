"""Models and processors made from nothing: random weights, a byte tokenizer, no download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

IMAGE_TOKEN = "<image>"
BYTES = 256  # tokens of the byte tokenizer before the special ones
CONTROL_TOKENS = ("<pad>", "<s>", "</s>")
SPECIAL_TOKENS = (*CONTROL_TOKENS, IMAGE_TOKEN)
FIRST_FREE = BYTES + len(CONTROL_TOKENS)  # id of the first token that a family adds


def random_llava(
    seed: int,
    *,
    width: int,
    vision_layers: int,
    decoder_layers: int,
    vision_width: int | None = None,
    heads: int = 4,
    image_size: int = 336,
    patch_size: int = 14,
) -> Any:
    """A seeded random `LlavaForConditionalGeneration`; see `random_model`."""
    from transformers import CLIPVisionConfig, LlavaConfig
    from transformers import LlavaForConditionalGeneration as Llava

    vision_size = vision_width or width
    vision = CLIPVisionConfig(
        hidden_size=vision_size,
        intermediate_size=4 * vision_size,
        num_hidden_layers=vision_layers,
        num_attention_heads=heads,
        image_size=image_size,
        patch_size=patch_size,
        projection_dim=vision_size,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=_text_config(width, decoder_layers, heads),
        image_token_index=BYTES + 3,
        vision_feature_layer=-2,
    )
    return random_model(Llava, config, seed)


def random_model(kind: Any, config: Any, seed: int) -> Any:
    """A seeded random model of class `kind`, float32 on the CPU.

    Linear weights are four times the library's initial scale, so that what a token says moves the
    logits by far more than rounding does; those that the library starts at zero get that scale too.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = kind(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim >= 2:
                    if not parameter.any():
                        parameter.normal_(std=config.get_text_config().initializer_range)
                    parameter.mul_(4.0)
    return model


def text_sizes(width: int, layers: int, heads: int, special_tokens: int) -> dict[str, Any]:
    """Fields of a text configuration: two query heads a key/value head, the byte vocabulary."""
    return {
        "vocab_size": BYTES + special_tokens,
        "hidden_size": width,
        "intermediate_size": (width * 11 // 4 + 7) // 8 * 8,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "max_position_embeddings": 4096,
        "pad_token_id": BYTES,
        "bos_token_id": BYTES + 1,
        "eos_token_id": BYTES + 2,
    }


def _text_config(width: int, layers: int, heads: int) -> Any:
    """A Llama configuration."""
    from transformers import LlamaConfig

    return LlamaConfig(**text_sizes(width, layers, heads, len(SPECIAL_TOKENS)))


def byte_processor(model: Any) -> Any:
    """A stock `LlavaProcessor` whose tokenizer knows every byte, for `model`."""
    from transformers import LlavaProcessor
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    vision = model.config.vision_config
    return LlavaProcessor(
        image_processor=LlavaImageProcessorPil(
            do_pad=True,
            do_center_crop=False,
            size={"height": vision.image_size, "width": vision.image_size},
        ),
        tokenizer=byte_tokenizer(),
        patch_size=vision.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE_TOKEN,
    )


def byte_tokenizer(added: tuple[str, ...] = (IMAGE_TOKEN,)) -> Any:
    """A tokenizer of the 256 bytes, three control tokens and those that a family adds."""
    special = (*CONTROL_TOKENS, *added)
    pad, bos, eos = CONTROL_TOKENS
    fast = bytes_and(special, pad_token=pad, bos_token=bos, eos_token=eos)
    if IMAGE_TOKEN in added:
        fast.image_token = IMAGE_TOKEN
        fast.image_token_id = BYTES + len(CONTROL_TOKENS) + added.index(IMAGE_TOKEN)
    return fast


def bytes_and(special_tokens: Sequence[str], **roles: str) -> Any:
    """A tokenizer of the 256 bytes and `special_tokens`, whose ids follow from 256 on.

    Args:
        special_tokens: in the order of their ids.
        roles: what some of them are for, for instance `eos_token`.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    vocabulary |= {token: BYTES + index for index, token in enumerate(special_tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=alphabet[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            pre_tokenizers.Split("", "isolated"),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special_tokens])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)

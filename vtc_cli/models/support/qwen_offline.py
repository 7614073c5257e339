"""Random Qwen vision-language models, their tokenizer and image processor, without a download."""

from __future__ import annotations

from typing import Any

from vtc_cli.models.support.offline import BYTES, bytes_and
from vtc_cli.models.support.parts import Parts

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (
    PAD,
    START,
    END,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# The format of these families: turns between <|im_start|> and <|im_end|>, pictures in the turn.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MERGE = 2


def token_ids() -> dict[str, int]:
    """Ids of the special tokens as configurations name them."""
    names = ("vision_start", "vision_end", "image", "video")
    return {f"{name}_token_id": BYTES + 3 + index for index, name in enumerate(names)}


def text_sizes(
    width: int, layers: int, positions: int, heads: int = 4, **more: Any
) -> dict[str, Any]:
    """A text configuration with two query heads a key/value head and M-RoPE."""
    third = width // heads // 2 // 3
    sections = [width // heads // 2 - 2 * third, third, third]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}
    return {
        "vocab_size": BYTES + len(SPECIAL_TOKENS),
        "hidden_size": width,
        "intermediate_size": (width * 11 // 4 + 7) // 8 * 8,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "max_position_embeddings": positions,
        "rope_parameters": rope | more.pop("rope", {}),
        "pad_token_id": BYTES,
        "bos_token_id": BYTES + 1,
        "eos_token_id": BYTES + 2,
        **more,
    }


def byte_parts(patch_size: int, tokens: tuple[int, int]) -> Parts:
    """A byte tokenizer and a picture processor that scales to between `tokens` tokens."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = bytes_and(SPECIAL_TOKENS, pad_token=PAD, bos_token=START, eos_token=END)
    tokenizer.chat_template = TEMPLATE
    area = (patch_size * MERGE) ** 2
    size = {"shortest_edge": tokens[0] * area, "longest_edge": tokens[1] * area}
    processor = Qwen2VLImageProcessorPil(size=size, patch_size=patch_size)
    return Parts(tokenizer, processor, TEMPLATE)

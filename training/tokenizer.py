"""The word-level tokenizer and its chat template."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from training.scenes import COLOUR_NAMES, SHAPES
from training.templates import template_words

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>", "<image>")
PAD, BOS, EOS, UNKNOWN, IMAGE = range(5)
MAX_LENGTH = 2048
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: "
    "{% if message['content'] is string %}{{ message['content'] }} {% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }} {% endfor %}"
    "{% endif %}{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def vocabulary() -> dict[str, int]:
    """Return every word with its id; special tokens come first."""
    digits = [str(value) for value in range(10)]
    words = [*SPECIAL, *COLOUR_NAMES, *SHAPES, *digits, *template_words()]
    return {word: index for index, word in enumerate(dict.fromkeys(words))}


def build_tokenizer(
    words: dict[str, int] | None = None,
    markers: dict[str, str] | None = None,
    template: str = CHAT_TEMPLATE,
) -> PreTrainedTokenizerFast:
    """Build the tokenizer: lower case, split at spaces and punctuation, one id a word.

    Words, markers of visual tokens and chat template are those of `tiny` unless given.
    """
    core = Tokenizer(models.WordLevel(words or vocabulary(), unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        extra_special_tokens=markers or {"image_token": "<image>"},
        model_max_length=MAX_LENGTH,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    return tokenizer

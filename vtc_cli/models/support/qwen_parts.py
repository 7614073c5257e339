"""Tokenizer and image processor of a Qwen checkpoint, loaded each for itself.

The library's processor of these families also wants a video processor, which needs torchvision.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtc_cli.core.errors import ModelError


@dataclass(frozen=True, eq=False)
class Parts:
    """What turns a picture and a question into model inputs.

    Attributes:
        tokenizer: with the chat template of the checkpoint.
        image_processor: of the library's Pillow kind.
    """

    tokenizer: Any
    image_processor: Any

    def save_pretrained(self, folder: Path) -> None:
        """Write both into the folder of a checkpoint."""
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)


def load_parts(source: str) -> Parts:
    """Load the parts of a local folder or a hub id.

    Raises:
        ModelError: a part is missing or broken; says which.
    """
    from transformers import AutoTokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = _part("tokenizer", source, lambda: AutoTokenizer.from_pretrained(source))
    processor = _part(
        "image processor", source, lambda: Qwen2VLImageProcessorPil.from_pretrained(source)
    )
    if tokenizer.chat_template is None:
        tokenizer.chat_template = _part("chat template", source, lambda: _template(source))
    return Parts(tokenizer, processor)


def _template(source: str) -> str:
    """The template in the file of its own that older checkpoints have beside the tokenizer's."""
    from transformers.utils.hub import cached_file

    path = cached_file(source, "chat_template.json")
    return str(json.loads(Path(str(path)).read_text(encoding="utf-8"))["chat_template"])


def _part(name: str, source: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), "no message")
        raise ModelError(
            f"its {name} cannot be loaded: {reason}",
            where=source,
            allowed="a checkpoint with tokenizer, preprocessor_config.json and chat template",
        ) from error

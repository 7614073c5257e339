"""What stands beside the weights of a checkpoint: tokenizer, image processor, chat template.

The library's own joint processors want torchvision as soon as a family knows videos. The parts need
it not: they are loaded one by one, and each adapter places its placeholders itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtc_cli.core.errors import MediaError, ModelError
from vtc_cli.core.media import Media

TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")


@dataclass(frozen=True, eq=False)
class Parts:
    """Tokenizer and image processor of a checkpoint.

    Attributes:
        tokenizer: of the library.
        image_processor: of the library, Pillow and numpy only.
        chat_template: jinja text, None if the checkpoint has none.
    """

    tokenizer: Any
    image_processor: Any
    chat_template: str | None = None

    def token(self, token_id: int) -> str:
        """The text of a token.

        Raises:
            ModelError: the tokenizer does not know it.
        """
        text = self.tokenizer.convert_ids_to_tokens(token_id)
        if not text:
            raise ModelError(
                f"token {token_id} of config.json is not in the tokenizer",
                allowed="tokenizer files that belong to the weights",
            )
        return str(text)

    def prompt(self, fallback: str, kind: str, question: str) -> str:
        """The text around a question, with the placeholder of one picture or video.

        Args:
            fallback: format with `{question}`, for checkpoints without a template.
            kind: `image` or `video`, as the template calls it.
            question: what is asked.
        """
        if self.chat_template is None:
            return fallback.format(question=question)
        content = [{"type": kind}, {"type": "text", "text": question}]
        text: str = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=self.chat_template,
            tokenize=False,
            add_generation_prompt=True,
        )
        return text

    def token_ids(self, text: str, marker: str, span: str) -> Tensor:
        """(1, S) ids of `text` with the visual tokens `span` in place of its one `marker`.

        Raises:
            ModelError: not one marker.
        """
        if text.count(marker) != 1:
            raise ModelError(
                f"the prompt holds {text.count(marker)} times {marker}",
                allowed="once: the place of the picture or video",
                hint="check the chat template of the checkpoint, and the question",
            )
        starts = text.startswith(str(self.tokenizer.bos_token))
        ids = self.tokenizer(text.replace(marker, span), add_special_tokens=not starts).input_ids
        return torch.tensor([ids], dtype=torch.int64)


def load_parts(source: str, image_processor: Any) -> Parts:
    """The parts of a local folder or hub id.

    Args:
        source: folder or id.
        image_processor: gives the image processor of a source, for instance `from_pretrained`.

    Raises:
        ModelError: names the part that is missing.
    """
    from transformers import AutoTokenizer

    tokenizer: Any = _part("tokenizer", source, lambda: AutoTokenizer.from_pretrained(source))
    images = _part("image processor", source, lambda: image_processor(source))
    template = _template(source) or getattr(tokenizer, "chat_template", None)
    return Parts(tokenizer, images, template)


def visual_places(input_ids: Tensor, token_id: int, expected: int) -> Tensor:
    """(N0,) places of the visual tokens in `input_ids` (1, S).

    Raises:
        ModelError: not `expected` of them.
    """
    places = (input_ids[0] == token_id).nonzero()[:, 0]
    if places.shape[0] != expected:
        raise ModelError(
            f"the prompt has {places.shape[0]} placeholders of visual tokens",
            allowed=f"{expected}, as the vision tower gives",
            hint="the tokenizer must keep the placeholder as one token; leave it out of questions",
        )
    return places


def picture_of(media: Media, family: str) -> Any:
    """The one picture as a Pillow image; a video of one frame is one.

    Raises:
        MediaError: a video of several frames.
    """
    if media.frames.shape[0] != 1:
        raise MediaError(
            f"a video, of which {media.frames.shape[0]} frames were taken",
            where=media.path,
            allowed=f"one picture for the family {family}",
            hint="--frames 1 takes the frame in the middle, or choose a model that reads video",
        )
    return media.picture()


def config_file(source: str, name: str) -> Path | None:
    """The file `name` of a folder or hub id, None if it has none."""
    from transformers.utils.hub import cached_file

    quiet = {
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    found = cached_file(source, name, **quiet)
    return None if found is None else Path(found)


def _part(name: str, source: str, load: Callable[[], Any]) -> Any:
    """One part, or an error that names it."""
    try:
        return load()
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"no usable {name}: {first}",
            where=source,
            allowed="config.json, *.safetensors and the files of tokenizer and image processor",
        ) from error


def _template(source: str) -> str | None:
    """The chat template that stands in a file of its own."""
    for name in TEMPLATE_FILES:
        path = config_file(source, name)
        if path is not None:
            text = path.read_text(encoding="utf-8")
            return text if path.suffix == ".jinja" else str(json.loads(text)["chat_template"])
    return None

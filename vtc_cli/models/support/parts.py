"""What stands beside the weights of a checkpoint: tokenizer, image processor, chat template.

The library's own joint processors want torchvision as soon as a family knows videos. The parts need
it not: they are loaded one by one, and each adapter places its placeholders itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtc_cli.core.errors import MediaError, ModelError, UsageError
from vtc_cli.core.media import Media
from vtc_cli.models.support.prompt import Kind, Seen

TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
FRAME_FIELDS = (
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
)


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

    def chat(self, fallback: str, seen: Sequence[Seen], question: str) -> str:
        """The text around a question, with a marker for each picture or video.

        Args:
            fallback: format with `{visuals}` and `{question}`, for checkpoints without a template.
            seen: the pictures and videos in order.
            question: what is asked.
        """
        if self.chat_template is None:
            visuals = "\n".join(one.marker for one in seen)
            return fallback.format(visuals=visuals, question=question)
        content: list[dict[str, str]] = [{"type": one.kind} for one in seen]
        content.append({"type": "text", "text": question})
        text: str = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=self.chat_template,
            tokenize=False,
            add_generation_prompt=True,
        )
        return text

    def next_turn(self, fallback: str, question: str) -> str:
        """The text between an answer and the answer to a further question.

        Args:
            fallback: format with `{visuals}` and `{question}`, for checkpoints without a template.
            question: what is asked now.
        """
        if self.chat_template is None:
            end = self.tokenizer.eos_token or ""
            return end + fallback.format(visuals="", question=question)
        mark = "<<answer>>"
        turns = (("user", "?"), ("assistant", mark), ("user", question))
        text: str = self.tokenizer.apply_chat_template(
            [{"role": who, "content": [{"type": "text", "text": said}]} for who, said in turns],
            chat_template=self.chat_template,
            tokenize=False,
            add_generation_prompt=True,
        )
        return text.rpartition(mark)[2]


def prompt_ids(parts: Parts, fallback: str, seen: Sequence[Seen], question: str) -> Tensor:
    """(1, S) ids of the prompt, each marker replaced by what stands for a picture or video.

    They stand in the order of `seen`, also where a template writes pictures before videos.

    Raises:
        ModelError: the chat holds too few markers.
        UsageError: the question holds a marker.
    """
    chat = parts.chat(fallback, seen, question)
    markers = "|".join(re.escape(marker) for marker in {one.marker for one in seen})
    pieces = re.split(markers, chat)
    if len(pieces) <= len(seen):
        raise ModelError(
            f"the prompt holds {len(pieces) - 1} times {seen[0].marker!r}",
            allowed=f"{len(seen)}: the places of pictures and videos",
            hint="check the chat template of the checkpoint",
        )
    if len(pieces) > len(seen) + 1:
        raise UsageError(
            f"the prompt holds more than {len(seen)} times {seen[-1].marker!r}",
            allowed="one for each picture or video",
            hint="leave it out of the question",
        )
    filled = [one.text + piece for one, piece in zip(seen, pieces[1:], strict=True)]
    text = pieces[0] + "".join(filled)
    starts = text.startswith(str(parts.tokenizer.bos_token))
    ids = parts.tokenizer(text, add_special_tokens=not starts).input_ids
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

    tokenizer: Any = load_part("tokenizer", source, lambda: AutoTokenizer.from_pretrained(source))
    images = load_part("image processor", source, lambda: image_processor(source))
    template = _template(source) or getattr(tokenizer, "chat_template", None)
    return Parts(tokenizer, images, template)


def visual_places(input_ids: Tensor, token_ids: Sequence[int], expected: int) -> Tensor:
    """(N0,) places of the visual tokens in `input_ids` (1, S).

    Raises:
        UsageError: not `expected` of them.
    """
    wanted = torch.tensor(list(token_ids), device=input_ids.device)
    places = torch.isin(input_ids[0], wanted).nonzero()[:, 0]
    if places.shape[0] != expected:
        raise UsageError(
            f"{places.shape[0]} placeholders in a prompt with {expected} visual tokens",
            allowed="a question without placeholders of its own, and a tokenizer and a chat "
            "template that keep those of the pictures",
        )
    return places


def as_taken(media: Media, takes: frozenset[Kind], family: str) -> Media:
    """The medium as one of the kinds that a family takes; a video of one frame is a picture too.

    Raises:
        MediaError: another kind.
    """
    if media.kind in takes:
        return media
    if media.kind == "video" and media.frames.shape[0] == 1:
        return replace(media, kind="image")
    if media.kind == "video":
        raise MediaError(
            f"a video, of which {media.frames.shape[0]} frames were taken",
            where=media.path,
            allowed=f"pictures for the family {family}",
            hint="--frames 1 takes the frame in the middle, or choose a model that reads video",
        )
    raise MediaError(
        "a picture",
        where=media.path,
        allowed=f"videos for the family {family}",
        hint="choose a model of a picture family, for instance narrow:llava",
    )


def frame_settings(source: str) -> dict[str, Any]:
    """Settings of a checkpoint for frames of videos; those for pictures if it has no others.

    Raises:
        OSError: it has neither.
    """
    nested = _json(source, "processor_config.json").get("video_processor")
    settings = nested or _json(source, "video_preprocessor_config.json")
    settings = settings or _json(source, "preprocessor_config.json")
    if not settings:
        raise OSError("no video_preprocessor_config.json and no preprocessor_config.json")
    return {name: settings[name] for name in FRAME_FIELDS if name in settings}


def _json(source: str, name: str) -> dict[str, Any]:
    """A configuration file, empty if there is none."""
    path = config_file(source, name)
    found: dict[str, Any] = {} if path is None else json.loads(path.read_text(encoding="utf-8"))
    return found


def config_file(source: str, name: str) -> Path | None:
    """The file `name` of a folder or hub id, None if it has none."""
    from transformers.utils.hub import cached_file

    quiet = {
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    found = cached_file(source, name, **quiet)
    return None if found is None else Path(found)


def load_part(name: str, source: str, load: Callable[[], Any]) -> Any:
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

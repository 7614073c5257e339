"""What stands beside the weights of a checkpoint: tokenizer, image processor, chat template.

The library's own joint processors want torchvision as soon as a family knows videos. The parts need
it not: they are loaded one by one, and each adapter places its placeholders itself.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vtc_cli.core.errors import MediaError, ModelError, UsageError
from vtc_cli.core.media import Media
from vtc_cli.models.support.chat import rendered
from vtc_cli.models.support.checkpoint import (
    WHOLE,
    checkpoint_errors,
    config_file,
    json_object,
    pretrained,
)
from vtc_cli.models.support.prompt import Kind, Seen

TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
TOKENIZER = "tokenizer (tokenizer.json, tokenizer_config.json)"
IMAGES = "image processor (processor_config.json, preprocessor_config.json)"
CHAT = "tokenizer or chat template (tokenizer.json, chat_template.jinja, ids in config.json)"
FRAMES = "processor of frames (processor_config.json, video_preprocessor_config.json)"
SIZES = ("size", "crop_size", "max_image_size", "pad_size")
CHANNELS = 3
LONGEST_SIDE = 4096  # of an input of any tower, and of whole pictures before they are cut
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
        with checkpoint_errors(f"token {token_id} of config.json", TOKENIZER):
            text = self.tokenizer.convert_ids_to_tokens(token_id)
        if not isinstance(text, str) or not text:
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
        turns = [{"role": "user", "content": content}]
        return rendered(self.tokenizer, self.chat_template, turns)

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
        said = (("user", "?"), ("assistant", mark), ("user", question))
        turns = [{"role": who, "content": [{"type": "text", "text": text}]} for who, text in said]
        return rendered(self.tokenizer, self.chat_template, turns).rpartition(mark)[2]


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
        asked = re.search(markers, question) is not None
        raise (UsageError if asked else ModelError)(
            f"the prompt holds more than {len(seen)} times {seen[-1].marker!r}",
            allowed="one for each picture or video",
            hint="leave it out of the question" if asked else "check the chat template",
        )
    filled = [one.text + piece for one, piece in zip(seen, pieces[1:], strict=True)]
    text = pieces[0] + "".join(filled)
    starts = text.startswith(str(parts.tokenizer.bos_token))
    ids = parts.tokenizer(text, add_special_tokens=not starts).input_ids
    return torch.tensor([ids], dtype=torch.int64)


def load_parts(source: str, images: Callable[[str], Any]) -> Parts:
    """The parts of a local folder or hub id.

    Args:
        source: folder or id.
        images: gives its image processor, for instance `image_processor(kind)`.

    Raises:
        ModelError: names the part that is missing or broken.
    """
    from transformers import AutoTokenizer

    with checkpoint_errors(source, TOKENIZER):
        tokenizer = pretrained(AutoTokenizer, source)
    with checkpoint_errors(source, IMAGES):
        processor = images(source)
        _check_settings(processor, source)
    with checkpoint_errors(source, "chat template"):
        template = _template(source) or getattr(tokenizer, "chat_template", None)
    if not isinstance(template, str | None):
        raise ModelError(
            f"a chat template of type {type(template).__name__}", where=source, allowed="text"
        )
    return Parts(tokenizer, processor, template)


def visual_places(
    parts: Parts, input_ids: Tensor, token_ids: Sequence[int], expected: int, question: str
) -> Tensor:
    """(N0,) places of the visual tokens in `input_ids` (1, S).

    Args:
        parts: the tokenizer among them.
        input_ids: of the prompt.
        token_ids: the placeholders.
        expected: how many there must be.
        question: what is asked.

    Raises:
        UsageError: not `expected` of them, and the question holds some.
        ModelError: not `expected` of them, though the question holds none.
    """
    wanted = torch.tensor(list(token_ids), device=input_ids.device)
    places = torch.isin(input_ids[0], wanted).nonzero()[:, 0]
    if places.shape[0] != expected:
        asked = not set(token_ids).isdisjoint(parts.tokenizer(question).input_ids)
        raise (UsageError if asked else ModelError)(
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


def image_processor(kind: Any, **options: Any) -> Callable[[str], Any]:
    """What loads an image processor of class `kind`."""
    return partial(pretrained, kind, **options)


def frame_processor(kind: Any, source: str) -> Any:
    """An image processor of class `kind` with the checkpoint's settings for frames of videos.

    Those for pictures, if it has no others.

    Raises:
        ModelError: it has neither, or they are broken.
    """
    with checkpoint_errors(source, FRAMES):
        processor = kind(**_frame_settings(source))
        _check_settings(processor, source)
    return processor


def _check_settings(processor: Any, source: str) -> None:
    """Refuse settings that no tower takes before a picture is scaled or padded with them.

    Raises:
        ModelError: a side of more than `LONGEST_SIDE` pixels, or more pixels than its square; means
            or deviations other than one number a channel.
    """
    counts = hasattr(processor, "merge_size")  # of Qwen: edges are numbers of pixels
    for name in SIZES:
        for edge, value in dict(getattr(processor, name, None) or {}).items():
            most = LONGEST_SIDE ** (2 if counts else 1)
            unbounded = counts and edge == "longest_edge"
            if value is not None and not _within(value, 1, math.inf if unbounded else most):
                raise ModelError(
                    f"{name} with {edge} {value!r} of the image processor",
                    where=source,
                    allowed=f"a number from 1 to {most:,}",
                )
    for name in ("image_mean", "image_std"):
        values = getattr(processor, name, None)
        each = values if isinstance(values, list | tuple) else ()
        if values is not None and [_within(one, -255, 255) for one in each] != [True] * CHANNELS:
            raise ModelError(
                f"{name} {values!r} of the image processor",
                where=source,
                allowed=f"{CHANNELS} numbers from -255 to 255",
            )


def _within(value: Any, least: float, most: float) -> bool:
    return isinstance(value, int | float) and least <= value <= most


def _frame_settings(source: str) -> dict[str, Any]:
    nested = _json(source, "processor_config.json").get("video_processor")
    settings = nested or _json(source, "video_preprocessor_config.json")
    settings = settings or _json(source, "preprocessor_config.json")
    if not settings:
        raise ModelError(
            "no usable image processor: no settings in processor_config.json, "
            "video_preprocessor_config.json or preprocessor_config.json",
            where=source,
            allowed=WHOLE,
        )
    return {name: settings[name] for name in FRAME_FIELDS if name in settings}


def _json(source: str, name: str) -> dict[str, Any]:
    """A configuration file, empty if there is none."""
    path = config_file(source, name)
    return {} if path is None else json_object(path)


def check_pixels(pixels: Tensor, side: int) -> None:
    """See that the image processor made what the tower takes.

    Raises:
        ModelError: pictures (..., H, W) of another size than `side` x `side`.
    """
    if tuple(pixels.shape[-2:]) != (side, side):
        raise ModelError(
            f"pictures of {pixels.shape[-2]} x {pixels.shape[-1]} pixels from the image processor",
            allowed=f"{side} x {side}, as the vision tower takes",
            hint="check size and crop_size in the checkpoint's processor configuration",
        )


def _template(source: str) -> Any:
    """The chat template that stands in a file of its own."""
    for name in TEMPLATE_FILES:
        path = config_file(source, name)
        if path is not None:
            text = path.read_text(encoding="utf-8")
            return text if path.suffix == ".jinja" else json.loads(text)["chat_template"]
    return None

"""Frames scored by a question: a CLIP or SigLIP pair of an image and a text encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from vtc_cli.core.errors import ModelError
from vtc_cli.core.files import check_regular
from vtc_cli.core.media import Media
from vtc_cli.core.signals import Produced

# `model_type` of a checkpoint: its class, and the image processor that needs Pillow only.
PAIRS = {
    "clip": ("CLIPModel", "clip.image_processing_pil_clip", "CLIPImageProcessorPil"),
    "siglip": ("SiglipModel", "siglip.image_processing_pil_siglip", "SiglipImageProcessorPil"),
    "siglip2": ("Siglip2Model", "siglip2.image_processing_pil_siglip2", "Siglip2ImageProcessorPil"),
}
TRAINED_ON_FULL_TEXTS = ("siglip", "siglip2")  # their texts were padded to the full length
BATCH_FRAMES = 16  # frames in the image encoder at once
ALLOWED = "a CLIP or SigLIP pair of image and text encoder: a local folder, or a hub id in reach"
TEXT_INPUTS = ("input_ids", "attention_mask")
EPSILON = 1e-8


@dataclass(frozen=True, eq=False)
class Pair:
    """A loaded pair.

    Attributes:
        name: what the user asked for.
        kind: clip, siglip or siglip2.
        model: of the library.
        tokenizer: of the library.
        image_processor: of the library, Pillow and numpy only.
    """

    name: str
    kind: str
    model: Any
    tokenizer: Any
    image_processor: Any

    @property
    def text_tokens(self) -> int:
        """The longest text that the text encoder takes, special tokens included."""
        return int(self.model.config.text_config.max_position_embeddings)

    def scorer(self, media: Media, question: str) -> FrameScores:
        """What scores the frames of `media` by `question` when it is called."""
        return FrameScores(self, media, question)

    def warnings(self, question: str) -> tuple[str, ...]:
        """What the reader must know about this question."""
        asked, most = len(self.tokenizer(question).input_ids), self.text_tokens
        if asked <= most:
            return ()
        return (
            f"the question has {asked} tokens for {self.name}, whose text encoder takes {most}: "
            "what lies behind is not used for the relevance of frames",
        )

    def text_embedding(self, question: str) -> tuple[Tensor, int]:
        """(1, d) embedding of a text, cut to what the encoder takes, and its operations."""
        full = self.kind in TRAINED_ON_FULL_TEXTS
        tokens = self.tokenizer(
            question,
            padding="max_length" if full else False,
            truncation=True,
            max_length=self.text_tokens,
            return_tensors="pt",
        )
        inputs = {
            name: tokens[name].to(self.model.device) for name in TEXT_INPUTS if name in tokens
        }
        output = self.model.get_text_features(**inputs)
        rows = output.last_hidden_state.shape[1]
        tower = self.model.text_model
        return output.pooler_output, _blocks_flops(tower, rows) + _text_head_flops(self.model)

    def image_embeddings(self, media: Media, first: int, last: int) -> tuple[Tensor, int]:
        """(last - first, d) embeddings of frames, and their operations."""
        pictures = [media.picture(frame) for frame in range(first, last)]
        inputs = dict(self.image_processor(images=pictures, return_tensors="pt"))
        pixels = inputs.pop("pixel_values").to(self.model.device, self.model.dtype)
        others = {name: value.to(self.model.device) for name, value in inputs.items()}
        output = self.model.get_image_features(pixel_values=pixels, **others)
        rows = output.last_hidden_state.shape[1]
        tower = self.model.vision_model
        one = _blocks_flops(tower, rows) + _image_ends_flops(self.model, self.kind, rows)
        return output.pooler_output, (last - first) * one


@dataclass(frozen=True, eq=False)
class FrameScores:
    """The frames of one media and one question; called, it encodes both and compares."""

    pair: Pair
    media: Media
    question: str

    def __call__(self) -> Produced:
        """Cosine of image and text embedding, (F,) float32, its operations and its source."""
        text, flops = self.pair.text_embedding(self.question)
        parts = []
        for first in range(0, len(self.media.frames), BATCH_FRAMES):
            last = min(first + BATCH_FRAMES, len(self.media.frames))
            images, spent = self.pair.image_embeddings(self.media, first, last)
            parts.append(cosine_similarity(images.float(), text.float(), dim=1, eps=EPSILON))
            flops += spent + 6 * images.numel()
        return Produced(torch.cat(parts), flops, f"the {self.pair.kind} pair {self.pair.name}")


def load_pair(name: str, device: torch.device, dtype: torch.dtype) -> Pair:
    """Load a pair from a local folder or a hub id.

    Raises:
        ModelError: no such checkpoint, one of another kind, or one without some of its parts.
    """
    import transformers

    with _load_errors(name):
        source = _source(name)
        kind = str(transformers.AutoConfig.from_pretrained(source).model_type)
        if kind not in PAIRS:
            raise ModelError(f"a checkpoint of architecture {kind}", where=name, allowed=ALLOWED)
        model_class, module, processor_class = PAIRS[kind]
        model, told = getattr(transformers, model_class).from_pretrained(
            source, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
        _check_whole(name, told["missing_keys"])
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        images = getattr(import_module(f"transformers.models.{module}"), processor_class)
        return Pair(name, kind, model.eval().to(device), tokenizer, images.from_pretrained(source))


def _source(name: str) -> str:
    """The folder or id that the library is to load.

    Raises:
        ModelError: a path without a checkpoint.
    """
    folder = Path(name).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ModelError("a folder without config.json", where=name, allowed=ALLOWED)
    if not folder.is_dir() and (folder.exists() or name.startswith((".", "/", "~"))):
        found = "a file" if folder.exists() else "no such folder"
        raise ModelError(found, where=name, allowed=ALLOWED)
    if not folder.is_dir():
        return name
    check_regular(folder)  # the library opens whatever lies there
    return str(folder)


def _check_whole(name: str, missing: Any) -> None:
    """The library fills what is missing with chance; scores would be noise.

    Raises:
        ModelError: a weight is missing.
    """
    if missing:
        found = f"weights without {len(missing)} of the model's, for instance {min(missing)}"
        raise ModelError(found, where=name, allowed="a complete checkpoint")


@contextmanager
def _load_errors(name: str) -> Iterator[None]:
    """Turn what the libraries raise over a checkpoint into one clear error."""
    try:
        yield
    except (ModelError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # safetensors and the hub have errors of their own kinds
        lines = [line for line in str(error).splitlines() if line.strip()]
        found = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
        raise ModelError(found, where=name, allowed=ALLOWED) from error


def _linear_flops(module: nn.Module, rows: int) -> int:
    """Operations of every linear map inside `module` over `rows` rows."""
    maps = [part for part in module.modules() if isinstance(part, nn.Linear)]
    return 2 * rows * sum(part.in_features * part.out_features for part in maps)


def _blocks_flops(tower: Any, rows: int) -> int:
    """Operations of the transformer blocks of a tower: linear maps and attention of `rows` rows."""
    attention: int = 4 * rows**2 * tower.config.hidden_size * len(tower.encoder.layers)
    return _linear_flops(tower.encoder, rows) + attention


def _text_head_flops(model: Any) -> int:
    """Operations of the map from the pooled text to the common space."""
    head = getattr(model, "text_projection", None)
    return _linear_flops(model.text_model.head if head is None else head, 1)


def _image_ends_flops(model: Any, kind: str, rows: int) -> int:
    """Operations before and behind the blocks: patch embedding, and pooling or projection."""
    tower = model.vision_model
    patches = rows - 1 if kind == "clip" else rows
    embedding = 2 * patches * int(tower.embeddings.patch_embedding.weight.numel())
    if kind == "clip":
        return embedding + _linear_flops(model.visual_projection, 1)
    width: int = tower.config.hidden_size
    pooling = 2 * width**2 * (2 + 2 * rows) + 4 * rows * width  # one query over all rows
    return embedding + pooling + _linear_flops(tower.head.mlp, 1)

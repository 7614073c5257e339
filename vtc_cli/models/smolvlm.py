"""SmolVLM 2: tiles with text between them, patches joined by a pixel shuffle, videos as frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from vtc_cli.core.errors import ModelError
from vtc_cli.core.layout import Grid
from vtc_cli.core.media import Media
from vtc_cli.core.shape import ModelShape, TowerInput
from vtc_cli.models.support.base import COMMON_SIGNALS, TOWER_SIGNALS
from vtc_cli.models.support.checkpoint import load_weights, read_config
from vtc_cli.models.support.number_words import number_words
from vtc_cli.models.support.offline import (
    CONTROL_TOKENS,
    FIRST_FREE,
    byte_tokenizer,
    random_model,
    text_sizes,
)
from vtc_cli.models.support.parts import Parts, image_processor, load_parts
from vtc_cli.models.support.prompt import Seen
from vtc_cli.models.support.shapes import decoder_shape, tower_shape
from vtc_cli.models.support.tiles import Tile, TiledAdapter

IMAGE, VIDEO = "<image>", "<video>"
FAKE, GLOBAL, END = "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"
PLACES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
NARROW_TOKENS = (IMAGE, FAKE, GLOBAL, END, "<|im_start|>", VIDEO, *PLACES)
HEADS = 4  # of narrow decoders
# What the published models were taught to read around the frames of a video, and their turns.
INTRODUCTION = (
    "You are provided the following series of {frames} frames from a {length} [H:MM:SS] video.\n"
)
VIDEO_CHAT = (
    "<|im_start|>User{{ ':' if messages[0].content[0].type == 'image' else ': ' }}"
    "{% for part in messages[0].content %}"
    "{{ part.text if part.type == 'text' else '<' ~ part.type ~ '>' }}"
    "{% endfor %}<end_of_utterance>\nAssistant:"
)


class SmolVLMAdapter(TiledAdapter):
    """`SmolVLMForConditionalGeneration` (arXiv 2504.05299), pictures and videos.

    A picture is stretched to whole tiles, as many as the longest edge of the image processor takes;
    each is named by its row and column in the text, and the whole picture follows as one more. A
    frame of a video is one tile behind its time.

    Deviation: frames are prepared by the picture processor, and the length of a video is the time
    of its last frame; the library's video processor needs torchvision.
    """

    family: ClassVar[str] = "smolvlm"
    model_types: ClassVar[tuple[str, ...]] = ("smolvlm",)
    provides: ClassVar[frozenset[str]] = COMMON_SIGNALS | TOWER_SIGNALS
    # The turns of the published checkpoints around picture and question.
    fallback: ClassVar[str] = "<|im_start|>User:{visuals}{question}<end_of_utterance>\nAssistant:"

    @classmethod
    def library(cls) -> tuple[Any, Any]:
        """Classes of the library: the model and its image processor."""
        from transformers import SmolVLMForConditionalGeneration
        from transformers.models.smolvlm.image_processing_pil_smolvlm import (
            SmolVLMImageProcessorPil,
        )

        return SmolVLMForConditionalGeneration, SmolVLMImageProcessorPil

    @classmethod
    def load(cls, source: str, **options: Any) -> Self:
        """Load a local folder or a hub id.

        Raises:
            ModelError: a missing part, or tiles that the pixel shuffle does not divide.
        """
        kind, images = cls.library()
        config = read_config(kind, source)
        parts = load_parts(source, image_processor(images))
        side = parts.image_processor.max_image_size["longest_edge"]
        patches = side // config.vision_config.patch_size
        if patches % config.scale_factor:
            raise ModelError(
                f"tiles of {patches} patches a side, joined by {config.scale_factor}",
                where=source,
                allowed="max_image_size of the image processor that belongs to the weights",
            )
        return cls(load_weights(kind, source, config, **options), parts)

    @classmethod
    def narrow(cls, seed: int) -> Self:
        """The depth of SmolVLM2-2.2B, its 81 tokens a tile and 4 x 4 tiles, at width 64."""
        return cls.random(seed, width=64, layers=24, vision=narrow_tower(384), scale=3)

    @classmethod
    def random(
        cls,
        seed: int,
        *,
        width: int,
        layers: int,
        vision: Mapping[str, Any],
        scale: int,
        longest: int = 4,
        positions: int = 16384,
    ) -> Self:
        """Random weights, a byte tokenizer and a picture processor.

        Args:
            seed: of the weights.
            width: of the decoder.
            layers: of the decoder.
            vision: the vision configuration, in the names of the library.
            scale: patches of a token along each side.
            longest: tiles along the longer side of a picture.
            positions: that the decoder is said to know.
        """
        from transformers import LlamaConfig

        kind, images = cls.library()
        sizes = text_sizes(width, layers, HEADS, len(CONTROL_TOKENS) + len(NARROW_TOKENS))
        text = LlamaConfig(**sizes | {"max_position_embeddings": positions})
        config = kind.config_class(
            text_config=text.to_dict(),
            vision_config=dict(vision),
            image_token_id=FIRST_FREE,
            scale_factor=scale,
        )
        parts = _byte_parts(images, vision["image_size"], longest)
        return cls(random_model(kind, config, seed), parts)

    @classmethod
    def true_size(cls, fields: Mapping[str, Any], build: Callable[[Any, Any], Any]) -> Self:
        """Random weights at true size with the byte tokenizer, at most 4 tiles a side."""
        kind, images = cls.library()
        config: Any = kind.config_class(**fields)
        return cls(build(kind, config), _byte_parts(images, config.vision_config.image_size, 4))

    @property
    def shape(self) -> ModelShape:
        """Sizes from the configuration; the image processor decides how large a tile is."""
        config = self.model.config
        vision = config.vision_config
        return ModelShape(
            vision=tower_shape(vision),
            patch_inputs=vision.num_channels * vision.patch_size**2,
            patches=0,
            class_tokens=0,
            feature_layers=vision.num_hidden_layers,
            projector=((self.projector.in_features, self.projector.out_features),),
            decoder=decoder_shape(config.get_text_config(decoder=True)),
            merged_patches=config.scale_factor**2,
        )

    @property
    def tower_layers(self) -> Sequence[nn.Module]:
        """SigLIP blocks; the tiles are their batch."""
        layers: Sequence[nn.Module] = self.model.model.vision_model.encoder.layers
        return layers

    @property
    def projector(self) -> Any:
        """The linear map behind the pixel shuffle."""
        return self.model.model.connector.modality_projection.proj

    @property
    def parts(self) -> Parts:
        """Tokenizer, image processor and chat template."""
        own = super().parts
        return _Turns(own.tokenizer, own.image_processor, own.chat_template)

    def see(self, media: Media) -> Seen:
        """Tiles of a picture, or a tile for each frame."""
        return self._frames(media) if media.kind == "video" else self._picture(media)

    def joined_inputs(self, seen: Sequence[Seen]) -> Mapping[str, Tensor]:
        """Tiles (1, T, ...) of all spans in a row."""
        names = dict.fromkeys(name for one in seen for name in one.inputs)
        return {name: torch.cat([one.inputs[name] for one in seen], dim=1) for name in names}

    def _picture(self, media: Media) -> Seen:
        """Tiles row by row, then the whole picture."""
        processor = self.parts.image_processor
        done = processor(images=[[media.picture()]], return_row_col_info=True, return_tensors="pt")
        inputs, tile = self._tiles(done)
        cut = int(done["rows"][0][0]), int(done["cols"][0][0])
        down, across = max(cut[0], 1), max(cut[1], 1)  # the library says 0 of a picture in one tile
        return Seen(
            kind="image",
            grids=tile.grids(down, across),
            tower=(TowerInput(inputs["pixel_values"].shape[1], tile.rows, tile.columns),),
            inputs=inputs,
            boxes=tile.boxes(media.width, media.height, down, across),
            text=self._tagged(tile.tokens, *cut),
            marker=self._image,
        )

    def _frames(self, media: Media) -> Seen:
        """Frames in order, each a tile behind its time."""
        count = media.frames.shape[0]
        pictures = [media.picture(frame) for frame in range(count)]
        processor = self.parts.image_processor
        inputs, tile = self._tiles(
            processor(images=[pictures], do_image_splitting=False, return_tensors="pt")
        )
        shown = self._tagged(tile.tokens)
        length = str(timedelta(seconds=int(media.timestamps[-1])))
        times = [f"{int(time // 60):02d}:{int(time % 60):02d}" for time in media.timestamps]
        text = INTRODUCTION.format(frames=number_words(count), length=length)
        return Seen(
            kind="video",
            grids=(Grid(count, tile.rows, tile.columns),),
            tower=(TowerInput(count, tile.rows, tile.columns),),
            inputs=inputs,
            boxes=np.tile(tile.boxes(media.width, media.height), (count, 1)),
            text=text + "".join(f"\nFrame from {time}:{shown}" for time in times) + "\n\n",
            marker=VIDEO,
        )

    def _tiles(self, done: Mapping[str, Any]) -> tuple[dict[str, Tensor], Tile]:
        """Arguments of the tower, with the mask that the library makes, and the tile."""
        config, pixels = self.model.config, done["pixel_values"].to(self.model.dtype)
        patch = config.vision_config.patch_size
        inputs = {"pixel_values": pixels}
        if "pixel_attention_mask" in done:
            inputs["pixel_attention_mask"] = done["pixel_attention_mask"]
        return inputs, Tile.of(pixels, (patch, patch), config.scale_factor)

    @property
    def _image(self) -> str:
        """The placeholder."""
        return self.parts.token(self.model.config.image_token_id)

    def _tagged(self, tokens: int, down: int = 0, across: int = 0) -> str:
        """Placeholders of a picture with the names of its tiles; of one tile without any."""
        tokenizer, run = self.parts.tokenizer, self._image * tokens
        fake = getattr(tokenizer, "fake_image_token", None) or FAKE
        whole = getattr(tokenizer, "global_image_token", None) or GLOBAL
        rows = [
            "".join(f"{fake}<row_{row}_col_{column}>{run}" for column in range(1, across + 1))
            for row in range(1, down + 1)
        ]
        details = "\n".join([*rows, "", ""]) if rows else ""
        return f"{details}{fake}{whole}{run}{fake}"


def narrow_tower(image_size: int) -> dict[str, Any]:
    """A tower of the depth and patches of SigLIP so400m at width 16."""
    return {
        "hidden_size": 16,
        "intermediate_size": 64,
        "num_hidden_layers": 27,
        "num_attention_heads": 2,
        "image_size": image_size,
        "patch_size": 14,
    }


def _byte_parts(images: Any, tile: int, longest: int) -> Parts:
    """The byte tokenizer and an image processor of class `images`.

    Args:
        images: class of the image processor.
        tile: side of a tile in pixels.
        longest: tiles along the longer side of a picture.
    """
    processor = images(size={"longest_edge": longest * tile}, max_image_size={"longest_edge": tile})
    return Parts(byte_tokenizer(NARROW_TOKENS), processor)


class _Turns(Parts):
    """The chat of the checkpoint for pictures, the published turns for videos.

    So does the library's processor: the templates of the checkpoints know pictures only.
    """

    def chat(self, fallback: str, seen: Sequence[Seen], question: str) -> str:
        """The text around a question, with a marker for each picture or video."""
        videos = any(one.kind == "video" for one in seen)
        template = VIDEO_CHAT if videos else self.chat_template
        return Parts.chat(replace(self, chat_template=template), fallback, seen, question)

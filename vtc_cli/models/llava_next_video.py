"""LLaVA-NeXT-Video: a CLIP tower for each frame, its patches pooled 2 x 2, frames in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtc_cli.core.errors import ModelError
from vtc_cli.core.layout import Grid
from vtc_cli.core.media import Media
from vtc_cli.core.shape import ModelShape, TowerInput
from vtc_cli.models.support.base import CLASS_SIGNALS, COMMON_SIGNALS, TOWER_SIGNALS, Adapter
from vtc_cli.models.support.checkpoint import load_weights, read_config
from vtc_cli.models.support.fitting import fitted
from vtc_cli.models.support.geometry import patch_boxes
from vtc_cli.models.support.offline import (
    CONTROL_TOKENS,
    FIRST_FREE,
    byte_tokenizer,
    random_model,
    text_sizes,
)
from vtc_cli.models.support.parts import Parts, check_pixels, frame_processor, load_parts
from vtc_cli.models.support.prompt import Kind, Prompt, Seen
from vtc_cli.models.support.shapes import (
    CLASS_ROWS,
    check_raster,
    decoder_shape,
    deepest_layer,
    tower_shape,
)

PIXELS = "pixel_values_videos"
NARROW_TOKENS = ("<image>", "<video>")


class LlavaNextVideoAdapter(Adapter):
    """`LlavaNextVideoForConditionalGeneration` (LLaVA-NeXT blog, April 2024), videos alone.

    Every frame of the media is used; choosing frames is the reader's work.
    """

    family: ClassVar[str] = "llava_next_video"
    model_types: ClassVar[tuple[str, ...]] = ("llava_next_video",)
    provides: ClassVar[frozenset[str]] = COMMON_SIGNALS | TOWER_SIGNALS | CLASS_SIGNALS
    takes: ClassVar[frozenset[Kind]] = frozenset({"video"})
    fallback: ClassVar[str] = "USER: {visuals}\n{question} ASSISTANT:"  # as published

    @classmethod
    def load(cls, source: str, **options: Any) -> LlavaNextVideoAdapter:
        """Load a local folder or a hub id.

        Raises:
            ModelError: a missing part, or a tower or pooling that this adapter does not know.
        """
        from transformers import LlavaNextVideoForConditionalGeneration as Model
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        config = read_config(Model, source)
        _check(config, source)
        parts = load_parts(source, partial(frame_processor, CLIPImageProcessorPil))
        return cls(load_weights(Model, source, config, **options), parts)

    @classmethod
    def narrow(cls, seed: int) -> LlavaNextVideoAdapter:
        """The depth and 144 tokens a frame of LLaVA-NeXT-Video-7B at width 32."""
        return random_llava_next_video(seed, width=32, vision_layers=24, decoder_layers=32)

    @classmethod
    def true_size(
        cls, fields: Mapping[str, Any], build: Callable[[Any, Any], Any]
    ) -> LlavaNextVideoAdapter:
        """Random weights at true size with the byte tokenizer."""
        from transformers import LlavaNextVideoConfig
        from transformers import LlavaNextVideoForConditionalGeneration as Model

        return cls._with_parts(build(Model, LlavaNextVideoConfig(**fields)))

    @classmethod
    def _with_parts(cls, model: Any) -> LlavaNextVideoAdapter:
        """A model with a byte tokenizer and the processor of frames that fits it."""
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        side = model.config.vision_config.image_size
        frames = CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        )
        return cls(model, Parts(byte_tokenizer(NARROW_TOKENS), frames))

    @property
    def shape(self) -> ModelShape:
        """Sizes from the configuration."""
        config = self.model.config
        vision, text = config.vision_config, config.get_text_config(decoder=True)
        linear = self.projector.linear_1, self.projector.linear_2
        return ModelShape(
            vision=tower_shape(vision),
            patch_inputs=vision.num_channels * vision.patch_size**2,
            patches=(vision.image_size // vision.patch_size) ** 2,
            class_tokens=CLASS_ROWS[vision.model_type],
            feature_layers=deepest_layer(config),
            projector=tuple((part.in_features, part.out_features) for part in linear),
            decoder=decoder_shape(text),
            merged_patches=config.spatial_pool_stride**2,
        )

    @property
    def projector(self) -> Any:
        """The two-layer MLP behind the pooling."""
        return self.model.model.multi_modal_projector

    def see(self, media: Media) -> Seen:
        """Every frame of a video."""
        config, pixels = self.model.config, self._pixels(media)
        patches = config.vision_config.image_size // config.vision_config.patch_size
        whole = self._seen_video(media, pixels, patches)
        pooled = self._seen_video(media, pixels, patches // config.spatial_pool_stride)
        return replace(pooled, unpooled=whole)

    def _seen_video(self, media: Media, pixels: Tensor, side: int) -> Seen:
        """Frames of `side` x `side` tokens; pixels (1, F, 3, H, W)."""
        frames = media.frames.shape[0]
        marker = self.parts.token(self.model.config.video_token_index)
        return Seen(
            kind="video",
            grids=(Grid(frames, side, side),),
            tower=(TowerInput(frames, side, side),),
            inputs={PIXELS: pixels},
            boxes=self._boxes(media, side),
            text=marker * frames * side**2,
            marker=marker,
        )

    def tower_output(self, kind: Kind, inputs: Mapping[str, Tensor], prompt: Prompt) -> Any:
        """The library's own, or the projected patches of all frames."""
        if prompt.pooled is None:
            return super().tower_output(kind, inputs, prompt)
        carrier = self.carrier()
        carrier.pooler_output = self.projected_patches(inputs[PIXELS][0])
        return carrier

    def joined_inputs(self, seen: Sequence[Seen]) -> Mapping[str, Tensor]:
        """The frames of all videos in one row: each is seen alone, and lengths may differ."""
        return {PIXELS: torch.cat([one.inputs[PIXELS] for one in seen], dim=1)}

    def _pixels(self, media: Media) -> Tensor:
        """(1, F, 3, H, W) of all frames.

        Raises:
            ModelError: the processor makes frames of another size than the tower takes.
        """
        processor, count = self.processor.image_processor, media.frames.shape[0]
        frames = [fitted(media.picture(index), processor) for index in range(count)]
        processed = processor(images=frames, return_tensors="pt")
        pixels: Tensor = processed["pixel_values"]
        check_pixels(pixels, self.model.config.vision_config.image_size)
        return pixels[None].to(self.model.dtype)

    def _boxes(self, media: Media, side: int) -> NDArray[np.float64]:
        """(F x side x side, 4) boxes in the pixels of a frame, the same for every frame."""
        processor = self.processor.image_processor
        boxes = patch_boxes(processor, media.width, media.height, side, side)
        return np.tile(boxes, (media.frames.shape[0], 1))

    def handed(self, features: Tensor) -> Any:
        """The model reads them as one batch."""
        return features[None]


def _check(config: Any, source: str) -> None:
    """Refuse what the adapter would get wrong.

    Raises:
        ModelError: another tower, rows that are no raster, a pooling that does not fit.
    """
    check_raster(config, tuple(CLASS_ROWS), source)
    side = config.vision_config.image_size // config.vision_config.patch_size
    faults = {
        f"{config.spatial_pool_mode} pooling": config.spatial_pool_mode not in ("average", "max"),
        f"{side} patches a side pooled by {config.spatial_pool_stride}": (
            side % config.spatial_pool_stride != 0
        ),
    }
    for found, wrong in faults.items():
        if wrong:
            raise ModelError(
                found,
                where=source,
                allowed="average or max pooling that divides the patches evenly",
            )


def random_llava_next_video(
    seed: int,
    *,
    width: int,
    vision_layers: int,
    decoder_layers: int,
    heads: int = 4,
    image_size: int = 336,
    patch_size: int = 14,
) -> LlavaNextVideoAdapter:
    """A seeded random LLaVA-NeXT-Video with its parts."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaNextVideoConfig,
        LlavaNextVideoForConditionalGeneration,
    )

    vision = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=vision_layers,
        num_attention_heads=heads,
        image_size=image_size,
        patch_size=patch_size,
        projection_dim=width,
    )
    special = len(CONTROL_TOKENS) + len(NARROW_TOKENS)
    config = LlavaNextVideoConfig(
        vision_config=vision,
        text_config=LlamaConfig(**text_sizes(width, decoder_layers, heads, special)),
        image_token_index=FIRST_FREE,
        video_token_index=FIRST_FREE + 1,
        vision_feature_layer=-2,
    )
    return LlavaNextVideoAdapter._with_parts(
        random_model(LlavaNextVideoForConditionalGeneration, config, seed)
    )

"""LLaVA-1.5 and its kin: a CLIP or SigLIP tower, an MLP projector, a decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vtc_cli.core.errors import ModelError
from vtc_cli.core.layout import Grid
from vtc_cli.core.media import Media
from vtc_cli.core.shape import ModelShape, TowerInput
from vtc_cli.models.support.base import CLASS_SIGNALS, COMMON_SIGNALS, TOWER_SIGNALS, Adapter
from vtc_cli.models.support.checkpoint import load_weights, read_config
from vtc_cli.models.support.fitting import fitted
from vtc_cli.models.support.geometry import patch_boxes
from vtc_cli.models.support.parts import check_pixels, image_processor, load_parts
from vtc_cli.models.support.prompt import Prompt, Seen
from vtc_cli.models.support.shapes import (
    CLASS_ROWS,
    decoder_shape,
    deepest_layer,
    joined_layers,
    tower_shape,
)

BESIDE = {  # rows that the projector reads beside the patches, and why stages stay out of the tower
    0: "",
    1: "this model keeps the [CLS] row of its tower as a visual token",
    -1: "this model drops the first patch behind its tower",
}


class LlavaAdapter(Adapter):
    """`LlavaForConditionalGeneration` (arXiv 2310.03744) with a CLIP or SigLIP vision tower.

    `vision_feature_select_strategy: default` takes the first row of the tower away, `full` keeps
    all rows. So the visual tokens are, of CLIP, the patches or [CLS] and the patches; of SigLIP,
    which has no [CLS], the patches without the first or the patches. A kept [CLS] is a token that
    no patch stands behind: it is never dropped, and it counts.
    """

    family: ClassVar[str] = "llava"
    model_types: ClassVar[tuple[str, ...]] = ("llava",)
    provides: ClassVar[frozenset[str]] = COMMON_SIGNALS | TOWER_SIGNALS | CLASS_SIGNALS
    fallback: ClassVar[str] = "USER: {visuals}\n{question} ASSISTANT:"  # as in the paper

    @classmethod
    def load(cls, source: str, **options: Any) -> LlavaAdapter:
        """Load a local folder or a hub id.

        Raises:
            ModelError: a missing part, or neither a CLIP nor a SigLIP tower.
        """
        from transformers import AutoImageProcessor, LlavaForConditionalGeneration

        config = read_config(LlavaForConditionalGeneration, source)
        found = config.vision_config.model_type
        if found not in CLASS_ROWS:
            raise ModelError(
                f"a LLaVA with a {found} tower", where=source, allowed=", ".join(CLASS_ROWS)
            )
        parts = load_parts(source, image_processor(AutoImageProcessor, backend="pil"))
        return cls(load_weights(LlavaForConditionalGeneration, source, config, **options), parts)

    @classmethod
    def narrow(cls, seed: int) -> LlavaAdapter:
        """The depth and 576 tokens of LLaVA-1.5-7B at width 32."""
        from vtc_cli.models.support.offline import byte_processor, random_llava

        model = random_llava(seed, width=32, vision_layers=24, decoder_layers=32)
        return cls(model, byte_processor(model))

    @classmethod
    def true_size(cls, fields: Mapping[str, Any], build: Callable[[Any, Any], Any]) -> LlavaAdapter:
        """Random weights at true size with the byte tokenizer."""
        from transformers import LlavaConfig, LlavaForConditionalGeneration

        from vtc_cli.models.support.offline import byte_processor

        model = build(LlavaForConditionalGeneration, LlavaConfig(**fields))
        return cls(model, byte_processor(model))

    @property
    def shape(self) -> ModelShape:
        """Sizes from the configuration."""
        config = self.model.config
        vision, text = config.vision_config, config.get_text_config(decoder=True)
        linear = self.projector.linear_1, self.projector.linear_2
        beside = self._rows - self._side**2
        packing = BESIDE[beside] or joined_layers(config)
        return ModelShape(
            vision=tower_shape(vision),
            patch_inputs=vision.num_channels * vision.patch_size**2,
            patches=self._side**2,
            class_tokens=CLASS_ROWS[vision.model_type],
            feature_layers=deepest_layer(config),
            projector=tuple((layer.in_features, layer.out_features) for layer in linear),
            decoder=decoder_shape(text),
            packing=packing,
            rows_beside_patches=beside,
        )

    @property
    def projector(self) -> Any:
        """The two-layer MLP."""
        return self.model.model.multi_modal_projector

    @property
    def _side(self) -> int:
        """Patches from left to right and from top to bottom."""
        vision = self.model.config.vision_config
        return int(vision.image_size // vision.patch_size)

    @property
    def _rows(self) -> int:
        """Visual tokens of a picture: rows of the tower that the model selects."""
        config = self.model.config
        dropped = int(config.vision_feature_select_strategy == "default")
        return self._side**2 + CLASS_ROWS[config.vision_config.model_type] - dropped

    def see(self, media: Media) -> Seen:
        """One picture of a fixed number of patches."""
        side, processor = self._side, self.parts.image_processor
        marker = self.parts.token(self.model.config.image_token_id)
        picture = fitted(media.picture(), processor)
        pixels = processor(images=picture, return_tensors="pt")["pixel_values"]
        check_pixels(pixels, self.model.config.vision_config.image_size)
        boxes = patch_boxes(processor, media.width, media.height, side, side)
        beside = self._rows - side**2
        return Seen(
            kind="image",
            grids=_grids(side, beside),
            tower=(TowerInput(1, side, side),),
            inputs={"pixel_values": pixels.to(self.model.dtype)},
            boxes=np.pad(boxes, ((1, 0), (0, 0))) if beside > 0 else boxes[-beside or 0 :],
            text=marker * self._rows,
            marker=marker,
        )

    def pooled(self, patches: Tensor, prompt: Prompt) -> Tensor:
        """Values of patches as values of tokens.

        A kept [CLS] has no patch: its attention is 0, and in place of a vector it has the mean over
        the patches of its picture.
        """
        beside = self._rows - self._side**2
        if not beside:
            return patches
        each = patches.reshape(len(prompt.seen), self._side**2, *patches.shape[1:])
        if beside < 0:
            return each[:, 1:].flatten(0, 1)
        first = each[:, :1] * 0 if patches.ndim == 1 else each.float().mean(1, keepdim=True)
        return torch.cat([first.to(each.dtype), each], dim=1).flatten(0, 1)


def _grids(side: int, beside: int) -> tuple[Grid, ...]:
    """The patches, behind [CLS] where one row is beside them, without the first where one lacks."""
    if beside < 0:
        return (Grid(1, 1, side - 1, left=1), Grid(1, side - 1, side, top=1))
    return (*((Grid(1, 1, 1, view="marker"),) * beside), Grid(1, side, side))

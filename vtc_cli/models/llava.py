"""LLaVA-1.5 and its kin: a CLIP tower with [CLS], an MLP projector, a decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from vtc_cli.core.errors import ModelError
from vtc_cli.core.layout import Grid
from vtc_cli.core.media import Media
from vtc_cli.core.shape import ModelShape, TowerInput
from vtc_cli.models.support.base import CLASS_SIGNALS, COMMON_SIGNALS, TOWER_SIGNALS, Adapter
from vtc_cli.models.support.fitting import fitted
from vtc_cli.models.support.geometry import patch_boxes
from vtc_cli.models.support.prompt import Seen
from vtc_cli.models.support.shapes import decoder_shape, tower_shape


class LlavaAdapter(Adapter):
    """`LlavaForConditionalGeneration` with a CLIP vision tower (arXiv 2310.03744)."""

    family: ClassVar[str] = "llava"
    model_types: ClassVar[tuple[str, ...]] = ("llava",)
    provides: ClassVar[frozenset[str]] = COMMON_SIGNALS | TOWER_SIGNALS | CLASS_SIGNALS
    fallback: ClassVar[str] = "USER: {visuals}\n{question} ASSISTANT:"  # as in the paper

    @classmethod
    def load(cls, source: str, **options: Any) -> LlavaAdapter:
        """Load a local folder or a hub id.

        Raises:
            ModelError: not a CLIP tower, or features from several of its layers.
        """
        from transformers import AutoProcessor, LlavaForConditionalGeneration

        model: Any = LlavaForConditionalGeneration.from_pretrained(source, **options)
        found = model.config.vision_config.model_type
        if found != "clip_vision_model":
            raise ModelError(
                f"a LLaVA with a {found} tower", where=source, allowed="clip_vision_model"
            )
        if not isinstance(model.config.vision_feature_layer, int):
            raise ModelError(
                "features from several tower layers", where=source, allowed="one feature layer"
            )
        return cls(model.eval(), AutoProcessor.from_pretrained(source))

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
        feature_layer = config.vision_feature_layer
        depth = vision.num_hidden_layers
        reached = feature_layer if feature_layer >= 0 else depth + 1 + feature_layer
        linear = self.projector.linear_1, self.projector.linear_2
        return ModelShape(
            vision=tower_shape(vision),
            patch_inputs=vision.num_channels * vision.patch_size**2,
            patches=(vision.image_size // vision.patch_size) ** 2,
            class_tokens=1,
            feature_layers=reached,
            projector=tuple((layer.in_features, layer.out_features) for layer in linear),
            decoder=decoder_shape(text),
        )

    @property
    def projector(self) -> Any:
        """The two-layer MLP."""
        return self.model.model.multi_modal_projector

    def see(self, media: Media) -> Seen:
        """One picture of a fixed number of patches."""
        side = int(self.shape.patches**0.5)
        processor = self.parts.image_processor
        pixels = processor(images=fitted(media.picture(), processor), return_tensors="pt")[
            "pixel_values"
        ]
        marker = self.parts.token(self.model.config.image_token_id)
        return Seen(
            kind="image",
            grids=(Grid(1, side, side),),
            tower=(TowerInput(1, side, side),),
            inputs={"pixel_values": pixels.to(self.model.dtype)},
            boxes=patch_boxes(processor, media.width, media.height, side, side),
            text=marker * side**2,
            marker=marker,
        )

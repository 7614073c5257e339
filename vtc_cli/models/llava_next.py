"""LLaVA-NeXT: an overview and crops at the picture's own resolution, a newline after each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from vtc_cli.models.support.anyres import AnyresAdapter
from vtc_cli.models.support.base import CLASS_SIGNALS, COMMON_SIGNALS, TOWER_SIGNALS
from vtc_cli.models.support.checkpoint import load_weights, read_config
from vtc_cli.models.support.offline import (
    CONTROL_TOKENS,
    FIRST_FREE,
    IMAGE_TOKEN,
    byte_tokenizer,
    random_model,
    text_sizes,
)
from vtc_cli.models.support.parts import Parts, image_processor, load_parts
from vtc_cli.models.support.shapes import CLASS_ROWS


class LlavaNextAdapter(AnyresAdapter):
    """`LlavaNextForConditionalGeneration` (LLaVA-1.6, blog of January 2024), CLIP or SigLIP tower.

    The overview is the whole picture squeezed to a square. The crops cover the picture, padded, at
    the best of five resolutions; the model takes the padding away and ends each row of patches with
    a learned newline.
    """

    family: ClassVar[str] = "llava_next"
    model_types: ClassVar[tuple[str, ...]] = ("llava_next",)
    provides: ClassVar[frozenset[str]] = COMMON_SIGNALS | TOWER_SIGNALS | CLASS_SIGNALS
    fallback: ClassVar[str] = "USER: {visuals}\n{question} ASSISTANT:"  # as in LLaVA-1.5
    towers: ClassVar[tuple[str, ...]] = tuple(CLASS_ROWS)
    packing: ClassVar[str] = (
        "this model joins crops behind its tower, takes their padding away and adds line ends"
    )

    @classmethod
    def load(cls, source: str, **options: Any) -> LlavaNextAdapter:
        """Load a local folder or a hub id.

        Raises:
            ModelError: a missing part, or features that this adapter does not know.
        """
        from transformers import LlavaNextForConditionalGeneration
        from transformers.models.llava_next.image_processing_pil_llava_next import (
            LlavaNextImageProcessorPil,
        )

        config = read_config(LlavaNextForConditionalGeneration, source)
        cls.check(config, source)
        parts = load_parts(source, image_processor(LlavaNextImageProcessorPil))
        model = load_weights(LlavaNextForConditionalGeneration, source, config, **options)
        return cls(model, parts)

    @classmethod
    def narrow(cls, seed: int) -> LlavaNextAdapter:
        """The depth and up to 2,928 tokens of LLaVA-NeXT-7B at width 32."""
        return random_llava_next(seed, width=32, vision_layers=24, decoder_layers=32)

    @classmethod
    def true_size(
        cls, fields: Mapping[str, Any], build: Callable[[Any, Any], Any]
    ) -> LlavaNextAdapter:
        """Random weights at true size with the byte tokenizer."""
        from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

        return cls._with_parts(build(LlavaNextForConditionalGeneration, LlavaNextConfig(**fields)))

    @classmethod
    def _with_parts(cls, model: Any) -> LlavaNextAdapter:
        """A model with a byte tokenizer and the processor that fits it."""
        from transformers.models.llava_next.image_processing_pil_llava_next import (
            LlavaNextImageProcessorPil,
        )

        side = model.config.vision_config.image_size
        images = LlavaNextImageProcessorPil(
            size={"shortest_edge": side},
            crop_size={"height": side, "width": side},
            image_grid_pinpoints=model.config.image_grid_pinpoints,
        )
        return cls(model, Parts(byte_tokenizer((IMAGE_TOKEN,)), images))


def random_llava_next(
    seed: int,
    *,
    width: int,
    vision_layers: int,
    decoder_layers: int,
    heads: int = 4,
    image_size: int = 336,
    patch_size: int = 14,
    resolutions: Sequence[Sequence[int]] | None = None,
) -> LlavaNextAdapter:
    """A seeded random LLaVA-NeXT with its parts; `resolutions` are the published ones by default.

    They are (height, width) in pixels, whole multiples of `image_size`.
    """
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
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
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=LlamaConfig(
            **text_sizes(width, decoder_layers, heads, len(CONTROL_TOKENS) + 1)
        ),
        image_token_index=FIRST_FREE,
        vision_feature_layer=-2,
        image_grid_pinpoints=None if resolutions is None else [list(each) for each in resolutions],
    )
    return LlavaNextAdapter._with_parts(
        random_model(LlavaNextForConditionalGeneration, config, seed)
    )

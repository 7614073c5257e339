"""InternVL 2.5 and 3: a tower with [CLS] whose 2 x 2 neighbours become one token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from vtc_cli.core.errors import ModelError
from vtc_cli.core.layout import Grid
from vtc_cli.core.media import Media
from vtc_cli.core.shape import ModelShape, TowerInput
from vtc_cli.models.support.base import CLASS_SIGNALS, COMMON_SIGNALS, TOWER_SIGNALS, Adapter
from vtc_cli.models.support.geometry import patch_boxes
from vtc_cli.models.support.offline import (
    CONTROL_TOKENS,
    FIRST_FREE,
    byte_tokenizer,
    random_model,
    text_sizes,
)
from vtc_cli.models.support.parts import Parts, load_parts
from vtc_cli.models.support.prompt import Seen
from vtc_cli.models.support.shapes import decoder_shape, tower_shape

BEGIN, END = "<img>", "</img>"
NARROW_TOKENS = (BEGIN, END, "<IMG_CONTEXT>")
ONE_TILE = "the whole picture is one tile: it is not cut into tiles of its own aspect"


class InternVLAdapter(Adapter):
    """`InternVLForConditionalGeneration` (arXiv 2504.10479), one picture as one tile.

    Deviation: the published preprocessing cuts a picture into up to twelve tiles and a thumbnail.
    Here the picture is stretched to one tile, so that its tokens are one raster.
    """

    family: ClassVar[str] = "internvl"
    model_types: ClassVar[tuple[str, ...]] = ("internvl",)
    provides: ClassVar[frozenset[str]] = COMMON_SIGNALS | TOWER_SIGNALS | CLASS_SIGNALS
    # The turns of the published checkpoints around picture and question.
    fallback: ClassVar[str] = (
        "<|im_start|>user\n{visuals}\n{question}<|im_end|>\n<|im_start|>assistant\n"
    )

    @classmethod
    def load(cls, source: str, **options: Any) -> InternVLAdapter:
        """Load a local folder or a hub id.

        Raises:
            ModelError: a missing part, or features that this adapter does not know.
        """
        from transformers import InternVLForConditionalGeneration
        from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
            GotOcr2ImageProcessorPil,
        )

        parts = load_parts(source, GotOcr2ImageProcessorPil.from_pretrained)
        model: Any = InternVLForConditionalGeneration.from_pretrained(source, **options)
        config = model.config
        found = (config.vision_feature_layer, config.vision_feature_select_strategy)
        if not isinstance(found[0], int) or found[1] != "default":
            raise ModelError(
                f"features of layers {found[0]} selected by {found[1]!r}",
                where=source,
                allowed="one feature layer and the strategy 'default'",
            )
        return cls(model.eval(), parts)

    @classmethod
    def narrow(cls, seed: int) -> InternVLAdapter:
        """The depth and 256 tokens of InternVL3-8B at width 64, its tower at width 32."""
        return random_internvl(seed, width=64, vision_width=32, vision_layers=24, decoder_layers=28)

    @classmethod
    def true_size(
        cls, fields: Mapping[str, Any], build: Callable[[Any, Any], Any]
    ) -> InternVLAdapter:
        """Random weights at true size with the byte tokenizer."""
        from transformers import InternVLConfig, InternVLForConditionalGeneration
        from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
            GotOcr2ImageProcessorPil,
        )

        config: Any = InternVLConfig(**fields)
        height, width = config.vision_config.image_size
        images = GotOcr2ImageProcessorPil(size={"height": height, "width": width})
        model = build(InternVLForConditionalGeneration, config)
        return cls(model, Parts(byte_tokenizer(NARROW_TOKENS), images))

    @property
    def shape(self) -> ModelShape:
        """Sizes from the configuration."""
        config = self.model.config
        vision, text = config.vision_config, config.get_text_config(decoder=True)
        depth, layer = vision.num_hidden_layers, config.vision_feature_layer
        rows, columns = self._patch_grid()
        side = round(1 / config.downsample_ratio)
        linear = self.projector.linear_1, self.projector.linear_2
        return ModelShape(
            vision=tower_shape(vision),
            patch_inputs=vision.num_channels * vision.patch_size[0] * vision.patch_size[1],
            patches=rows * columns,
            class_tokens=1,
            feature_layers=layer if layer >= 0 else depth + 1 + layer,
            projector=tuple((part.in_features, part.out_features) for part in linear),
            decoder=decoder_shape(text),
            merged_patches=side**2,
        )

    @property
    def tower_layers(self) -> Sequence[nn.Module]:
        """Blocks of the InternViT."""
        layers: Sequence[nn.Module] = self.model.model.vision_tower.encoder.layer
        return layers

    def tower_attention(self, layer: int) -> nn.Module:
        """The attention of block `layer`."""
        module: nn.Module = self.model.model.vision_tower.encoder.layer[layer].attention
        return module

    @property
    def projector(self) -> Any:
        """Norm and two linear maps behind the pixel shuffle."""
        return self.model.model.multi_modal_projector

    def see(self, media: Media) -> Seen:
        """One tile a picture."""
        parts, processor = self.parts, self.parts.image_processor
        pixels = processor(images=media.picture(), return_tensors="pt", crop_to_patches=False)
        side = round(1 / self.model.config.downsample_ratio)
        rows, columns = (count // side for count in self._patch_grid())
        context = parts.token(self.model.config.image_token_id)
        begin = getattr(parts.tokenizer, "start_image_token", None) or BEGIN
        end = getattr(parts.tokenizer, "end_image_token", None) or END
        return Seen(
            kind="image",
            grids=(Grid(1, rows, columns),),
            tower=(TowerInput(1, rows, columns),),
            inputs={"pixel_values": pixels["pixel_values"].to(self.model.dtype)},
            boxes=patch_boxes(processor, media.width, media.height, rows, columns),
            text=f"{begin}{context * rows * columns}{end}",
            marker=context,
            warnings=(ONE_TILE,),
        )

    def handed(self, features: Tensor) -> Any:
        """The model reads them as one batch."""
        return features[None]

    def _patch_grid(self) -> tuple[int, int]:
        """Rows and columns of the tower's patches."""
        vision = self.model.config.vision_config
        (height, width), (tall, wide) = vision.image_size, vision.patch_size
        return height // tall, width // wide


def random_internvl(
    seed: int,
    *,
    width: int,
    vision_width: int,
    vision_layers: int,
    decoder_layers: int,
    heads: int = 4,
    image_size: int = 448,
    patch_size: int = 14,
) -> InternVLAdapter:
    """A seeded random InternVL with a Qwen2 decoder and its parts."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration, Qwen2Config
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    special = len(CONTROL_TOKENS) + len(NARROW_TOKENS)
    text = Qwen2Config(**text_sizes(width, decoder_layers, heads, special))
    config = InternVLConfig(
        text_config=text.to_dict(),
        vision_config={
            "hidden_size": vision_width,
            "intermediate_size": 4 * vision_width,
            "num_hidden_layers": vision_layers,
            "num_attention_heads": heads,
            "image_size": [image_size, image_size],
            "patch_size": [patch_size, patch_size],
        },
        image_token_id=FIRST_FREE + 2,
        downsample_ratio=0.5,
    )
    images = GotOcr2ImageProcessorPil(size={"height": image_size, "width": image_size})
    model = random_model(InternVLForConditionalGeneration, config, seed)
    return InternVLAdapter(model, Parts(byte_tokenizer(NARROW_TOKENS), images))

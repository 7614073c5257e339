"""InternVL 2.5 and 3: tiles, a tower with [CLS], 2 x 2 of its neighbours become one token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from vtc_cli.core.errors import ModelError
from vtc_cli.core.layout import Grid
from vtc_cli.core.media import Media
from vtc_cli.core.shape import ModelShape, TowerInput
from vtc_cli.models.support.base import CLASS_SIGNALS, COMMON_SIGNALS, TOWER_SIGNALS
from vtc_cli.models.support.checkpoint import load_weights, read_config
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

BEGIN, END, VIDEO = "<img>", "</img>", "<video>"
NARROW_TOKENS = (BEGIN, END, "<IMG_CONTEXT>", VIDEO)
ONE_TILE = "the checkpoint's image processor allows one tile a picture: it is not cut"


class InternVLAdapter(TiledAdapter):
    """`InternVLForConditionalGeneration` (arXiv 2504.10479), pictures and videos.

    A picture is stretched to the arrangement of tiles nearest to its aspect, at most as many as the
    image processor of the checkpoint allows, and a thumbnail of the whole follows them. A frame of
    a video is one tile.

    Deviation: frames are prepared by the picture processor; the library's video processor needs
    torchvision.
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

        config = read_config(InternVLForConditionalGeneration, source)
        found = (config.vision_feature_layer, config.vision_feature_select_strategy)
        if not isinstance(found[0], int) or found[1] != "default":
            raise ModelError(
                f"features of layers {found[0]} selected by {found[1]!r}",
                where=source,
                allowed="one feature layer and the strategy 'default'",
            )
        parts = load_parts(source, image_processor(GotOcr2ImageProcessorPil))
        model = load_weights(InternVLForConditionalGeneration, source, config, **options)
        return cls(model, parts)

    @classmethod
    def narrow(cls, seed: int) -> InternVLAdapter:
        """The depth of InternVL3-8B and 256 tokens a tile at width 64, its tower at width 32."""
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
        """Tiles of a picture, or a tile for each frame."""
        return self._frames(media) if media.kind == "video" else self._picture(media)

    def _picture(self, media: Media) -> Seen:
        """Tiles row by row, then the thumbnail."""
        processor = self.parts.image_processor
        # The library's joint processor cuts whatever the image processor says of itself.
        done = processor(images=media.picture(), return_tensors="pt", crop_to_patches=True)
        pixels = done["pixel_values"].to(self.model.dtype)
        down, across = _arrangement(processor, media)
        tile = self._tile(pixels)
        context = self.parts.token(self.model.config.image_token_id)
        return Seen(
            kind="image",
            grids=tile.grids(down, across),
            tower=(TowerInput(pixels.shape[0], tile.rows, tile.columns),),
            inputs={"pixel_values": pixels},
            boxes=tile.boxes(media.width, media.height, down, across),
            text=self._marked(pixels.shape[0] * tile.tokens),
            marker=context,
            warnings=(ONE_TILE,) if processor.max_patches <= 1 else (),
        )

    def _frames(self, media: Media) -> Seen:
        """Frames in order, each a tile behind its number."""
        count = media.frames.shape[0]
        pictures = [media.picture(frame) for frame in range(count)]
        done = self.parts.image_processor(
            images=pictures, return_tensors="pt", crop_to_patches=False
        )
        pixels = done["pixel_values"].to(self.model.dtype)
        tile = self._tile(pixels)
        shown = self._marked(tile.tokens)
        return Seen(
            kind="video",
            grids=(Grid(count, tile.rows, tile.columns),),
            tower=(TowerInput(count, tile.rows, tile.columns),),
            inputs={"pixel_values": pixels},
            boxes=np.tile(tile.boxes(media.width, media.height), (count, 1)),
            text="\n".join(f"Frame{number}: {shown}" for number in range(1, count + 1)),
            marker=getattr(self.parts.tokenizer, "video_token", None) or VIDEO,
        )

    def _tile(self, pixels: Tensor) -> Tile:
        """What the tower makes of each of `pixels` (T, 3, H, W)."""
        config = self.model.config
        return Tile.of(pixels, config.vision_config.patch_size, round(1 / config.downsample_ratio))

    def _marked(self, tokens: int) -> str:
        """Placeholders between the marks of a picture."""
        tokenizer = self.parts.tokenizer
        begin = getattr(tokenizer, "start_image_token", None) or BEGIN
        end = getattr(tokenizer, "end_image_token", None) or END
        return f"{begin}{self.parts.token(self.model.config.image_token_id) * tokens}{end}"

    def handed(self, features: Tensor) -> Any:
        """The model reads them as one batch."""
        return features[None]

    def _patch_grid(self) -> tuple[int, int]:
        """Rows and columns of the tower's patches."""
        vision = self.model.config.vision_config
        (height, width), (tall, wide) = vision.image_size, vision.patch_size
        return height // tall, width // wide


def _arrangement(processor: Any, media: Media) -> tuple[int, int]:
    """Rows and columns of tiles that the image processor cuts a picture into."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    if processor.max_patches <= 1:
        return 1, 1
    tile = (processor.size["height"], processor.size["width"])
    columns, rows = get_optimal_tiled_canvas(
        (media.height, media.width), tile, processor.min_patches, processor.max_patches
    )
    return rows, columns


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
    max_tiles: int = 12,
) -> InternVLAdapter:
    """A seeded random InternVL with a Qwen2 decoder and its parts."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration, Qwen2Config
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    special = len(CONTROL_TOKENS) + len(NARROW_TOKENS)
    sizes = text_sizes(width, decoder_layers, heads, special)
    text = Qwen2Config(**sizes | {"max_position_embeddings": 32768})
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
    size = {"height": image_size, "width": image_size}
    images = GotOcr2ImageProcessorPil(size=size, max_patches=max_tiles)
    model = random_model(InternVLForConditionalGeneration, config, seed)
    return InternVLAdapter(model, Parts(byte_tokenizer(NARROW_TOKENS), images))

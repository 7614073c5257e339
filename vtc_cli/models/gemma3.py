"""Gemma 3: a SigLIP tower whose rows are averaged to 16 x 16 tokens, a decoder with windows."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from vtc_cli.core.errors import ModelError
from vtc_cli.core.layout import Grid
from vtc_cli.core.media import Media
from vtc_cli.core.shape import ModelShape, TowerInput
from vtc_cli.models.support.base import COMMON_SIGNALS, TOWER_SIGNALS, Adapter
from vtc_cli.models.support.checkpoint import load_weights, read_config
from vtc_cli.models.support.geometry import patch_boxes
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

NARROW_TOKENS = ("<start_of_image>", "<end_of_image>", "<image_soft_token>")
CROPS = "the checkpoint asks for pan and scan: not done, the whole picture is one input"


class Gemma3Adapter(Adapter):
    """`Gemma3ForConditionalGeneration` (arXiv 2503.19786), pictures seen whole.

    The tokens of a picture see each other in both directions, and most decoder layers see a
    window only: both are in the masks, which the adapter has the model make from the token types.
    The window counts the tokens that entered the decoder.
    """

    family: ClassVar[str] = "gemma3"
    model_types: ClassVar[tuple[str, ...]] = ("gemma3",)
    provides: ClassVar[frozenset[str]] = COMMON_SIGNALS | TOWER_SIGNALS
    # The turns of the Gemma 3 report (arXiv 2503.19786) around picture and question.
    fallback: ClassVar[str] = (
        "<start_of_turn>user\n{visuals}{question}<end_of_turn>\n<start_of_turn>model\n"
    )

    @classmethod
    def load(cls, source: str, **options: Any) -> Gemma3Adapter:
        """Load a local folder or a hub id.

        Raises:
            ModelError: a missing part, or not a SigLIP tower.
        """
        from transformers import Gemma3ForConditionalGeneration
        from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

        config = read_config(Gemma3ForConditionalGeneration, source)
        found = config.vision_config.model_type
        if found != "siglip_vision_model":
            raise ModelError(
                f"a Gemma 3 with a {found} tower", where=source, allowed="siglip_vision_model"
            )
        parts = load_parts(source, image_processor(Gemma3ImageProcessorPil))
        return cls(load_weights(Gemma3ForConditionalGeneration, source, config, **options), parts)

    @classmethod
    def narrow(cls, seed: int) -> Gemma3Adapter:
        """The depth and 256 tokens of Gemma-3-4B at width 64, its tower at width 16."""
        return random_gemma3(seed, width=64, vision_width=16, vision_layers=27, decoder_layers=34)

    @property
    def shape(self) -> ModelShape:
        """Sizes from the configuration."""
        config = self.model.config
        vision, text = config.vision_config, config.get_text_config(decoder=True)
        patches = (vision.image_size // vision.patch_size) ** 2
        return ModelShape(
            vision=tower_shape(vision),
            patch_inputs=vision.num_channels * vision.patch_size**2,
            patches=patches,
            class_tokens=0,
            feature_layers=vision.num_hidden_layers,
            projector=((vision.hidden_size, text.hidden_size),),
            decoder=decoder_shape(text),
            merged_patches=patches // config.mm_tokens_per_image,
        )

    @property
    def projector(self) -> nn.Module:
        """The norm before the projection: behind the pooling, so one row a token."""
        module: nn.Module = self.model.model.multi_modal_projector.mm_soft_emb_norm
        return module

    def project(self, rows: Tensor) -> Tensor:
        """(n, d) rows under the norm and the projection that follows it."""
        projected: Tensor = self.projector(rows) @ (
            self.model.model.multi_modal_projector.mm_input_projection_weight
        )
        return projected

    def rotary(self, hidden: Tensor, position_ids: Tensor, layer: int) -> Any:
        """The embeddings of the layer's kind: windows and full layers turn at other rates."""
        kind = self.decoder.config.layer_types[layer]
        return self.decoder.rotary_emb(hidden, position_ids, kind)

    def attention_window(self, layer: int) -> int | None:
        """The sliding window of a local layer."""
        config = self.decoder.config
        local = config.layer_types[layer] == "sliding_attention"
        return int(config.sliding_window) if local else None

    def see(self, media: Media) -> Seen:
        """One picture of a fixed number of tokens between two marks."""
        config, parts = self.model.config, self.parts
        processor = parts.image_processor
        pixels = processor(images=media.picture(), return_tensors="pt", do_pan_and_scan=False)
        tokens = config.mm_tokens_per_image
        side = int(tokens**0.5)
        begin, end = parts.token(config.boi_token_index), parts.token(config.eoi_token_index)
        soft = parts.token(config.image_token_index) * tokens
        return Seen(
            kind="image",
            grids=(Grid(1, side, side),),
            tower=(TowerInput(1, side, side),),
            inputs={"pixel_values": pixels["pixel_values"].to(self.model.dtype)},
            boxes=patch_boxes(processor, media.width, media.height, side, side),
            text=f"\n\n{begin}{soft}{end}\n\n",
            marker=begin,
            warnings=(CROPS,) if processor.do_pan_and_scan else (),
        )

    def handed(self, features: Tensor) -> Any:
        """The model reads them as one batch."""
        return features[None]

    def sequence_arguments(self, input_ids: Tensor) -> dict[str, Any]:
        """Token types, from which the model makes the block of the picture in its masks."""
        return {"token_type_ids": (input_ids == self.model.config.image_token_index).long()}


def random_gemma3(
    seed: int,
    *,
    width: int,
    vision_width: int,
    vision_layers: int,
    decoder_layers: int,
    heads: int = 4,
    image_size: int = 896,
    patch_size: int = 14,
    tokens: int = 256,
    sliding_window: int = 1024,
) -> Gemma3Adapter:
    """A seeded random Gemma 3 with its parts; five layers of six see a window only."""
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3TextConfig,
        SiglipVisionConfig,
    )
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    text = Gemma3TextConfig(
        **text_sizes(width, decoder_layers, heads, len(CONTROL_TOKENS) + len(NARROW_TOKENS)),
        head_dim=width // heads,
        query_pre_attn_scalar=width // heads,
        sliding_window=sliding_window,
    )
    vision = SiglipVisionConfig(
        hidden_size=vision_width,
        intermediate_size=4 * vision_width,
        num_hidden_layers=vision_layers,
        num_attention_heads=heads // 2,
        image_size=image_size,
        patch_size=patch_size,
        vision_use_head=False,
    )
    config = Gemma3Config(
        text_config=text,
        vision_config=vision.to_dict(),
        mm_tokens_per_image=tokens,
        boi_token_index=FIRST_FREE,
        eoi_token_index=FIRST_FREE + 1,
        image_token_index=FIRST_FREE + 2,
    )
    images = Gemma3ImageProcessorPil(size={"height": image_size, "width": image_size})
    model = random_model(Gemma3ForConditionalGeneration, config, seed)
    return Gemma3Adapter(model, Parts(byte_tokenizer(NARROW_TOKENS), images))

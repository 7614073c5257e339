"""LLaVA-1.5 and its kin: a CLIP tower with [CLS], an MLP projector, a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vtc_cli.core.errors import ModelError
from vtc_cli.core.media import Media
from vtc_cli.core.shape import ModelShape, TransformerShape
from vtc_cli.core.tokens import Grid
from vtc_cli.models.support.base import Adapter, EncoderOutput, Prompt
from vtc_cli.models.support.geometry import patch_boxes
from vtc_cli.models.support.shapes import decoder_shape

FALLBACK_TEMPLATE = "USER: <image>\n{question} ASSISTANT:"  # the format of the LLaVA-1.5 paper


class LlavaAdapter(Adapter):
    """`LlavaForConditionalGeneration` with a CLIP vision tower (arXiv 2310.03744)."""

    family: ClassVar[str] = "llava"
    model_types: ClassVar[tuple[str, ...]] = ("llava",)
    provides: ClassVar[frozenset[str]] = frozenset(
        {
            "vision_cls_attention",
            "vision_received_attention",
            "vision_features",
            "vision_keys",
            "projected_features",
            "text_embeddings",
            "attention_rows",
            "keys",
            "values",
            "attention_output",
            "attention_projection",
            "hidden",
        }
    )

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
            vision=_tower_shape(vision),
            patch_inputs=vision.num_channels * vision.patch_size**2,
            patches=(vision.image_size // vision.patch_size) ** 2,
            class_tokens=1,
            feature_layers=reached,
            projector=tuple((layer.in_features, layer.out_features) for layer in linear),
            decoder=decoder_shape(text),
        )

    @property
    def tower_layers(self) -> Sequence[nn.Module]:
        """CLIP blocks."""
        layers: Sequence[nn.Module] = self.model.model.vision_tower.encoder.layers
        return layers

    def tower_attention(self, layer: int) -> nn.Module:
        """CLIP self-attention of block `layer`."""
        module: nn.Module = self.model.model.vision_tower.encoder.layers[layer].self_attn
        return module

    @property
    def projector(self) -> Any:
        """The two-layer MLP."""
        return self.model.model.multi_modal_projector

    def prepare(self, media: Media, question: str) -> Prompt:
        """Format, tokenise and preprocess; one picture a prompt."""
        picture = media.picture()
        text = self._format(question)
        inputs = self.processor(
            images=picture,
            text=text,
            return_tensors="pt",
            add_special_tokens=not text.startswith(str(self.processor.tokenizer.bos_token)),
        ).to(self.device)
        input_ids: Tensor = inputs["input_ids"]
        side = int(self.shape.patches**0.5)
        return Prompt(
            input_ids=input_ids,
            position_ids=torch.arange(input_ids.shape[1], device=self.device)[None],
            visual_index=self._placeholders(input_ids),
            encoder_inputs={"pixel_values": inputs["pixel_values"].to(self.model.dtype)},
            grid=Grid(1, side, side),
            patch_boxes=patch_boxes(
                self.processor.image_processor, media.width, media.height, side, side
            ),
            question=question,
        )

    def encode(self, prompt: Prompt) -> EncoderOutput:
        """Run tower and projector through the model's own method."""
        output = self.model.model.get_image_features(**prompt.encoder_inputs, return_dict=True)
        features = torch.cat([part.reshape(-1, part.shape[-1]) for part in output.pooler_output])
        return EncoderOutput(features, output)

    def carry(self, features: Tensor) -> EncoderOutput:
        """The library's own output class without a tower's states."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        return EncoderOutput(features, BaseModelOutputWithPooling())

    def prefill_arguments(self, output: EncoderOutput, features: Tensor) -> dict[str, Any]:
        """Features travel in the encoder's own output object."""
        output.carrier.pooler_output = [features]
        return {"mm_encoder_outputs": {"image": output.carrier}}

    def _format(self, question: str) -> str:
        """The prompt text with one image placeholder."""
        if getattr(self.processor, "chat_template", None) is None:
            return FALLBACK_TEMPLATE.format(question=question)
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text: str = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        return text

    def _placeholders(self, input_ids: Tensor) -> Tensor:
        """(N0,) places of the image tokens, checked against the tower's grid."""
        places: Tensor = (input_ids[0] == self.model.config.image_token_id).nonzero()[:, 0]
        if places.shape[0] != self.shape.patches:
            raise ModelError(
                f"the processor made {places.shape[0]} image placeholders",
                allowed=f"{self.shape.patches}, the patches of the vision tower",
                hint="check patch_size and num_additional_image_tokens in processor_config.json",
            )
        return places


def _tower_shape(config: Any) -> TransformerShape:
    """Sizes of a CLIP vision configuration."""
    heads = config.num_attention_heads
    return TransformerShape(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=heads,
        kv_heads=heads,
        head_dim=config.hidden_size // heads,
        mlp_width=config.intermediate_size,
        gated_mlp=False,
    )

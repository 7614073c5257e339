"""What the Qwen vision-language families share: pictures of any size, merged patches, M-RoPE."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from vtc_cli.core.errors import MediaError, UsageError
from vtc_cli.core.media import Media
from vtc_cli.core.shape import ModelShape, TransformerShape
from vtc_cli.core.tokens import Grid
from vtc_cli.models.support.base import COMMON_SIGNALS, Adapter, EncoderOutput, Prompt
from vtc_cli.models.support.geometry import stretched_boxes
from vtc_cli.models.support.offline import random_model
from vtc_cli.models.support.qwen_offline import NARROW_TOKENS, byte_parts, text_sizes, token_ids
from vtc_cli.models.support.qwen_parts import Parts, load_parts
from vtc_cli.models.support.shapes import decoder_shape

PADS = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}
TOKENS_A_FRAME = 768  # the library's video processors of these families


class QwenAdapter(Adapter):
    """A tower over 2 x 2 merged patches of pictures of any size, and a decoder with M-RoPE.

    Rows of the tower are patches; tokens come to be in the merger at its end. So no stage can act
    inside the tower, and no signal comes from its attention.

    Deviation: frames of a video are prepared by the picture processor, each held to the pixels of a
    picture and to 768 tokens. The library's video processors need torchvision and hold whole videos
    to a number of pixels.
    """

    provides: ClassVar[frozenset[str]] = COMMON_SIGNALS
    processor: Parts

    @classmethod
    @abstractmethod
    def model_class(cls) -> Any:
        """The library's class of the family."""

    @classmethod
    def load(cls, source: str, **options: Any) -> Self:
        """Load a local folder or a hub id.

        Raises:
            ModelError: tokenizer, image processor or chat template are missing; says which.
        """
        parts = load_parts(source)
        return cls(cls.model_class().from_pretrained(source, **options).eval(), parts)

    @classmethod
    def random(
        cls,
        seed: int,
        *,
        width: int,
        layers: int,
        vision: Mapping[str, Any],
        tokens: tuple[int, int] = NARROW_TOKENS,
    ) -> Self:
        """Random weights, a byte tokenizer and a picture processor.

        Args:
            seed: of the weights.
            width: of the decoder.
            layers: of the decoder.
            vision: the vision configuration, in the names of the family.
            tokens: least and most tokens that a picture is scaled to.
        """
        kind = cls.model_class()
        config = kind.config_class(
            text_config=text_sizes(width, layers, **cls._text_options()),
            vision_config=dict(vision),
            **token_ids(),
        )
        model = random_model(kind, config, seed)
        return cls(model, byte_parts(config.vision_config.patch_size, tokens))

    @classmethod
    def _text_options(cls) -> Mapping[str, Any]:
        """What the family's text configuration has beside the others'."""
        return {}

    @property
    def shape(self) -> ModelShape:
        """Sizes from the configuration and the mergers."""
        config = self.model.config.vision_config
        tower = self._tower_shape(config)
        linear = [part for merger in self._mergers() for part in merger.modules()]
        return ModelShape(
            vision=tower,
            patch_inputs=config.in_channels * config.temporal_patch_size * config.patch_size**2,
            patches=0,
            class_tokens=0,
            feature_layers=tower.layers,
            projector=tuple(
                (part.in_features, part.out_features)
                for part in linear
                if isinstance(part, nn.Linear)
            ),
            decoder=decoder_shape(self.model.config.get_text_config(decoder=True)),
            merged_patches=config.spatial_merge_size**2,
        )

    @abstractmethod
    def _tower_shape(self, config: Any) -> TransformerShape:
        """Sizes of the family's vision configuration."""

    def _mergers(self) -> Sequence[nn.Module]:
        """Every module that makes rows of decoder width from patches."""
        return [self.projector]

    @property
    def tower_layers(self) -> Sequence[nn.Module]:
        """Blocks over patches."""
        layers: Sequence[nn.Module] = self.model.model.visual.blocks
        return layers

    def tower_attention(self, layer: int) -> nn.Module:
        """Self-attention of block `layer`."""
        module: nn.Module = self.model.model.visual.blocks[layer].attn
        return module

    @property
    def projector(self) -> Any:
        """The merger of 2 x 2 patches."""
        return self.model.model.visual.merger

    def tower_rows(self, hidden: Tensor, prompt: Prompt) -> int:
        """Patches of one temporal step; hidden (P, d) holds those of all steps."""
        return int(hidden.shape[0]) // prompt.grid.frames

    def projector_rows(self, states: Tensor, prompt: Prompt) -> Tensor:
        """(N, 4 d_vision): the four patches of each token side by side, as the merger reads them.

        The tower holds patches in the order of their tokens.
        """
        return states.reshape(prompt.grid.tokens, -1)

    def rotary(self, hidden: Tensor, position_ids: Tensor, layer: int) -> Any:
        """Rotary embeddings from the rows t, y, x."""
        return self.decoder.rotary_emb(hidden, position_ids=position_ids[1:])

    def layer_position_ids(self, position_ids: Tensor) -> Tensor:
        """Layers take the row of the text."""
        return position_ids[0]

    def prepare(self, media: Media, question: str) -> Prompt:
        """Preprocess, format, tokenise; one picture or video a prompt.

        `position_ids` is (4, 1, S): place in the sequence, then t, y, x.

        Raises:
            MediaError: a picture of sides that the model does not take.
            UsageError: a question that holds placeholders of its own.
        """
        pixels, size = self._pixels(media)
        steps, high, wide = size[0].tolist()
        merge = self.model.config.vision_config.spatial_merge_size
        grid = Grid(steps, high // merge, wide // merge)
        input_ids = self._token_ids(media, question, grid)
        places = self._placeholders(input_ids, media, grid)
        return Prompt(
            input_ids=input_ids,
            position_ids=self._positions(input_ids, media, size),
            visual_index=places,
            encoder_inputs={
                PIXELS[media.kind]: pixels.to(self.device, self.model.dtype),
                f"{media.kind}_grid_thw": size.to(self.device),
            },
            grid=grid,
            patch_boxes=stretched_boxes(
                media.width, media.height, grid.frames, grid.rows, grid.columns
            ),
            question=question,
            kind=media.kind,
        )

    def encode(self, prompt: Prompt) -> EncoderOutput:
        """Run tower and merger through the model's own method."""
        method = getattr(self.model.model, f"get_{prompt.kind}_features")
        output = method(**prompt.encoder_inputs, return_dict=True)
        features = torch.cat(list(output.pooler_output))
        return EncoderOutput(features, output, self._added(output), prompt.kind)

    def _added(self, output: Any) -> tuple[Tensor, ...]:
        """Rows (N, d) that the first decoder layers add."""
        return ()

    def carry(self, features: Tensor) -> EncoderOutput:
        """The library's own output class without a tower's states."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        return EncoderOutput(features, BaseModelOutputWithPooling())

    def prefill_arguments(self, output: EncoderOutput, features: Tensor) -> dict[str, Any]:
        """Features travel in the encoder's own output object."""
        output.carrier.pooler_output = [features]
        return {"mm_encoder_outputs": {output.kind: output.carrier}}

    def _pixels(self, media: Media) -> tuple[Tensor, Tensor]:
        """(P, values) patches, and (1, 3) temporal steps, patch rows and patch columns."""
        processor: Any = self.processor.image_processor
        frames = media.frames.shape[0] if media.kind == "video" else 1
        pictures = [media.picture(frame) for frame in range(frames)]
        size = dict(processor.size)
        if media.kind == "video":
            side = processor.patch_size * processor.merge_size
            size["longest_edge"] = min(size["longest_edge"], TOKENS_A_FRAME * side**2)
        try:
            done = processor(images=pictures, size=size, return_tensors="pt")
        except ValueError as error:
            found = f"{media.width} x {media.height} pixels: {error}"
            raise MediaError(found, where=media.path, allowed="sides not too unlike") from error
        pixels, sizes = done["pixel_values"], done["image_grid_thw"]
        if media.kind == "image":
            return pixels, sizes
        depth = processor.temporal_patch_size
        return _steps(pixels, frames, depth), torch.cat(
            [torch.tensor([[-(-frames // depth)]]), sizes[:1, 1:]], dim=1
        )

    def _token_ids(self, media: Media, question: str, grid: Grid) -> Tensor:
        """(1, S) ids of the chat with a placeholder for each visual token."""
        tokenizer = self.processor.tokenizer
        content = [{"type": media.kind}, {"type": "text", "text": question}]
        text: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        text = self._expanded(text, media, grid)
        ids: Tensor = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        return ids.to(self.device)

    def _expanded(self, text: str, media: Media, grid: Grid) -> str:
        """The chat with its one placeholder repeated for each visual token."""
        pad = PADS[media.kind]
        return text.replace(pad, pad * grid.tokens, 1)

    def _placeholders(self, input_ids: Tensor, media: Media, grid: Grid) -> Tensor:
        """(N0,) places of the visual tokens."""
        config = self.model.config
        wanted = config.image_token_id if media.kind == "image" else config.video_token_id
        visual = torch.isin(
            input_ids[0], torch.tensor([config.image_token_id, config.video_token_id]).to(input_ids)
        )
        places: Tensor = (input_ids[0] == wanted).nonzero()[:, 0]
        if places.shape[0] != grid.tokens or int(visual.sum()) != grid.tokens:
            raise UsageError(
                f"{int(visual.sum())} placeholders in a prompt with {grid.tokens} visual tokens",
                allowed=f"a question without {' or '.join(PADS.values())}, and a chat template "
                "that holds one for the picture",
            )
        return places

    def _positions(self, input_ids: Tensor, media: Media, size: Tensor) -> Tensor:
        """(4, 1, S) as `generate` makes them, without leaving state on the model."""
        config = self.model.config
        kinds = (input_ids == config.image_token_id) + 2 * (input_ids == config.video_token_id)
        sizes = {f"{media.kind}_grid_thw": size.to(self.device)}
        rows, _ = self.model.model.get_rope_index(
            input_ids, mm_token_type_ids=kinds, **sizes, **self._timing(media)
        )
        places = torch.arange(input_ids.shape[1], device=self.device)
        return torch.cat([places[None, None], rows])

    def _timing(self, media: Media) -> dict[str, Tensor]:
        """What the family's position ids ask about the times of frames."""
        return {}


def _steps(pixels: Tensor, frames: int, depth: int) -> Tensor:
    """Patches over `depth` frames each, from patches of single frames.

    The picture processor repeats a picture `depth` times; here each frame gives one of the slices.
    A last step that is not full repeats the last frame.

    Args:
        pixels: (frames x P, channels x depth x values).
        frames: F.
        depth: frames a temporal step.
    """
    last = frames - 1
    index = torch.arange(-(-frames // depth) * depth).clamp_max(last)
    # 3 channels of colour: the processor converts every picture to RGB.
    single = pixels.reshape(frames, -1, 3, depth, pixels.shape[1] // (3 * depth))[index]
    steps = single.reshape(-1, depth, *single.shape[1:])
    slices = [steps[:, frame, :, :, frame] for frame in range(depth)]
    return torch.stack(slices, dim=3).reshape(-1, pixels.shape[1])

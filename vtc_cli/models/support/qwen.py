"""What the Qwen vision-language families share: pictures of any size, merged patches, M-RoPE."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from vtc_cli.core.errors import MediaError
from vtc_cli.core.layout import Grid
from vtc_cli.core.media import Media
from vtc_cli.core.shape import ModelShape, TowerInput, TransformerShape
from vtc_cli.models.support.base import COMMON_SIGNALS, Adapter
from vtc_cli.models.support.geometry import stretched_boxes
from vtc_cli.models.support.offline import random_model
from vtc_cli.models.support.parts import load_parts
from vtc_cli.models.support.prompt import EncoderOutput, Kind, Prompt, Seen, in_span_order
from vtc_cli.models.support.qwen_offline import NARROW_TOKENS, byte_parts, text_sizes, token_ids
from vtc_cli.models.support.shapes import decoder_shape

START, END = "<|vision_start|>", "<|vision_end|>"
PADS = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}
TIMES = ("second_per_grid_ts",)  # arguments of position ids alone
PUBLISHED_TOKENS = (4, 16384)  # least and most of a picture in the processors
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
    takes: ClassVar[frozenset[Kind]] = frozenset({"image", "video"})
    fallback: ClassVar[str] = (
        "<|im_start|>user\n{visuals}{question}<|im_end|>\n<|im_start|>assistant\n"
    )

    @classmethod
    @abstractmethod
    def model_class(cls) -> Any:
        """The library's class of the family."""

    @classmethod
    def load(cls, source: str, **options: Any) -> Self:
        """Load a local folder or a hub id.

        Raises:
            ModelError: tokenizer or image processor are missing; says which.
        """
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
            Qwen2VLImageProcessorPil,
        )

        parts = load_parts(source, Qwen2VLImageProcessorPil.from_pretrained)
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
    def true_size(cls, fields: Mapping[str, Any], build: Callable[[Any, Any], Any]) -> Self:
        """Random weights at true size with the byte tokenizer and the published bounds of sizes."""
        kind = cls.model_class()
        model = build(kind, kind.config_class(**fields, **token_ids()))
        return cls(model, byte_parts(model.config.vision_config.patch_size, PUBLISHED_TOKENS))

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

    def projector_rows(self, states: Sequence[Tensor], prompt: Prompt) -> Tensor:
        """(N, 4 d_vision): the four patches of each token side by side, as the merger reads them.

        The tower holds patches in the order of their tokens.
        """
        kinds = sorted(set(prompt.kinds))
        rows = {
            kind: self.in_token_order(
                part.reshape(-1, part.shape[-1] * self.shape.merged_patches), kind, prompt
            )
            for kind, part in zip(kinds, states, strict=True)
        }
        return in_span_order(prompt, rows)

    def project(self, rows: Tensor) -> Tensor:
        """(n, d) what the merger makes of the four patches of each token."""
        patches = rows.reshape(-1, rows.shape[-1] // self.shape.merged_patches)
        merged: Tensor = self.projector(patches)
        return merged

    def in_token_order(self, rows: Tensor, kind: Kind, prompt: Prompt) -> Tensor:
        """(n, ...) rows of the merger's input, one a token of `kind`, in the order of tokens."""
        return rows

    def rotary(self, hidden: Tensor, position_ids: Tensor, layer: int) -> Any:
        """Rotary embeddings from the rows t, y, x."""
        return self.decoder.rotary_emb(hidden, position_ids=position_ids[1:])

    def layer_position_ids(self, position_ids: Tensor) -> Tensor:
        """Layers take the row of the text."""
        return position_ids[0]

    def see(self, media: Media) -> Seen:
        """A picture or video of any size that the model takes.

        Raises:
            MediaError: a picture of sides that the model does not take.
        """
        pixels, size = self._pixels(media)
        steps, high, wide = size[0].tolist()
        merge = self.model.config.vision_config.spatial_merge_size
        grid = Grid(steps, high // merge, wide // merge)
        marker, text = self.marked(media, grid)
        return Seen(
            kind=media.kind,
            grids=(grid,),
            tower=(TowerInput(steps, grid.rows, grid.columns),),
            inputs={
                PIXELS[media.kind]: pixels.to(self.model.dtype),
                f"{media.kind}_grid_thw": size,
                **self.timing(media),
            },
            boxes=stretched_boxes(media.width, media.height, steps, grid.rows, grid.columns),
            text=text,
            marker=marker,
        )

    def marked(self, media: Media, grid: Grid) -> tuple[str, str]:
        """What the chat holds for a picture or video, and what takes its place."""
        pad = PADS[media.kind]
        return f"{START}{pad}{END}", f"{START}{pad * grid.tokens}{END}"

    def timing(self, media: Media) -> dict[str, Tensor]:
        """What the family's position ids ask about the times of frames."""
        return {}

    def encode(self, prompt: Prompt) -> EncoderOutput:
        """Run tower and merger; times of frames are for position ids only."""
        inputs = {k: v for k, v in prompt.encoder_inputs.items() if k not in TIMES}
        return super().encode(replace(prompt, encoder_inputs=inputs))

    def _pixels(self, media: Media) -> tuple[Tensor, Tensor]:
        """(P, values) patches, and (1, 3) temporal steps, patch rows and patch columns."""
        processor: Any = self.parts.image_processor
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

    def positions(self, input_ids: Tensor, seen: Sequence[Seen]) -> Tensor:
        """(4, 1, S) as `generate` makes them, without leaving state on the model.

        Place in the sequence, then t, y, x.
        """
        config = self.model.config
        kinds = (input_ids == config.image_token_id) + 2 * (input_ids == config.video_token_id)
        joined = self.joined_inputs(seen)
        sizes = {k: v.to(self.device) for k, v in joined.items() if k not in PIXELS.values()}
        rows, _ = self.model.model.get_rope_index(input_ids, mm_token_type_ids=kinds, **sizes)
        places = torch.arange(input_ids.shape[1], device=self.device)
        return torch.cat([places[None, None], rows])


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

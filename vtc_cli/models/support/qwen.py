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
from vtc_cli.models.support.checkpoint import load_weights, read_config
from vtc_cli.models.support.geometry import stretched_boxes
from vtc_cli.models.support.offline import random_model
from vtc_cli.models.support.parts import image_processor, load_parts
from vtc_cli.models.support.prompt import EncoderOutput, Kind, Prompt, Seen, in_span_order
from vtc_cli.models.support.qwen_offline import byte_parts, text_sizes, token_ids
from vtc_cli.models.support.shapes import decoder_shape

START, END = "<|vision_start|>", "<|vision_end|>"
PADS = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}
TIMES = ("second_per_grid_ts",)  # arguments of position ids alone
STRIP_PIXELS = 1 << 20  # that the processor is given at a time
TOKENS_A_FRAME = 768  # VIDEO_MAX_TOKEN_NUM of qwen-vl-utils, the published way to read videos
FLOOR = 1.05  # a frame's share of the video's tokens is at least so many times the least of a frame


class QwenAdapter(Adapter):
    """A tower over 2 x 2 merged patches of pictures of any size, and a decoder with M-RoPE.

    Rows of the tower are patches; tokens come to be in the merger at its end. So no stage can act
    inside the tower, and no signal comes from its attention.

    Deviation: frames of a video are prepared by the picture processor, for the library's video
    processors need torchvision. Each is held to the least pixels of a picture, to 768 tokens and to
    its share of `video_tokens`, as qwen-vl-utils does.

    Class attributes:
        picture_tokens: least and most of a picture: `min_pixels` 3136 and `max_pixels` 12845056 of
            preprocessor_config.json in Qwen2-VL and Qwen2.5-VL, over 28 x 28.
        video_tokens: of a video, counted frame by frame: 0.9 of 128,000 tokens, each of two frames.
        least_frame_tokens: VIDEO_MIN_TOKEN_NUM of qwen-vl-utils.
        context: `max_position_embeddings` of the published text configuration.
    """

    provides: ClassVar[frozenset[str]] = COMMON_SIGNALS
    picture_tokens: ClassVar[tuple[int, int]] = (4, 16384)
    video_tokens: ClassVar[int] = 230_400
    least_frame_tokens: ClassVar[int] = 128
    context: ClassVar[int]
    most_pixels: ClassVar[int] = 1 << 28  # the resize alone sees the picture: any that is read
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

        config = read_config(cls.model_class(), source)
        parts = load_parts(source, image_processor(Qwen2VLImageProcessorPil))
        return cls(load_weights(cls.model_class(), source, config, **options), parts)

    @classmethod
    def random(
        cls,
        seed: int,
        *,
        width: int,
        layers: int,
        vision: Mapping[str, Any],
        tokens: tuple[int, int] | None = None,
    ) -> Self:
        """Random weights, a byte tokenizer and a picture processor.

        Args:
            seed: of the weights.
            width: of the decoder.
            layers: of the decoder.
            vision: the vision configuration, in the names of the family.
            tokens: least and most tokens that a picture is scaled to, None for the published ones.
        """
        kind = cls.model_class()
        config = kind.config_class(
            text_config=text_sizes(width, layers, cls.context, **cls._text_options()),
            vision_config=dict(vision),
            **token_ids(),
        )
        model = random_model(kind, config, seed)
        return cls(model, byte_parts(config.vision_config.patch_size, tokens or cls.picture_tokens))

    @classmethod
    def true_size(cls, fields: Mapping[str, Any], build: Callable[[Any, Any], Any]) -> Self:
        """Random weights at true size with the byte tokenizer and the published bounds of sizes."""
        kind = cls.model_class()
        model = build(kind, kind.config_class(**fields, **token_ids()))
        return cls(model, byte_parts(model.config.vision_config.patch_size, cls.picture_tokens))

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
                PIXELS[media.kind]: pixels,
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
        width, height = self.resized(media)
        grid = [height // processor.patch_size, width // processor.patch_size]
        if media.kind == "image":
            return self._patches(media.picture(), width, height), torch.tensor([[1, *grid]])
        frames, depth = media.frames.shape[0], processor.temporal_patch_size
        parts = [self._patches(media.picture(at), width, height) for at in range(frames)]
        steps = -(-frames // depth)
        return _steps(torch.cat(parts), frames, depth), torch.tensor([[steps, *grid]])

    def resized(self, media: Media) -> tuple[int, int]:
        """Width and height to which the processor resizes a picture or frame.

        Raises:
            MediaError: sides too unlike.
        """
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        processor: Any = self.parts.image_processor
        side = processor.patch_size * processor.merge_size
        least, most = processor.size["shortest_edge"], processor.size["longest_edge"]
        if media.kind == "video":
            share = self.video_tokens * side**2 // len(media.frames)
            floor = int(FLOOR * self.least_frame_tokens * side**2)
            most = min(most, max(floor, min(share, TOKENS_A_FRAME * side**2)))
        try:
            height, width = smart_resize(media.height, media.width, side, least, most)
        except ValueError as error:
            found = f"{media.width} x {media.height} pixels: {error}"
            raise MediaError(found, where=media.path, allowed="sides not too unlike") from error
        return int(width), int(height)

    def _patches(self, picture: Any, width: int, height: int) -> Tensor:
        """(P, values) of one picture, as the processor makes them of all of it at once.

        Patches stand row by row of merged ones, so a strip of whole rows gives a run of them: only
        its pixels are held as floats, twice over, and not those of all 16 million.
        """
        processor: Any = self.parts.image_processor
        resized = picture.resize((width, height), processor.resample)
        side = processor.patch_size * processor.merge_size
        rows = max(1, STRIP_PIXELS // (width * side)) * side
        values = 3 * processor.temporal_patch_size * processor.patch_size**2
        count = (height // processor.patch_size) * (width // processor.patch_size)
        patches, done = torch.empty(count, values, dtype=self.model.dtype), 0
        for top in range(0, height, rows):
            strip = resized.crop((0, top, width, min(height, top + rows)))
            part = processor(images=strip, do_resize=False, return_tensors="pt")["pixel_values"]
            patches[done : done + len(part)] = part
            done += len(part)
        return patches

    def positions_of(self, prompt: Prompt) -> int:
        """Places in time and space go less far than the count of tokens."""
        return int(prompt.position_ids[1:].max()) + 1

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

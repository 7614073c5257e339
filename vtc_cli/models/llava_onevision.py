"""LLaVA-OneVision: pictures at any resolution and videos of pooled frames, one newline a video."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vtc_cli.core.errors import ModelError
from vtc_cli.core.layout import Grid
from vtc_cli.core.media import Media
from vtc_cli.core.shape import TowerInput
from vtc_cli.models.support.anyres import AnyresAdapter
from vtc_cli.models.support.base import COMMON_SIGNALS, TOWER_SIGNALS
from vtc_cli.models.support.checkpoint import load_weights, read_config
from vtc_cli.models.support.crops import frame_side, pooled_frames, view_boxes
from vtc_cli.models.support.fitting import squared
from vtc_cli.models.support.geometry import visible_region
from vtc_cli.models.support.offline import (
    CONTROL_TOKENS,
    FIRST_FREE,
    byte_tokenizer,
    random_model,
    text_sizes,
)
from vtc_cli.models.support.parts import Parts, frame_processor, image_processor, load_parts
from vtc_cli.models.support.prompt import EncoderOutput, Kind, Prompt, Seen

NARROW_TOKENS = ("<image>", "<video>")
LIMIT = "anyres_max_"  # the model's word for how many crops a raster may fill
NEWLINE = Grid(1, 1, 1, view="marker")
ONE_CROP = "each of several pictures is one square crop, as the model was trained"


@dataclass(frozen=True, eq=False)
class VideoParts(Parts):
    """Parts with a processor for the frames of videos."""

    frame_processor: Any = None


class LlavaOnevisionAdapter(AnyresAdapter):
    """`LlavaOnevisionForConditionalGeneration` (arXiv 2408.03326) with a SigLIP tower.

    One picture of a prompt is an overview and crops, a newline after each row; where the crops fill
    more than nine inputs of the tower, the raster is read bilinearly. Of several pictures each is
    one crop, padded to a square, with one newline (section 3 of the paper, and what the library
    makes of a conversation). Frames of a video are pooled to 14 x 14 bilinearly, and one newline
    ends the video. Every frame of the media is used; choosing frames is the reader's work.
    """

    family: ClassVar[str] = "llava_onevision"
    model_types: ClassVar[tuple[str, ...]] = ("llava_onevision",)
    provides: ClassVar[frozenset[str]] = COMMON_SIGNALS | TOWER_SIGNALS
    takes: ClassVar[frozenset[Kind]] = frozenset({"image", "video"})
    fallback: ClassVar[str] = (  # the turns of the published checkpoints
        "<|im_start|>user {visuals}\n{question}<|im_end|><|im_start|>assistant\n"
    )
    towers: ClassVar[tuple[str, ...]] = ("siglip_vision_model",)
    packing: ClassVar[str] = (
        "this model joins crops behind its tower, takes their padding away, pools frames and adds "
        "line ends"
    )

    @classmethod
    def load(cls, source: str, **options: Any) -> LlavaOnevisionAdapter:
        """Load a local folder or a hub id.

        Raises:
            ModelError: a missing part, or features or crops that this adapter does not know.
        """
        from transformers import LlavaOnevisionForConditionalGeneration as Model
        from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
            LlavaOnevisionImageProcessorPil,
        )
        from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

        config = read_config(Model, source)
        cls.check(config, source)
        found = load_parts(source, image_processor(LlavaOnevisionImageProcessorPil))
        frames = frame_processor(SiglipImageProcessorPil, source)
        parts = VideoParts(found.tokenizer, found.image_processor, found.chat_template, frames)
        return cls(load_weights(Model, source, config, **options), parts)

    @classmethod
    def check(cls, config: Any, source: str) -> None:
        """Refuse what the adapter would get wrong.

        Raises:
            ModelError: as for all families of this kind, or a limit of crops that is no number.
        """
        super().check(config, source)
        if not config.vision_aspect_ratio.removeprefix(LIMIT).isdecimal():
            raise ModelError(
                f"vision_aspect_ratio {config.vision_aspect_ratio!r}",
                where=source,
                allowed=f"{LIMIT} and a number",
            )

    @classmethod
    def narrow(cls, seed: int) -> LlavaOnevisionAdapter:
        """The depth and tokens of LLaVA-OneVision-7B at width 32: 729 an input, 196 a frame."""
        return random_llava_onevision(seed, width=32, vision_layers=26, decoder_layers=28)

    @classmethod
    def true_size(
        cls, fields: Mapping[str, Any], build: Callable[[Any, Any], Any]
    ) -> LlavaOnevisionAdapter:
        """Random weights at true size with the byte tokenizer."""
        from transformers import LlavaOnevisionConfig
        from transformers import LlavaOnevisionForConditionalGeneration as Model

        return cls._with_parts(build(Model, LlavaOnevisionConfig(**fields)))

    @classmethod
    def _with_parts(cls, model: Any) -> LlavaOnevisionAdapter:
        """A model with a byte tokenizer and the processors that fit it."""
        from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
            LlavaOnevisionImageProcessorPil,
        )
        from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

        side = model.config.vision_config.image_size
        half = [0.5, 0.5, 0.5]
        colors: dict[str, Any] = {
            "image_mean": half,
            "image_std": half,
            "size": {"height": side, "width": side},
        }
        images = LlavaOnevisionImageProcessorPil(
            image_grid_pinpoints=model.config.image_grid_pinpoints, **colors
        )
        frames = SiglipImageProcessorPil(**colors)
        tokenizer = byte_tokenizer(NARROW_TOKENS)
        return cls(model, VideoParts(tokenizer, images, frame_processor=frames))

    def most_crops(self) -> int | None:
        """Nine in the published models."""
        return int(self.model.config.vision_aspect_ratio.removeprefix(LIMIT))

    def see_all(self, shown: Sequence[Media]) -> tuple[Seen, ...]:
        """One picture is cut to crops, several are not."""
        pictures = [media for media in shown if media.kind == "image"]
        if len(pictures) < 2:
            return super().see_all(shown)
        processor = self.parts.image_processor
        background = [int(mean * 255) for mean in processor.image_mean]
        together = [squared(media.picture(), background) for media in pictures]
        done = processor(images=[together], return_tensors="pt")
        whole = iter(zip(done["pixel_values"], done["image_sizes"], strict=True))
        return tuple(
            self._one_crop(media, *next(whole)) if media.kind == "image" else self.see(media)
            for media in shown
        )

    def see(self, media: Media) -> Seen:
        """The only picture of a prompt, or a video."""
        return super().see(media) if media.kind == "image" else self._video(media)

    def _one_crop(self, media: Media, pixels: Tensor, size: Tensor) -> Seen:
        """One of several pictures; pixels (1, 3, H, W), size (2,)."""
        patches, longer = self.patches, max(media.height, media.width)
        left, top = -((longer - media.width) // 2), -((longer - media.height) // 2)
        region = (float(left), float(top), float(left + longer), float(top + longer))
        boxes = view_boxes(region, patches, patches.side)
        return self.seen_picture(
            (Grid(1, patches.side, patches.side), NEWLINE),
            self.checked(pixels[None], 1),
            size[None],
            np.pad(boxes, ((0, 1), (0, 0))),
            (ONE_CROP,),
        )

    def _video(self, media: Media) -> Seen:
        """Every frame of a video."""
        frames, patches = media.frames.shape[0], self.patches
        processor = self.processor.frame_processor
        pictures = [media.picture(index) for index in range(frames)]
        pixels = processor(images=pictures, return_tensors="pt")["pixel_values"][None]
        pixels = self.checked(pixels, frames).to(self.model.dtype)
        whole = self._seen_video(media, pixels, patches.side)
        return replace(self._seen_video(media, pixels, frame_side(patches)), unpooled=whole)

    def _seen_video(self, media: Media, pixels: Tensor, side: int) -> Seen:
        """Frames of `side` x `side` tokens and a newline; pixels (1, F, 3, H, W)."""
        frames, patches = media.frames.shape[0], self.patches
        region = visible_region(self.processor.frame_processor, media.width, media.height)
        boxes = np.tile(view_boxes(region, patches, side), (frames, 1))
        marker = self.parts.token(self.model.config.video_token_id)
        grid = Grid(frames, side, side)
        return Seen(
            kind="video",
            grids=(grid, NEWLINE),
            tower=(TowerInput(frames, patches.side, patches.side),),
            inputs={"pixel_values_videos": pixels},
            boxes=np.pad(boxes, ((0, 1), (0, 0))),
            text=marker * (grid.tokens + 1),
            marker=marker,
        )

    def joined_inputs(self, seen: Sequence[Seen]) -> Mapping[str, Tensor]:
        """Pictures as one batch, the frames of all videos in one row.

        A number of pictures over 1 tells the model that none is cut; for one picture out of several
        it is told 2.
        """
        joined = dict(super().joined_inputs(seen))
        if "pixel_values" in joined and joined["pixel_values"].shape[1] == 1:
            pictures = max(2, joined["pixel_values"].shape[0])
            joined["batch_num_images"] = torch.tensor([pictures])
        videos = [one.inputs["pixel_values_videos"] for one in seen if one.kind == "video"]
        if videos:
            joined["pixel_values_videos"] = torch.cat(videos, dim=1)
        return joined

    def tower_output(self, kind: Kind, inputs: Mapping[str, Tensor], prompt: Prompt) -> Any:
        """Videos go one by one: each has its own number of frames and its own newline."""
        if kind == "image":
            return super().tower_output(kind, inputs, prompt)
        frames = [one.tower[0].count for one in prompt.seen if one.kind == "video"]
        outputs = [
            self._video_output(pixels, prompt)
            for pixels in torch.split(inputs["pixel_values_videos"], frames, dim=1)
        ]
        outputs[0].pooler_output = torch.cat([each.pooler_output for each in outputs], dim=1)
        return outputs[0]

    def _video_output(self, pixels: Tensor, prompt: Prompt) -> Any:
        """The library's own of one video, or its projected patches and the newline."""
        if prompt.pooled is None:
            return super().tower_output("video", {"pixel_values_videos": pixels}, prompt)
        patches = self.projected_patches(pixels[0]).flatten(0, 1)
        carrier = self.carrier()
        carrier.pooler_output = torch.cat([patches, self.model.model.image_newline[None]])[None]
        return carrier

    def arranged(self, seen: Seen, values: Tensor, learned: Tensor) -> Tensor:
        """(n, C) values of the tokens of one picture or video, from those of its patches."""
        if seen.grids[0].tokens == values.shape[0]:
            return torch.cat([values, learned[None]])
        if seen.kind == "video":
            return pooled_frames(values, self.patches, learned)
        return super().arranged(seen, values, learned)

    def prefill_arguments(
        self, output: EncoderOutput, features: Tensor, span: Tensor
    ) -> dict[str, Any]:
        """The model reads those of videos as one batch, those of pictures as a list."""
        arguments = super().prefill_arguments(output, features, span)
        video = arguments["mm_encoder_outputs"].get("video")
        if video is not None:
            video.pooler_output = video.pooler_output[0][None]
        return arguments


def random_llava_onevision(
    seed: int,
    *,
    width: int,
    vision_layers: int,
    decoder_layers: int,
    heads: int = 4,
    image_size: int = 384,
    patch_size: int = 14,
    resolutions: Sequence[Sequence[int]] | None = None,
    most_crops: int = 9,
) -> LlavaOnevisionAdapter:
    """A seeded random LLaVA-OneVision with its parts; the published 36 resolutions by default.

    `resolutions` are (height, width) in pixels, whole multiples of `image_size`.
    """
    from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig
    from transformers import LlavaOnevisionForConditionalGeneration as Model

    vision = SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=vision_layers,
        num_attention_heads=heads,
        image_size=image_size,
        patch_size=patch_size,
        vision_use_head=False,
    )
    special = len(CONTROL_TOKENS) + len(NARROW_TOKENS)
    text = text_sizes(width, decoder_layers, heads, special) | {"max_position_embeddings": 32768}
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=Qwen2Config(**text),
        image_token_index=FIRST_FREE,
        video_token_index=FIRST_FREE + 1,
        image_grid_pinpoints=None if resolutions is None else [list(each) for each in resolutions],
        vision_aspect_ratio=f"{LIMIT}{most_crops}",
    )
    return LlavaOnevisionAdapter._with_parts(random_model(Model, config, seed))

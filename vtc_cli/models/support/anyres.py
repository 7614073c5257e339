"""What families share that see a picture as an overview and as crops at its own resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from vtc_cli.core.errors import ModelError
from vtc_cli.core.layout import Grid
from vtc_cli.core.media import Media
from vtc_cli.core.shape import ModelShape, TowerInput
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.crops import (
    Cut,
    Patches,
    cut_picture,
    detail_boxes,
    packed,
    view_boxes,
)
from vtc_cli.models.support.prompt import Prompt, Seen
from vtc_cli.models.support.shapes import (
    CLASS_ROWS,
    check_raster,
    decoder_shape,
    deepest_layer,
    tower_shape,
)

TOO_THIN = "the picture is so thin that nothing of its crops is left beside padding"


class AnyresAdapter(Adapter):
    """A tower over an overview and crops of a picture, whose patches the model packs to tokens.

    Signals of the tower come in the same arrangement as features: crops joined, padding away,
    rasters scaled as the model scales them. Each input of the tower attends to itself only, so the
    attention of a token is that inside its own crop. Learned tokens have no patch; their attention
    is 0, and in place of a vector they have the mean over all patches of their picture or video.

    Class attributes:
        towers: `model_type` of the vision towers it may have.
        packing: what is told of the way from tower rows to tokens.
    """

    towers: ClassVar[tuple[str, ...]]
    packing: ClassVar[str]

    @property
    def shape(self) -> ModelShape:
        """Sizes from the configuration."""
        config = self.model.config
        vision, text = config.vision_config, config.get_text_config(decoder=True)
        linear = self.projector.linear_1, self.projector.linear_2
        return ModelShape(
            vision=tower_shape(vision),
            patch_inputs=vision.num_channels * vision.patch_size**2,
            patches=self.patches.count,
            class_tokens=CLASS_ROWS[vision.model_type],
            feature_layers=deepest_layer(config),
            projector=tuple((part.in_features, part.out_features) for part in linear),
            decoder=decoder_shape(text),
            packing=self.packing,
        )

    @property
    def patches(self) -> Patches:
        """Patches of one input of the tower."""
        vision = self.model.config.vision_config
        size, pixels = vision.image_size, vision.patch_size
        return Patches(size // pixels, pixels, size)

    @property
    def projector(self) -> Any:
        """The two-layer MLP over patches, before they are packed."""
        return self.model.model.multi_modal_projector

    def most_crops(self) -> int | None:
        """Crops whose patches a raster may have before it is scaled down; None for any."""
        return None

    def cut(self, height: int, width: int) -> Cut:
        """How a picture is cut."""
        resolutions = self.model.config.image_grid_pinpoints
        return cut_picture(height, width, self.patches, resolutions, self.most_crops())

    def see(self, media: Media) -> Seen:
        """A picture as overview and crops."""
        cut, patches = self.cut(media.height, media.width), self.patches
        done = self.parts.image_processor(images=media.picture(), return_tensors="pt")
        crops = 1 + cut.down * cut.across
        region = (0.0, 0.0, float(media.width), float(media.height))
        overview = Grid(1, patches.side, patches.side, view="overview")
        boxes = [view_boxes(region, patches, patches.side)]
        boxes += [detail_boxes(media.height, media.width, cut, patches) for _ in cut.grids]
        return self.seen_picture(
            (overview, *cut.grids),
            self.checked(done["pixel_values"], crops),
            done["image_sizes"],
            np.concatenate(boxes),
            (TOO_THIN,) if cut.empty else (),
        )

    def seen_picture(
        self,
        grids: tuple[Grid, ...],
        pixels: Tensor,
        sizes: Tensor,
        boxes: Any,
        warnings: tuple[str, ...] = (),
    ) -> Seen:
        """One picture; pixels (1, crops, 3, H, W), sizes (1, 2)."""
        marker = self.parts.token(self.model.config.image_token_id)
        side = self.patches.side
        return Seen(
            kind="image",
            grids=grids,
            tower=(TowerInput(int(pixels.shape[1]), side, side),),
            inputs={"pixel_values": pixels.to(self.model.dtype), "image_sizes": sizes},
            boxes=boxes,
            text=marker * sum(grid.tokens for grid in grids),
            marker=marker,
            warnings=warnings,
        )

    def checked(self, pixels: Tensor, inputs: int) -> Tensor:
        """Pixels (1, n, 3, H, W) as they are, if the tower takes them.

        Raises:
            ModelError: the processor makes inputs of another number or size.
        """
        side = self.patches.crop
        if tuple(pixels.shape[1:2] + pixels.shape[-2:]) != (inputs, side, side):
            found = f"{pixels.shape[1]} of {pixels.shape[-2]} x {pixels.shape[-1]} pixels"
            raise ModelError(
                f"the processor makes {found} of a picture or video",
                allowed=f"{inputs} of {side} x {side}, as the model takes",
                hint="check size, crop_size and image_grid_pinpoints in the checkpoint's processor "
                "configuration",
            )
        return pixels

    def joined_inputs(self, seen: Sequence[Seen]) -> Mapping[str, Tensor]:
        """Pictures with zeros for the crops that they have fewer than others."""
        pictures = [one.inputs for one in seen if one.kind == "image"]
        if not pictures:
            return {}
        pixels = [inputs["pixel_values"] for inputs in pictures]
        most = max(each.shape[1] for each in pixels)
        filled = [
            nn.functional.pad(each, (0, 0) * 3 + (0, most - each.shape[1])) for each in pixels
        ]
        sizes = torch.cat([inputs["image_sizes"] for inputs in pictures])
        return {"pixel_values": torch.cat(filled), "image_sizes": sizes}

    def pooled(self, patches: Tensor, prompt: Prompt) -> Tensor:
        """Values of patches as values of tokens, in the arrangement of features."""
        flat = patches.reshape(patches.shape[0], -1)
        ordered = sorted(range(len(prompt.seen)), key=lambda span: prompt.seen[span].kind)
        sizes = [_inputs(prompt.seen[span]) * self.patches.count for span in ordered]
        parts = dict(zip(ordered, torch.split(flat, sizes), strict=True))
        tokens = [
            self.arranged(one, parts[span].float(), self._learned(patches, parts[span].float()))
            for span, one in enumerate(prompt.seen)
        ]
        return torch.cat(tokens).to(patches.dtype).reshape(-1, *patches.shape[1:])

    def _learned(self, patches: Tensor, own: Tensor) -> Tensor:
        """(C,) what stands for tokens without a patch: 0 for numbers, the mean for vectors."""
        mean = own.mean(dim=0)
        return mean if patches.ndim > 1 else torch.zeros_like(mean)

    def arranged(self, seen: Seen, values: Tensor, learned: Tensor) -> Tensor:
        """(n, C) values of the tokens of one picture or video, from those of its patches."""
        height, width = seen.inputs["image_sizes"][0].tolist()
        return packed(values, self.cut(height, width), self.patches, learned)

    def projector_rows(self, states: Sequence[Tensor], prompt: Prompt) -> Tensor:
        """(N, d_vision): what the projector read of patches, in the arrangement of features.

        Where the model scales a raster, it does so behind the projector; here the rows before it
        are scaled in the same way.
        """
        rows = torch.cat([part.reshape(-1, part.shape[-1]) for part in states])
        return self.pooled(rows, prompt)

    @classmethod
    def check(cls, config: Any, source: str) -> None:
        """Refuse what the adapter would get wrong.

        Raises:
            ModelError: another tower, or a selection of features that leaves no raster of patches.
        """
        check_raster(config, cls.towers, source)


def _inputs(seen: Seen) -> int:
    """Inputs that the tower is given of one picture or video."""
    return sum(part.count for part in seen.tower)

"""Qwen2.5-VL: a tower that looks through windows, a merger, M-RoPE in real time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from vtc_cli.core.media import Media
from vtc_cli.core.shape import ModelShape, TransformerShape
from vtc_cli.models.support.prompt import Kind, Prompt
from vtc_cli.models.support.qwen import QwenAdapter


class Qwen25VLAdapter(QwenAdapter):
    """`Qwen2_5_VLForConditionalGeneration` (arXiv 2502.13923), pictures and videos."""

    family: ClassVar[str] = "qwen2_5_vl"
    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_vl",)
    context: ClassVar[int] = 128000

    @classmethod
    def model_class(cls) -> Any:
        """The library's class."""
        from transformers import Qwen2_5_VLForConditionalGeneration

        return Qwen2_5_VLForConditionalGeneration

    @classmethod
    def narrow(cls, seed: int) -> Qwen25VLAdapter:
        """The depth, windows and 4 to 16,384 tokens of Qwen2.5-VL-7B at width 64."""
        vision = {
            "depth": 32,
            "hidden_size": 32,
            "intermediate_size": 88,
            "num_heads": 4,
            "out_hidden_size": 64,
        }
        return cls.random(seed, width=64, layers=28, vision=vision)

    @property
    def shape(self) -> ModelShape:
        """Sizes with the windows of the tower."""
        config = self.model.config.vision_config
        return replace(
            super().shape,
            window=config.window_size // config.patch_size // config.spatial_merge_size,
            global_layers=tuple(config.fullatt_block_indexes),
        )

    def _tower_shape(self, config: Any) -> TransformerShape:
        return TransformerShape(
            layers=config.depth,
            width=config.hidden_size,
            heads=config.num_heads,
            kv_heads=config.num_heads,
            head_dim=config.hidden_size // config.num_heads,
            mlp_width=config.intermediate_size,
            gated_mlp=True,
        )

    def in_token_order(self, rows: Tensor, kind: Kind, prompt: Prompt) -> Tensor:
        """The tower holds tokens window by window."""
        from transformers.vision_utils import get_vision_window_index

        config = self.model.config.vision_config
        order, _ = get_vision_window_index(
            prompt.encoder_inputs[f"{kind}_grid_thw"],
            config.spatial_merge_size,
            config.window_size,
            config.patch_size,
        )
        return rows[order.argsort().to(rows.device)]

    def timing(self, media: Media) -> dict[str, Tensor]:
        """Seconds a temporal step of a video, from the mean distance of its frames."""
        times = media.timestamps
        if media.kind == "image" or len(times) < 2:
            return {}
        between = (times[-1] - times[0]) / (len(times) - 1)
        depth = self.model.config.vision_config.temporal_patch_size
        return {"second_per_grid_ts": torch.tensor([depth * between])}

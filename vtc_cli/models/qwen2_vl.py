"""Qwen2-VL: a tower that looks at whole frames, a merger of 2 x 2 patches, M-RoPE."""

from __future__ import annotations

from typing import Any, ClassVar

from vtc_cli.core.shape import TransformerShape
from vtc_cli.models.support.qwen import QwenAdapter


class Qwen2VLAdapter(QwenAdapter):
    """`Qwen2VLForConditionalGeneration` (arXiv 2409.12191), pictures and videos."""

    family: ClassVar[str] = "qwen2_vl"
    model_types: ClassVar[tuple[str, ...]] = ("qwen2_vl",)
    context: ClassVar[int] = 32768

    @classmethod
    def model_class(cls) -> Any:
        """The library's class."""
        from transformers import Qwen2VLForConditionalGeneration

        return Qwen2VLForConditionalGeneration

    @classmethod
    def narrow(cls, seed: int) -> Qwen2VLAdapter:
        """The depth of Qwen2-VL-7B and its 4 to 16,384 tokens at width 64."""
        vision = {"depth": 32, "embed_dim": 32, "num_heads": 4, "hidden_size": 64}
        return cls.random(seed, width=64, layers=28, vision=vision)

    def _tower_shape(self, config: Any) -> TransformerShape:
        return TransformerShape(
            layers=config.depth,
            width=config.embed_dim,
            heads=config.num_heads,
            kv_heads=config.num_heads,
            head_dim=config.embed_dim // config.num_heads,
            mlp_width=int(config.embed_dim * config.mlp_ratio),
            gated_mlp=False,
        )

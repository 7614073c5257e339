"""Qwen3-VL: tower states of several depths join the decoder (deepstack), times stand as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from vtc_cli.core.layout import Grid
from vtc_cli.core.media import Media
from vtc_cli.core.shape import TransformerShape
from vtc_cli.models.support.base import flat_rows
from vtc_cli.models.support.prompt import EncoderOutput, Kind, Prompt, in_span_order
from vtc_cli.models.support.qwen import END, PADS, START, QwenAdapter


class Qwen3VLAdapter(QwenAdapter):
    """`Qwen3VLForConditionalGeneration` (arXiv 2511.21631), pictures and videos.

    Each deepstack merger gives every token a row that one of the first decoder layers adds. These
    rows belong to the tokens and go where they go: merged tokens add the mean of theirs.
    """

    family: ClassVar[str] = "qwen3_vl"
    model_types: ClassVar[tuple[str, ...]] = ("qwen3_vl",)
    # preprocessor_config.json: size of 65536 to 16777216 pixels over 32 x 32;
    # video_preprocessor_config.json: 4096 to 25165824 pixels.
    picture_tokens: ClassVar[tuple[int, int]] = (64, 16384)
    video_tokens: ClassVar[int] = 24576
    least_frame_tokens: ClassVar[int] = 4
    context: ClassVar[int] = 262144

    @classmethod
    def model_class(cls) -> Any:
        """The library's class."""
        from transformers import Qwen3VLForConditionalGeneration

        return Qwen3VLForConditionalGeneration

    @classmethod
    def narrow(cls, seed: int) -> Qwen3VLAdapter:
        """The depth, deepstack and 64 to 16,384 tokens of Qwen3-VL-8B at width 64."""
        vision = {
            "depth": 27,
            "hidden_size": 32,
            "intermediate_size": 120,
            "num_heads": 4,
            "out_hidden_size": 64,
            "deepstack_visual_indexes": [8, 16, 24],
        }
        return cls.random(seed, width=64, layers=36, vision=vision)

    @classmethod
    def _text_options(cls) -> Mapping[str, Any]:
        return {"head_dim": 16, "rope": {"mrope_interleaved": True}}

    def _tower_shape(self, config: Any) -> TransformerShape:
        return TransformerShape(
            layers=config.depth,
            width=config.hidden_size,
            heads=config.num_heads,
            kv_heads=config.num_heads,
            head_dim=config.hidden_size // config.num_heads,
            mlp_width=config.intermediate_size,
            gated_mlp=False,
        )

    def _mergers(self) -> Sequence[nn.Module]:
        return [self.projector, *self.model.model.visual.deepstack_merger_list]

    def added(self, carriers: Mapping[Kind, Any], prompt: Prompt) -> tuple[Tensor, ...]:
        """Rows (N, d) that the first decoder layers add."""
        layers = len(self.model.model.visual.deepstack_merger_list)
        return tuple(
            in_span_order(
                prompt, {kind: flat_rows(c.deepstack_features[at]) for kind, c in carriers.items()}
            )
            for at in range(layers)
        )

    def carrier(self) -> Any:
        """The library's own output class; rows to be added stay with the tokens."""
        from transformers.models.qwen3_vl.modeling_qwen3_vl import (
            BaseModelOutputWithDeepstackFeatures,
        )

        return BaseModelOutputWithDeepstackFeatures()

    def prefill_arguments(
        self, output: EncoderOutput, features: Tensor, span: Tensor
    ) -> dict[str, Any]:
        """Features without deepstack rows: the engine adds those of the tokens that are left."""
        for carrier in output.carriers.values():
            carrier.deepstack_features = []
        return super().prefill_arguments(output, features, span)

    def marked(self, media: Media, grid: Grid) -> tuple[str, str]:
        """Each temporal step of a video stands for itself behind the mean of its times."""
        if media.kind == "image":
            return super().marked(media, grid)
        depth = self.model.config.vision_config.temporal_patch_size
        pad = PADS["video"]
        frame = START + pad * (grid.rows * grid.columns) + END
        times = _step_times(media.timestamps, depth)
        text = "".join(f"<{time:.1f} seconds>{frame}" for time in times)
        return START + pad + END, text


def _step_times(timestamps: Sequence[float], depth: int) -> list[float]:
    """Mean of the first and last time of each step of `depth` frames, the last frame repeated."""
    count = -(-len(timestamps) // depth) * depth
    times = [*timestamps, *[timestamps[-1]] * (count - len(timestamps))]
    return [(times[at] + times[at + depth - 1]) / 2 for at in range(0, count, depth)]

"""Floating-point operations from the sizes of a model; one multiply-add counts as 2.

Counted are the matrix products: projections, attention, MLP, patch embedding, projector and output
head. Attention counts the full rectangle of queries and keys; the causal half is not discounted.
Norms, softmax, rotary embeddings, activations and residual sums are not counted: about 1 % of a
model of ordinary width. The output head is counted for one row, the last of the prompt, because
only its logits are asked for. Source of the convention: `torch.utils.flop_counter`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vtc_cli.core.shape import ModelShape, TransformerShape

if TYPE_CHECKING:
    from vtc_cli.core.trace import StageRecord, Trace

MULTIPLY_ADD = 2


@dataclass(frozen=True)
class PassFlops:
    """Operations of one pass.

    Attributes:
        vision: the tower with its patch embedding.
        projector: the map to the decoder's width.
        prefill: the decoder over the prompt, with one row of the output head.
        decode_step: the first step after the first answer token.
    """

    vision: int
    projector: int
    prefill: int
    decode_step: int

    @property
    def first_token(self) -> int:
        """Operations until the first answer token: vision + projector + prefill."""
        return self.vision + self.projector + self.prefill


def layer_flops(shape: TransformerShape, queries: int, keys: float) -> float:
    """Operations of one block over `queries` rows that look at `keys` rows.

    `2 Q d (h e) + 2 * 2 Q d (g e) + 2 Q (h e) d` for the q, k, v and o projections (h heads, g
    key/value heads, e channels a head), `2 * 2 Q K h e` for attention, `2 Q d m` for each of the
    two (gated: three) MLP matrices of inner width m.
    """
    inner = shape.heads * shape.head_dim
    projections = shape.width * (2 * inner + 2 * shape.kv_heads * shape.head_dim)
    attention = 2 * keys * inner
    matrices = 3 if shape.gated_mlp else 2
    mlp = matrices * shape.width * shape.mlp_width
    return MULTIPLY_ADD * queries * (projections + attention + mlp)


Frame = tuple[int, int]


def vision_flops(
    shape: ModelShape,
    rows_per_layer: Sequence[int],
    pictures: int = 1,
    frame: Frame | None = None,
) -> int:
    """Operations of the tower over `pictures` pictures, patch embedding included.

    Args:
        shape: sizes of the model.
        rows_per_layer: rows, [CLS] included, that each tower layer processed for one picture;
            empty if the tower did not run.
        pictures: pictures or frames, each attending to itself only.
        frame: rows and columns of visual tokens in each, where its size decides the work.
    """
    if not rows_per_layer:
        return 0
    patches = shape.frame_patches(frame)
    embedding = MULTIPLY_ADD * patches * shape.patch_inputs * shape.vision.width
    blocks = sum(
        layer_flops(shape.vision, rows, shape.tower_keys(layer, rows, frame))
        for layer, rows in enumerate(rows_per_layer)
    )
    return round(pictures * (embedding + blocks))


def projector_flops(shape: ModelShape, visual_tokens: int) -> int:
    """Operations of the projector: `2 * tokens * inputs * outputs` for each linear map."""
    weights = sum(inputs * outputs for inputs, outputs in shape.projector)
    return MULTIPLY_ADD * visual_tokens * weights


def prefill_flops(shape: ModelShape, sequence_tokens_per_layer: Sequence[int]) -> int:
    """Operations of the decoder over the prompt; the output head sees the last row only."""
    decoder = shape.decoder
    blocks = sum(layer_flops(decoder, tokens, tokens) for tokens in sequence_tokens_per_layer)
    return round(blocks) + head_flops(shape)


def decode_step_flops(shape: ModelShape, kv_entries_per_layer: Sequence[float]) -> int:
    """Operations of one decode step; each layer reads its cached entries and the new one."""
    decoder = shape.decoder
    blocks = sum(layer_flops(decoder, 1, entries + 1) for entries in kv_entries_per_layer)
    return round(blocks) + head_flops(shape)


def head_flops(shape: ModelShape) -> int:
    """Operations of the output head for one row: `2 * width * vocabulary`."""
    return MULTIPLY_ADD * shape.decoder.width * shape.decoder.vocabulary


def full_flops(
    shape: ModelShape, prompt_tokens: int, pictures: int = 1, frame: Frame | None = None
) -> PassFlops:
    """Operations of the uncompressed model over the same prompt, computed without running it.

    Args:
        shape: sizes of the model.
        prompt_tokens: text and visual tokens.
        pictures: pictures or frames.
        frame: rows and columns of visual tokens in each, where its size decides the work.
    """
    patches = shape.frame_patches(frame)
    rows = [patches + shape.class_tokens] * shape.vision.layers
    prompt = [prompt_tokens] * shape.decoder.layers
    return PassFlops(
        vision=vision_flops(shape, rows, pictures, frame),
        projector=projector_flops(shape, pictures * patches // shape.merged_patches),
        prefill=prefill_flops(shape, prompt),
        decode_step=decode_step_flops(shape, prompt),
    )


def full_pass_flops(trace: Trace) -> PassFlops:
    """Operations of the uncompressed model over the prompt of `trace`."""
    grid, shape = trace.grid, trace.model.shape
    return full_flops(shape, trace.prompt_tokens, grid.frames, (grid.rows, grid.columns))


def trace_flops(trace: Trace) -> PassFlops:
    """Operations of the pass that `trace` describes, without those of the compression."""
    shape, pictures = trace.model.shape, trace.grid.frames
    frame = (trace.grid.rows, trace.grid.columns)
    projected = trace.vision_rows[-1] - shape.class_tokens if trace.vision_rows else 0
    return PassFlops(
        vision=vision_flops(shape, trace.vision_rows, pictures, frame),
        projector=projector_flops(shape, pictures * projected // shape.merged_patches),
        prefill=prefill_flops(shape, trace.sequence_tokens),
        decode_step=decode_step_flops(shape, trace.kv_entries),
    )


def compression_flops(trace: Trace) -> int:
    """Operations that the compression itself took: signals, decisions and weighted means."""
    return sum(record_flops(record, trace.model.shape) for record in trace.records)


def record_flops(record: StageRecord, shape: ModelShape) -> int:
    """Operations of one decision: its signals, the decision itself and its weighted means."""
    return record.signal_flops + record.decision.flops + _mixing_flops(record, shape)


def _mixing_flops(record: StageRecord, shape: ModelShape) -> int:
    """`2 * nonzeros * width` of the features where the stage acted; a pure prune is a gather."""
    if record.decision.is_pruning:
        return 0
    in_tower = record.phase == "encoder" and record.layer >= 0
    width = shape.vision.width if in_tower else shape.decoder.width
    return MULTIPLY_ADD * int(record.decision.mix.values().shape[0]) * width

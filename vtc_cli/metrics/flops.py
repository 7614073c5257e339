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

from vtc_cli.core.shape import ModelShape, TowerInput, TowerPass, TransformerShape

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


def vision_flops(shape: ModelShape, tower: Sequence[TowerPass]) -> int:
    """Operations of the tower over all its pictures, patch embedding included; 0 if none ran."""
    return sum(_tower_flops(shape, seen.input, seen.rows) for seen in tower)


def _tower_flops(shape: ModelShape, seen: TowerInput, rows_per_layer: Sequence[int]) -> int:
    """Operations of the tower over pictures of one size."""
    embedding = MULTIPLY_ADD * shape.patches_of(seen) * shape.patch_inputs * shape.vision.width
    blocks = sum(
        layer_flops(shape.vision, rows, shape.tower_keys(layer, rows, seen))
        for layer, rows in enumerate(rows_per_layer)
    )
    return round(seen.count * (embedding + blocks))


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


def full_flops(shape: ModelShape, prompt_tokens: int, tower: Sequence[TowerInput]) -> PassFlops:
    """Operations of the uncompressed model over the same prompt, computed without running it.

    Args:
        shape: sizes of the model.
        prompt_tokens: text and visual tokens.
        tower: what the tower sees.
    """
    prompt = [prompt_tokens] * shape.decoder.layers
    return _pass_flops(shape, [full_tower(shape, seen) for seen in tower], prompt, prompt)


def full_tower(shape: ModelShape, seen: TowerInput) -> TowerPass:
    """The tower over `seen` with every row in every layer."""
    rows = shape.patches_of(seen) + shape.class_tokens
    return TowerPass(seen, [rows] * shape.vision.layers)


def full_pass_flops(trace: Trace) -> PassFlops:
    """Operations of the uncompressed model over the prompt of `trace`."""
    whole = trace.uncompressed
    return full_flops(trace.model.shape, whole.prompt_tokens, whole.tower_inputs)


def trace_flops(trace: Trace) -> PassFlops:
    """Operations of the pass that `trace` describes, without those of the compression."""
    return _pass_flops(trace.model.shape, trace.tower, trace.sequence_tokens, trace.kv_entries)


def _pass_flops(
    shape: ModelShape,
    tower: Sequence[TowerPass],
    sequence_tokens: Sequence[int],
    kv_entries: Sequence[float],
) -> PassFlops:
    """Operations of a pass from what each part of the model processed."""
    return PassFlops(
        vision=vision_flops(shape, tower),
        projector=projector_flops(shape, sum(_projected(shape, seen) for seen in tower)),
        prefill=prefill_flops(shape, sequence_tokens),
        decode_step=decode_step_flops(shape, kv_entries),
    )


def _projected(shape: ModelShape, tower: TowerPass) -> int:
    """Tokens that the projector makes of the rows that leave the tower, of all its pictures.

    A family may join patches before it, and may also be asked not to; the tower's input tells.
    """
    seen = tower.input
    beside = shape.rows_beside_patches - shape.class_tokens
    leaving = seen.count * (tower.rows[-1] + beside)
    return leaving * seen.rows * seen.columns // shape.patches_of(seen)


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
